"""Any other HTTP endpoint that speaks JSON: the model's `mapping` points at what matters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.card import Card
from gateway.protocol.dialect import Target, segments
from gateway.protocol.message import Message
from gateway.protocol.row import Columns, Mapped, pointed, scores_of, value_of
from gateway.protocol.tensor import Unreadable, short

NAME = "raw"
ERROR_TYPE = b"application/json"
METHODS: Mapping[str, str] = {"infer": "POST"}
INFERENCES = frozenset(("infer",))


def locate(path: str) -> Target | None:
    """All paths; which of them is an inference the model's `mapping.predict` says."""
    parts = segments(path) if path != "/" else []
    return None if parts is None else Target(None, None, "path/" + "/".join(parts))


def error_body(code: str, status: int, message: str) -> bytes:
    return orjson.dumps({"error": message, "code": code})


def asked(body: bytes) -> tuple[str | None, str | None]:
    return None, None


def not_copied(request: bytes, idempotent: bool) -> str | None:
    """Nobody but its owner knows whether such a call may be made twice."""
    return None if idempotent else "not_idempotent"


def count_rows(mapping: Mapped, request: Message) -> int:
    return len(_rows(mapping, request))


def read_columns(card: Card, mapping: Mapped, request: Message) -> Columns:
    """`mapping.rows` points at the list of rows (absent: the body is one row), `features` into one;
    a feature without a pointer is the key of its name."""
    rows = _rows(mapping, request)
    pointers = mapping.get("features") or {}
    columns: Columns = {}
    for feature in card.features:
        pointer = pointers.get(feature.name, f"/{feature.name}")
        values = [_held(row, pointer) for row in rows]
        if all(value is None for value in values) and not any(_has(row, pointer) for row in rows):
            raise Unreadable(f"feature {feature.name!r}: nothing is at {short(pointer)} of any row")
        columns[feature.name] = [value_of(feature.type, value) for value in values]
    return columns


def _rows(mapping: Mapped, request: Message) -> list[Any]:
    document = request.json()
    rows: Any = [document] if mapping.get("rows") is None else pointed(document, mapping["rows"])
    if not isinstance(rows, list) or not rows:
        raise Unreadable(f"{mapping.get('rows')!r} points at no list of rows")
    return rows


def _held(row: Any, pointer: str) -> Any:
    try:
        return pointed(row, pointer)
    except Unreadable:
        return None


def _has(row: Any, pointer: str) -> bool:
    try:
        pointed(row, pointer)
    except Unreadable:
        return False
    return True


def read_scores(card: Card, mapping: Mapped, response: Message) -> list[float]:
    """`mapping.scores` points at the list of answers, or at the only one; `score` into one."""
    found = pointed(response.json(), mapping.get("scores") or "")
    items = found if isinstance(found, list) else [found]
    pointer = mapping.get("score")
    if pointer is not None:
        items = [pointed(item, pointer) for item in items]
    return scores_of(card, mapping, items)


def read_rows(response: Message) -> list[Any]:
    """The whole answer: where its rows are, nobody says who does not map scores."""
    return [response.json()]
