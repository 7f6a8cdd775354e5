"""The command `headworks`: arguments in, one library call out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from gateway import __version__

EXIT_FOUND = 1
EXIT_USAGE = 2

cli = typer.Typer(
    name="headworks",
    help="An inference gateway with inline governance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value laid over the file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CONFIG = Path("headworks.yaml")


def overrides(pairs: list[str] | None) -> dict[str, str]:
    """`--set` and the environment: HEADWORKS_LISTEN_DATA is listen.data."""
    from gateway.reference import environment_names

    names = environment_names()
    laid = {key: os.environ[name] for name, key in names.items() if name in os.environ}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            fail(f"--set {pair}: key=value is wanted")
        laid[key] = value
    return laid


def fail(words: str, code: int = EXIT_USAGE) -> Any:
    print(f"headworks: {words}", file=sys.stderr)
    raise typer.Exit(code)


def dump(document: Any) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


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
    try:
        raise typer.Exit(supervise(checked, laid))
    except (Occupied, OSError) as error:
        fail(str(error), EXIT_FOUND)


@cli.command()
def check(
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
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
        from gateway.probe import misfits

        problems = misfits(checked)
    if json:
        dump({"problems": problems, "restart_keys": RESTART_KEYS})
    else:
        for problem in problems:
            value = f" = {problem['value']}" if problem["value"] else ""
            print(f"{problem['file']}:{problem['line']}: {problem['key']}{value}: "
                  f"{problem['allowed']}")  # fmt: skip
        print(f"{config}: {len(problems)} problems" if problems else f"{config}: fine")
    if problems:
        raise typer.Exit(EXIT_FOUND)


@cli.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    if sys.argv[1:2] == ["_child"]:
        from gateway.app import child

        sys.exit(child(sys.argv[2], sys.argv[3]))
    cli()
