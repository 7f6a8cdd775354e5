"""A decided exchange as it is judged: explained, and put into its windows."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gateway.card import Card
from gateway.explain.worker import Asked
from gateway.journal.record import Part, decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.monitor.segments import by_features, by_groups
from gateway.monitor.window import Decision
from gateway.monitor.worker import Windows, decisions_of, is_watched
from gateway.protocol import textfeatures
from gateway.protocol.message import Message
from gateway.protocol.reader import Reader, reader_of
from gateway.protocol.row import Columns
from gateway.protocol.tensor import Fault, Opaque, Unreadable
from gateway.table import Model, Table, Version

READ_AT_MOST, READ_BYTES_AT_MOST = 512, 8 * 1024
GENERATIONS = frozenset(("chat", "completions"))
UNDECIDED = {"score": None, "outcome": None}
"""What a text is, which has neither."""
log = logging.getLogger("headworks.analyst")


@dataclass(slots=True)
class Inference:
    """A decided exchange as it is judged; `why`: the reason for which it cannot be."""

    model: Model
    version: Version
    rows: dict[str, list[Any]] = field(default_factory=dict)
    groups: list[dict[str, str]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    outcomes: list[str | None] = field(default_factory=list)
    given: bool = True
    exchange: str = ""
    why: str | None = None
    contradicts_card: bool = False
    """What was sent lacks what the card names, or has another shape."""
    answers: list[tuple[float | None, Fault | None]] | None = None
    """By row, of an answer that lacks what the card declares: it is in windows, undecided."""
    keys: tuple[int, ...] = ()
    """Numbers of the subjects' keys that the body is under: what is said is sealed under them."""

    @property
    def is_counted(self) -> bool:
        """Whether its rows go into windows."""
        return self.why is None or self.answers is not None

    def asked(self) -> Asked:
        return Asked(
            self.model, self.version, self.rows, self.scores, self.outcomes, self.given,
            self.exchange,
        )  # fmt: skip

    def decisions(
        self, number: int, leaf: dict[str, Any], said: dict[str, Any] | None = None
    ) -> list[Decision]:
        """`said`: its explanation. One by calls to an upstream is kept out of every statistic."""
        assert self.version.card is not None
        explained = said.get("rows") if said and self.version.artifact is not None else None
        told = leaf.get("decisions", [UNDECIDED])
        if self.answers is not None:
            told = [UNDECIDED | {"score": score, "flaw": fault} for score, fault in self.answers]
        return decisions_of(
            self.version.card, number, leaf["record"], told, self.rows, self.groups, explained,
        )  # fmt: skip


class Readings:
    """The columns of the newest small requests: a shadow is sent what its primary was, and what
    both their cards say is where the same features lie."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[Any, ...], tuple[Reader, Columns]] = OrderedDict()
        self._carried: dict[int, tuple[Card, tuple[Any, ...]]] = {}

    def columns(self, reader: Reader, card: Card, request: Part, headers: list[Any]) -> Columns:
        """As `Reader.columns`; nobody changes what is given."""
        if len(request.kept) > READ_BYTES_AT_MOST:
            return reader.columns(card, request.kept, headers)
        key = (request.sha256, str(headers), self._carriers(card))
        found = self._read.get(key)
        if found is None or found[0] != reader:
            found = self._read[key] = reader, reader.columns(card, request.kept, headers)
            if len(self._read) > READ_AT_MOST:
                self._read.popitem(last=False)
        return found[1]

    def _carriers(self, card: Card) -> tuple[Any, ...]:
        """All that the reading of a request takes from a card."""
        found = self._carried.get(id(card))
        if found is None:
            if len(self._carried) >= READ_AT_MOST:
                self._carried.clear()
            told = tuple((one.name, one.type, one.carrier, one.column) for one in card.features)
            found = self._carried[id(card)] = card, told
        return found[1]


def is_decided(leaf: dict[str, Any]) -> bool:
    """Whether a leaf is an inference that a version answered."""
    record = leaf["record"]
    return (
        leaf["kind"] == "exchange"
        and record.get("operation") == "infer"
        and record["status"] == 200
        and record.get("version") is not None
    )


def is_generated(leaf: dict[str, Any]) -> bool:
    """Whether a leaf is a prompt that a version answered."""
    record = leaf["record"]
    return (
        leaf["kind"] == "exchange"
        and record.get("protocol") == "openai"
        and record.get("operation") in GENERATIONS
        and record["status"] == 200
        and record.get("version") is not None
    )


def is_refused(leaf: dict[str, Any]) -> bool:
    """Whether a leaf is an inference that a version turned down: perhaps it lacks what the card
    names, and no decision will ever tell of it."""
    record = leaf["record"]
    return (
        leaf["kind"] == "exchange"
        and record.get("operation") == "infer"
        and 400 <= record["status"] < 500
        and record.get("version") is not None
        and "body" in leaf
    )


def is_judged(leaf: dict[str, Any]) -> bool:
    """Whether what a leaf says may go into windows."""
    return is_decided(leaf) or is_generated(leaf)


def _read_generation(leaf: dict[str, Any], found: Inference, bodies: BodyReader) -> None:
    """One row: the plain features of a prompt and its answer, whose card takes the place of the
    one that the version does not have. What the bodies do not say, the leaf may."""
    record = leaf["record"]
    found.version = replace(found.version, card=textfeatures.CARD)
    if not is_watched(found.model, found.version):
        found.why = "not_watched"
        return
    context: dict[str, Any] = {}
    request = response = None
    try:
        told, *sent = decode_parts(bodies.read(record["id"], leaf["body"]))
        context = orjson.loads(told)
        request = _message(sent[0], context.get("request_headers", ()))
        response = _message(sent[1], context.get("response_headers", ()))
    except (ValueError, OSError, KeyError) as error:
        log.log(_level(error), "exchange %s: bodies not readable: %s", record["id"], error)
    values = textfeatures.read_features(
        (leaf.get("trace") or {}).get("asked") or {},
        record.get("completion") or leaf.get("completion") or {},
        request,
        response,
    )
    found.rows = {name: [value] for name, value in values.items()}
    found.groups = context.get("groups", [])
    found.outcomes = [None]


def _message(part: Part, headers: Any) -> Message | None:
    return None if part.truncated else Message.of(part.kept, headers)


def read_inference(
    leaf: dict[str, Any], table: Table, bodies: BodyReader, readings: Readings
) -> Inference:
    """What an inference was about, from its body, its revision and its version's card."""
    record = leaf["record"]
    model = table.models[record["model"]]
    found = Inference(model, model.versions[record["version"]])
    found.given, found.exchange = record["arm"] != "shadow", record["id"]
    if is_generated(leaf):
        _read_generation(leaf, found, bodies)
    elif found.version.card is None:
        found.why = "no_artifact"
    else:
        _read_body(leaf, found, found.version.card, bodies, readings)
        found.contradicts_card |= record.get("error") == "bad_tensor"
    return found


def _read_body(
    leaf: dict[str, Any], found: Inference, card: Card, bodies: BodyReader, readings: Readings
) -> None:
    try:
        found.keys, parts = bodies.read_sealed(leaf["record"]["id"], leaf["body"])
        context, request, response = decode_parts(parts)
        told = orjson.loads(context)
        if not leaf.get("decisions"):
            found.why = "unreadable"
        if request.truncated:
            found.why = "truncated"
            return
        reader = reader_of(leaf["record"], found.model)
        found.rows = readings.columns(reader, card, request, told["request_headers"])
    except (Unreadable, ValueError, OSError) as error:
        identity = leaf["record"]["id"]
        log.log(_level(error), "exchange %s: request not readable: %s", identity, error)
        found.why = "unreadable"
        found.contradicts_card = isinstance(error, Unreadable) and not isinstance(error, Opaque)
        return
    found.groups = told["groups"]
    if found.why is not None:
        if is_decided(leaf):
            _read_faults(leaf, found, card, response, told["response_headers"])
        return
    found.scores = [decision["score"] for decision in leaf["decisions"]]
    found.outcomes = [decision["outcome"] for decision in leaf["decisions"]]
    if any(len(column) != len(found.outcomes) for column in found.rows.values()):
        found.why = "rows_differ"
        found.contradicts_card = True


def _read_faults(
    leaf: dict[str, Any], found: Inference, card: Card, response: Part, headers: Any
) -> None:
    """What is wrong with an answer from which no decision could be read; one that was not kept
    whole may be as it should."""
    rows = max(map(len, found.rows.values()))
    if response.truncated:
        return
    reader = reader_of(leaf["record"], found.model)
    try:
        answers = reader.faults(card, response.kept, headers, rows)
    except Unreadable:
        return
    if any(fault is not None for _, fault in answers):
        found.answers = answers


def segments_of(
    leaf: dict[str, Any], found: Inference | None, model: Model, windows: Windows,
    bodies: BodyReader,
) -> list[dict[str, str]]:  # fmt: skip
    """By groups, and by the inputs of what was decided, as far as they can be read."""
    keys = tuple(model.monitor["groups"])
    if found is not None and found.why is None and found.version.card is not None:
        card, reference = found.version.card, windows.yardsticks.reference(model, found.version)
        told, rows = found.groups, range(len(found.outcomes))
        return [by_groups(keys, told, row) | by_features(card, reference, found.rows, row)
                for row in rows]  # fmt: skip
    try:
        context, *_ = decode_parts(bodies.read(leaf["record"]["id"], leaf["body"]))
    except (ValueError, OSError, KeyError):
        return []
    return [by_groups(keys, orjson.loads(context)["groups"])]


def _level(error: Exception) -> int:
    """What callers send is counted, told of their exchange and by an alert: a line each would let
    them fill the log. What the disk says is ours to hear."""
    return logging.WARNING if isinstance(error, OSError) else logging.DEBUG
