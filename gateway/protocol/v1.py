"""KServe's V1 protocol: `:predict` and `:explain`, rows as `instances`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from gateway.card import Card
from gateway.protocol.dialect import Target, segments
from gateway.protocol.message import Message
from gateway.protocol.row import (
    Columns,
    Mapped,
    columns_of_columns,
    columns_of_rows,
    length_of,
    scores_of,
)
from gateway.protocol.tensor import Unreadable

NAME = "v1"
ERROR_TYPE = b"application/json"
METHODS: Mapping[str, str] = {"infer": "POST", "explain": "POST", "ready": "GET", "models": "GET",
                              "live": "GET"}  # fmt: skip
INFERENCES = frozenset(("infer",))
VERBS = {"predict": "infer", "explain": "explain"}


def locate(path: str) -> Target | None:
    """The verb is behind the last colon of the last segment; names may hold colons themselves."""
    if path == "/":
        return Target(None, None, "live")
    if path in ("/v1/models", "/v1/models/"):
        return Target(None, None, "models")
    parts = segments(path) if path.startswith("/v1/models/") else None
    if parts is None or len(parts) != 3:
        return None
    name, colon, verb = unquote(path[11:].removesuffix("/")).rpartition(":")
    if not colon:
        return Target(parts[2], None, "ready")
    if not name or verb not in VERBS:
        return None
    return Target(name, None, VERBS[verb])


def error_body(code: str, status: int, message: str) -> bytes:
    return orjson.dumps({"error": message})


def asked(body: bytes) -> tuple[str | None, str | None]:
    return None, None


def not_copied(request: bytes, idempotent: bool) -> str | None:
    return None


def count_rows(mapping: Mapped, request: Message) -> int:
    return length_of(_rows(request))


def read_columns(card: Card, mapping: Mapped, request: Message) -> Columns:
    """`instances` row by row, or `inputs`, which may be an object of columns as well."""
    rows = _rows(request)
    if isinstance(rows, dict):
        return columns_of_columns(card, rows)
    return columns_of_rows(card, mapping, rows)


def _rows(request: Message) -> Any:
    document = request.object()
    return document.get("instances", document.get("inputs"))


def read_scores(card: Card, mapping: Mapped, response: Message) -> list[float]:
    return scores_of(card, mapping, _predictions(response))


def _predictions(response: Message) -> Any:
    document = response.object()
    if "predictions" not in document:
        raise Unreadable("predictions: missing")
    return document["predictions"]


def read_rows(response: Message) -> list[Any]:
    predictions = _predictions(response)
    return predictions if isinstance(predictions, list) else [predictions]
