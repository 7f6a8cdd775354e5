"""The composition root: the only file that knows all parts, and puts them together per process."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from gateway.check import Checked
from gateway.clock import SystemClock
from gateway.settings import LedgerSettings, Listener, WitnessSettings
from gateway.trouble import Trouble

PATIENCE_S = 20.0
YOUNG = 20_000
"""Objects made between two looks for garbage: hardly any of ours hangs in a cycle."""


def places(checked: Checked) -> tuple[Path, Path]:
    """State and keys, relative to the configuration file."""
    assert checked.settings is not None
    return checked.resolve(checked.settings.state), checked.resolve(checked.settings.keys)


def start_logging(role: str) -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s {role} %(levelname)s %(name)s %(message)s",
        force=True,
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def supervise(checked: Checked, overrides: dict[str, str]) -> int:
    """Run `headworks serve` until it is told to stop; the exit code."""
    assert checked.settings is not None
    start_logging("supervisor")
    os.umask(0o077)
    state, keys = places(checked)
    return asyncio.run(_supervise(checked, overrides, state, keys))


def tls_files(checked: Checked, listener: Listener) -> dict[str, str | None] | None:
    """The listener's PEM files by their whole paths; None: plain HTTP."""
    if listener.tls is None:
        return None
    files = listener.tls.model_dump()
    return {what: str(checked.resolve(name)) if name else None for what, name in files.items()}


async def _supervise(checked: Checked, overrides: dict[str, str], state: Path, keys: Path) -> int:
    import uvicorn

    from gateway.asgi import Server
    from gateway.front import Front
    from gateway.supervisor import Supervisor

    assert checked.settings is not None
    data_tls = tls_files(checked, checked.settings.listen.of("data"))
    supervisor = Supervisor(checked.path, overrides, checked.settings, state, keys, data_tls)
    front = Front(supervisor)
    config = uvicorn.Config(front.app(), log_config=None, access_log=False, lifespan="off")
    admin = checked.settings.listen.of("admin")
    server = Server(config, tls_files(checked, admin), front.judge_certificate)
    supervisor.start(on_hangup=front.hang_up)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[supervisor.admin]))
    watching = asyncio.get_running_loop().create_task(front.watch())
    await supervisor.stopping.wait()
    watching.cancel()
    await supervisor.stop()
    server.should_exit = True
    await serving
    return 0


def child(role: str, text: str) -> int:
    """One process of the tree; `text` is what the supervisor tells it, as JSON."""
    from gateway.lifeline import hold_to

    start_logging(role)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    told = json.loads(text)
    os.umask(0o077)
    gc.set_threshold(YOUNG, 20, 50)
    hold_to(told["lifeline"], PATIENCE_S)
    state, keys = Path(told["state"]), Path(told["keys"])
    trouble = Trouble(state, role)
    try:
        return _run(role, told, state, keys)
    except Exception as error:
        trouble.tell(f"{type(error).__name__}: {error}")
        raise


def _run(role: str, told: dict[str, Any], state: Path, keys: Path) -> int:
    clock = SystemClock(told["clock"])
    if role.startswith("worker"):
        return _worker(told, state, keys, clock)
    if role == "governor":
        from gateway.governor import Governor
        from gateway.supervisor import RESTARTS

        async def govern() -> int:
            config, laid = Path(told["config"]), told["overrides"]
            restarts = int(os.environ.get(RESTARTS, "0"))
            governor = Governor(config, laid, state, keys, clock, told["started"], _ledger(told))
            return await governor.run(restarts)

        return asyncio.run(govern())
    from gateway.analyst import analyse

    return analyse(state, keys, clock, _ledger(told))


def _ledger(told: dict[str, Any]) -> LedgerSettings:
    """As checked by the supervisor; a child does not parse units again."""
    witnesses = tuple(WitnessSettings.model_construct(**one) for one in told["ledger"]["witnesses"])
    return LedgerSettings.model_construct(**told["ledger"] | {"witnesses": witnesses})


def _worker(told: dict[str, Any], state: Path, keys: Path, clock: SystemClock) -> int:
    from gateway.dataplane.worker import WorkerSettings, serve
    from gateway.settings import Clients, Drain, JournalSettings, Overload

    settings = WorkerSettings(
        index=told["index"],
        workers=told["workers"],
        state=state,
        keys=keys,
        journal=JournalSettings.model_construct(**told["journal"]),
        journal_at_most=told["disk"]["journal"]["at_most"],
        reserve=told["disk"]["reserve"],
        drain=Drain.model_construct(**told["drain"]),
        clients=Clients.model_construct(**told["clients"]),
        overload=Overload.model_construct(**told["overload"]),
        tls=told["tls"],
        grpc=told["grpc"],
    )
    return serve(settings, clock, told["data"])
