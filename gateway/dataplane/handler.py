"""The story of a request, from its arrival to its answer: raw ASGI, no other layer.

identify -> match -> authorise -> choose -> upstream -> journal -> answer, and then the shadow.
Whatever goes wrong on the way is a Refusal, and becomes an answer and a record here, once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gateway.clock import Clock
from gateway.dataplane import catalogue
from gateway.dataplane.access import forced_version
from gateway.dataplane.account import Account
from gateway.dataplane.backend import Stream, say_error
from gateway.dataplane.choice import choose, force, shadows
from gateway.dataplane.identity import check_rows, identify, read_context
from gateway.dataplane.live import Live
from gateway.dataplane.probes import Probes
from gateway.dataplane.refusals import Refusals
from gateway.dataplane.routing import Place, find_model, locate, locate_call, match
from gateway.dataplane.shadow import Shadow
from gateway.dataplane.stream import relay
from gateway.errors import CODES, JournalUnavailable, Refusal
from gateway.exchange import Headers, Reply
from gateway.journal.writer import Journal
from gateway.protocol import grpc, v2
from gateway.protocol.dialects import dialect_at
from gateway.protocol.tensor import Unreadable
from gateway.table import Rule
from gateway.telemetry.metrics import Metrics

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
log = logging.getLogger("headworks.dataplane")


class Handler:
    def __init__(
        self,
        journal: Journal | None,
        shadow: Shadow,
        probes: Probes,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.journal, self.shadow, self.probes = journal, shadow, probes
        self.clock, self.metrics = clock, metrics
        self.refusals = Refusals()
        self.live: Live | None = None
        self.in_flight = 0
        self.journal_full = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1")
        if (probe := await self.probes.answer(path, self.live, scope["headers"])) is not None:
            await _respond(send, probe, [])
            return
        query = scope["query_string"].decode("latin-1")
        account = Account(self.clock, scope["method"], path, query, scope["headers"])
        await self.exchange(account, receive, send)

    async def exchange(self, account: Account, receive: Receive, send: Send) -> None:
        """One request and its answer, to the last byte; whatever brought it here."""
        self.in_flight += 1
        try:
            with ExitStack() as held:
                reply = await self._answered(account, receive, held)
                if isinstance(reply, Reply):
                    reply = await self._durable(account, reply)
                    await _respond(send, reply, self._exposed(account))
                else:
                    await self._relayed(account, reply, send)
            self._copy(account)
        finally:
            self.in_flight -= 1
            self._count(account)

    async def call(self, account: Account, message: bytes) -> tuple[Reply, Headers]:
        """One unary call: the answer, to be released, and the headers that we add to it."""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": message, "more_body": False}

        self.in_flight += 1
        try:
            with ExitStack() as held:
                reply = await self._answered(account, receive, held)
                assert isinstance(reply, Reply)
                reply = await self._durable(account, reply)
            self._copy(account)
        finally:
            self.in_flight -= 1
            self._count(account)
        return reply, self._exposed(account)

    async def _answered(
        self, account: Account, receive: Receive, held: ExitStack
    ) -> Reply | Stream:
        """The story, or the refusal at which it ended. `held` is let go after the last byte."""
        try:
            return await self._story(account, receive, held)
        except Refusal as refusal:
            account.error = refusal.code
            return say_error(refusal.code, refusal.status, refusal.message, account.dialect)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            return say_error(account.error, 503, CODES[account.error][1], account.dialect)
        except Exception:
            log.exception("exchange %s failed", account.id)
            account.error = "internal_error"
            words = f"internal error; exchange {account.id}"
            return say_error(account.error, 500, words, account.dialect)

    async def _story(self, account: Account, receive: Receive, held: ExitStack) -> Reply | Stream:
        live = self._serving()  # 503
        account.revision = live.table.revision
        caller = account.caller = identify(live.table, account.first)  # 401
        place = self._locate(live, account)  # 404, 405
        if place.in_body:
            at_most = max((model.limits["request"] for model in place.models.values()), default=0)
            account.request = await _body(receive, account, at_most)  # 400, 413
        model, version = find_model(place, account.request)  # 404
        if model is None:
            return catalogue.answer(place)  # 404
        account.model = model
        account.context, dropped = read_context(account.first, caller)  # 400
        self.metrics.count("headworks_context_dropped", by=dropped)
        rule = match(model, account.path, account.first, caller)  # 404
        forced = forced_version(model, version, place.target, account.first, caller)  # 403
        for name in (forced,) if forced else rule.versions:
            held.enter_context(live.backend(model, name).used())
        if not place.in_body:
            account.request = await _body(receive, account, model.limits["request"])  # 400, 413
        elif len(account.request) > model.limits["request"]:
            words = f"more than {model.limits['request']} bytes; no more are taken"
            raise Refusal("request_too_large", words)
        self._fits(account)  # 400
        account.sequence = None if forced or not rule.intervals else _sequence(account)
        choice = (
            force(forced, rule)
            if forced
            else choose(model, rule, account.first, account.id, account.sequence)
        )
        backend = live.backend(model, choice.version)
        account.choice, account.version = choice, model.versions[choice.version]
        if model.durability == "strict_intent":
            await self._record(account, "intent")  # 503
        return await backend.call(account)  # 4xx, 5xx

    def _serving(self) -> Live:
        if self.journal is None:
            raise JournalUnavailable("the journal does not open")
        if self.live is None:
            raise Refusal("no_table", CODES["no_table"][1])
        if self.journal_full:
            raise Refusal("journal_full", CODES["journal_full"][1])
        return self.live

    def _locate(self, live: Live, account: Account) -> Place:
        if account.dialect is grpc:
            place = locate_call(live.table, account.path)
        else:
            account.dialect = dialect_at(account.path)  # in which an unknown path is refused
            place = locate(live.table, _host(account.first), account.path)
        account.dialect, account.target = place.dialect, place.path
        account.operation = place.target.operation
        method = place.dialect.METHODS.get(place.target.operation)
        if method is not None and account.method != method:
            words = f"{account.method} is not taken here; {method} is"
            raise Refusal("method_not_allowed", words)
        return place

    def _fits(self, account: Account) -> None:
        """Several context values need as many rows: a reason to look into a body here."""
        context = account.context
        if max(len(context.subjects), len(context.groups)) <= 1:
            return
        assert account.model is not None
        try:
            rows = account.dialect.count_rows(account.model.mapping, account.message())
        except Unreadable as error:
            raise Refusal("bad_body", str(error)) from None
        check_rows(context, rows)

    async def _durable(self, account: Account, reply: Reply) -> Reply:
        """The reply, once its record may be relied on; else a refusal, and the reply is gone."""
        account.take(reply)
        try:
            if self._admitted(account):
                await self._record(account, "exchange")
            return reply
        except JournalUnavailable as error:
            log.error("exchange %s withheld: %s", account.id, error)
            account.error = "journal_unavailable"
            withheld = say_error(account.error, 503, CODES[account.error][1], account.dialect)
            account.status = withheld.status
            return withheld

    def _admitted(self, account: Account) -> bool:
        """Strangers' refusals are coalesced, everything else has its record."""
        if account.error is None or (account.model is not None and account.caller is not None):
            return True
        return self.refusals.admit(account.error, self.clock.steady())

    async def _record(self, account: Account, kind: str) -> None:
        durable = account.model is None or account.model.durability != "bounded"
        if self.journal is None:
            raise JournalUnavailable("the journal does not open")
        await self.journal.append(account.header(kind), account.parts(), durable=durable)

    async def _relayed(self, account: Account, stream: Stream, send: Send) -> None:
        _, headers, answer = stream
        headers = _with_ours(headers, self._exposed(account))
        try:
            await relay(account, answer, headers, send, self._record)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            refused = say_error(account.error, 503, CODES[account.error][1], account.dialect)
            account.status = refused.status
            await _respond(send, refused, self._exposed(account))

    def _exposed(self, account: Account) -> Headers:
        model = account.model
        expose = model.expose if model is not None else frozenset(("id",))
        shown: Headers = []
        if "id" in expose:
            shown.append((b"x-headworks-id", account.id.encode()))
        if "version" in expose and account.version is not None:
            shown.append((b"x-headworks-version", account.version.name.encode()))
        if "arm" in expose and account.choice is not None:
            shown.append((b"x-headworks-arm", account.choice.arm.encode()))
        if "revision" in expose and account.revision is not None:
            shown.append((b"x-headworks-revision", account.revision.encode()))
        if (request_id := account.first.get(b"x-request-id")) is not None:
            shown.append((b"x-request-id", request_id))
        return shown

    def _count(self, account: Account) -> None:
        if account.error is not None:
            self.metrics.count("headworks_refusals", account.error)
        if account.model is None or account.version is None or account.choice is None:
            return
        if not account.status:  # cancelled by the end of the process: no answer was given
            return
        model, version = account.model.name, account.version.name
        arm, status = account.choice.arm, str(account.status)
        self.metrics.count("headworks_exchanges", model, version, arm, status)
        seconds = (self.clock.steady() - account.arrived_ns) / 1e9
        self.metrics.observe("headworks_exchange_seconds", seconds, model, version)

    def _copy(self, account: Account) -> None:
        """After the answer has left: offer the request to the rule's shadows."""
        choice, model, live = account.choice, account.model, self.live
        if choice is None or model is None or live is None:
            return
        if account.operation not in account.dialect.INFERENCES:
            return
        if choice.arm == "forced" or account.error in ("bad_body", "bad_tensor"):
            return
        rule = next((rule for rule in model.rules if rule.name == choice.rule), None)
        if rule is not None and live.table.models.get(model.name) is model:
            self._offer(account, live, rule)

    def _offer(self, account: Account, live: Live, rule: Rule) -> None:
        assert account.model is not None
        assert account.choice is not None
        drawn = account.sequence or account.id
        for version in shadows(rule, account.choice.version, drawn):
            self.shadow.offer(account, live.shadow(account.model, version))


def _host(first: dict[bytes, bytes]) -> str:
    """The host header without its port, in lower case."""
    return first.get(b"host", b"").decode("latin-1").lower().rsplit(":", 1)[0]


def _sequence(account: Account) -> str | None:
    """The sequence that a request belongs to, where its parameters can be read."""
    assert account.model is not None
    if account.dialect is not v2 or len(account.request) > account.model.limits["hold"]:
        return None
    return v2.sequence_of(account.request, account.first.get(v2.INFERENCE_HEADER))


async def _body(receive: Receive, account: Account, at_most: int) -> bytes:
    """The whole body; refused as soon as it is known to be longer than `at_most`."""
    stated = account.first.get(b"content-length")
    if stated is not None and int(stated) > at_most:
        words = f"content-length {int(stated)}; at most {at_most} bytes are taken"
        raise Refusal("request_too_large", words)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal("client_gone", CODES["client_gone"][1])
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > at_most:
            raise Refusal("request_too_large", f"more than {at_most} bytes; no more are taken")
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _with_ours(headers: Headers, ours: Headers) -> Headers:
    """The caller's own x-request-id takes the place of an upstream's; else that one passes."""
    echoed = any(name == b"x-request-id" for name, _ in ours)
    return [item for item in headers if not echoed or item[0].lower() != b"x-request-id"] + ours


async def _respond(send: Send, reply: Reply, ours: Headers) -> None:
    headers = _with_ours(reply.headers, ours)
    if reply.status in (204, 304):  # what the length says is not here; the server would wait for it
        headers = [item for item in headers if item[0].lower() != b"content-length"]
    elif not any(name.lower() == b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % len(reply.body)))
    if not any(name.lower() == b"date" for name, _ in headers):
        headers.append((b"date", _date(int(time.time()))))  # noqa: TID251 - HTTP wants the wall
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


@lru_cache(maxsize=2)
def _date(seconds: int) -> bytes:
    """RFC 9110, 5.6.7; an upstream's own date is passed as it came."""
    return formatdate(seconds, usegmt=True).encode()
