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
from gateway.dataplane.access import forced_version
from gateway.dataplane.account import Account
from gateway.dataplane.backend import Backend, Stream, say_error
from gateway.dataplane.choice import choose, force, shadows
from gateway.dataplane.departure import Departure
from gateway.dataplane.fallback import is_failure, stand_in
from gateway.dataplane.identity import check_rows, identify, read_context
from gateway.dataplane.limits import Load
from gateway.dataplane.live import Live
from gateway.dataplane.probes import Probes
from gateway.dataplane.refusals import Refusals
from gateway.dataplane.routing import find_model, match
from gateway.dataplane.shadow import Shadow
from gateway.dataplane.stream import relay
from gateway.dataplane.turn import Turn
from gateway.dataplane.upload import Upload, take_body
from gateway.errors import CODES, JournalUnavailable, Refusal
from gateway.exchange import Headers, Reply
from gateway.journal.writer import Journal
from gateway.protocol import v2
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
        load: Load,
    ) -> None:
        self.journal, self.shadow, self.probes = journal, shadow, probes
        self.clock, self.metrics = clock, metrics
        self.refusals = Refusals()
        self.live: Live | None = None
        self.load = load
        self.open: set[Departure] = set()
        self.journal_full = False
        self.frugal = False  # the disk has little room: bodies without a decision are not kept

    @property
    def in_flight(self) -> int:
        """Exchanges that are open, streams to their last byte."""
        return self.load.in_flight

    def cut(self) -> None:
        """The process ends: whatever is open ends now, and is recorded as it is."""
        for departure in list(self.open):
            departure.end("draining")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1")
        if (probe := await self.probes.answer(path, self.live)) is not None:
            await _respond(send, probe, [])
            return
        query = scope["query_string"].decode("latin-1")
        account = Account(self.clock, scope["method"], path, query, scope["headers"])
        account.frugal = self.frugal
        turn: Turn = scope["turn"]
        departure = Departure()
        turn.on_gone = departure.leave
        self.load.in_flight += 1
        self.open.add(departure)
        try:
            with ExitStack() as held:
                reply = await self._answered(account, receive, held, departure)
                if isinstance(reply, Reply):
                    account.note_departure(departure.left, 0)
                    reply = await self._durable(account, reply)
                    await _respond(send, reply, self._exposed(account))
                elif not await self._relayed(account, reply, send, departure):
                    turn.cut()
            self._copy(account)
        finally:
            self.open.discard(departure)
            self.load.in_flight -= 1
            self._count(account)

    async def _answered(
        self, account: Account, receive: Receive, held: ExitStack, departure: Departure
    ) -> Reply | Stream:
        """The story, or the refusal at which it ended. `held` is let go after the last byte."""
        try:
            with departure:
                return await self._story(account, receive, held, departure)
        except Refusal as refusal:
            account.error = refusal.code
            draw = int(account.id[-4:], 16)
            return say_error(refusal.code, refusal.status, refusal.message, draw)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            return say_error(account.error, 503, CODES[account.error][1])
        except Exception:
            log.exception("exchange %s failed", account.id)
            account.error = "internal_error"
            return say_error(account.error, 500, f"internal error; exchange {account.id}")

    async def _story(
        self, account: Account, receive: Receive, held: ExitStack, departure: Departure
    ) -> Reply | Stream:
        live = self._serving()  # 503
        account.revision = live.table.revision
        caller = account.caller = identify(live.table, account.first)  # 401
        target = self._locate(account)  # 404, 405
        model = account.model = find_model(live.table, target)  # 404
        account.context, dropped = read_context(account.first, caller)  # 400
        self.metrics.count("headworks_context_dropped", by=dropped)
        rule = match(model, account.path, account.first, caller)  # 404
        if self.load.sheds(rule.priority):
            raise Refusal("shed", f"too much is open for priority {rule.priority!r}")  # 503
        departure.cancels = model.on_disconnect == "cancel"
        forced = forced_version(model, target, account.first, caller)  # 403
        choice = force(forced, rule) if forced else choose(model, rule, account.first, account.id)
        backend = live.backend(model, choice.version)
        backend.use(held)
        await self._take_body(account, receive, held, backend)  # 408, 413
        self._fits(account)  # 400
        account.choice, account.version = choice, model.versions[choice.version]
        if model.durability == "strict_intent":
            await self._record(account, "intent", receipt=False)  # 503
        return await self._call(account, live, backend, held)  # 4xx, 5xx

    async def _take_body(
        self, account: Account, receive: Receive, held: ExitStack, backend: Backend
    ) -> None:
        """Bodies that have to be looked into, or recorded before they are sent, are held whole."""
        model, context = backend.model, account.context
        several = max(len(context.subjects), len(context.groups)) > 1
        may_pass = (
            backend.remote is not None and not several and model.durability != "strict_intent"
        )
        body = await take_body(receive, account.first, model.limits, self.load, may_pass=may_pass)
        if isinstance(body, Upload):
            account.upload = body
        else:
            account.request = body
            held.callback(self.load.release, len(body))

    async def _call(
        self, account: Account, live: Live, backend: Backend, held: ExitStack
    ) -> Reply | Stream:
        """The chosen version's answer, or that of `fallback` where it gave none. The failure is the
        first one's either way: the record says who should have answered."""
        assert account.model is not None
        assert account.choice is not None
        choice, version = account.choice, account.version
        instead = stand_in(account.model, choice, passes=account.upload is not None)
        if instead is None:
            return await backend.call(account, held=held)
        refusal, failed = None, None
        try:
            failed = await backend.call(account, held=held)
            status = failed.status if isinstance(failed, Reply) else failed[0]
        except Refusal as error:
            refusal, status = error, error.status
        code = refusal.code if refusal is not None else None
        if not is_failure(code, status):
            if refusal is not None:
                raise refusal
            assert failed is not None
            return failed
        if failed is not None and not isinstance(failed, Reply):
            failed[2].abort()
        account.extra["assigned"] = {"version": choice.version, "arm": choice.arm,
                                     "status": status, "error": code}  # fmt: skip
        account.choice, account.version = instead, account.model.versions[instead.version]
        other = live.backend(account.model, instead.version)
        other.use(held)
        try:
            return await other.call(account, held=held)
        except Refusal as second:
            account.choice, account.version = choice, version
            del account.extra["assigned"]
            account.extra["fallback"] = {"version": instead.version, "error": second.code}
            if refusal is not None:
                raise refusal from None
            if isinstance(failed, Reply):
                return failed
            raise  # of the first one's 5xx only the head was taken

    def _serving(self) -> Live:
        if self.journal is None:
            raise JournalUnavailable("the journal does not open")
        if self.live is None:
            raise Refusal("no_table", CODES["no_table"][1])
        if self.journal_full:
            raise Refusal("journal_full", CODES["journal_full"][1])
        return self.live

    def _locate(self, account: Account) -> v2.Target:
        target = v2.locate(account.path)
        if target is None:
            raise Refusal("unknown_path", f"no model is served at {account.path[:200]!r}")
        account.operation = target.operation
        method = v2.METHODS.get(target.operation)
        if method is not None and account.method != method:
            words = f"{account.method} is not taken here; {method} is"
            raise Refusal("method_not_allowed", words)
        return target

    def _fits(self, account: Account) -> None:
        """Several context values need as many rows: the only reason to look into a body here."""
        context = account.context
        if max(len(context.subjects), len(context.groups)) <= 1:
            return
        try:
            rows = v2.read_request(account.request, account.first.get(v2.INFERENCE_HEADER)).rows
        except v2.Unreadable as error:
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
            withheld = say_error(account.error, 503, CODES[account.error][1])
            account.status = withheld.status
            return withheld

    def _admitted(self, account: Account) -> bool:
        """Strangers' refusals are coalesced, everything else has its record."""
        if account.error is None or (account.model is not None and account.caller is not None):
            return True
        return self.refusals.admit(account.error, self.clock.steady())

    async def _record(self, account: Account, kind: str, *, receipt: bool = True) -> None:
        """A receipt is of the first record that asks for one: a stream's head carries its
        intent's."""
        model = account.model
        durable = model is None or model.durability != "bounded"
        if self.journal is None:
            raise JournalUnavailable("the journal does not open")
        wanted = receipt and account.receipt is None
        asked = wanted and model is not None and "receipt" in model.expose
        made = await self.journal.append(*account.entry(kind), durable=durable, receipt=asked)
        account.receipt = account.receipt or made

    async def _relayed(
        self, account: Account, stream: Stream, send: Send, departure: Departure
    ) -> bool:
        """Whether the client was given all of it."""
        _, headers, answer = stream
        headers = _with_ours(headers, self._exposed(account))
        try:
            return await relay(account, answer, headers, send, self._record, departure)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            refused = say_error(account.error, 503, CODES[account.error][1])
            account.status = refused.status
            await _respond(send, refused, self._exposed(account))
            return True

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
        if account.receipt is not None and account.error != "journal_unavailable":
            shown.append((b"x-headworks-receipt", account.receipt.encode().encode()))
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
        if (first := account.extra.get("assigned")) is not None:  # its failure stays its own
            said = (first["version"], first["arm"], str(first["status"]))
            self.metrics.count("headworks_exchanges", model, *said)
        if (client := account.extra.get("client")) is not None:
            self.metrics.count("headworks_clients_left", model, client["left"], client["policy"])
        seconds = (self.clock.steady() - account.arrived_ns) / 1e9
        self.metrics.observe("headworks_exchange_seconds", seconds, model, version)

    def _copy(self, account: Account) -> None:
        """After the answer has left: offer the request to the rule's shadows."""
        choice, model, live = account.choice, account.model, self.live
        if choice is None or model is None or live is None or account.operation != "infer":
            return
        if choice.arm == "forced" or account.error in ("bad_body", "bad_tensor"):
            return
        rule = next((rule for rule in model.rules if rule.name == choice.rule), None)
        if rule is not None and live.table.models.get(model.name) is model:
            self._offer(account, live, rule)

    def _offer(self, account: Account, live: Live, rule: Rule) -> None:
        assert account.model is not None
        assert account.choice is not None
        for version in shadows(rule, account.choice.version, account.id):
            if account.upload is not None:
                self.shadow.drop(account.model.name, "body_too_large")
            elif self.load.sheds("shadow"):
                self.shadow.drop(account.model.name, "shed")
            else:
                self.shadow.offer(account, live.shadow(account.model, version))


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
