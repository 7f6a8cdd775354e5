"""`headworks alerts`: what is open, and what people say to it."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.terminal import CONFIG, EXIT_FOUND, Config, Json, Set, ask, dump, post, show

alerts = typer.Typer(help="Alerts: what is open; acknowledge, mute.", invoke_without_command=True)
Alert = Annotated[str, typer.Argument(help="Its id, as `headworks alerts` prints it.")]


@alerts.callback()
def list_alerts(
    context: typer.Context,
    model: Annotated[str | None, typer.Option()] = None,
    all_: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Print the open alerts; exit code 1 if there are any."""
    from gateway.report import overview

    if context.invoked_subcommand is not None:
        return
    told = ask(config, set_, "/api/v1/alerts", model=model, resolved=str(all_).lower())
    show(told, json, overview.alerts)
    if any(one["state"] != "resolved" for one in told["alerts"]):
        raise typer.Exit(EXIT_FOUND)


@alerts.command()
def acknowledge(
    alert: Alert, config: Config = CONFIG, set_: Set = None, json: Json = False
) -> None:
    """Say that somebody looks after it; a greater severity opens it again."""
    told = post(config, set_, "/api/v1/alerts/acknowledge", {"alert": alert})
    if json:
        dump(told)
    else:
        print(f"acknowledged: leaf {told['leaf']}")


@alerts.command()
def mute(
    alert: Alert,
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it.")],
    for_: Annotated[str, typer.Option("--for", help="As 2h, 30d at most; 0s ends it.")] = "4h",
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Send nothing of it for a while; if it is still there then, it is told again."""
    asked = {"alert": alert, "for": for_, "reason": reason}
    told = post(config, set_, "/api/v1/alerts/mute", asked)
    if json:
        dump(told)
    else:
        print(f"muted for {for_}: leaf {told['leaf']}")
