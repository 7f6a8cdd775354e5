"""One worker process: a journal, the live table, the shared port, and a clean end."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import FORM
from gateway.artifacts import Artifacts
from gateway.asgi import Server
from gateway.budget import Reserve, Room, Rung, read_rung, rung_of
from gateway.clock import SystemClock
from gateway.dataplane.handler import Handler
from gateway.dataplane.heap import give_back
from gateway.dataplane.limits import ClientLimits, Load
from gateway.dataplane.live import Live, prepare, retire
from gateway.dataplane.pins import Pins
from gateway.dataplane.probes import Probes
from gateway.dataplane.server import Protocol
from gateway.dataplane.shadow import Shadow
from gateway.declaration import MILLION
from gateway.disk import Occupied
from gateway.errors import JournalUnavailable
from gateway.exchange import exchange_id
from gateway.journal.directory import JournalFolder, folders
from gateway.journal.receipt import ReceiptKey
from gateway.journal.record import EMPTY, encode_parts
from gateway.journal.writer import Journal, open_journal
from gateway.settings import Clients, Drain, JournalSettings, Overload
from gateway.table import TableStore
from gateway.telemetry.metrics import Metrics
from gateway.trouble import Trouble

EXIT_JOURNAL = 74
TICK_S = 0.1
SECOND_NS = 10**9
SWAP_AGAIN_S = 5.0
JOURNAL_AGAIN_S = 1.0
log = logging.getLogger("headworks.worker")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    index: int
    workers: int
    state: Path
    keys: Path
    journal: JournalSettings
    drain: Drain
    journal_at_most: int = 8 * 1024**3
    reserve: int = 0
    clients: Clients = Clients()
    overload: Overload = Overload()
    tls: dict[str, str | None] | None = None
    grpc: str | None = None


class Worker:
    def __init__(
        self, settings: WorkerSettings, listening: socket.socket, clock: SystemClock | None = None
    ) -> None:
        self.settings, self.listening = settings, listening
        self.name = str(settings.index)
        self.clock = clock or SystemClock()
        self.metrics = Metrics(f"worker-{self.name}", settings.state / "metrics")
        self.metrics.gather()
        self.tables = TableStore(settings.state)
        self.artifacts = Artifacts(settings.state)
        self.exit_code = 0
        self.journal: Journal | None = None
        self.reserve = Reserve(settings.state / "reserve", settings.reserve)
        self.listener: Any = None
        self._swap_after = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, int] = {}
        self._trouble = Trouble(settings.state, f"worker-{self.name}")
        self._troubles: dict[str, str] = {}

    async def run(self) -> int:
        """Serve until SIGTERM; the exit code."""
        self.probes = Probes()
        workers = self.settings.workers
        load = Load(self.settings.overload, workers)
        self.shadow = Shadow(None, self.clock, self.metrics, load, workers)
        pins = Pins(self.settings.keys)
        self.handler = Handler(None, self.shadow, self.probes, self.clock, self.metrics, load, pins)
        limits = ClientLimits.of(self.settings.clients, workers)
        self.app = _App(self.handler, self.refused, limits)
        if not await self._open_journal():
            self._keep(self._open_journal_later())
        self.server = self._make_server()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_drain)
        self._keep(self._tick())
        await self.server.serve(sockets=[self.listening])
        await self._end()
        return self.exit_code

    async def _open_journal(self) -> bool:
        """False: the disk does not let us. Until it does, everything is answered with 503."""
        settings = self.settings.journal
        folder = JournalFolder(self.settings.state, self.settings.keys, self.name)
        try:
            journal = await open_journal(
                folder,
                self.clock,
                segment_bytes=settings.segment,
                stall_s=settings.stall,
                queue_bytes=settings.queue,
                on_failure=self._journal_failed,
                segment_age_s=settings.segment_age,
                receipt_key=ReceiptKey(Ed25519PrivateKey.generate()),
                refuse_damage=settings.on_damage == "refuse",
            )
        except (OSError, Occupied) as error:
            log.critical("the journal does not open: %s", error)
            self.probes.journal_writable = False
            self._say("journal", f"the journal does not open: {error}")
            return False
        self._say("journal", None)
        self.journal = self.shadow.journal = self.handler.journal = journal
        return True

    def _say(self, what: str, words: str | None) -> None:
        """What keeps us from serving as we should, or that it no longer does."""
        self._troubles.pop(what, None)
        if words is not None:
            self._troubles[what] = words
        if self._troubles:
            self._trouble.tell("; ".join(self._troubles.values()))
        else:
            self._trouble.clear()

    async def _open_journal_later(self) -> None:
        opened = False
        while not opened:
            await asyncio.sleep(JOURNAL_AGAIN_S)
            opened = await self._open_journal()

    def _make_server(self) -> Server:
        return Server(
            uvicorn.Config(
                self.app,
                http=Protocol,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                ws="none",
                interface="asgi3",
                backlog=2048,
                # Beyond the drain's own end: what does not end then hangs.
                timeout_graceful_shutdown=math.ceil(self.settings.drain.at_most) + 3,
            ),
            self.settings.tls,
            self._judge_certificate,
        )

    def _judge_certificate(self, wrong: str | None) -> None:
        """We go on with the one we have, so readiness stays; somebody has to see to it."""
        if wrong is not None:
            self.metrics.count("headworks_certificates_refused")
        self._say("certificate", wrong)

    def refused(self, code: str) -> None:
        """Bytes that were no request: counted, and recorded with the other strangers'."""
        self.metrics.count("headworks_refusals", code)
        if self.handler.refusals.admit(code, self.clock.steady()):
            self._record_refusals({code: 1})

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _journal_failed(self, error: OSError) -> None:
        """The journal is poisoned: end, so that a new process recovers it."""
        log.critical("journal failed: %s", error)
        self.exit_code = EXIT_JOURNAL
        self.probes.journal_writable = False
        self.server.should_exit = True

    def _begin_drain(self) -> None:
        if self.probes.draining:
            self.handler.cut()
            self.server.force_exit = True
            return
        self.probes.draining = self.app.draining = self.shadow.ending = True
        self._keep(self._drain())

    async def _drain(self) -> None:
        """Readiness says no first, so that balancers leave; then connections are closed as they
        fall idle; what is open at the end of `drain.at_most` is cut, and recorded so."""
        await asyncio.sleep(self.settings.drain.settle)
        self.server.should_exit = True
        await asyncio.sleep(self.settings.drain.at_most)
        self.handler.cut()

    async def _end(self) -> None:
        if self.listener is not None:
            await self.listener.stop(self.settings.drain.at_most)
        await self.shadow.close()
        self.shadow.each_second(self.name)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.handler.live is not None:
            for backend in self.handler.live.backends.values():
                await backend.aclose()
        try:
            if self.journal is not None:
                await self.journal.close()
        except OSError as error:
            log.critical("journal did not close: %s", error)
            self.exit_code = EXIT_JOURNAL
        self._tell_numbers()
        self.metrics.tell()

    async def _tick(self) -> None:
        """Ten times a second the table, once a second everything else: as soon as one is over,
        since rollouts wait at the end of a block for every worker's mark."""
        second, loop = 0, asyncio.get_running_loop()
        while True:
            try:
                if self._swap_after <= asyncio.get_running_loop().time() and self.tables.changed():
                    await self._swap()
                self.metrics.tell()
                if self.handler.live is not None:
                    for backend in self.handler.live.backends.values():
                        backend.tick()
                if (now := self.clock.steady() // SECOND_NS) != second:
                    second = now
                    self._each_second()
            except Exception:
                log.exception("a tick failed; the next one tries again")
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.shadow.sampling.note(loop.time() - due)

    def _each_second(self) -> None:
        if self.journal is not None:
            self.journal.mark()
        self._tell_numbers()
        self._record_refusals(self.handler.refusals.due(self.clock.steady()))
        self.shadow.each_second(self.name)
        self._climb()
        if self.handler.load.is_lull():
            give_back()

    async def _swap(self) -> None:
        """Make the revision in force live; if it does not load, the old one stays."""
        revision = self.tables.current
        if revision is None:
            return
        before = self.handler.live
        try:
            table = self.tables.load(revision)
            settings = self.settings
            told = (table, self.artifacts, before, settings.workers, settings.clients.body)
            live = await asyncio.to_thread(prepare, *told) if before else prepare(*told)
        except Exception as error:
            log.error("revision %s is not taken: %s", revision[:12], error)
            self.metrics.count("headworks_table_rejected")
            self._say("table", f"revision {revision[:12]} is not taken: {error}")
            self.tables.forget()  # what failed for want of memory or descriptors may work later
            self._swap_after = asyncio.get_running_loop().time() + SWAP_AGAIN_S
            return
        self.handler.live = live
        if before is None:  # what is here now stays: no collection needs to look at it again
            gc.collect()
            gc.freeze()
        self._say("table", None)
        await self._listen_grpc(live)
        log.info("worker %s serves revision %s", self.name, revision[:12])
        if before is not None:
            self._keep(retire(before, live, self.settings.drain.at_most))

    async def _listen_grpc(self, live: Live) -> None:
        """A server's largest message is fixed at its start: another limit is another server."""
        if self.settings.grpc is None:
            return
        rules = (rule for model in live.table.models.values() for rule in model.rules)
        largest = max(rule.limits["request"] for rule in rules)
        before = self.listener
        if before is not None and before.largest == largest:
            return
        from gateway.dataplane.grpc_listener import Listener

        self.listener = Listener(self.handler, self.clock, self.settings.grpc, largest)
        await self.listener.start()
        if before is not None:
            self._keep(before.stop(self.settings.drain.at_most))

    def _record_refusals(self, counts: dict[str, int]) -> None:
        for code, count in counts.items():
            header = {
                "format": 1, "kind": "refusals", "id": exchange_id(self.clock.wall()),
                "at": self.clock.steady(), "error": code, "count": count,
            }  # fmt: skip
            try:
                if self.journal is not None:
                    self.journal.append(header, encode_parts({}, EMPTY, EMPTY))
            except JournalUnavailable:
                self.metrics.count("headworks_refusals", "journal_unavailable")

    def _climb(self) -> None:
        """Give up what the disk has no room for; the first worker keeps the reserve."""
        rung = max(self._filesystem(), read_rung(self.settings.state))
        self.handler.frugal = self.shadow.frugal = rung >= Rung.SPARE
        full = rung is Rung.REFUSE or self._backlog() > self._refuse_above()
        self.handler.journal_full = full
        if self.settings.index == 0 and self.reserve.size:
            self._keep(asyncio.to_thread(self._follow, rung))

    def _filesystem(self) -> Rung:
        free, total = self.reserve.free_beside()
        return rung_of(Room(0, None, free, total), self.reserve.size)

    def _follow(self, rung: Rung) -> None:
        try:
            self.reserve.follow(rung)
        except OSError as error:
            log.warning("the reserve is not whole: %s", error)

    def _backlog(self) -> int:
        known = folders(self.settings.state, self.settings.keys)
        return sum(folder.size() for folder in known)

    def _refuse_above(self) -> int:
        settings = self.settings.journal
        return self.settings.journal_at_most * settings.refuse // MILLION

    def _tell_numbers(self) -> None:
        """Journal statistics as counters, by what was added since the last time."""
        if self.journal is None:
            return
        numbers = self.journal.statistics
        self.probes.journal_writable = self.journal.writable
        for name, value, scale in (
            ("records", numbers.records, 1), ("bytes", numbers.bytes, 1),
            ("commits", numbers.commits, 1), ("commit_seconds", numbers.commit_ns, 1e-9),
            ("stalls", numbers.stalls, 1), ("refused", numbers.refused, 1),
            ("late", numbers.late, 1), ("withheld", numbers.withheld, 1),
            ("receipts", numbers.receipts, 1), ("signatures", numbers.signatures, 1),
        ):  # fmt: skip
            self.metrics.count(
                f"headworks_journal_{name}", by=(value - self._told.get(name, 0)) * scale
            )
            self._told[name] = value
        self.metrics.set("headworks_journal_at_risk", numbers.at_risk, self.name)
        numbers.at_risk = 0
        self.metrics.set("headworks_compiled_modules", len(FORM.modules), self.name)
        self.metrics.set("headworks_in_flight", self.handler.in_flight, self.name)
        self.metrics.set(
            "headworks_connections", len(self.server.server_state.connections), self.name
        )
        if self.handler.live is not None:
            tell_endpoints(self.handler.live, self.metrics, self.name)


def tell_endpoints(live: Live, metrics: Metrics, worker: str) -> None:
    """What became of endpoints since the last time, and how many are how."""
    for (model, version, traffic), backend in live.backends.items():
        if not backend.version.endpoints or (remote := backend.remote) is None:
            continue
        for event, count in remote.statistics.take().items():
            metrics.count("headworks_endpoint_events", model, version, event, by=count)
        if traffic == "live":
            for state, number in remote.states().items():
                metrics.set("headworks_endpoints", number, model, version, state, worker)


class _App:
    """What uvicorn calls: the handler, and what the protocol asks and tells beside it."""

    def __init__(self, handler: Handler, refused: Any, limits: ClientLimits) -> None:
        self.answer, self.refused, self.limits = handler.answer, refused, limits
        self.draining = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """uvicorn wants one; `Protocol` calls `answer`."""
        raise NotImplementedError


def serve(settings: WorkerSettings, clock: SystemClock, descriptor: int) -> int:
    """Run one worker on the inherited listening socket; the process's exit code."""
    import uvloop

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a descriptor
    listening = socket.socket(fileno=descriptor)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(settings, listening, clock).run())
