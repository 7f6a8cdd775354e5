"""The upstream hop: a pool of HTTP/1.1 connections to one endpoint.

Invariants kept here:

* **A connection has one owner**: the idle list, or one exchange, or one waiter to whom it has been
  given. `stats.in_flight` counts the slots that exchanges hold, connecting ones included;
  `in_flight + idle <= limits.connections` always. All of them are kept after a burst, for
  `keep_idle_s`: were fewer kept, a steady load of many at once would connect anew all the time.
* **First come, first served.** A slot that becomes free goes to the oldest waiter; nobody waits
  while a slot is free.
* **Nothing is retried.** An error says how far the exchange came; the caller decides.

The tree of errors is in `failures`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gateway.dataplane.connection import Answer, Connection, Pieces
from gateway.dataplane.failures import (
    UpstreamConnectFailed,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.request import request_head

FOLLOW_AGAIN_S: Final = 1.0  # after a look-up that failed
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an upstream listens. `base_path` is "" or "/prefix" and precedes each target."""

    scheme: str
    host: str
    port: int
    base_path: str

    @staticmethod
    def of(url: str) -> Endpoint:
        """Raises ValueError, with the URL in it, for what is not a plain http(s) base URL."""
        if "@" in url:
            raise ValueError("upstream URL with a user or password (not shown): use a header")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"upstream {url!r}: only printable ASCII without spaces")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"upstream {url!r}: {error}") from error
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
            raise ValueError(f"upstream {url!r}: expected http(s)://host[:port][/prefix]")
        if "?" in url or "#" in url:
            raise ValueError(f"upstream {url!r}: a query or fragment has no meaning here")
        port = port or DEFAULT_PORTS[parts.scheme]
        return Endpoint(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of the host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base_path}"


@dataclass(slots=True)
class PoolStats:
    """Counters since the start, and `in_flight`: the slots that exchanges hold now.

    `closed_dirty`: closed in the midst of an exchange, or for bytes out of turn.
    """

    opened: int = 0
    reused: int = 0
    retired: int = 0
    closed_dirty: int = 0
    timeouts: int = 0
    overloaded: int = 0
    in_flight: int = 0


class Pool:
    """Connections to one endpoint. Made and used in one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        limits: PoolLimits,
        timeouts: Timeouts,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` is for https only; the default verifies with the system's authorities."""
        self.endpoint = endpoint
        self.authority = endpoint.authority.encode()
        self.on_failure: Callable[[UpstreamError], None] | None = None
        self.stats = PoolStats()
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._timeouts = timeouts
        self._tls = (tls or ssl.create_default_context()) if endpoint.scheme == "https" else None
        self.base_path = endpoint.base_path.encode()
        self._idle: list[Connection] = []  # the last one used is the first one taken
        self._pending: deque[asyncio.Future[Connection | None]] = deque()
        self._open: set[Connection] = set()
        self._all_lost: asyncio.Future[None] | None = None
        self._closed = False
        self._addresses: list[str] = []
        self._resolve_after = 0.0
        self._resolving = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._follow_after = 0.0

    async def send(
        self,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes | Pieces,
        deadline: float | None = None,
        times: Timeouts | None = None,
    ) -> Answer:
        """Send one request and return its answer as soon as the head has come.

        `target` is in origin form and follows the endpoint's base path. `deadline` (loop.time())
        bounds everything up to the body's last byte, unless the answer is given another one; None
        means `timeouts.request_s` from now. `times`: of this exchange, in place of the pool's.
        Raises UpstreamError, and ValueError for a request that must not be written. Whoever
        stops reading before the end calls `abort` or `aclose` on the answer.
        """
        if target[:1] == b"/":
            target = self.base_path + target
        length = len(body) if isinstance(body, bytes) else body.length
        head = request_head(method, target, headers, length)
        if deadline is None:
            deadline = self._loop.time() + self._timeouts.request_s
        return await self.exchange(method, head, body, deadline, times)

    async def exchange(
        self,
        method: bytes,
        head: bytes,
        body: bytes | Pieces,
        deadline: float,
        times: Timeouts | None,
    ) -> Answer:
        """`send`, of a head that is written as it is."""
        now = self._loop.time()
        if deadline <= now:
            self.stats.timeouts += 1
            raise UpstreamTimeout("the deadline had passed before it was sent", "request")
        connection = self._take_idle(now) or await self._obtain(deadline)
        connection.timeouts = times or self._timeouts
        answer = connection.begin(head, body, bodiless=method == b"HEAD", deadline=deadline)
        try:
            while answer.head is None and answer.failure is None:
                await answer.change()
        except asyncio.CancelledError:
            answer.abort()
            raise
        if answer.failure is not None:
            raise answer.failure
        return answer

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Connections made from now on use it; those that are open go on, once."""
        self._tls = context
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def follow_names(self) -> None:
        """Look the host up again if that is due; to be called now and then.

        Connections to addresses that are its no more are not used again.
        """
        now = self._loop.time()
        due = self._addresses and now >= max(self._resolve_after, self._follow_after)
        if due and not self._closed and self._following is None:
            self._follow_after = now + FOLLOW_AGAIN_S
            self._following = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            await self._resolve()
        finally:
            self._following = None

    def trim(self) -> None:
        """Close what nobody has used for long; to be called now and then."""
        until = self._loop.time() - self._limits.keep_idle_s
        stale = 0  # the one used last is at the end
        while stale < len(self._idle) and self._idle[stale].idle_since <= until:
            self._idle[stale].close()
            stale += 1
        del self._idle[:stale]

    async def aclose(self) -> None:
        """Close everything at once; running exchanges fail as aborted. Returns when it is done."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
        for waiter in self._pending:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        self._pending.clear()
        for connection in list(self._open):
            connection.abandon()
        if self._open:
            self._all_lost = self._all_lost or self._loop.create_future()
            await asyncio.shield(self._all_lost)

    def __repr__(self) -> str:
        return (
            f"<Pool {self.endpoint} [{self.stats.in_flight} busy, {len(self._idle)} idle, "
            f"{len(self._pending)} pending]>"
        )

    # Slots and waiters.

    def _take_idle(self, now: float) -> Connection | None:
        """The connection used last, if nothing speaks against it; takes a slot with it."""
        while self._idle:
            connection = self._idle.pop()
            if self._is_fresh(connection, now) and connection.is_quiet():
                self.stats.in_flight += 1
                self.stats.reused += 1
                return connection
            connection.close()
        return None

    async def _obtain(self, deadline: float) -> Connection:
        """A connection with a slot: a new one, or after waiting one's turn whatever comes."""
        if self._closed:
            raise self._closed_error()
        connection = None
        if self.stats.in_flight + len(self._idle) < self._limits.connections:
            self.stats.in_flight += 1
        else:
            connection = await self._wait_turn(deadline)
        if connection is not None:
            if connection.is_quiet():
                self.stats.reused += 1
                return connection
            # Closed while it was handed over. Nothing was sent, so the turn is not lost.
            connection.close()
        return await self._connect_or_vacate(deadline)

    async def _wait_turn(self, deadline: float) -> Connection | None:
        """A slot, with a connection or without one."""
        if len(self._pending) >= self._limits.pending:
            self.stats.overloaded += 1
            raise UpstreamOverloaded(f"{len(self._pending)} requests wait already", "pending")
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._pending.append(waiter)
        timer = self._loop.call_at(deadline, self._expire, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._pending:
                self._pending.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())
            raise
        finally:
            timer.cancel()

    def _expire(self, waiter: asyncio.Future[Connection | None]) -> None:
        if waiter in self._pending:
            self._pending.remove(waiter)
            self.stats.timeouts += 1
            waiter.set_exception(UpstreamTimeout("no connection became free", "request"))

    def _give_back(self, connection: Connection | None) -> None:
        """Pass a slot on: to the oldest waiter, or to nobody; the connection goes with it."""
        if connection is not None and not (
            connection.usable and not self._closed and self._is_fresh(connection, self._loop.time())
        ):
            connection.close()
            connection = None
        while self._pending:
            waiter = self._pending.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self.stats.in_flight -= 1
        if connection is None:
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def _is_fresh(self, connection: Connection, now: float) -> bool:
        young = now - connection.opened_at < self._limits.retire_after_s
        if young and connection.address in self._addresses:
            return True
        self.stats.retired += 1
        return False

    # What connections report.

    def _exchange_ended(self, connection: Connection, error: UpstreamError | None) -> None:
        if error is not None:
            if self.on_failure is not None:
                self.on_failure(error)
            self.stats.closed_dirty += 1
            self.stats.timeouts += isinstance(error, UpstreamTimeout)
        self._give_back(connection)

    def _connection_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self.stats.closed_dirty += isinstance(connection.failure, UpstreamProtocolError)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._all_lost is not None and not self._open and not self._all_lost.done():
            self._all_lost.set_result(None)

    # Connecting.

    async def _connect_or_vacate(self, deadline: float) -> Connection:
        try:
            connection = await self._connect(deadline)
        except BaseException as error:
            self.stats.timeouts += isinstance(error, UpstreamTimeout)
            self._give_back(None)
            raise
        return connection

    async def _connect(self, deadline: float) -> Connection:
        """Resolve, then try each address with an equal share of the time that is left."""
        limit = self._loop.time() + self._timeouts.connect_s
        phase = "connect" if limit < deadline else "request"
        limit = min(limit, deadline)
        try:
            async with asyncio.timeout_at(limit):
                addresses = await self._resolve()
        except TimeoutError as error:
            raise UpstreamTimeout(f"{self.endpoint.host} not resolved in time", phase) from error
        failure: Exception | None = None
        for position, address in enumerate(addresses):
            now = self._loop.time()
            share = now + (limit - now) / (len(addresses) - position)
            try:
                async with asyncio.timeout_at(share):
                    connection = await self._connect_to(address)
            except OSError as error:  # TimeoutError and ssl.SSLError are among them
                failure = error
            else:
                return self._checked(connection)
        self._resolve_after = 0.0
        if isinstance(failure, TimeoutError) and failure.errno is None:  # ours, not the kernel's
            raise UpstreamTimeout(f"{self.endpoint} not connected in time", phase) from failure
        phase = "tls" if isinstance(failure, ssl.SSLError) else "connect"
        raise UpstreamConnectFailed(f"{self.endpoint}: {failure}", phase) from failure

    async def _connect_to(self, address: str) -> Connection:
        _, connection = await self._loop.create_connection(
            lambda: Connection(
                self._limits, self._timeouts, self._exchange_ended, self._connection_lost
            ),
            address,
            self.endpoint.port,
            ssl=self._tls,
            server_hostname=self.endpoint.host if self._tls else None,
        )
        connection.address = address
        self.stats.opened += 1
        if not connection.is_lost:
            self._open.add(connection)
        return connection

    def _checked(self, connection: Connection) -> Connection:
        """Refuses one that speaks or closes before it was asked, and any when we are closed.

        What waits under TLS may be session tickets, so only plain sockets are looked into.
        """
        if self._closed:
            connection.close()
            raise self._closed_error()
        quiet = connection.usable if self._tls else connection.is_quiet()
        if not quiet:
            connection.close()
            raise connection.failure or UpstreamReset("closed before the request", "head")
        return connection

    async def _resolve(self) -> list[str]:
        """Addresses of the host, asked for once for all who wait.

        While the resolver fails, the addresses of before are better than none.
        """
        async with self._resolving:
            if self._loop.time() < self._resolve_after:
                return self._addresses
            try:
                found = await self._loop.getaddrinfo(
                    self.endpoint.host, self.endpoint.port, type=socket.SOCK_STREAM
                )
            except (OSError, UnicodeError) as error:
                if not self._addresses:
                    detail = f"{self.endpoint.host}: {error}"
                    raise UpstreamConnectFailed(detail, "resolve") from error
            else:
                self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
                self._resolve_after = self._loop.time() + self._limits.resolve_every_s
            return self._addresses

    def _closed_error(self) -> UpstreamError:
        return UpstreamConnectFailed("the pool is closed", "closed")
