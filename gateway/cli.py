"""The command `headworks`: arguments in, one library call out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import FORM, __version__
from gateway.commands.alerts import alerts
from gateway.commands.detectors import detectors
from gateway.commands.feedback import feedback
from gateway.commands.journal import journal
from gateway.commands.monitor import monitor
from gateway.commands.rollout import rollout
from gateway.commands.route import route
from gateway.commands.shadow import shadow
from gateway.commands.subject import subject
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
)  # fmt: skip
from gateway.commands.verify import ledger
from gateway.commands.witness import witness

cli = typer.Typer(
    name="headworks",
    help="An inference gateway with inline governance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.command()
def serve(config: Config = CONFIG, set_: Set = None) -> None:
    """Run the gateway: supervisor, workers, governor, analyst. Ends with SIGTERM or Ctrl-C."""
    from gateway.app import supervise
    from gateway.check import check as check_file
    from gateway.disk import Occupied

    laid = overrides(set_)
    checked = check_file(config, laid)
    for problem in checked.problems:
        print(problem, file=sys.stderr)
    if checked.settings is None:
        fail(f"{config}: {len(checked.problems)} problems", EXIT_FOUND)
    probe_apart(config, set_)
    try:
        raise typer.Exit(supervise(checked, laid))
    except (Occupied, OSError) as error:
        fail(str(error), EXIT_FOUND)


def probe_apart(config: Path, set_: list[str] | None) -> None:
    """Load artifacts and data files once, in a process that ends: a supervisor holds no models."""
    import subprocess

    pairs = [part for pair in set_ or [] for part in ("--set", pair)]
    command = [sys.executable, "-m", "gateway", "check", "--config", str(config), *pairs]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"check found something\n{done.stdout}{done.stderr}".strip(), EXIT_FOUND)


@cli.command()
def check(
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
    probe: Annotated[bool, typer.Option("--probe", help="Ask the upstreams too.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print JSON Schema and end.")] = False,
) -> None:
    """Say everything that is wrong with a configuration, each with file, line, key and value."""
    from gateway.check import check as check_file
    from gateway.settings import RESTART_KEYS, Settings

    if schema:
        dump(Settings.model_json_schema())
        return
    checked = check_file(config, overrides(set_))
    problems = [
        {name: getattr(problem, name) for name in ("file", "line", "key", "value", "allowed")}
        for problem in checked.problems
    ]
    if not problems:
        from gateway.probe import misfits, upstream_misfits

        problems = misfits(checked) + (upstream_misfits(checked) if probe else [])
    each = each_worker(checked.settings) if checked.settings is not None else {}
    told = warnings(checked) if checked.settings is not None else []
    if json:
        dump(
            {
                "problems": problems,
                "warnings": told,
                "restart_keys": RESTART_KEYS,
                "each_worker": each,
            }
        )
    else:
        for problem in problems:
            value = f" = {problem['value']}" if problem["value"] else ""
            print(f"{problem['file']}:{problem['line']}: {problem['key']}{value}: "
                  f"{problem['allowed']}")  # fmt: skip
        for warning in told:
            print(f"{warning['file']}:{warning['line']}: {warning['key']}: {warning['words']}")
        for key, share in each.items():
            print(f"each worker: {key} = {share}")
        print(f"{config}: {len(problems)} problems" if problems else f"{config}: fine")
    if problems:
        raise typer.Exit(EXIT_FOUND)


def warnings(checked: Any) -> list[dict[str, Any]]:
    """What is odd about rules and monitoring without being wrong."""
    from gateway.detectors.environment import find
    from gateway.revision.drafts import compile_draft
    from gateway.routing.lint import oddities, unwatched

    table = compile_draft(checked)
    installed = find(checked.resolve(checked.settings.state)) is not None
    return [
        {"file": checked.path.name,
         "line": checked.line_of(("models", name, "rules", oddity.rule)),
         "key": f"models.{name}.rules.{oddity.rule}",
         "words": f"rule {model.rules[oddity.rule].name!r} {oddity.words}"}
        for name, model in table.models.items()
        for oddity in oddities(model, table.callers)
    ] + [
        {"file": checked.path.name, "line": checked.line_of(("models", name, "monitor")),
         "key": f"models.{name}.monitor",
         "words": "without `reference` no window of it closes: no drift, no quality, no groups"}
        for name in unwatched(table)
        if "monitor" in checked.settings.models[name].model_fields_set
    ] + [
        {"file": checked.path.name,
         "line": checked.line_of(("models", name, "monitor", "detector")),
         "key": f"models.{name}.monitor.detector",
         "words": "is not installed: `headworks detectors install alibi`"}
        for name, model in checked.settings.models.items()
        if model.monitor.detector is not None and not installed
    ]  # fmt: skip


def each_worker(settings: Any) -> dict[str, int]:
    """The effective limits of one worker; none where there is only one, which has them whole."""
    from gateway.dataplane.limits import effective
    from gateway.supervisor import worker_count

    workers = worker_count(settings)
    return effective(settings, workers) if workers > 1 else {}


@cli.command()
def reload(config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """Bring the changed file into force; says what changed and what needs a restart."""
    from gateway.adminclient import Refused, Unreachable

    try:
        told = admin(config, set_).post(
            "/api/v1/reload", {"author": os.environ.get("USER", "file")}
        )
    except Refused as error:
        for problem in error.document.get("problems", [str(error)]):
            print(problem, file=sys.stderr)
        fail("nothing was changed", EXIT_FOUND)
    except Unreachable as error:
        fail(f"no gateway answers: {error}", EXIT_FOUND)
    if json:
        dump(told)
        return
    print(
        f"revision {told['revision'][:12]} " + ("is in force" if told["changed"] else "as before")
    )
    if told["restart"]:
        print(f"needs a restart: {', '.join(told['restart'])}")


@cli.command()
def status(config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """How the gateway is: exit code 0 if green."""
    from gateway.report import overview

    document = ask(config, set_, "/api/v1/status")
    show(document, json, overview.status)
    if document["state"] != "green":
        raise typer.Exit(EXIT_FOUND)


cli.add_typer(route, name="route")
cli.add_typer(subject, name="subject")
cli.add_typer(ledger, name="ledger")
cli.add_typer(journal, name="journal")
cli.command()(feedback)
cli.add_typer(alerts, name="alerts")
cli.add_typer(monitor, name="monitor")
cli.add_typer(rollout, name="rollout")
cli.add_typer(shadow, name="shadow")
cli.add_typer(detectors, name="detectors")
cli.command()(witness)

Filter = Annotated[str | None, typer.Option()]


@cli.command()
def decisions(
    id: Annotated[str | None, typer.Argument(help="One decision; absent: the newest.")] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
    model: Filter = None,
    version: Filter = None,
    arm: Filter = None,
    rule: Filter = None,
    outcome: Filter = None,
    status: Annotated[int | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option(help="ISO time, or an age as 15m.")] = None,
    until: Annotated[str | None, typer.Option(help="ISO time, or an age as 15m.")] = None,
    window: Annotated[
        str | None, typer.Option(help="In that window, as mortgage/v1/stable/7.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    reveal: Annotated[
        str | None, typer.Option(help="Show what was sent too; why you read it, for the ledger.")
    ] = None,
) -> None:
    """The newest decisions, filtered; or one, with everything about it."""
    from gateway.report import overview

    if id is not None and reveal is not None:
        path = f"/api/v1/decisions/{id}/reveal"
        show(post(config, set_, path, {"purpose": reveal}), json, overview.decision)
        return
    if id is not None:
        show(ask(config, set_, f"/api/v1/decisions/{id}"), json, overview.decision)
        return
    document = ask(
        config, set_, "/api/v1/decisions", model=model, version=version, arm=arm, rule=rule,
        outcome=outcome, status=status, since=since, until=until, window=window, limit=limit,
    )  # fmt: skip
    show(document, json, lambda console, told: overview.decisions(console, told["decisions"]))


@cli.command()
def reproduce(id: str, config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """Score and explain a recorded decision again; exit code 0 if nothing differs."""
    from gateway.report import overview

    told = post(config, set_, f"/api/v1/decisions/{id}/reproduce", {})
    show(told, json, overview.reproduction)
    if any(told[part]["result"] in ("different", "cannot") for part in ("answer", "explanation")):
        raise typer.Exit(EXIT_FOUND)


@cli.command()
def demo(
    config: Config = CONFIG,
    set_: Set = None,
    once: Annotated[bool, typer.Option("--once", help="End by itself; say what held.")] = False,
    applications: Annotated[int, typer.Option(min=1, max=100_000)] = 12_000,
    seed: Annotated[int, typer.Option()] = 1990,
) -> None:
    """Serve the mortgage models, send applications through them, say what happened."""
    from gateway.check import check as check_file
    from gateway.demo import Demo

    checked = check_file(config, overrides(set_))
    if checked.settings is None:
        for problem in checked.problems:
            print(problem, file=sys.stderr)
        fail(f"{config}: {len(checked.problems)} problems", EXIT_FOUND)
    pairs = [argument for pair in set_ or [] for argument in ("--set", pair)]
    raise typer.Exit(Demo(checked, pairs, applications, seed).run(once))


@cli.command()
def version() -> None:
    """Print the version, and whether the compiled form runs."""
    print(f"{__version__}, {FORM}")


def main() -> None:
    if sys.argv[1:2] == ["_child"]:
        from gateway.app import child

        sys.exit(child(sys.argv[2], sys.argv[3]))
    cli()
