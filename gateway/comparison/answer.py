"""A shadow's answer beside the one that was given: compared by what the model answers with. Pure.

Failing first: a status or error on one side alone is a disagreement with a reason of its own, and
so is an answer that only the shadow's side makes unreadable. Then the type of the answer: what
`compare.kind` says, or by the cards (decisions, numbers), the protocol (text) or as JSON. What
cannot be compared says why, and is neither agreement nor disagreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.card import Card
from gateway.comparison.document import TooLarge, compare_documents
from gateway.comparison.number import compare_decisions, compare_numbers
from gateway.comparison.outcome import Comparison, Row, not_compared
from gateway.comparison.ranking import compare_rankings
from gateway.comparison.text import compare_texts
from gateway.journal.record import Part
from gateway.protocol.reader import Reader
from gateway.protocol.row import pointed
from gateway.protocol.tensor import Unreadable

ROWS_AT_MOST = 65_536
Pairs = Sequence[Sequence[Any]]
Body = tuple[Part, Pairs]


@dataclass(frozen=True, slots=True)
class Answer:
    """One version's, as sealed. `read` gives the body with its kept headers; None: it is gone."""

    status: int
    error: str | None
    operation: str | None
    card: Card | None
    reader: Reader
    decisions: Sequence[Mapping[str, Any]]
    unreadable: str | None
    read: Callable[[], Body | None]

    @property
    def well(self) -> bool:
        return self.error is None and 200 <= self.status < 300


def compare(primary: Answer, shadow: Answer, settings: Mapping[str, Any]) -> Comparison:
    if not (primary.well and shadow.well):
        return _failed(primary, shadow)
    kind = kind_of(primary, shadow, settings["kind"])
    if primary.unreadable == "truncated" or shadow.unreadable == "truncated":
        return not_compared("truncated")
    if primary.unreadable is not None:
        return not_compared("primary_unreadable")
    if shadow.unreadable is not None:
        return Comparison(kind, (Row(False, 1.0, "unreadable"),))
    if kind in ("decision", "number") and primary.decisions and shadow.decisions:
        return _scores(kind, primary, shadow, settings)
    try:
        return _values(kind, primary, shadow, settings)
    except TooLarge:
        return not_compared("too_large")


def kind_of(primary: Answer, shadow: Answer, kind: str) -> str:
    if kind != "auto":
        return kind
    if primary.decisions and shadow.decisions:
        cards = (primary.card, shadow.card)
        words = all(card is not None and card.outputs.outcome is not None for card in cards)
        return "decision" if words else "number"
    chatting = shadow.reader.dialect.NAME == "openai" and shadow.operation != "embeddings"
    return "text" if chatting else "json"


def _failed(primary: Answer, shadow: Answer) -> Comparison:
    """A status is of a class: whose mistake it was."""
    if shadow.well:
        return Comparison("status", (Row(False, 1.0, "primary_failed"),))
    if primary.well:
        return Comparison("status", (Row(False, 1.0, "shadow_failed"),))
    alike = primary.status // 100 == shadow.status // 100
    return Comparison("status", (Row(alike, 0.0 if alike else 1.0, "both_failed"),))


def _scores(
    kind: str, primary: Answer, shadow: Answer, settings: Mapping[str, Any]
) -> Comparison:  # fmt: skip
    if len(primary.decisions) != len(shadow.decisions):
        return Comparison(kind, (Row(False, 1.0, "rows"),))
    assert primary.card is not None
    assert shadow.card is not None
    pairs = zip(primary.decisions, shadow.decisions)
    if kind == "number":
        numbers = [compare_numbers(a["score"], b["score"], settings) for a, b in pairs]
        return Comparison(kind, numbers)
    cards = (primary.card, shadow.card)
    return Comparison(kind, [compare_decisions(a, b, cards, settings) for a, b in pairs])


def _values(
    kind: str, primary: Answer, shadow: Answer, settings: Mapping[str, Any]
) -> Comparison:  # fmt: skip
    """By the bodies."""
    one, other = primary.read(), shadow.read()
    if one is None or other is None:
        return not_compared("body_missing")
    if one[0].truncated or other[0].truncated:
        return not_compared("truncated")
    try:
        given = primary.reader.rows(one[0].kept, one[1])
    except Unreadable:
        return not_compared("primary_unreadable")
    try:
        rows = shadow.reader.rows(other[0].kept, other[1])
    except Unreadable:
        return Comparison(kind, (Row(False, 1.0, "unreadable"),))
    if max(len(given), len(rows)) > ROWS_AT_MOST:
        return not_compared("too_large")
    if len(given) != len(rows):
        return Comparison(kind, (Row(False, 1.0, "rows"),))
    return Comparison(kind, [compare_row(kind, a, b, settings) for a, b in zip(given, rows)])


def compare_row(kind: str, one: Any, other: Any, settings: Mapping[str, Any]) -> Row:
    """Two values of an answer, of a kind that is none of the cards'. TooLarge."""
    if kind not in ("ranking", "text", "number"):
        return compare_documents(one, other, settings)
    if kind == "text":
        return _texts(one, other, settings)
    try:
        mine, theirs = _inside(one, settings["at"]), _inside(other, settings["at"])
    except Unreadable:
        return Row(False, 1.0, "type")
    if kind == "ranking":
        return compare_rankings(mine, theirs, settings)
    if not all(isinstance(value, (int, float)) for value in (mine, theirs)):
        return Row(False, 1.0, "type")
    return compare_numbers(float(mine), float(theirs), settings)


def _inside(row: Any, pointer: str) -> Any:
    """What is pointed at; without a pointer the only value of an object that has one."""
    if not pointer and isinstance(row, dict) and len(row) == 1:
        return next(iter(row.values()))
    return pointed(row, pointer)


def _texts(one: Any, other: Any, settings: Mapping[str, Any]) -> Row:
    """What tools are called with has to be the same; texts that are both JSON are compared so."""
    calls = [row.get("tools") if isinstance(row, dict) else None for row in (one, other)]
    if any(calls):
        called = compare_documents(calls[0] or [], calls[1] or [], settings)
        if not called.agree:
            return Row(False, called.severity, "tools")
    pointer = settings["at"] or ("/text" if isinstance(one, dict) and "text" in one else "")
    try:
        mine, theirs = _inside(one, pointer), _inside(other, pointer)
    except Unreadable:
        return Row(False, 1.0, "type")
    if not (isinstance(mine, str) and isinstance(theirs, str)):
        return compare_documents(mine, theirs, settings)
    documents = _document(mine), _document(theirs)
    if None not in documents:
        return compare_documents(*documents, settings)
    return compare_texts(mine, theirs, settings)


def _document(text: str) -> Any:
    """An object or list that a text is; None: it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
