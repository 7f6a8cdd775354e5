"""One version's copies: a bounded queue, and tasks that send what waits, as many as its limit lets.

What is dropped is the newest, and what has waited longer than two seconds when its turn comes: it
would be compared with a world that has gone on. A copy is never sent twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.dataplane.account import Account
from gateway.dataplane.backend import Backend, say_error
from gateway.dataplane.limits import divided
from gateway.dataplane.restraint import TOO_LARGE, Breaker, Limit
from gateway.errors import JournalUnavailable, Refusal
from gateway.exchange import Reply

AGE_S_MAX = 2.0
LOCAL = frozenset({"overloaded", "upstream_overloaded"})
"""Refusals of our own limits: the shadow was not asked, and is not judged by them."""
log = logging.getLogger("headworks.shadow")
Drop = Callable[[Account, str, str, bool], None]
"""Of which exchange's copy, to which version, why, and whether it was for its noise."""
Take = Callable[[Account, Backend], None]


class Dropped(Exception):
    """A copy that becomes no record; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Copy:
    account: Account
    noise: bool
    offered_s: float


class Lane:
    """Made and used in one event loop; `take` records an answer, JournalUnavailable where not."""

    def __init__(self, backend: Backend, workers: int, drop: Drop, take: Take) -> None:
        bounds = backend.model.shadow
        self.backend = backend
        self.limit = Limit(divided(bounds["concurrency"], workers))
        self.breaker = Breaker()
        self._items = divided(bounds["items"], workers)
        self._most_bytes = divided(bounds["bytes"], workers)
        self._drop, self._take = drop, take
        self._waiting: deque[Copy] = deque()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0  # of them, those that go on: known before a task has ended
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Lane {len(self._waiting)} waiting, {len(self._tasks)} under way>"

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._tasks

    def refuses(self, size: int) -> str | None:
        """Why a copy of so many bytes is not taken; None: there is room."""
        if self.breaker.is_open(self._loop.time()):
            return "breaker_open"
        if len(self._waiting) >= self._items:
            return "queue_items"
        if self._bytes + size > self._most_bytes:
            return "queue_bytes"
        return None

    def put(self, account: Account, noise: bool) -> None:
        self.backend.users += 1
        self._waiting.append(Copy(account, noise, self._loop.time()))
        self._bytes += len(account.request)
        if self._working < self.limit.value:
            self._working += 1
            task = self._loop.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        """Send copies until none waits, or there are more of us than the limit lets: never none
        while some wait."""
        try:
            while self._waiting and self._working <= self.limit.value:
                copy = self._waiting.popleft()
                self._bytes -= len(copy.account.request)
                await self._take_one(copy)
        finally:
            self._working -= 1

    async def _take_one(self, copy: Copy) -> None:
        try:
            await self._send(copy)
        except Dropped as dropped:
            self._dropped(copy, str(dropped))
        except asyncio.CancelledError:
            self._dropped(copy, "shutting_down")
            raise
        except Exception:
            log.exception("the copy of %s is lost", copy.account.id)
            self._dropped(copy, "internal_error")
        finally:
            self.backend.users -= 1

    def _dropped(self, copy: Copy, reason: str) -> None:
        self._drop(copy.account, self.backend.version.name, reason, copy.noise)

    async def _send(self, copy: Copy) -> None:
        now = self._loop.time()
        if now - copy.offered_s > AGE_S_MAX:
            raise Dropped("deadline")
        if not self.breaker.lets(now):
            raise Dropped("breaker_open")
        account = copy.account.shadowed(self.backend.version, noise=copy.noise)
        try:
            reply = await self._call(account)
        except BaseException:
            self.breaker.forget_try()
            raise
        account.take(reply)
        self.limit.note(account.error, account.status, self._working)
        self.breaker.note(account.error, self._loop.time())
        try:
            self._take(account, self.backend)
        except JournalUnavailable:
            raise Dropped("journal") from None

    async def _call(self, account: Account) -> Reply:
        """The shadow's answer, or what stands for it: `account.error` says so."""
        try:
            async with asyncio.timeout(self.backend.model.shadow["timeout"]):
                reply = await self.backend.call(account, b"shadow")
        except TimeoutError:
            refusal = Refusal("upstream_timeout", "the shadow did not answer in time")
        except Refusal as error:
            if error.code in LOCAL:
                raise Dropped("concurrency") from None
            refusal = error
        except Exception:
            log.exception("shadow of %s failed", account.primary)
            refusal = Refusal("internal_error", "internal error")
        else:
            if isinstance(reply, Reply):
                return reply
            reply[2].abort()
            self.breaker.note(TOO_LARGE, self._loop.time())
            raise Dropped(TOO_LARGE)
        account.error = refusal.code
        return say_error(refusal.code, refusal.status, refusal.message, account.dialect)

    async def close(self) -> None:
        """No extra time: what waits and what is under way is dropped and counted."""
        for copy in self._waiting:
            self._dropped(copy, "shutting_down")
            self.backend.users -= 1
        self._waiting.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
