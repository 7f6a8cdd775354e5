"""`headworks monitor MODEL`, and `monitor backtest MODEL`: what other settings would say."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer
from typer.core import TyperGroup

from gateway.commands.terminal import CONFIG, Config, Json, Set, ask, fail, post, show


class ShownByDefault(TyperGroup):
    """`monitor MODEL` is `monitor show MODEL`, which a model named `backtest` needs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


monitor = typer.Typer(
    cls=ShownByDefault, help="Drift, groups, performance of a model; backtest.",
    no_args_is_help=True,
)  # fmt: skip


@monitor.command(name="show")
def show_model(
    model: Annotated[str, typer.Argument(metavar="MODEL|WINDOW")],
    since: Annotated[str | None, typer.Option(help="Labels of decisions since; as 30d.")] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Answers, shadow agreement, drift, group state and, where labels came, performance; of a
    window, by its id (mortgage/v1/stable/7), what was said of it and which decisions it holds."""
    from gateway.report import overview

    if "/" in model:
        show(ask(config, set_, f"/api/v1/windows/{quote(model)}"), json, overview.window)
        return
    document = ask(config, set_, f"/api/v1/monitor/{model}")
    performance = ask(config, set_, f"/api/v1/monitor/{model}/performance", since=since)
    show(document | {"performance": performance}, json, overview.monitor)


@monitor.command()
def backtest(
    model: str,
    since: Annotated[str, typer.Option(help="From then on; as 7d.")] = "7d",
    try_: Annotated[
        list[str] | None,
        typer.Option("--try", help="A key of `monitor` and its value, as drift.alpha=0.05."),
    ] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Judge a model's past by other settings, beside what was said; nothing is changed."""
    from gateway.report import overview

    pairs: dict[str, Any] = {}
    for pair in try_ or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            fail(f"--try {pair}: key=value is wanted")
        pairs[key] = value
    path = f"/api/v1/monitor/{model}/backtest"
    show(post(config, set_, path, {"since": since, "set": pairs}), json, overview.backtest)
