"""A decided exchange as it is judged: explained, and put into its windows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gateway.card import Card
from gateway.explain.worker import Asked
from gateway.journal.record import EMPTY, Part, decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.monitor.window import Decision
from gateway.monitor.worker import decisions_of, is_watched
from gateway.protocol import textfeatures
from gateway.protocol.message import Message
from gateway.protocol.reader import reader_of
from gateway.protocol.tensor import Unreadable
from gateway.table import Model, Table, Version

GENERATIONS = frozenset(("chat", "completions"))
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
    keys: tuple[int, ...] = ()
    """Numbers of the subjects' keys that the body is under: what is said is sealed under them."""

    def asked(self) -> Asked:
        return Asked(
            self.model, self.version, self.rows, self.scores, self.outcomes, self.given,
            self.exchange,
        )  # fmt: skip

    def decisions(self, number: int, leaf: dict[str, Any]) -> list[Decision]:
        assert self.version.card is not None
        return decisions_of(
            self.version.card, number, leaf["record"], leaf["decisions"], self.rows, self.groups
        )


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


def read_decisions(
    number: int, leaf: dict[str, Any], table: Table, bodies: BodyReader
) -> tuple[Inference, list[Decision]] | None:
    """What of a leaf goes into windows; None: nothing, or it cannot be read."""
    if is_generated(leaf):
        return read_generation(number, leaf, table, bodies)
    if not is_decided(leaf) or (found := read_inference(leaf, table, bodies)).why is not None:
        return None
    return found, found.decisions(number, leaf)


def read_generation(
    number: int, leaf: dict[str, Any], table: Table, bodies: BodyReader
) -> tuple[Inference, list[Decision]] | None:
    """A generated answer by its plain features, with their card in the version's place."""
    record = leaf["record"]
    model = table.models[record["model"]]
    version = replace(model.versions[record["version"]], card=textfeatures.CARD)
    if not is_watched(model, version):
        return None
    context: dict[str, Any] = {}
    request, response = EMPTY, EMPTY
    kept = False
    try:
        told, request, response = decode_parts(bodies.read(record["id"], leaf["body"]))
        context, kept = orjson.loads(told), True
    except (ValueError, OSError, KeyError) as error:  # the leaf alone says the rest
        log.warning("exchange %s: bodies not readable: %s", record["id"], error)
    values = textfeatures.read_features(
        (leaf.get("trace") or {}).get("asked") or {},
        record.get("completion") or leaf.get("completion") or {},
        _message(request, context.get("request_headers", ())) if kept else None,
        _message(response, context.get("response_headers", ())) if kept else None,
    )
    groups = context.get("groups") or [{}]
    decision = Decision(number, record["at"], f"{record['id']}/0", None, None,
                        tuple(values.values()), groups[0])  # fmt: skip
    return Inference(model, version), [decision]


def _message(part: Part, headers: Any) -> Message | None:
    return None if part.truncated else Message.of(part.kept, headers)


def read_inference(leaf: dict[str, Any], table: Table, bodies: BodyReader) -> Inference:
    """What an inference was about, from its body, its revision and its version's card."""
    record = leaf["record"]
    model = table.models[record["model"]]
    found = Inference(model, model.versions[record["version"]])
    found.given, found.exchange = record["arm"] != "shadow", record["id"]
    if found.version.card is None:
        found.why = "no_artifact"
    elif not leaf.get("decisions"):
        found.why = "unreadable"
    else:
        _read_body(leaf, found, found.version.card, bodies)
    return found


def _read_body(leaf: dict[str, Any], found: Inference, card: Card, bodies: BodyReader) -> None:
    try:
        found.keys, parts = bodies.read_sealed(leaf["record"]["id"], leaf["body"])
        context, request, _ = decode_parts(parts)
        told = orjson.loads(context)
        if request.truncated:
            found.why = "truncated"
            return
        reader = reader_of(leaf["record"], found.model)
        found.rows = reader.columns(card, request.kept, told["request_headers"])
    except (Unreadable, ValueError, OSError) as error:
        log.warning("exchange %s: request not readable: %s", leaf["record"]["id"], error)
        found.why = "unreadable"
        return
    found.groups = told["groups"]
    found.scores = [decision["score"] for decision in leaf["decisions"]]
    found.outcomes = [decision["outcome"] for decision in leaf["decisions"]]
    if any(len(column) != len(found.outcomes) for column in found.rows.values()):
        found.why = "rows_differ"
