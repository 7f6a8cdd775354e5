"""One version as this worker reaches it: a session in the process, or a pool to its upstream."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from gateway.dataplane.account import Account
from gateway.dataplane.connection import Answer
from gateway.dataplane.failures import UpstreamError
from gateway.dataplane.headers import left_out, to_upstream
from gateway.dataplane.inprocess import RUNTIME, Session
from gateway.dataplane.limits import PoolLimits, divided, retry_after
from gateway.dataplane.local import answer as answer_local
from gateway.dataplane.remote import Remote
from gateway.dataplane.request import Request, upstream_fields
from gateway.dataplane.stream import STREAM_AFTER_S
from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Headers, Reply
from gateway.protocol import grpc, v2
from gateway.protocol.dialect import Dialect
from gateway.table import Model, Version

if TYPE_CHECKING:  # gRPC is an extra
    from gateway.dataplane.grpc_upstream import Channel

Stream = tuple[int, Headers, Answer]
Traffic = Literal["live", "shadow"]


class Backend:
    """Counts its open exchanges, streams to their last byte, and refuses above `limit`."""

    def __init__(
        self, model: Model, version: Version, session: Session | None, workers: int, body_s: float,
        traffic: Traffic = "live",
    ) -> None:  # fmt: skip
        """`body_s`: how long a client may take for a body that passes by. A shadow's copies are
        never sent again, and have as many connections as may be under way at once."""
        self.model, self.version, self.session = model, version, session
        self.in_flight = 0
        self.users = 0
        self.limit = divided(model.limits["in_flight"], workers)
        self._body_s = body_s
        self._remote: Remote | None = None
        self._channel: Channel | None = None
        shadow = traffic == "shadow"
        self._reached_as = replace(model, retries=None) if shadow else model
        most = model.shadow["concurrency"] if shadow else model.limits["connections"]
        self._limits = PoolLimits(
            connections=divided(most, workers),
            pending=divided(model.limits["pending"], workers),
        )

    @property
    def deterministic(self) -> bool:
        """Whether the same input always has the same answer: only a graph in the process may."""
        return self.session is not None and self.session.deterministic

    @property
    def remote(self) -> Remote | None:
        """None: in the process. Made at its first use: a pool belongs to the event loop, but a
        backend is made in a thread when a table is swapped."""
        if self._remote is None and self.version.endpoints:
            dice = random.Random()
            self._remote = Remote(self._reached_as, self.version, self._limits, dice)
        return self._remote

    def tick(self) -> None:
        """Several times a second, in the event loop."""
        if self.session is not None and self.session.inline is not None:
            self.session.inline.tick(time.perf_counter_ns())
        remote = self.remote if self.model.health is not None else self._remote
        if remote is not None:
            remote.tick()

    def use(self, account: Account) -> None:
        """Keeps the backend from being closed by a reload: from the choice until the account lets
        go of it, after the last byte."""
        self.users += 1
        account.used.append(self)

    async def call(self, account: Account, traffic: bytes | None = None) -> Reply | Stream:
        """The version's answer, whole, or a stream, which is open until the account lets go."""
        if self.in_flight >= self.limit:
            words = f"{self.in_flight} exchanges of version {self.version.name!r} are open already"
            raise Refusal("overloaded", words)
        self.in_flight += 1
        open_still = False
        started = time.perf_counter_ns()
        try:
            remote = self.remote
            if remote is None:
                account.attempts += 1
                return await self._run(account)
            if account.dialect is grpc:
                return await self._call(remote, account, traffic)
            outcome = await self._forward(remote, account, traffic)
            if traffic is None and not isinstance(outcome, Reply):
                open_still = True
                account.streamed.append(self)
            return outcome
        finally:
            account.upstream_ns = time.perf_counter_ns() - started
            self.in_flight -= not open_still

    async def _run(self, account: Account) -> Reply:
        assert self.session is not None
        account.runtime = RUNTIME
        return await answer_local(self.session, self.model, account)

    async def _call(self, remote: Remote, account: Account, traffic: bytes | None) -> Reply:
        """By gRPC, where the version has such a port."""
        if self.version.grpc is None:
            words = f"version {self.version.name!r} has no `grpc` address"
            raise Refusal("unknown_path", words)
        message = account.request
        if account.operation is not None and grpc.names_model(account.operation):
            message = grpc.without_version(message)
        less = self._left_out(remote, account, traffic)
        headers = to_upstream(
            account.headers, less, exchange=account.id, trace=account.trace, traffic=traffic
        )
        if remote.credential is not None:
            headers.append((remote.credential.header, remote.credential.value))
        now = asyncio.get_running_loop().time()
        timeout = self._deadline(account, now, traffic) - now
        account.attempts += 1
        code, reply = await self._reached_by_call(self.version.grpc).call(
            account.path, message, headers, timeout
        )
        if code:
            account.extra["grpc_status"] = code
        return reply

    def _left_out(
        self, remote: Remote, account: Account, traffic: bytes | None
    ) -> frozenset[bytes]:
        return left_out(
            account.headers,
            account.first,
            traffic=traffic,
            own_authorization=account.caller is not ANONYMOUS,
            credential=remote.credential.header if remote.credential is not None else None,
            redacted=self.model.dropped,
        )

    def _reached_by_call(self, address: str) -> Channel:
        from gateway.dataplane.grpc_upstream import Channel

        if self._channel is None:
            self._channel = Channel(address)
        return self._channel

    async def _forward(
        self, remote: Remote, account: Account, traffic: bytes | None
    ) -> Reply | Stream:
        now = remote.loop.time()
        deadline = self._deadline(account, now, traffic)
        panic = account.choice is None or account.choice.arm != "canary"
        try:
            request = self._request(remote, account, traffic)
            answer = await remote.send(request, account, deadline, panic=panic)
            head = answer.head
            assert head is not None
            hold, body = account.limits["hold"], None
            if traffic is not None or not head.streams:
                body = answer.whole(hold)
                if body is None:
                    patience = STREAM_AFTER_S if traffic is None else None
                    body = await answer.read(hold, patience)
        except UpstreamError as error:
            if account.upload is not None and account.upload.failure is not None:
                raise account.upload.failure from None
            raise Refusal(error.code, f"{self.version.name}: {error}") from None
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from None
        if body is None:
            answer.extend(now + account.timeouts["stream"])
            return head.status, head.returned, answer
        return Reply(head.status, head.returned, body)

    def _request(self, remote: Remote, account: Account, traffic: bytes | None) -> Request:
        """ValueError for what must not be sent."""
        less = self._left_out(remote, account, traffic)
        fields = upstream_fields(account.headers, less, account.id, account.trace, traffic)
        target = account.target
        if account.query:
            target += "?" + account.query
        sent = account.upload or account.request
        return Request(account.method.encode(), target.encode("latin-1"), fields, sent)

    def _deadline(self, account: Account, now: float, traffic: bytes | None) -> float:
        """loop.time() of the exchange's end, whoever is asked and however often."""
        timeout = account.timeouts["request"]
        if traffic is not None:
            timeout = min(2 * timeout, self.model.shadow["timeout"])
        elif account.patience_s is not None:
            timeout = min(timeout, account.patience_s)
        if account.deadline is None:
            account.deadline = now + timeout + (self._body_s if account.upload else 0)
        return account.deadline

    async def aclose(self) -> None:
        if self._remote is not None:
            await self._remote.aclose()
        if self._channel is not None:
            await self._channel.aclose()


def say_error(code: str, status: int, message: str, dialect: Dialect = v2, draw: int = 0) -> Reply:
    """Our own answer, in the caller's dialect; `draw` spreads when refused clients come back."""
    headers: Headers = [
        (b"content-type", dialect.ERROR_TYPE), (b"x-headworks-error", code.encode())
    ]  # fmt: skip
    if status == 503:
        headers.append((b"retry-after", retry_after(draw)))
    return Reply(status, headers, dialect.error_body(code, status, message))
