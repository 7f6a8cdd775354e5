"""Copies of requests to versions that nobody waits for.

Isolation, each clause counted where it drops something: bounded in number and bytes, taken only
after the primary's answer left, never awaited by a request, never retried, own deadline, own
records (arm `shadow`) that name the primary's id. A dropped copy is counted by its reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.dataplane.account import Account
from gateway.dataplane.backend import Backend, say_error
from gateway.errors import JournalUnavailable, Refusal
from gateway.exchange import Reply
from gateway.journal.writer import Journal
from gateway.telemetry.metrics import Metrics

AGE_NS_MAX = 2_000_000_000
log = logging.getLogger("headworks.shadow")


@dataclass(frozen=True, slots=True)
class Copy:
    account: Account
    backend: Backend
    offered_ns: int


class Shadow:
    """One worker's queue of copies."""

    def __init__(self, journal: Journal | None, clock: Clock, metrics: Metrics) -> None:
        self.journal, self._clock, self._metrics = journal, clock, metrics
        self._waiting: deque[Copy] = deque()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.frugal = False  # the disk has little room: no copies

    def __repr__(self) -> str:
        return f"<Shadow {len(self._waiting)} waiting, {len(self._tasks)} under way>"

    def offer(self, account: Account, backend: Backend) -> None:
        """Take a copy if there is room; never waits, never raises."""
        model = backend.model
        bounds = model.shadow
        size = len(account.request)
        reason = None
        if self._closed:
            reason = "shutting_down"
        elif self.frugal:
            reason = "disk"
        elif size > bounds["body"]:
            reason = "body_too_large"
        elif why := account.dialect.not_copied(account.request, bounds.get("idempotent", False)):
            reason = why
        elif len(self._waiting) >= bounds["items"]:
            reason = "queue_items"
        elif self._bytes + size > bounds["bytes"]:
            reason = "queue_bytes"
        if reason is not None:
            self.drop(model.name, reason)
            return
        backend.users += 1
        self._waiting.append(Copy(account, backend, self._clock.steady()))
        self._bytes += size
        if len(self._tasks) < bounds["concurrency"]:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def drop(self, model: str, reason: str) -> None:
        """Count a copy that is not sent."""
        self._metrics.count("headworks_shadow_dropped", model, reason)

    async def _work(self) -> None:
        """Send copies until none waits."""
        while self._waiting:
            copy = self._waiting.popleft()
            self._bytes -= len(copy.account.request)
            try:
                if self._clock.steady() - copy.offered_ns > AGE_NS_MAX:
                    self.drop(copy.backend.model.name, "deadline")
                else:
                    await self._send(copy)
            finally:
                copy.backend.users -= 1

    async def _send(self, copy: Copy) -> None:
        account = copy.account.shadowed(self._clock, copy.backend.version)
        try:
            async with asyncio.timeout(copy.backend.model.shadow["timeout"]):
                reply = await copy.backend.call(account, b"shadow")
            if not isinstance(reply, Reply):
                reply[2].abort()
                raise Refusal("upstream_protocol_error", "the shadow's answer is a stream")
        except TimeoutError:
            account.error = "upstream_timeout"
            reply = say_error(
                account.error, 504, "the shadow did not answer in time", account.dialect
            )
        except Refusal as refusal:
            account.error = refusal.code
            reply = say_error(refusal.code, refusal.status, refusal.message, account.dialect)
        except Exception:
            log.exception("shadow of %s failed", copy.account.id)
            account.error = "internal_error"
            reply = say_error(account.error, 500, "internal error", account.dialect)
        account.take(reply)
        try:
            if self.journal is None:
                raise JournalUnavailable("the journal does not open")
            self.journal.append(*account.entry())
        except JournalUnavailable:
            self.drop(copy.backend.model.name, "journal")
            return
        version = copy.backend.version.name
        model = copy.backend.model.name
        self._metrics.count("headworks_exchanges", model, version, "shadow", str(account.status))

    async def close(self) -> None:
        """Shadows get no extra time: what waits is dropped and counted."""
        self._closed = True
        for copy in self._waiting:
            self.drop(copy.backend.model.name, "shutting_down")
            copy.backend.users -= 1
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
