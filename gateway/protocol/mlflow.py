"""MLflow's scoring server: `/invocations` in four JSON formats; CSV is passed, not read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.card import Card
from gateway.protocol.dialect import Target
from gateway.protocol.message import Message
from gateway.protocol.row import (
    Columns,
    Mapped,
    columns_of_columns,
    columns_of_matrix,
    columns_of_rows,
    length_of,
    scores_of,
)
from gateway.protocol.tensor import Unreadable, kind

NAME = "mlflow"
ERROR_TYPE = b"application/json"
METHODS: Mapping[str, str] = {"infer": "POST", "ready": "GET", "version": "GET"}
INFERENCES = frozenset(("infer",))
PATHS = {"/invocations": "infer", "/ping": "ready", "/health": "ready", "/version": "version"}
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
ERROR_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED",
               404: "RESOURCE_DOES_NOT_EXIST", 503: "TEMPORARILY_UNAVAILABLE"}  # fmt: skip


def locate(path: str) -> Target | None:
    """Neither model nor version is on the wire: the configuration says whose path it is."""
    operation = PATHS.get(path.removesuffix("/"))
    return None if operation is None else Target(None, None, operation)


def error_body(code: str, status: int, message: str) -> bytes:
    known = ERROR_CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return orjson.dumps({"error_code": known, "message": message})


def asked(body: bytes) -> tuple[str | None, str | None]:
    return None, None


def not_copied(request: bytes, idempotent: bool) -> str | None:
    return None


def count_rows(mapping: Mapped, request: Message) -> int:
    name, sent = _sent(request)
    return length_of(sent.get("data") if name == "dataframe_split" else sent)


def read_columns(card: Card, mapping: Mapped, request: Message) -> Columns:
    name, sent = _sent(request)
    if name == "dataframe_split":
        return _split(card, mapping, sent)
    if isinstance(sent, dict):
        return columns_of_columns(card, sent)
    return columns_of_rows(card, mapping, sent)


def _sent(request: Message) -> tuple[str, Any]:
    """The one format that is there, and what it holds."""
    if request.content_type == "text/csv":
        raise Unreadable("text/csv is passed, not read")
    document = request.object()
    given = [name for name in FORMATS if name in document]
    if len(given) != 1:
        raise Unreadable(f"one of {', '.join(FORMATS)} is wanted; sent: {', '.join(given) or '-'}")
    sent = document[given[0]]
    if not isinstance(sent, (dict, list)) or (
        given[0] == "dataframe_split" and not isinstance(sent, dict)
    ):
        raise Unreadable(f"{given[0]}: an object or a list is wanted, not {kind(sent)}")
    return given[0], sent


def _split(card: Card, mapping: Mapped, sent: Any) -> Columns:
    """`{columns, data}`; without `columns` the mapping's order or the card's holds."""
    data = sent.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(row, list) for row in data):
        raise Unreadable(f"dataframe_split.data: a list of lists is wanted, not {kind(data)}")
    columns = sent.get("columns") or mapping.get("order") or ()
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) < len(columns):
        raise Unreadable("dataframe_split.columns: names are wanted, each once")
    return columns_of_matrix(card, columns, data)


def read_scores(card: Card, mapping: Mapped, response: Message) -> list[float]:
    """`predictions`, or the bare answer of servers before MLflow 2."""
    return scores_of(card, mapping, _predictions(response))


def _predictions(response: Message) -> Any:
    document = response.json()
    if isinstance(document, dict) and "predictions" in document:
        return document["predictions"]
    return document


def read_rows(response: Message) -> list[Any]:
    predictions = _predictions(response)
    return predictions if isinstance(predictions, list) else [predictions]
