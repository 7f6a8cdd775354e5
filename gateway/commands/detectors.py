"""`headworks detectors`: families of detectors that live in an interpreter of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.terminal import CONFIG, EXIT_FOUND, Config, Json, Set, dump, fail, overrides

detectors = typer.Typer(help="alibi-detect's detectors: install, show.", no_args_is_help=True)


@detectors.command()
def install(
    family: Annotated[str, typer.Argument(help="alibi: the only one there is.")],
    path: Annotated[Path | None, typer.Option(help="Where; else below the state.")] = None,
    python: Annotated[str | None, typer.Option(help="A Python 3.11; else python3.11.")] = None,
    licensed: Annotated[
        str | None, typer.Option(help="A newer release, that you have a licence for.")
    ] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Make its environment from the shipped lock (1.1 GB); an analyst takes it at its next start.

    An environment that is already at `path` and answers is taken as it is.
    """
    from dataclasses import asdict

    from gateway.detectors import environment

    if family != "alibi":
        fail(f"{family}: only alibi is known")
    folder = _state(config, set_)
    try:
        inside = path / "bin" / "python" if path is not None else None
        if inside is not None and inside.exists():
            found = environment.adopt(folder, str(inside.absolute()), licensed is not None)
        else:
            found = environment.install(folder, path, python, licensed)
    except environment.CannotInstall as error:
        fail(str(error), EXIT_FOUND)
    if json:
        dump(asdict(found))
    else:
        print(f"alibi-detect {found.version}: {found.python}")


@detectors.command(name="list")
def list_families(config: Config = CONFIG, set_: Set = None, json: Json = False) -> None:
    """Say what is installed; exit code 1 if nothing is."""
    from dataclasses import asdict

    from gateway.detectors import environment

    found = environment.find(_state(config, set_))
    if json:
        dump({"alibi": asdict(found) if found else None})
    elif found is not None:
        print(f"alibi-detect {found.version}: {found.python}")
    else:
        print("alibi-detect is not installed: headworks detectors install alibi")
    if found is None:
        raise typer.Exit(EXIT_FOUND)


def _state(config: Path, set_: list[str] | None) -> Path:
    from gateway.check import check as check_file

    checked = check_file(config, overrides(set_))
    if checked.settings is None:
        for problem in checked.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(EXIT_FOUND)
    return checked.resolve(checked.settings.state)
