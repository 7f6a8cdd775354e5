"""Feedback: what became of a decision, told after it, by the decision's id. Pure.

A line is `{"id": "<exchange id>[/<row>]", "label": ..., "observed_at"?: ..., "source"?: ...}`;
`row` may stand beside the id. A label is a finite number, true, false, a word, or null, which
takes an earlier label back. Labels stand in leaves for ever, in clear, as scores and outcomes do:
hence words, not sentences, and nobody's name.

Of several labels of one decision the one observed last is in force; of those observed at the same
time the one that came last. The same label told again changes nothing.
"""

from __future__ import annotations

import re
import uuid
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import orjson

PATH = "/-/feedback"
LABELS_AT_MOST = 200
"""Labels of one request: they are one record, and its leaf has to stay below 64 KiB."""
BODY_AT_MOST = 64 * 1024
ROW_AT_MOST = 65_535
NUMBER_AT_MOST = 1e15
AHEAD_NS = 60 * 10**9
"""How far a label's time may lie ahead of ours: clocks differ."""
WORD = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", re.ASCII)
KEYS = frozenset({"id", "row", "label", "observed_at", "source"})

Value = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Label:
    """`observed`: nanoseconds since 1970; `value` None takes back what was told before."""

    id: str
    row: int
    value: Value
    observed: int
    source: str

    def to_json(self) -> list[Any]:
        """As a record has it."""
        return [self.id, self.row, self.value, self.observed, self.source]


def read_lines(body: bytes, now_ns: int, source: str) -> tuple[Label, ...]:
    """The labels of a body of JSON lines; `source` and the time now for lines that say none.

    ValueError names the line, the field and the value.
    """
    labels = []
    for place, line in enumerate(body.removeprefix(BOM_UTF8).splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = orjson.loads(line)
        except ValueError:
            raise ValueError(f"line {place}: {_shown(line)} is not JSON") from None
        try:
            labels.append(read_label(told, now_ns, source))
        except ValueError as error:
            raise ValueError(f"line {place}: {error}") from None
    if not labels:
        raise ValueError("no line has a label")
    return tuple(labels)


def read_label(told: object, now_ns: int, source: str) -> Label:
    """One label. ValueError names the field and the value."""
    if not isinstance(told, Mapping):
        raise ValueError(f"{_shown(told)}: an object is wanted")
    if unknown := sorted(str(key) for key in told.keys() - KEYS):
        raise ValueError(f"{unknown[0][:80]!r}: unknown; known: {', '.join(sorted(KEYS))}")
    if "label" not in told:
        raise ValueError("label: is missing; null takes an earlier one back")
    identity, row = _decision(told.get("id"), told.get("row"))
    name = told.get("source", source)
    if not isinstance(name, str) or not WORD.match(name):
        raise ValueError(f"source={_shown(name)}: a word of at most 64 letters, digits, _ . -")
    observed = _time(told["observed_at"], now_ns) if "observed_at" in told else now_ns
    return Label(identity, row, _value(told["label"]), observed, name)


def _decision(text: object, row: object) -> tuple[str, int]:
    identity, slash, tail = text.partition("/") if isinstance(text, str) else ("", "", "")
    try:
        found = str(uuid.UUID(identity))
    except ValueError:
        found = ""
    if (
        not found
        or found != identity.lower()
        or (slash and not (tail.isascii() and tail.isdigit()))
    ):
        raise ValueError(f"id={_shown(text)}: a decision's id is wanted, as x-headworks-id has it")
    if slash and row is not None and row != int(tail):
        raise ValueError(f"row={_shown(row)}: the id says {tail}")
    place = int(tail) if slash else row if row is not None else 0
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place <= ROW_AT_MOST:
        raise ValueError(f"row={_shown(place)}: a whole number from 0 to {ROW_AT_MOST} is wanted")
    return found, place


def _value(value: object) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and isfinite(value) and abs(value) <= NUMBER_AT_MOST:
        return value
    if isinstance(value, str) and WORD.match(value):
        return value
    raise ValueError(
        f"label={_shown(value)}: a number, true, false, null or a word of at most 64 letters, "
        "digits, _ . - is wanted"
    )


def _time(text: object, now_ns: int) -> int:
    try:
        if not isinstance(text, str):
            raise ValueError
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        words = "an ISO time with its zone is wanted, as 2026-11-23T10:00:00Z"
        raise ValueError(f"observed_at={_shown(text)}: {words}") from None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    found = ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
    if not 0 <= found <= now_ns + AHEAD_NS:
        when = "before 1970" if found < 0 else "in the future"
        raise ValueError(f"observed_at={_shown(text)}: lies {when}")
    return found


def _shown(value: object) -> str:
    return repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)[:80]


def batches(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Bodies that each fit one request, of lines without their ends."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and (len(held) == LABELS_AT_MOST or size + len(line) + 1 > BODY_AT_MOST):
            yield b"\n".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line) + 1
    if held:
        yield b"\n".join(held)
