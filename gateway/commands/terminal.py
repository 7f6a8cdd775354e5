"""What every command says and asks: common options, the running gateway, output, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

EXIT_FOUND = 1
EXIT_USAGE = 2

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


def fail(words: str, code: int = EXIT_USAGE) -> NoReturn:
    print(f"headworks: {words}", file=sys.stderr)
    raise typer.Exit(code)


def unreadable(file: Path, error: OSError) -> NoReturn:
    """A file that was named and cannot be read."""
    if isinstance(error, FileNotFoundError):
        fail(f"{file}: there is no such file")
    fail(f"{file}: it cannot be read: {error.strerror or error}")


def dump(document: Any) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def ask(config: Path, set_: list[str] | None, path: str, **parameters: Any) -> Any:
    """A document of the running gateway's API; its refusals and absence end the command."""
    return _asked(lambda: admin(config, set_).get(path, **parameters))


def post(config: Path, set_: list[str] | None, path: str, document: dict[str, Any]) -> Any:
    """What the running gateway's API answers to a document."""
    return _asked(lambda: admin(config, set_).post(path, document))


def _asked(asking: Callable[[], Any]) -> Any:
    from gateway.adminclient import Refused, Unreachable

    try:
        return asking()
    except Unreachable as error:
        fail(f"no gateway answers: {error}", EXIT_FOUND)
    except Refused as error:
        fail(str(error), EXIT_USAGE if error.status == 400 else EXIT_FOUND)


def admin(config: Path, set_: list[str] | None) -> Any:
    """A client for the admin port that the configuration names."""
    from gateway.adminclient import AdminClient
    from gateway.check import check as check_file

    checked = check_file(config, overrides(set_))
    if checked.settings is None:
        for problem in checked.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(EXIT_FOUND)
    listener = checked.settings.listen.of("admin")
    cert = str(checked.resolve(listener.tls.cert)) if listener.tls is not None else None
    return AdminClient(listener.address, cert)


def show(document: Any, json: bool, render: Any) -> None:
    if json:
        dump(document)
        return
    from rich.console import Console

    render(Console(soft_wrap=True), document)
