"""One version as this worker reaches it: a session in the process, or a pool to its upstream."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack

from gateway.dataplane.account import Account
from gateway.dataplane.headers import to_client, to_upstream
from gateway.dataplane.inprocess import RUNTIME, Session
from gateway.dataplane.limits import divided, retry_after
from gateway.dataplane.remote import Remote, Request
from gateway.dataplane.stream import STREAM_AFTER_S, is_stream
from gateway.dataplane.upstream import Answer, PoolLimits, UpstreamError
from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Headers, Reply
from gateway.protocol import v2
from gateway.table import Model, Version

Stream = tuple[int, Headers, Answer]
JSON: Headers = [(b"content-type", v2.ERROR_TYPE)]


class Backend:
    """Counts its open exchanges, streams to their last byte, and refuses above `limit`."""

    def __init__(
        self, model: Model, version: Version, session: Session | None, workers: int, body_s: float
    ) -> None:
        """`body_s`: how long a client may take for a body that passes by."""
        self.model, self.version, self.session = model, version, session
        self.in_flight = 0
        self.users = 0
        self.limit = divided(model.limits["in_flight"], workers)
        self._body_s = body_s
        self._remote: Remote | None = None
        self._limits = PoolLimits(
            connections=divided(model.limits["connections"], workers),
            pending=divided(model.limits["pending"], workers),
        )

    @property
    def remote(self) -> Remote | None:
        """None: in the process. Made at its first use: a pool belongs to the event loop, but a
        backend is made in a thread when a table is swapped."""
        if self._remote is None and self.version.endpoints:
            dice = random.Random()
            self._remote = Remote(self.model, self.version, self._limits, dice)
        return self._remote

    def tick(self) -> None:
        """Several times a second, in the event loop."""
        remote = self.remote if self.model.health is not None else self._remote
        if remote is not None:
            remote.tick()

    def use(self, held: ExitStack) -> None:
        """Keeps the backend from being closed by a reload: from the choice until `held` is closed,
        after the last byte."""
        self.users += 1
        held.callback(self._let_go)

    def _let_go(self) -> None:
        self.users -= 1

    async def call(
        self, account: Account, traffic: bytes | None = None, held: ExitStack | None = None
    ) -> Reply | Stream:
        """The version's answer, whole, or a stream, whose end is when `held` is closed."""
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
            outcome = await self._forward(remote, account, traffic)
            if held is not None and not isinstance(outcome, Reply):
                open_still = True
                held.callback(self._stream_ended)
            return outcome
        finally:
            account.upstream_ns = time.perf_counter_ns() - started
            self.in_flight -= not open_still

    def _stream_ended(self) -> None:
        self.in_flight -= 1

    async def _run(self, account: Account) -> Reply:
        assert self.session is not None
        account.runtime = RUNTIME
        if account.operation == "ready":
            body = b'{"name":"%b","ready":true}' % self.model.name.encode()
            return Reply(200, JSON, body)
        if account.operation == "metadata":
            import orjson

            return Reply(200, JSON, orjson.dumps(self.session.metadata()))
        if account.operation != "infer":
            raise Refusal("unknown_path", f"{account.operation!r} is not served in-process")
        if encoding := account.first.get(b"content-encoding"):
            words = f"content-encoding {encoding.decode('latin-1')!r} is not read in-process"
            raise Refusal("bad_body", words)
        try:
            request = v2.read_request(account.request, account.first.get(v2.INFERENCE_HEADER))
        except v2.Unreadable as error:
            raise Refusal("bad_body", str(error)) from None
        say = "version" in self.model.expose
        if self.session.slow(request.rows):
            run = self.session.run
            return Reply(
                200, JSON, await asyncio.to_thread(run, request, request.id, say_version=say)
            )
        return Reply(200, JSON, self.session.run(request, request.id, say_version=say))

    async def _forward(
        self, remote: Remote, account: Account, traffic: bytes | None
    ) -> Reply | Stream:
        headers = to_upstream(
            account.headers,
            account.first,
            exchange=account.id,
            trace=account.trace,
            traffic=traffic,
            own_authorization=account.caller is not ANONYMOUS,
            credential=remote.credential.header if remote.credential is not None else None,
        )
        target = v2.without_version(account.path) if "/versions/" in account.path else account.path
        if account.query:
            target += "?" + account.query
        sent = account.upload or account.request
        request = Request(account.method.encode(), target.encode("latin-1"), headers, sent)
        panic = account.choice is None or account.choice.arm != "canary"
        now = asyncio.get_running_loop().time()
        deadline = self._deadline(account, now, traffic)
        body = None
        try:
            answer = await remote.send(request, account, deadline, panic=panic)
            if traffic is not None or not is_stream(answer.headers):
                patience = STREAM_AFTER_S if traffic is None else None
                body = await answer.read(self.model.limits["hold"], patience)
        except UpstreamError as error:
            if account.upload is not None and account.upload.failure is not None:
                raise account.upload.failure from None
            raise Refusal(error.code, f"{self.version.name}: {error}") from None
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from None
        if body is None:
            answer.extend(now + self.model.timeouts["stream"])
            return answer.status, to_client(answer.headers), answer
        return Reply(answer.status, to_client(answer.headers), body)

    def _deadline(self, account: Account, now: float, traffic: bytes | None) -> float:
        """loop.time() of the exchange's end, whoever is asked and however often."""
        timeout = self.model.timeouts["request"]
        if traffic is not None:
            timeout = min(2 * timeout, self.model.shadow["timeout"])
        if account.deadline is None:
            account.deadline = now + timeout + (self._body_s if account.upload else 0)
        return account.deadline

    async def aclose(self) -> None:
        if self._remote is not None:
            await self._remote.aclose()


def say_error(code: str, status: int, message: str, draw: int = 0) -> Reply:
    """Our own answer, in the protocol's dialect; `draw` spreads when refused clients come back."""
    headers: Headers = [(b"content-type", v2.ERROR_TYPE), (b"x-headworks-error", code.encode())]
    if status == 503:
        headers.append((b"retry-after", retry_after(draw)))
    return Reply(status, headers, v2.error_body(message))
