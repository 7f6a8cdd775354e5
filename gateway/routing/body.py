"""What routing reads of a request's body: fields that rules ask for, the sequence it belongs to.

Pure; a body is never written again.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocol import grpc, v2
from gateway.protocol.dialect import Dialect
from gateway.protocol.message import Message
from gateway.protocol.tensor import Unreadable


class NoDocument(Exception):
    """`reason`: too_long, encoding or not_json, as the metric counts it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_document(dialect: Dialect, message: Message, at_most: int) -> Any:
    """One JSON value; of a v2 request with bytes behind its JSON, the JSON part."""
    if dialect is grpc:
        raise NoDocument("not_json")
    if len(message.body) > at_most:
        raise NoDocument("too_long")
    try:
        body = message.plain(at_most)
    except Unreadable:
        raise NoDocument("encoding") from None
    told = v2.header_length(message) if dialect is v2 else None
    if told is not None and told.isdigit():
        body = body[: int(told[:12])]
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NoDocument("not_json") from None


def sequence_in(dialect: Dialect, message: Message, at_most: int) -> str | None:
    """The sequence whose server keeps state between requests, where the body can be read."""
    if dialect is grpc:
        return grpc.sequence_of(message.body)
    if dialect is not v2 or len(message.body) > at_most:
        return None
    return v2.sequence_of(message, at_most)
