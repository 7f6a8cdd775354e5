"""`headworks shadow`: how versions in shadow compare with the answers given."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.terminal import CONFIG, EXIT_FOUND, Config, Json, Set, ask, show

shadow = typer.Typer(help="Versions in shadow: how their answers compare.", no_args_is_help=True)


@shadow.callback()
def group() -> None:
    """Versions in shadow."""


@shadow.command()
def report(
    model: str,
    since: Annotated[str | None, typer.Option(help="ISO time, or an age as 2h.")] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Disagreement, noise, flips, segments, examples; exit code 1 if a shadow is inconclusive."""
    from gateway.report.comparisons import shadows

    told = ask(config, set_, f"/api/v1/shadow/{model}", since=since)
    show(told, json, shadows)
    if any(one["state"] == "inconclusive" for one in told["shadows"]):
        raise typer.Exit(EXIT_FOUND)
