"""A version that is served elsewhere: its endpoints, and one exchange with one of them.

Invariants kept here:

* **Only this version answers.** A further attempt goes to another endpoint of it if there is one.
* **The last endpoint is never ejected**; where too many are out by checks, all are tried again
  (panic), but not for a canary: it refuses, and the refusal is on its account.
* **Retries stay below the budget**, and each is an attempt on the exchange's own account.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from gateway.dataplane import retry
from gateway.dataplane.balance import least_request
from gateway.dataplane.connection import Answer
from gateway.dataplane.credential import Credential
from gateway.dataplane.ejection import Ejection, Failure, Health, may_eject
from gateway.dataplane.failures import UpstreamConnectFailed, UpstreamError, UpstreamOverloaded
from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.request import Request, line
from gateway.dataplane.upload import Upload
from gateway.dataplane.upstream import Endpoint, Pool
from gateway.errors import Refusal
from gateway.exchange import Reply
from gateway.table import Model, Version
from gateway.tls import Watched, client_context

CHECK_BYTES_MAX: Final = 64 * 1024
log = logging.getLogger("headworks.upstream")


@dataclass(slots=True)
class Statistics:
    """Counters since they were last taken."""

    retries: int = 0
    retries_denied: int = 0  # by the budget
    ejected_status: int = 0
    ejected_failure: int = 0
    kept: int = 0  # failed often enough to be ejected, but too many are out or it is the last
    panics: int = 0
    tls_refused: int = 0  # new files that did not fit: those of before are used

    def take(self) -> dict[str, int]:
        """What is not zero, and begin anew."""
        taken = {f.name: value for f in fields(self) if (value := getattr(self, f.name))}
        for name in taken:
            setattr(self, name, 0)
        return taken


def _times(told: Mapping[str, float]) -> Timeouts:
    return Timeouts(told["connect"], told["first_byte"], told["idle"], told["request"])


class Server:
    """One endpoint: its pool, and what is known of its health."""

    def __init__(self, pool: Pool, model: Model) -> None:
        self.pool = pool
        ejection, health = model.ejection, model.health or {"down": 1, "up": 1}
        self.ejection = Ejection(ejection["failures"], ejection["base"], ejection["at_most"])
        self.health = Health(health["down"], health["up"])
        self.open = 0
        self.check_at = 0.0
        self.checking: asyncio.Task[None] | None = None

    def is_available(self, now: float) -> bool:
        return self.health.well and not self.ejection.is_out(now)


class Remote:
    """Made and used in one event loop. `dice` spreads choices and waits."""

    def __init__(
        self, model: Model, version: Version, limits: PoolLimits, dice: random.Random
    ) -> None:
        self.model, self.version = model, version
        self.statistics = Statistics()
        self.typical = retry.Typical()
        self.retrying = 0
        self.told: dict[str, tuple[float, Reply | None]] = {}
        """When and how it answered what was asked of it beside exchanges, by path."""
        self._dice = dice
        self.loop = asyncio.get_running_loop()
        timeouts = _times(model.timeouts)
        tls = version.tls
        self._watched = Watched(tls.values()) if tls is not None else None
        self._tls_wrong = ""
        self.credential = Credential(version.auth) if version.auth is not None else None
        context = self._tls_context()
        self._tls_error = self._tls_wrong  # without a first context no exchange can be sent
        self.servers = tuple(
            Server(Pool(Endpoint.of(url), limits, timeouts, context), model)
            for url in version.endpoints
        )
        for server in self.servers:
            server.pool.on_failure = self._listener(server)

    def _listener(self, server: Server) -> Any:
        return lambda error: self._failed(server, error)

    def _tls_context(self) -> ssl.SSLContext | None:
        """None: the default one, or the files do not fit, which is told once for each wrong."""
        if self.version.tls is None:
            return None
        try:
            context = client_context(self.version.tls)
        except OSError as error:
            wrong = f"tls: {error}"
            if wrong != self._tls_wrong:
                self.statistics.tls_refused += 1
                log.error("%s/%s: %s", self.model.name, self.version.name, wrong)
            self._tls_wrong = wrong
            return None
        self._tls_wrong = ""
        return context

    # One exchange.

    def send(
        self, request: Request, account: Any, deadline: float, *, panic: bool
    ) -> Coroutine[Any, Any, Answer]:
        """The answer, as soon as its head has come. UpstreamError, and Refusal where there is no
        endpoint or no credential. `account.attempts` counts."""
        own = account.timeouts is not account.model.timeouts
        times = _times(account.timeouts) if own else None
        server = self._choose(None, panic=panic)
        account.attempts += 1
        if self.model.retries is None or isinstance(request.body, Upload):
            return self._attempt(server, request, deadline, times)
        return self._persist(server, request, account, deadline, times, panic=panic)

    async def _persist(
        self, server: Server, request: Request, account: Any, deadline: float,
        times: Timeouts | None, *, panic: bool,
    ) -> Answer:  # fmt: skip
        """The first attempt, and as many more as `retries` lets."""
        retries = 0
        while True:
            failure: UpstreamError | None = None
            answer: Answer | None = None
            try:
                answer = await self._attempt(server, request, deadline, times)
            except UpstreamError as error:
                failure = error
            wait = self._wait_before_retry(retries, failure, answer, deadline)
            if wait is None:
                if failure is not None:
                    raise failure
                assert answer is not None
                return answer
            if answer is not None:
                answer.abort()
            retries += 1
            self.retrying += 1
            try:
                await asyncio.sleep(wait)
            finally:
                self.retrying -= 1
            server = self._choose(server, panic=panic)
            account.attempts += 1

    async def _attempt(
        self, server: Server, request: Request, deadline: float, times: Timeouts | None
    ) -> Answer:
        if self._tls_error:
            raise UpstreamConnectFailed(self._tls_error, "tls")
        pool = server.pool
        credential = self.credential
        ours = line(credential.header, credential.value) if credential is not None else b""
        head = request.head(pool.authority, pool.base_path, ours)
        server.open += 1
        began = self.loop.time()
        try:
            answer = await pool.exchange(request.method, head, request.body, deadline, times)
        except UpstreamError as error:
            # What came over a connection is told by the pool.
            if isinstance(error, UpstreamConnectFailed) or error.phase == "connect":
                self._failed(server, error)
            raise
        finally:
            server.open -= 1
        if self.model.retries is not None:
            self.typical.note(self.loop.time() - began)
        if answer.status >= 500:
            self._count_failure(server, "status")
        elif server.ejection.failing:
            server.ejection.succeeded()
        return answer

    def _wait_before_retry(
        self, retries: int, failure: UpstreamError | None, answer: Answer | None, deadline: float
    ) -> float | None:
        policy = self.model.retries
        assert policy is not None
        after_s = 0.0
        if failure is not None:
            why = retry.cause(failure.code, failure.phase)
        else:
            assert answer is not None
            why = "503" if answer.status == 503 else None
            said = (value for name, value in answer.headers if name.lower() == b"retry-after")
            after_s = retry.retry_after_s(next(said, None))
        left = deadline - self.loop.time()
        draw = self._dice.random()
        wait = retry.wait_s(policy, why, retries + 1, left, self.typical.value, after_s, draw)
        others = self.retrying + sum(each.open for each in self.servers)
        if wait is not None and self.retrying >= retry.budget(policy, others + 1):
            self.statistics.retries_denied += 1
            return None
        self.statistics.retries += wait is not None
        return wait

    def _choose(self, avoided: Server | None, *, panic: bool) -> Server:
        if len(self.servers) == 1 and self.servers[0].health.well:
            return self.servers[0]
        now = self.loop.time()
        chosen = [server for server in self.servers if server.is_available(now)]
        if len(chosen) * 2 < len(self.servers) and panic:
            self.statistics.panics += 1
            chosen = list(self.servers)
        if not chosen:
            words = f"no endpoint of version {self.version.name!r} is healthy"
            raise Refusal("upstream_unavailable", words)
        if avoided in chosen and len(chosen) > 1:
            chosen.remove(avoided)
        draw = self._dice.getrandbits(30)
        return chosen[least_request([server.open for server in chosen], draw)]

    # Health.

    def _failed(self, server: Server, error: UpstreamError) -> None:
        if error.phase != "aborted" and not isinstance(error, UpstreamOverloaded):
            self._count_failure(server, "failure")

    def _count_failure(self, server: Server, kind: Failure) -> None:
        if not server.ejection.failed(kind):
            return
        now = self.loop.time()
        out = sum(other.ejection.is_out(now) for other in self.servers if other is not server)
        if not may_eject(len(self.servers), out, self.model.ejection["share"]):
            self.statistics.kept += 1
            return
        server.ejection.eject(now, self._dice.random())
        if kind == "status":
            self.statistics.ejected_status += 1
        else:
            self.statistics.ejected_failure += 1
        log.warning("%s of %s/%s is ejected for %.0f s", server.pool.endpoint, self.model.name,
                    self.version.name, server.ejection.until - now)  # fmt: skip

    def states(self) -> dict[str, int]:
        """How many endpoints are how."""
        now = self.loop.time()
        down = sum(not server.health.well for server in self.servers)
        available = sum(server.is_available(now) for server in self.servers)
        return {"available": available, "down": down,
                "ejected": len(self.servers) - available - down}  # fmt: skip

    def tick(self) -> None:
        """Several times a second: checks that are due, names and files that may have changed."""
        now = self.loop.time()
        if self._watched is not None and self._watched.changed():
            if (context := self._tls_context()) is not None:
                self._tls_error = ""
                for server in self.servers:
                    server.pool.use_tls(context)
            else:
                self._watched.forget()
        if self.credential is not None:
            self.credential.look()
        for server in self.servers:
            server.pool.follow_names()
            server.pool.trim()
            if self.model.health is not None and server.checking is None and now >= server.check_at:
                self._begin_check(server, now, self.model.health)

    def _begin_check(self, server: Server, now: float, health: Mapping[str, Any]) -> None:
        server.check_at = now + health["interval"] * (0.9 + 0.2 * self._dice.random())
        server.checking = self.loop.create_task(self._check(server, health))

    async def _check(self, server: Server, health: Mapping[str, Any]) -> None:
        try:
            well = await self.ask(server, health["path"], health["timeout"])
        finally:
            server.checking = None
        before = server.health.well
        server.health.note(well)
        if well and server.health.well:
            server.ejection.reprieve()
        if server.health.well != before:
            log.warning("%s of %s/%s is %s", server.pool.endpoint, self.model.name,
                        self.version.name, "well again" if well else "down")  # fmt: skip

    async def ask(self, server: Server, path: str, timeout_s: float) -> bool:
        """Whether a GET is answered with 200 in time."""
        try:
            reply = await self.hear(server, path, timeout_s)
        except UpstreamOverloaded:
            return True  # too busy to be asked is not ill
        return reply is not None and reply.status == 200

    async def hear(self, server: Server, path: str, timeout_s: float) -> Reply | None:
        """A GET's answer of at most `CHECK_BYTES_MAX`; None: there is none in time.
        UpstreamOverloaded where no connection is free."""
        headers = [(b"host", server.pool.authority)]
        try:
            if self.credential is not None:
                headers.append((self.credential.header, self.credential.value))
            deadline = self.loop.time() + timeout_s
            answer = await server.pool.send(b"GET", path.encode(), headers, b"", deadline)
            try:
                body: bytes | None = await answer.read(CHECK_BYTES_MAX)
                if body is None:
                    return None
                assert answer.head is not None
                return Reply(answer.status, answer.head.returned, body)
            finally:
                answer.abort()
        except UpstreamOverloaded:
            raise
        except (UpstreamError, Refusal):
            return None

    async def aclose(self) -> None:
        for server in self.servers:
            if server.checking is not None:
                server.checking.cancel()
        await asyncio.gather(*(server.pool.aclose() for server in self.servers))
