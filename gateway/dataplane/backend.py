"""One version as this worker reaches it: a session in the process, or a pool to its upstream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway.dataplane.account import Account
from gateway.dataplane.headers import to_client, to_upstream
from gateway.dataplane.inprocess import RUNTIME, Session
from gateway.dataplane.local import answer as answer_local
from gateway.dataplane.upstream import (
    Answer,
    Endpoint,
    Pool,
    PoolLimits,
    Timeouts,
    UpstreamError,
)
from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Headers, Reply
from gateway.protocol import grpc, v2
from gateway.protocol.dialect import Dialect
from gateway.protocol.sse import is_event_stream
from gateway.table import Model, Version

if TYPE_CHECKING:  # gRPC is an extra
    from gateway.dataplane.grpc_upstream import Channel

Stream = tuple[int, Headers, Answer]


class Backend:
    """Counts its open exchanges and refuses above `limit`."""

    def __init__(
        self, model: Model, version: Version, session: Session | None, workers: int
    ) -> None:
        self.model, self.version, self.session = model, version, session
        self.in_flight = 0
        self.users = 0
        self.limit = max(1, model.limits["in_flight"] // workers)
        self._endpoint = Endpoint.of(version.upstream) if version.upstream is not None else None
        self._pool: Pool | None = None
        self._channel: Channel | None = None
        self._limits = PoolLimits(
            connections=max(1, model.limits["connections"] // workers),
            pending=-(-model.limits["pending"] // workers),  # 0 stays 0
        )
        times = model.timeouts
        self._timeouts = Timeouts(
            times["connect"], times["first_byte"], times["idle"], times["request"]
        )

    @property
    def pool(self) -> Pool | None:
        """None: in the process. Made at its first use: a pool belongs to the event loop, but a
        backend is made in a thread when a table is swapped."""
        if self._pool is None and self._endpoint is not None:
            self._pool = Pool(self._endpoint, self._limits, self._timeouts)
        return self._pool

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keeps the backend from being closed by a reload: from the choice to the last byte."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def call(self, account: Account, traffic: bytes | None = None) -> Reply | Stream:
        """The version's answer, whole, or a stream where it is longer than `limits.hold`."""
        if self.in_flight >= self.limit:
            words = f"{self.in_flight} exchanges of version {self.version.name!r} are open already"
            raise Refusal("overloaded", words)
        self.in_flight += 1
        account.attempts += 1
        started = time.perf_counter_ns()
        try:
            pool = self.pool
            if pool is None:
                return await self._run(account)
            if account.dialect is grpc:
                return await self._call(account, traffic)
            return await self._forward(pool, account, traffic)
        finally:
            account.upstream_ns = time.perf_counter_ns() - started
            self.in_flight -= 1

    async def _run(self, account: Account) -> Reply:
        assert self.session is not None
        account.runtime = RUNTIME
        return await answer_local(self.session, self.model, account)

    async def _call(self, account: Account, traffic: bytes | None) -> Reply:
        """By gRPC, where the version has such a port."""
        if self.version.grpc is None:
            words = f"version {self.version.name!r} has no `grpc` address"
            raise Refusal("unknown_path", words)
        timeout = self.model.timeouts["request"]
        if traffic is not None:
            timeout = min(2 * timeout, self.model.shadow["timeout"])
        elif account.patience_s is not None:
            timeout = min(timeout, account.patience_s)
        message = account.request
        if account.operation is not None and grpc.names_model(account.operation):
            message = grpc.without_version(message)
        headers = to_upstream(
            account.headers,
            account.first,
            host=b"",
            exchange=account.id,
            trace=account.trace,
            traffic=traffic,
            own_authorization=account.caller is not ANONYMOUS,
        )
        code, reply = await self._reached_by_call(self.version.grpc).call(
            account.path, message, headers, timeout
        )
        if code:
            account.extra["grpc_status"] = code
        return reply

    def _reached_by_call(self, address: str) -> Channel:
        from gateway.dataplane.grpc_upstream import Channel

        if self._channel is None:
            self._channel = Channel(address)
        return self._channel

    async def _forward(self, pool: Pool, account: Account, traffic: bytes | None) -> Reply | Stream:
        headers = to_upstream(
            account.headers,
            account.first,
            host=pool.endpoint.authority.encode(),
            exchange=account.id,
            trace=account.trace,
            traffic=traffic,
            own_authorization=account.caller is not ANONYMOUS,
        )
        target = account.target
        if account.query:
            target += "?" + account.query
        timeout = self.model.timeouts["request"]
        if traffic is not None:
            timeout = min(2 * timeout, self.model.shadow["timeout"])
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            answer = await pool.send(
                account.method.encode(),
                target.encode("latin-1"),
                headers,
                account.request,
                deadline,
            )
            if is_event_stream(answer.headers):
                return answer.status, to_client(answer.headers), answer
            body = await answer.read(self.model.limits["hold"])
        except UpstreamError as error:
            raise Refusal(error.code, f"{self.version.name}: {error}") from None
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from None
        if body is None:
            return answer.status, to_client(answer.headers), answer
        return Reply(answer.status, to_client(answer.headers), body)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        if self._channel is not None:
            await self._channel.aclose()


def say_error(code: str, status: int, message: str, dialect: Dialect = v2) -> Reply:
    """Our own answer, in the caller's dialect."""
    headers: Headers = [
        (b"content-type", dialect.ERROR_TYPE), (b"x-headworks-error", code.encode())
    ]  # fmt: skip
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return Reply(status, headers, dialect.error_body(code, status, message))
