"""`headworks journal status` and `repair`: the journals' files, read with or without a gateway."""

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
    dump,
    fail,
    overrides,
    show,
)

journal = typer.Typer(
    name="journal",
    help="The journals' files: what is in them, and what to do about damage.",
    no_args_is_help=True,
)
Journal = Annotated[str | None, typer.Argument(help="A journal's name, as 0; absent: all.")]


def journal_folders(config: Path, set_: list[str] | None, name: str | None) -> list[Any]:
    """The journals of the configured state; an unknown name ends the command."""
    from gateway.check import check as check_file
    from gateway.journal.directory import folders

    checked = check_file(config, overrides(set_))
    if checked.settings is None:
        fail(f"{config}: {len(checked.problems)} problems; headworks check names them", EXIT_FOUND)
    found = folders(checked.resolve(checked.settings.state), checked.resolve(checked.settings.keys))
    names = [folder.name for folder in found]
    if name is not None and name not in names:
        fail(f"journal {name!r}: there are {', '.join(names) or 'none'}")
    return [folder for folder in found if name in (None, folder.name)]


@journal.command("status")
def journal_status(
    name: Journal = None, config: Config = CONFIG, set_: Set = None, json: Json = False
) -> None:
    """What the journals hold, read from their files: exit code 0 if nothing is damaged."""
    from gateway.journal.repair import describe
    from gateway.report import overview

    told = [describe(folder) for folder in journal_folders(config, set_, name)]
    show({"journals": told}, json, overview.journals)
    if any(each["damage"] for each in told):
        raise typer.Exit(EXIT_FOUND)


@journal.command("repair")
def journal_repair(
    name: Journal = None,
    accept_loss: Annotated[bool, typer.Option("--accept-loss", help="Needed: say so.")] = False,
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it.")] = "",
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Go on without the records of damaged segments; the ledger names the range and who said so."""
    from dataclasses import asdict

    from gateway.clock import SystemClock
    from gateway.journal.directory import Garbled
    from gateway.journal.repair import accept_loss as accept

    if not accept_loss or not reason.strip():
        fail("records will be lost: --accept-loss and a --reason are wanted")
    by = os.environ.get("USER") or str(os.getuid())
    at = SystemClock().wall()
    found = journal_folders(config, set_, name)
    try:
        told = [damage for folder in found for damage in accept(folder, reason, by, at)]
    except Garbled as error:
        fail(f"{error}: no loss can be accepted before that file is right", EXIT_FOUND)
    if json:
        dump({"accepted": [asdict(damage) for damage in told]})
        return
    for damage in told:
        end = "the end of its segment" if damage.upto is None else f"{damage.upto - 1}"
        print(f"{damage}: records {damage.first} to {end} are given up")
    if not told:
        print("nothing is damaged")
