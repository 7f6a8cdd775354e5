"""`headworks witness`: the compliance department's daemon, on a host of its own."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_USAGE = 2


def witness(
    state: Annotated[Path, typer.Option(help="Folder of its key and memory; made if absent.")],
    trust: Annotated[
        list[str],
        typer.Option(help="vkey of a log; of NAME/root: of all logs NAME/… too. Repeatable."),
    ],
    listen: Annotated[str, typer.Option(help="host:port to answer at.")] = "127.0.0.1:8181",
    name: Annotated[
        str | None,
        typer.Option(help="Its name, fixed at the first start; <host name>/witness if absent."),
    ] = None,
) -> None:
    """Cosign the checkpoints of trusted logs, each only as the continuation of the last one.

    Prints its vkey and address. Ends with SIGTERM: 0, or 1 with an alarm on record; 2 wrong use; 74
    if the state is damaged, taken or cannot be written.
    """
    from gateway.clock import SystemClock
    from gateway.disk import Occupied
    from gateway.ledger.note import Malformed
    from gateway.witness import server
    from gateway.witness.state import OtherName, StateDamaged, open_state
    from gateway.witness.trust import Trust

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        trusted = Trust.of(trust)
    except Malformed as error:
        fail(f"--trust: {error}")
    given = name or (None if (state / "key").exists() else f"{socket.gethostname()}/witness")
    try:
        opened = open_state(state, given, os.urandom(32))
    except (Malformed, OtherName) as error:
        fail(f"--name {given}: {error}")
    except (Occupied, StateDamaged, OSError) as error:
        fail(f"--state {state}: {error}", server.EXIT_STATE)
    try:
        listening = server.listen(listen)
    except (ValueError, OverflowError, OSError) as error:
        fail(f"--listen {listen}: {error}")
    print(f"vkey {opened.key.verifier}", flush=True)
    code = server.serve(opened, trusted, [listening], SystemClock(), say)
    opened.close()
    raise typer.Exit(code)


def say(words: str) -> None:
    print(words, flush=True)


def fail(words: str, code: int = EXIT_USAGE) -> Any:
    print(f"headworks: {words}", file=sys.stderr)
    raise typer.Exit(code)
