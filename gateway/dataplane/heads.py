"""Heads of requests that came before: a client says the same one again and again.

Invariant: **a head known is a head read.** What is kept of it is what the parser made of exactly
these bytes at the start of a message, and only where the connection is at the start of the next one
when as many bytes have followed as the head says. Chunks, expectations, upgrades, HTTP/1.0 and what
ends the connection are read each time; so is what carries an identity and will not come again.
"""

from __future__ import annotations

from typing import Final

from gateway.dataplane.response import HEAD_END
from gateway.dataplane.turn import Turn
from gateway.exchange import Headers

KNOWN_MAX: Final = 512
KNOWN_BYTES_MAX: Final = 1024
READ_EACH_TIME: Final = frozenset(
    (b"transfer-encoding", b"expect", b"upgrade", b"traceparent", b"x-request-id")
)


class KnownHead:
    """`size` is the head's own, `length` its body's, in bytes. Read-only: many turns have it."""

    __slots__ = ("first", "headers", "length", "method", "path", "query", "size")

    def __init__(self, turn: Turn, size: int, length: int) -> None:
        self.method, self.path, self.query = turn.method, turn.path, turn.query
        self.headers: Headers = turn.headers
        self.first, self.size, self.length = turn.first, size, length


_known: dict[bytes, KnownHead] = {}


def find_known(data: bytes) -> KnownHead | None:
    """Of bytes that begin at the start of a message: their head, if it is known and they are the
    whole request and nothing more."""
    size = _head_size(data)
    known = _known.get(data[:size])
    return known if known is not None and size + known.length == len(data) else None


def _head_size(data: bytes) -> int:
    """Of the first head, with its blank line; where none ends here, of no head at all."""
    return data.find(HEAD_END) + len(HEAD_END)


def remember(data: bytes, turn: Turn) -> None:
    """`data`, which began at the start of a message, was read as this one whole request."""
    size = len(data) - turn.size
    if size > KNOWN_BYTES_MAX or not turn.keep_alive or not READ_EACH_TIME.isdisjoint(turn.first):
        return
    if _head_size(data) != size:
        return
    if len(_known) >= KNOWN_MAX:
        del _known[next(iter(_known))]
    _known[data[:size]] = KnownHead(turn, size, turn.size)
