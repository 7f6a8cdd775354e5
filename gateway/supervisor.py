"""The supervisor: one command, one process tree, clean signals.

It holds the lock of the state and the data port's socket, starts workers, governor and analyst, and
starts each again when it ends, later each time. It imports nothing that serves or judges: what it
runs are commands of this program. Children end with it (`gateway/lifeline.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway import FORM
from gateway.clock import SystemClock
from gateway.disk import hold
from gateway.settings import RESTART_KEYS, Settings
from gateway.telemetry.metrics import Metrics

BACKOFF_S = (0.1, 0.5, 2.0, 5.0, 15.0)
RESTARTS = "HEADWORKS_RESTARTS"
"""Environment variable that tells a child how often it was started again."""
STEADY_S = 30.0
"""A child that ran so long begins again at the first step of the backoff."""
log = logging.getLogger("headworks.supervisor")


@dataclass(slots=True)
class Child:
    role: str
    command: list[str]
    passed: tuple[int, ...]
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    failures: int = 0
    started: float = 0.0
    stopping: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def steady(self) -> bool:
        return self.running and time.monotonic() - self.started > STEADY_S

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.running else None


def worker_count(settings: Settings) -> int:
    return os.cpu_count() or 1 if settings.workers == "auto" else int(settings.workers)


def _bound(address: str, option: int) -> socket.socket:
    """OSError where the address is taken or not ours."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, option, 1)
    bound.bind((host, int(port)))
    return bound


def bind(address: str) -> socket.socket:
    """A listening socket; OSError where the address is taken or not ours."""
    listening = _bound(address, socket.SO_REUSEADDR)
    listening.listen(2048)
    listening.setblocking(False)
    return listening


def reserve(address: str) -> socket.socket:
    """Keeps a port from others without listening: each worker listens on it for itself. OSError
    where it is taken."""
    return _bound(address, socket.SO_REUSEPORT)


def address_of(bound: socket.socket) -> str:
    """Host and port, where port 0 has become one."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{host}:{port}"


class Supervisor:
    def __init__(
        self,
        config: Path,
        overrides: dict[str, str],
        settings: Settings,
        state: Path,
        keys: Path,
        tls: dict[str, str | None] | None = None,
    ) -> None:
        """`tls`: PEM files of the data port, by their whole paths."""
        self.settings, self.state = settings, state
        for folder in (state, state / "run", keys):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # sockets and files inside answer nobody else
        self._lock = hold(state / "lock")
        self.data = bind(settings.listen.of("data").address)
        self.admin = bind(settings.listen.of("admin").address)
        self.grpc = reserve(settings.listen.grpc) if settings.listen.grpc else None
        ports = {"data": self.data, "admin": self.admin, "grpc": self.grpc}
        self.listening = {name: address_of(bound) for name, bound in ports.items() if bound}
        """Where each port is, by its name in `listen`."""
        for path in (state / "metrics").glob("*.db"):
            path.unlink()
        for path in (state / "run").glob("*.trouble"):
            path.unlink()
        self.metrics = Metrics("supervisor", state / "metrics")
        self._lifeline, self._lifeline_end = os.pipe()
        count = worker_count(settings)
        clock = SystemClock()
        told = {
            "config": str(config), "overrides": overrides, "state": str(state), "keys": str(keys),
            "lifeline": self._lifeline, "workers": count, "clock": clock.offset,
            "started": settings.model_dump(mode="json", include=set(RESTART_KEYS)),
            "ledger": settings.ledger.model_dump(),
            "grpc": address_of(self.grpc) if self.grpc is not None else None,
            "journal": settings.journal.model_dump(), "drain": settings.drain.model_dump(),
            "disk": settings.disk.model_dump(),
            "clients": settings.clients.model_dump(), "overload": settings.overload.model_dump(),
            "tls": tls,
        }  # fmt: skip
        self.children = [
            self._child(f"worker-{index}", {**told, "index": index, "data": self.data.fileno()})
            for index in range(count)
        ]
        self.children += [self._child(role, told) for role in ("governor", "analyst")]
        self.stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def _child(self, role: str, told: dict[str, object]) -> Child:
        command = [sys.executable, "-m", "gateway", "_child", role, json.dumps(told)]
        # The state's lock goes along: while any child lives, no other start may use the state.
        passed = [self._lifeline, self._lock]
        if role.startswith("worker"):
            passed.append(self.data.fileno())
        return Child(role, command, tuple(passed))

    def start(self, on_hangup: Callable[[], None]) -> None:
        log.log(logging.WARNING if FORM.state == "stale" else logging.INFO, "running %s", FORM)
        log.info("listening: %s", ", ".join(f"{name} {at}" for name, at in self.listening.items()))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        for child in self.children:
            task = loop.create_task(self._keep(child))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _keep(self, child: Child) -> None:
        """Start the child, and again when it ends, until it is told to stop."""
        try:
            await self._keep_running(child)
        finally:
            child.ended.set()

    async def _keep_running(self, child: Child) -> None:
        while not child.stopping:
            child.started = time.monotonic()
            code = await self._run_once(child)
            if child.stopping:
                break
            if time.monotonic() - child.started > STEADY_S:
                child.failures = 0
            pause = BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
            child.failures += 1
            child.restarts += 1
            self.metrics.count("headworks_restarts", child.role)
            log.warning("%s ended with %s; again in %g s", child.role, code, pause)
            try:
                await asyncio.wait_for(self.stopping.wait(), pause)
            except TimeoutError:
                continue
            break

    async def _run_once(self, child: Child) -> int | str:
        """The exit code, or why it could not be started."""
        # Small matrices by one thread: two that wait for each other cost twenty times as much.
        environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "MALLOC_ARENA_MAX": "2",
                       RESTARTS: str(child.restarts)}  # fmt: skip
        try:
            child.process = await asyncio.create_subprocess_exec(
                *child.command, pass_fds=child.passed, start_new_session=True, env=environment
            )
        except OSError as error:
            return str(error)
        if child.stopping:  # told to stop while it was being started
            child.process.terminate()
        self.metrics.set("headworks_process_up", 1, child.role)
        code = await child.process.wait()
        self.metrics.set("headworks_process_up", 0, child.role)
        return code

    async def stop(self) -> None:
        """Workers first, so that what they wrote last is still sealed; the analyst goes on from the
        ledger at the next start. Who connects once the last worker has closed the data port is
        refused: as long as one copy of the socket is open, the kernel lets people wait at it."""
        self.data.close()
        patience = self.settings.drain.settle + self.settings.drain.at_most + 5
        roles = ("worker", "governor", "analyst")
        for role in roles:
            group = [child for child in self.children if child.role.startswith(role)]
            await self._end(group, patience if role == "worker" else 10.0)

    async def _end(self, group: list[Child], patience: float) -> None:
        for child in group:
            child.stopping = True
            if child.running and child.process is not None:
                child.process.terminate()
        waiting = [child.ended.wait() for child in group]
        try:
            await asyncio.wait_for(asyncio.gather(*waiting), patience)
        except TimeoutError:
            for child in group:
                if child.running and child.process is not None:
                    log.error("%s did not end in %g s and is killed", child.role, patience)
                    child.process.kill()
            await asyncio.gather(*(child.ended.wait() for child in group))

    def status(self) -> dict[str, dict[str, object]]:
        return {
            child.role: {"running": child.running, "pid": child.pid, "restarts": child.restarts}
            for child in self.children
        }
