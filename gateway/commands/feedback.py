"""`headworks feedback FILE`: what became of decisions, from a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

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
    unreadable,
)


def feedback(
    file: Annotated[Path, typer.Argument(help="JSON lines, or .csv, .parquet.")],
    model: Annotated[
        str | None, typer.Option(help="In whose log the labels are kept; absent: the root's.")
    ] = None,
    config: Config = CONFIG,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Tell the gateway labels of decisions; HEADWORKS_CALLER_TOKEN is the caller's token.

    Columns: id, label, and as wanted row, observed_at, source. Nothing is sent if a line is wrong.
    """
    from gateway.check import check as check_file
    from gateway.clock import SystemClock
    from gateway.outbound.labels import NotTaken, lines_of, send

    checked = check_file(config, overrides(set_))
    if checked.settings is None:
        fail(f"{config}: {len(checked.problems)} problems; headworks check names them", EXIT_FOUND)
    listener = checked.settings.listen.of("data")
    cert = str(checked.resolve(listener.tls.cert)) if listener.tls is not None else None
    now = SystemClock().wall()
    try:
        for _ in lines_of(file, now):
            pass
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        unreadable(file, error)
    try:
        token = os.environ.get("HEADWORKS_CALLER_TOKEN")
        taken = send(listener.address, cert, token, model, lines_of(file, now))
    except (ValueError, OSError) as error:
        fail(str(error))
    except NotTaken as error:
        fail(str(error), EXIT_FOUND)
    if json:
        dump({"labels": taken})
    else:
        print(f"{taken} labels were taken")
