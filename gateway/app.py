"""The composition root: the only file that knows all parts, and puts them together per process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from gateway.check import Checked
from gateway.clock import SystemClock

PATIENCE_S = 20.0


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


async def _supervise(checked: Checked, overrides: dict[str, str], state: Path, keys: Path) -> int:
    import uvicorn

    from gateway.asgi import Server
    from gateway.front import Front
    from gateway.supervisor import Supervisor

    assert checked.settings is not None
    supervisor = Supervisor(checked.path, overrides, checked.settings, state, keys)
    front = Front(supervisor)
    config = uvicorn.Config(front.app(), log_config=None, access_log=False, lifespan="off")
    server = Server(config)
    supervisor.start(on_hangup=front.hang_up)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[supervisor.admin]))
    await supervisor.stopping.wait()
    await supervisor.stop()
    server.should_exit = True
    await serving
    return 0


def child(role: str, text: str) -> int:
    """One process of the tree; `text` is what the supervisor tells it, as JSON."""
    from gateway.lifeline import hold_to
    from gateway.supervisor import RESTARTS

    start_logging(role)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    told = json.loads(text)
    os.umask(0o077)
    hold_to(told["lifeline"], PATIENCE_S)
    clock = SystemClock(told["clock"])
    state, keys = Path(told["state"]), Path(told["keys"])
    if role.startswith("worker"):
        return _worker(told, state, keys, clock)
    if role == "governor":
        from gateway.governor import Governor

        async def govern() -> int:
            config, laid = Path(told["config"]), told["overrides"]
            again = os.environ.get(RESTARTS, "0") != "0"
            governor = Governor(config, laid, state, keys, clock, told["started"])
            return await governor.run(again=again)

        return asyncio.run(govern())
    from gateway.analyst import analyse

    return analyse(state, keys, clock)


def _worker(told: dict[str, Any], state: Path, keys: Path, clock: SystemClock) -> int:
    from gateway.dataplane.worker import WorkerSettings, serve
    from gateway.settings import Drain, JournalSettings

    settings = WorkerSettings(
        index=told["index"],
        workers=told["workers"],
        state=state,
        keys=keys,
        journal=JournalSettings.model_construct(**told["journal"]),
        drain=Drain.model_construct(**told["drain"]),
        grpc=told["grpc"],
    )
    return serve(settings, clock, told["data"])
