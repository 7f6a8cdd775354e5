"""The story of a request, from its arrival to its answer; no layer between it and the connection.

identify -> match -> authorise -> choose -> upstream -> journal -> answer, and then the shadow.
Whatever goes wrong on the way is a Refusal, and becomes an answer and a record here, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from gateway.clock import Clock
from gateway.dataplane import catalogue
from gateway.dataplane.account import Account
from gateway.dataplane.backend import Backend, Stream, say_error
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
from gateway.dataplane.upload import Body, Upload, WholeBody, take_body, take_room
from gateway.errors import CODES, JournalUnavailable, Refusal
from gateway.exchange import NO_CONTEXT, Choice, Headers, Reply
from gateway.feedback import BODY_AT_MOST
from gateway.feedback import PATH as FEEDBACK
from gateway.journal.receipt import Receipt
from gateway.journal.writer import Journal
from gateway.protocol import grpc
from gateway.protocol.dialects import dialect_at
from gateway.protocol.tensor import Unreadable
from gateway.routing.access import forced_version
from gateway.routing.choice import choose, force
from gateway.routing.identity import check_rows, read_context
from gateway.routing.place import Place, check_method, find_model, locate_call, match
from gateway.table import Model, Rule
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("headworks.dataplane")
QUESTION_BYTES = 65536
"""Longest body of a question that the gateway answers itself."""
ALWAYS_EXPOSED = frozenset(("id",))


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
                await turn.relieved()
                turn.answer(probe.status, probe.headers, probe.body)
                return
        account = Account(self.clock, turn.method, turn.path, turn.query, turn.headers, turn.first)
        departure = Departure(turn.task)
        turn.on_gone = departure.leave
        self._open(account, departure)
        try:
            reply = await self._answered(account, turn, departure)
            if isinstance(reply, Reply):
                if turn.congested:
                    await turn.relieved()
                turn.answer(reply.status, self._with_ours(account, reply.headers), reply.body)
            elif not await self._relayed(account, reply, turn, departure):
                turn.cut()
            self.shadow.consider(account, self.live)
        finally:
            self._close(account, departure)

    async def call(self, account: Account, message: bytes) -> tuple[Reply, Headers]:
        """One unary call: the answer, to be released, and the headers that we add to it."""

        departure = Departure(asyncio.current_task())
        self._open(account, departure)
        try:
            reply = await self._answered(account, WholeBody(message), departure)
            assert isinstance(reply, Reply)
            self.shadow.consider(account, self.live)
        finally:
            self._close(account, departure)
        return reply, self._exposed(account)

    def _open(self, account: Account, departure: Departure) -> None:
        """Open from the first byte to the last, whatever brought it here."""
        account.frugal = self.frugal
        self.load.in_flight += 1
        self.open.add(departure)

    def _close(self, account: Account, departure: Departure) -> None:
        account.let_go()
        self.load.held_bytes -= account.held_bytes
        self.open.discard(departure)
        self.load.in_flight -= 1
        self._count(account)

    async def _answered(self, account: Account, body: Body, departure: Departure) -> Reply | Stream:
        """The end of the story, or the refusal at which it ended: a reply once its record may be
        relied on, else another refusal, and the reply is gone."""
        try:
            with departure:
                outcome = await self._story(account, body, departure)
            if not isinstance(outcome, Reply):
                return outcome
        except Exception as error:
            outcome = self._refused(account, error)
        account.note_departure(departure.left, 0)
        account.take(outcome)
        if account.error is not None and not self._admitted(account, account.error):
            return outcome
        try:
            receipt = await self._append(account, account.kind)
        except JournalUnavailable as error:
            log.error("exchange %s withheld: %s", account.id, error)
            outcome = self._refused(account, error)
            account.status = outcome.status
        else:
            account.receipt = account.receipt or receipt
        return outcome

    def _refused(self, account: Account, error: Exception) -> Reply:
        if isinstance(error, Refusal):
            account.error = error.code
            draw = int(account.id[-4:], 16)
            return say_error(error.code, error.status, error.message, account.dialect, draw)
        if isinstance(error, JournalUnavailable):
            account.error = "journal_unavailable"
            return say_error(account.error, 503, CODES[account.error][1], account.dialect)
        log.exception("exchange %s failed", account.id, exc_info=error)
        account.error = "internal_error"
        words = f"internal error; exchange {account.id}"
        return say_error(account.error, 500, words, account.dialect)

    async def _story(self, account: Account, body: Body, departure: Departure) -> Reply | Stream:
        live = self._serving()  # 503
        account.revision = live.table.revision
        caller = account.caller = live.caller(account.first)  # 401
        if account.path == FEEDBACK:
            admit(account)  # 403, 405
            await self._take_body(account, body, BODY_AT_MOST)  # 408, 413
            return take_labels(account, live.table)  # 400, 404, 413
        place = self._locate(live, account)  # 404, 405
        model, version = place.model, place.version
        if model is None:
            if place.in_body:
                limits = (one.limits["request"] for one in place.models.values())
                await self._take_body(account, body, max(limits, default=0))  # 408, 413
            model, version = find_model(place, account.request)  # 404
            if model is None:
                return await self._about_several(account, live, place, body)  # 400, 404
        account.model, account.limits, account.timeouts = model, model.limits, model.timeouts
        account.context, dropped = read_context(account.first, caller)  # 400
        if dropped:
            self.metrics.count("headworks_context_dropped")
        if model.reads_body and not place.in_body:
            await self._take_early(account, model, body)  # 408, 413
        rule = match(model, account)  # 404
        account.limits, account.timeouts = rule.limits, rule.timeouts
        if self.load.sheds(rule.priority):
            raise Refusal("shed", f"too much is open for priority {rule.priority!r}")  # 503
        departure.cancels = model.on_disconnect == "cancel"
        forced = forced_version(model, version, place.target, account.first, caller)  # 403
        choice = self._chosen(account, model, rule, forced)
        backend = live.backend(model, choice.version)
        backend.use(account)
        if place.in_body or model.reads_body:
            account.bound_body(rule.limits["request"])  # 413
        elif not self._has_arrived(account, body, rule.limits):
            # A sequence may yet lead to any version of the rule.
            hold = self._held_bytes(account, model, (*rule.versions, choice.version))
            look = parameters_bytes(account) if rule.intervals else 0
            await self._take_body(account, body, rule.limits["request"], hold, look)  # 408, 413
        if account.context is not NO_CONTEXT:
            self._fits(account)  # 400
        if rule.intervals and not forced:
            account.sequence = sequence_of(account)
            if account.sequence is not None:
                choice = choose(model, rule, account.first, account.id, account.sequence)
                backend = live.backend(model, choice.version)
                backend.use(account)
        account.choice, account.version = choice, model.versions[choice.version]
        if model.durability == "strict_intent":
            await self._append(account, "intent", receipt=False)  # 503
        if model.fallback is None:
            return await backend.call(account)  # 4xx, 5xx
        return await self._call_either(account, live, backend)  # 4xx, 5xx

    async def _about_several(self, account: Account, live: Live, place: Place, body: Body) -> Reply:
        """What the gateway itself knows of the models of a place."""
        if place.target.operation not in catalogue.ABOUT_READINESS:
            return catalogue.answer(place, catalogue.Asked())
        await self._take_body(account, body, QUESTION_BYTES)  # 408, 413
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

    async def _take_early(self, account: Account, model: Model, body: Body) -> None:
        """Before the rule is known, since some rule asks for what the body says."""
        at_most = max(rule.limits["request"] for rule in model.rules)
        hold = self._held_bytes(account, model, model.versions)
        await self._take_body(account, body, at_most, hold, parameters_bytes(account))

    def _has_arrived(self, account: Account, body: Body, limits: Mapping[str, int]) -> bool:
        """A short body that is here already is held whatever else: most are and need no more."""
        whole = body.arrived(min(limits["request"], limits["hold"]))
        if whole is None:
            return False
        take_room(self.load, len(whole))  # 503
        account.request, account.held_bytes = whole, len(whole)
        return True

    async def _take_body(
        self, account: Account, body: Body, at_most: int, hold: int | None = None, look: int = 0
    ) -> None:
        keep = account.limits["keep"] if account.limits else at_most
        taken = await take_body(body, account.first, self.load, at_most, hold, keep, look)
        if isinstance(taken, Upload):
            account.upload, account.held_bytes = taken, taken.kept_bytes
        else:
            account.request, account.held_bytes = taken, len(taken)

    async def _call_either(self, account: Account, live: Live, backend: Backend) -> Reply | Stream:
        """The chosen version's answer, or that of `fallback` where it gave none. The failure is the
        first one's either way: the record says who should have answered."""
        assert account.model is not None
        assert account.choice is not None
        choice, version = account.choice, account.version
        instead = stand_in(account.model, choice, passes=account.upload is not None)
        if instead is None:
            return await backend.call(account)
        refusal, failed = None, None
        try:
            failed = await backend.call(account)
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
        other.use(account)
        try:
            return await other.call(account)
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
        """Several values of context need as many rows: a reason to look into a body here."""
        context = account.context
        if max(len(context.subjects), len(context.groups)) <= 1:
            return
        assert account.model is not None
        try:
            rows = account.dialect.count_rows(account.model.mapping, account.message())
        except Unreadable as error:
            raise Refusal("bad_body", str(error)) from None
        check_rows(context, rows)

    def _admitted(self, account: Account, error: str) -> bool:
        """Strangers' refusals are coalesced, everything else has its record."""
        if account.model is not None and account.caller is not None:
            return True
        return self.refusals.admit(error, self.clock.steady())

    def _append(
        self, account: Account, kind: str, *, receipt: bool = True
    ) -> asyncio.Future[Receipt | None]:
        """Ends when the record may be relied on. A receipt is of the first record that asks for
        one: a stream's head carries its intent's."""
        if self.journal is None:
            raise JournalUnavailable("the journal does not open")
        model = account.model
        durable = model is None or model.durability != "bounded"
        asked = (
            receipt and model is not None and "receipt" in model.expose and account.receipt is None
        )
        header, parts = account.entry(kind)
        return self.journal.append(header, parts, durable=durable, receipt=asked)

    async def _record(self, account: Account, kind: str) -> None:
        receipt = await self._append(account, kind)
        account.receipt = account.receipt or receipt

    async def _relayed(
        self, account: Account, stream: Stream, turn: Turn, departure: Departure
    ) -> bool:
        """Whether the client was given all of it."""
        _, headers, answer = stream
        headers = self._with_ours(account, headers)
        try:
            return await relay(account, answer, headers, turn, self._record, departure)
        except JournalUnavailable:
            account.error = "journal_unavailable"
            refused = say_error(account.error, 503, CODES[account.error][1], account.dialect)
            account.status = refused.status
            await turn.relieved()
            turn.answer(refused.status, self._with_ours(account, refused.headers), refused.body)
            return True

    def _with_ours(self, account: Account, headers: Headers) -> Headers:
        """The caller's own x-request-id takes the place of an upstream's; else that one passes."""
        if b"x-request-id" in account.first:
            headers = [item for item in headers if item[0].lower() != b"x-request-id"]
        return headers + self._exposed(account)

    def _exposed(self, account: Account) -> Headers:
        model = account.model
        expose = model.expose if model is not None else ALWAYS_EXPOSED
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
        if account.model is None:
            return
        model, extra = account.model.name, account.extra
        if extra and (client := extra.get("client")) is not None:
            self.metrics.count("headworks_clients_left", model, client["left"], client["policy"])
        if account.unread is not None:
            self.metrics.count("headworks_rule_body_unread", model, account.unread)
        if account.version is None or account.choice is None:
            return
        if not account.status:  # cancelled by the end of the process: no answer was given
            return
        version, arm = account.version.name, account.choice.arm
        seconds = (self.clock.steady() - account.arrived_ns) / 1e9
        self.metrics.note_answer(model, version, arm, account.status, seconds)
        if extra and (first := extra.get("assigned")) is not None:  # its failure stays its own
            said = (first["version"], first["arm"], str(first["status"]))
            self.metrics.count("headworks_exchanges", model, *said)
