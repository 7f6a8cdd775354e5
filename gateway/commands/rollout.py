"""`headworks rollout`: start, watch, approve, take back, check again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.terminal import (
    CONFIG,
    EXIT_FOUND,
    Config,
    Json,
    Set,
    admin,
    ask,
    dump,
    fail,
    overrides,
    post,
    show,
    unreadable,
)

rollout = typer.Typer(help="Versions that earn their way: start, watch, approve, take back.")
Name = Annotated[str, typer.Argument(help="The rollout's name.")]
Reason = Annotated[str, typer.Option(help="Why; the ledger keeps it.")]
BAD = ("held", "rolled_back", "aborted")


@rollout.command()
def start(
    file: Annotated[Path, typer.Argument(help="The rollout's file.")],
    config: Config = CONFIG, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Start what a file describes; what is wrong is told with lines, and changes nothing."""
    from gateway.adminclient import Refused, Unreachable
    from gateway.report.rollouts import rollout as render

    try:
        text = file.read_text()
    except OSError as error:
        unreadable(file, error)
    except UnicodeDecodeError:
        fail(f"{file}: it is no text in UTF-8")
    try:
        told = admin(config, set_).post("/api/v1/rollouts", {"file": text, "name": file.name})
    except Unreachable as error:
        fail(f"no gateway answers: {error}", EXIT_FOUND)
    except Refused as error:
        if json:
            dump(error.document)
        problems = error.document.get("problems", ())
        for one in problems:
            value = f" = {one['value']}" if one["value"] else ""
            words = f"{one['file']}:{one['line']}: {one['key']}{value}: {one['allowed']}"
            typer.echo(words, err=True)
        fail("nothing was started" if problems else str(error), EXIT_FOUND)
    show(told, json, render)


@rollout.command()
def status(
    name: Annotated[str | None, typer.Argument(help="One rollout; absent: all.")] = None,
    config: Config = CONFIG, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """How rollouts stand; exit code 1 where one is held or was taken back, or cannot be judged."""
    from gateway.report.rollouts import rollout as one
    from gateway.report.rollouts import rollouts as all_

    path = "/api/v1/rollouts" + (f"/{name}" if name is not None else "")
    told = ask(config, set_, path)
    show(told, json, all_ if name is None else one)
    found = told["rollouts"] if name is None else [told]
    if any(each["phase"] in BAD or each["trouble"] for each in found):
        raise typer.Exit(EXIT_FOUND)


@rollout.command()
def approve(name: Name, config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """Say yes to what it waits for, or to what somebody else asked for."""
    _act(name, "approve", {}, config, set_, json)


@rollout.command()
def pause(
    name: Name, reason: Reason, config: Config = CONFIG, set_: Set = None, json: Json = False
) -> None:
    """Hold it where it is."""
    _act(name, "pause", {"reason": reason}, config, set_, json)


@rollout.command()
def resume(
    name: Name, reason: Reason, config: Config = CONFIG, set_: Set = None, json: Json = False
) -> None:
    """Go on from a hold; what it was held for holds it no more."""
    _act(name, "resume", {"reason": reason}, config, set_, json)


@rollout.command()
def promote(
    name: Name, reason: Reason,
    fully: Annotated[bool, typer.Option("--fully", help="To 100 %, not the next step.")] = False,
    config: Config = CONFIG, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Go on to the next step now, whatever the evidence says."""
    _act(name, "promote", {"reason": reason, "fully": fully}, config, set_, json)


def _act(
    name: str, what: str, sent: dict[str, Any], config: Path, set_: list[str] | None, json: bool
) -> None:
    from gateway.report.rollouts import rollout as render

    show(post(config, set_, f"/api/v1/rollouts/{name}/{what}", sent), json, render)


@rollout.command()
def abort(
    name: Name, reason: Reason,
    offline: Annotated[bool, typer.Option("--offline", help="On the state itself.")] = False,
    config: Config = CONFIG, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Everybody is on the old version again, at once; without the governor too, if it is down."""
    from gateway.adminclient import Refused, Unreachable
    from gateway.report.rollouts import rollout as render

    if not offline:
        try:
            told = admin(config, set_).post(f"/api/v1/rollouts/{name}/abort", {"reason": reason})
        except Unreachable:
            pass
        except Refused as error:
            if error.document.get("code") != "governor_down":
                fail(str(error), EXIT_FOUND)
        else:
            show(told, json, render)
            return
    _abort_offline(name, reason, config, set_, json)


def _abort_offline(
    name: str, reason: str, config: Path, set_: list[str] | None, json: bool
) -> None:
    from gateway.clock import SystemClock
    from gateway.rollout.narrowing import abort_offline

    state = _state_of(config, set_)
    clock = SystemClock()
    by = os.environ.get("HEADWORKS_PERSON") or os.environ.get("USER") or "local"
    try:
        move = abort_offline(state, name, f"{by} (offline)", reason, clock.steady(), clock.wall)
    except LookupError as error:
        fail(str(error.args[0]), EXIT_FOUND)
    if json:
        dump(move)
    else:
        typer.echo(f"{name} is aborted: all of {move['model']}/{move['rule']} is on "
                   f"{move['from']}; the governor records it when it is back")  # fmt: skip


def _state_of(config: Path, set_: list[str] | None) -> Path:
    """Where the state lies, though the file may be wrong otherwise: an emergency does not wait."""
    from gateway.yamlfile import YamlFile

    tree = YamlFile(config, config.name, []).tree
    named = overrides(set_).get("state") or (tree.get("state") if isinstance(tree, dict) else None)
    return (config.parent / (named if isinstance(named, str) else "./state")).resolve()


def _places(config: Path, set_: list[str] | None) -> tuple[Path, Path]:
    """State and keys of a configuration."""
    from gateway.check import check

    checked = check(config, overrides(set_))
    if checked.settings is None:
        for problem in checked.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(EXIT_FOUND)
    return checked.resolve(checked.settings.state), checked.resolve(checked.settings.keys)


@rollout.command()
def history(name: Name, config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """All that was done with it, by whom and why, from the ledger."""
    from gateway.report.rollouts import history as render

    show(ask(config, set_, f"/api/v1/rollouts/{name}/history"), json, render)


Attempt = Annotated[int | None, typer.Option(help="Which attempt; absent: the newest.")]


@rollout.command()
def verify(
    name: Name, attempt: Attempt = None,
    without_records: Annotated[
        bool, typer.Option("--without-records", help="From the root log alone; needs no keys.")
    ] = False,
    config: Config = CONFIG, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Compute verdicts and moves again from the ledger's files; exit code 1 if any differs."""
    from gateway.report.rollouts import recomputed
    from gateway.rollout.recomputation import Unknown, recompute

    state, keys = _places(config, set_)
    try:
        report = recompute(state, None if without_records else keys, name, attempt)
    except Unknown as error:
        fail(str(error.args[0]), EXIT_FOUND)
    show(report.to_json(), json, recomputed)
    if report.problems:
        raise typer.Exit(EXIT_FOUND)


@rollout.command()
def simulate(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A rollout's file with other guards.")],
    attempt: Attempt = None,
    config: Config = CONFIG, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Judge a rollout's recorded evidence by another file's guards, limits and levels."""
    from gateway.report.rollouts import simulated
    from gateway.rollout.recomputation import Unknown, recorded_blocks
    from gateway.rollout.rolloutsettings import RolloutSettings
    from gateway.rollout.simulation import simulate as judge
    from gateway.yamlfile import check_document

    try:
        data = file.read_bytes()
    except OSError as error:
        unreadable(file, error)
    settings, _, problems = check_document(data, file.name, RolloutSettings)
    if settings is None:
        for problem in problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(EXIT_FOUND)
    state, _ = _places(config, set_)
    try:
        told = judge(settings, recorded_blocks(state, name, attempt))
    except Unknown as error:
        fail(str(error.args[0]), EXIT_FOUND)
    show(told, json, simulated)
