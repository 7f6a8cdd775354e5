"""The story of a request, from its arrival to its answer; no layer between it and the connection.

identify -> match -> authorise -> choose -> upstream -> journal -> answer, and then the shadow.
Whatever goes wrong on the way is a Refusal, and becomes an answer and a record here, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

from gateway.clock import Clock
from gateway.dataplane import catalogue
from gateway.dataplane.account import Account
from gateway.dataplane.backend import Backend, Held, Stream, say_error
from gateway.dataplane.departure import Departure
from gateway.dataplane.fallback import is_failure, stand_in
from gateway.dataplane.labels import admit, take_labels
from gateway.dataplane.limits import Load
from gateway.dataplane.live import Live
from gateway.dataplane.pins import Pins
from gateway.dataplane.probes import Probes
from gateway.dataplane.refusals import Refusals
from gateway.dataplane.sequence import parameters_bytes, sequence_of
from gateway.dataplane.shadow import Shadow
from gateway.dataplane.stream import relay
from gateway.dataplane.turn import Turn
from gateway.dataplane.upload import Receive, Upload, take_body
from gateway.errors import CODES, JournalUnavailable, Refusal
from gateway.exchange import Choice, Headers, Reply
from gateway.feedback import BODY_AT_MOST
from gateway.feedback import PATH as FEEDBACK
from gateway.journal.writer import Journal
from gateway.protocol import grpc
from gateway.protocol.dialects import dialect_at
from gateway.protocol.tensor import Unreadable
from gateway.routing.access import forced_version
from gateway.routing.choice import choose, force
from gateway.routing.identity import check_rows, identify, read_context
from gateway.routing.place import Place, check_method, find_model, locate_call, match
from gateway.table import Model, Rule
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("headworks.dataplane")
QUESTION_BYTES = 65536
"""Longest body of a question that the gateway answers itself."""


class Handler:
    def __init__(
        self,
        journal: Journal | None,
        shadow: Shadow,
        probes: Probes,
        clock: Clock,
        metrics: Metrics,
        load: Load,
        pins: Pins,
    ) -> None:
        self.journal, self.shadow, self.probes, self.pins = journal, shadow, probes, pins
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

    async def answer(self, turn: Turn) -> None:
        """One request of HTTP, to the last byte of its answer."""
        if self.probes.concern(turn.path):
            probe = await self.probes.answer(turn.path, self.live, turn.headers)
            if probe is not None:
                await turn.answer(probe.status, probe.headers, probe.body)
                return
        account = Account(self.clock, turn.method, turn.path, turn.query, turn.headers, turn.first)
        departure = Departure(turn.task)
        turn.on_gone = departure.leave
        held = self._open(account, departure)
        try:
            reply = await self._answered(account, turn.receive, held, departure)
            if isinstance(reply, Reply):
                account.note_departure(departure.left, 0)
                reply = await self._durable(account, reply)
                headers = _with_ours(reply.headers, self._exposed(account))
                await turn.answer(reply.status, headers, reply.body)
            elif not await self._relayed(account, reply, turn, departure):
                turn.cut()
            self._let_go(held)
            self.shadow.consider(account, self.live)
        finally:
            self._close(account, departure, held)

    async def call(self, account: Account, message: bytes) -> tuple[Reply, Headers]:
        """One unary call: the answer, to be released, and the headers that we add to it."""

        async def receive() -> tuple[bytes, bool]:
            return message, False

        departure = Departure(asyncio.current_task())
        held = self._open(account, departure)
        try:
            reply = await self._answered(account, receive, held, departure)
            assert isinstance(reply, Reply)
            reply = await self._durable(account, reply)
            self._let_go(held)
            self.shadow.consider(account, self.live)
        finally:
            self._close(account, departure, held)
        return reply, self._exposed(account)

    def _open(self, account: Account, departure: Departure) -> Held:
        """Open from the first byte to the last, whatever brought it here."""
        account.frugal = self.frugal
        self.load.in_flight += 1
        self.open.add(departure)
        return []

    def _let_go(self, held: Held) -> None:
        while held:
            held.pop()()

    def _close(self, account: Account, departure: Departure, held: Held) -> None:
        self._let_go(held)
        self.open.discard(departure)
        self.load.in_flight -= 1
        self._count(account)

    async def _answered(
        self, account: Account, receive: Receive, held: Held, departure: Departure
    ) -> Reply | Stream:
        """The story, or the refusal at which it ended. `held` is let go after the last byte."""
        try:
            with departure:
                return await self._story(account, receive, held, departure)
        except Refusal as refusal:
            account.error = refusal.code
            draw = int(account.id[-4:], 16)
            said = (refusal.code, refusal.status, refusal.message)
            return say_error(*said, account.dialect, draw)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            return say_error(account.error, 503, CODES[account.error][1], account.dialect)
        except Exception:
            log.exception("exchange %s failed", account.id)
            account.error = "internal_error"
            words = f"internal error; exchange {account.id}"
            return say_error(account.error, 500, words, account.dialect)

    async def _story(
        self, account: Account, receive: Receive, held: Held, departure: Departure
    ) -> Reply | Stream:
        live = self._serving()  # 503
        account.revision = live.table.revision
        caller = account.caller = identify(live.table, account.first)  # 401
        if account.path == FEEDBACK:
            admit(account)  # 403, 405
            await self._take_body(account, receive, held, BODY_AT_MOST)  # 408, 413
            return take_labels(account, live.table)  # 400, 404, 413
        place = self._locate(live, account)  # 404, 405
        if place.in_body:
            limits = (model.limits["request"] for model in place.models.values())
            await self._take_body(account, receive, held, max(limits, default=0))  # 408, 413
        model, version = find_model(place, account.request)  # 404
        if model is None:
            return await self._about_several(account, live, place, receive, held)  # 400, 404
        account.model, account.limits, account.timeouts = model, model.limits, model.timeouts
        account.context, dropped = read_context(account.first, caller)  # 400
        if dropped:
            self.metrics.count("headworks_context_dropped")
        if model.reads_body and not place.in_body:
            await self._take_early(account, model, receive, held)  # 408, 413
        rule = match(model, account)  # 404
        account.limits, account.timeouts = rule.limits, rule.timeouts
        if self.load.sheds(rule.priority):
            raise Refusal("shed", f"too much is open for priority {rule.priority!r}")  # 503
        departure.cancels = model.on_disconnect == "cancel"
        forced = forced_version(model, version, place.target, account.first, caller)  # 403
        choice = self._chosen(account, model, rule, forced)
        backend = live.backend(model, choice.version)
        backend.use(held)
        if place.in_body or model.reads_body:
            account.bound_body(rule.limits["request"])  # 413
        else:
            # A sequence may yet lead to any version of the rule.
            hold = self._held_bytes(account, model, (*rule.versions, choice.version))
            look = parameters_bytes(account) if rule.intervals else 0
            at_most = rule.limits["request"]
            await self._take_body(account, receive, held, at_most, hold, look)  # 408, 413
        self._fits(account)  # 400
        account.sequence = None if forced or not rule.intervals else sequence_of(account)
        if account.sequence is not None:
            choice = choose(model, rule, account.first, account.id, account.sequence)
            backend = live.backend(model, choice.version)
            backend.use(held)
        account.choice, account.version = choice, model.versions[choice.version]
        if model.durability == "strict_intent":
            await self._record(account, "intent", receipt=False)  # 503
        return await self._call(account, live, backend, held)  # 4xx, 5xx

    async def _about_several(
        self, account: Account, live: Live, place: Place, receive: Receive, held: Held
    ) -> Reply:
        """What the gateway itself knows of the models of a place."""
        if place.target.operation not in catalogue.ABOUT_READINESS:
            return catalogue.answer(place, catalogue.Asked())
        await self._take_body(account, receive, held, QUESTION_BYTES)  # 408, 413
        ready = await self.probes.versions_ready(live, place.models)
        return catalogue.answer(place, catalogue.Asked(account.request, ready))

    def _chosen(self, account: Account, model: Model, rule: Rule, forced: str | None) -> Choice:
        if forced:
            return force(forced, rule)
        choice = choose(model, rule, account.first, account.id)
        return choice if rule.sticky is None else self.pins.follow(account, rule, choice)

    def _held_bytes(self, account: Account, model: Model, versions: Iterable[str]) -> int | None:
        """Up to which length a body is held whole; None: always, since it has to be looked into, or
        recorded before it is sent, or one of the versions takes nothing else."""
        context = account.context
        several = max(len(context.subjects), len(context.groups)) > 1
        local = not all(model.versions[name].endpoints for name in versions)
        if several or local or account.dialect is grpc:
            return None
        return account.limits["hold"] if model.durability != "strict_intent" else None

    async def _take_early(
        self, account: Account, model: Model, receive: Receive, held: Held
    ) -> None:
        """Before the rule is known, since some rule asks for what the body says."""
        at_most = max(rule.limits["request"] for rule in model.rules)
        hold = self._held_bytes(account, model, model.versions)
        await self._take_body(account, receive, held, at_most, hold, parameters_bytes(account))

    async def _take_body(
        self, account: Account, receive: Receive, held: Held, at_most: int,
        hold: int | None = None, look: int = 0,
    ) -> None:  # fmt: skip
        keep = account.limits["keep"] if account.limits else at_most
        body = await take_body(receive, account.first, self.load, at_most, hold, keep, look)
        if isinstance(body, Upload):
            account.upload = body
        else:
            account.request = body
            held.append(partial(self.load.release, len(body)))

    async def _call(
        self, account: Account, live: Live, backend: Backend, held: Held
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
        called = account.extra.pop("grpc_status", None)
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
                account.extra |= {"grpc_status": called} if called is not None else {}
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

    def _locate(self, live: Live, account: Account) -> Place:
        if account.dialect is grpc:
            place = locate_call(live.table, account.path)
        else:
            try:
                place = live.place(account.first.get(b"host"), account.path)
            except Refusal:
                account.dialect = dialect_at(account.path)  # in which it is said
                raise
        account.dialect, account.target = place.dialect, place.path
        account.operation = place.target.operation
        check_method(place, account.method)
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
                await self._record(account, account.kind)
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
        self, account: Account, stream: Stream, turn: Turn, departure: Departure
    ) -> bool:
        """Whether the client was given all of it."""
        _, headers, answer = stream
        headers = _with_ours(headers, self._exposed(account))
        try:
            return await relay(account, answer, headers, turn, self._record, departure)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            refused = say_error(account.error, 503, CODES[account.error][1], account.dialect)
            account.status = refused.status
            headers = _with_ours(refused.headers, self._exposed(account))
            await turn.answer(refused.status, headers, refused.body)
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
        if account.pin is not None:
            shown.append(account.pin)
        if (request_id := account.first.get(b"x-request-id")) is not None:
            shown.append((b"x-request-id", request_id))
        return shown

    def _count(self, account: Account) -> None:
        if account.error is not None:
            self.metrics.count("headworks_refusals", account.error)
        if account.model is None or account.version is None or account.choice is None:
            return
        if account.unread is not None:
            self.metrics.count("headworks_rule_body_unread", account.model.name, account.unread)
        if not account.status:  # cancelled by the end of the process: no answer was given
            return
        model, version = account.model.name, account.version.name
        seconds = (self.clock.steady() - account.arrived_ns) / 1e9
        self.metrics.note_answer(model, version, account.choice.arm, account.status, seconds)
        if (first := account.extra.get("assigned")) is not None:  # its failure stays its own
            said = (first["version"], first["arm"], str(first["status"]))
            self.metrics.count("headworks_exchanges", model, *said)
        if (client := account.extra.get("client")) is not None:
            self.metrics.count("headworks_clients_left", model, client["left"], client["policy"])


def _with_ours(headers: Headers, ours: Headers) -> Headers:
    """The caller's own x-request-id takes the place of an upstream's; else that one passes."""
    if any(name == b"x-request-id" for name, _ in ours):
        headers = [item for item in headers if item[0].lower() != b"x-request-id"]
    return headers + ours
