"""A body with the headers that say how it is to be read. Pure.

Bodies are kept as they were sent, so that a reader undoes their coding first and splits them after.
What is decoded is bounded: a few bytes may claim to be a gibibyte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.protocol.tensor import Unreadable, kind

PLAIN_MAX = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Message:
    """`headers`: the first value of each name, names in lower case."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(body: bytes, pairs: Iterable[Iterable[Any]]) -> Message:
        """From a record's part and its kept headers."""
        headers: dict[str, str] = {}
        for name, value in pairs:
            headers.setdefault(str(name).lower(), str(value))
        return Message(body, headers)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def plain(self, at_most: int = PLAIN_MAX) -> bytes:
        """The body without its content coding."""
        return decoded(self.body, self.headers.get("content-encoding", ""), at_most)

    def json(self) -> Any:
        """The body as one JSON value."""
        try:
            return orjson.loads(self.plain())
        except orjson.JSONDecodeError as error:
            raise Unreadable(f"not JSON: {error}") from None

    def object(self) -> dict[str, Any]:
        document = self.json()
        if not isinstance(document, dict):
            raise Unreadable(f"an object is wanted, not {kind(document)}")
        return document


def decoded(body: bytes, coding: str, at_most: int) -> bytes:
    """gzip and deflate undone (deflate with or without its zlib wrapping); others Unreadable."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding in ("gzip", "x-gzip"):
        return _inflated(body, zlib.MAX_WBITS | 16, at_most)
    if coding == "deflate":
        wrapped = body[:1] and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
        return _inflated(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, at_most)
    raise Unreadable(f"content-encoding {coding[:40]!r} is not read")


def _inflated(body: bytes, window: int, at_most: int) -> bytes:
    """One or several members, one behind the other."""
    pieces: list[bytes] = []
    size = 0
    while True:
        member = zlib.decompressobj(window)
        try:
            piece = member.decompress(body, at_most + 1 - size)
        except zlib.error as error:
            raise Unreadable(f"content-encoding: {error}") from None
        pieces.append(piece)
        size += len(piece)
        if size > at_most:
            raise Unreadable(f"content-encoding: more than {at_most} bytes when decoded")
        if not member.eof:
            raise Unreadable("content-encoding: the body ends too early")
        body = member.unused_data
        if not body:
            return b"".join(pieces)
        if window != zlib.MAX_WBITS | 16:
            raise Unreadable("content-encoding: bytes stand behind its end")
