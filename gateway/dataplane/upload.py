"""Request bodies: held whole up to `limits.hold`, longer ones pass to the upstream piece by piece.

A held body can be looked into, sent again and copied to shadows; a passing one cannot, and leaves
its length, its digest and its first `limits.keep` bytes. Either way it ends at `limits.request`.
"""

from __future__ import annotations

import hashlib

from gateway.dataplane.limits import Load
from gateway.dataplane.turn import Turn
from gateway.errors import CODES, Refusal
from gateway.journal.record import Part

PIECES_MAX = 1024
"""Of a body's kept pieces: tiny ones would take many times their length in memory."""


class WholeBody:
    """A body that came as one message; `Turn` has the same methods for one that comes in pieces."""

    __slots__ = ("_bytes",)

    def __init__(self, message: bytes) -> None:
        self._bytes = message

    def arrived(self, at_most: int) -> bytes | None:
        return self._bytes if len(self._bytes) <= at_most else None

    async def receive(self) -> tuple[bytes, bool]:
        return self._bytes, False


Body = Turn | WholeBody
"""A request's body on its way."""


class Tally:
    """Length, digest and the first bytes of what passes."""

    def __init__(self, keep: int) -> None:
        self._room = keep
        self._digest = hashlib.sha256()
        self._kept: list[bytes] = []
        self.length = 0

    def add(self, chunk: bytes) -> None:
        self.length += len(chunk)
        self._digest.update(chunk)
        if self._room > 0:
            self._kept.append(chunk[: self._room])
            self._room -= len(chunk)
            if len(self._kept) >= PIECES_MAX:
                self._kept = [b"".join(self._kept)]

    def part(self, at_most: int | None = None) -> Part:
        """What passed, with its first bytes or, of those, at most so many."""
        kept = b"".join(self._kept)
        self._kept = [kept]  # in place of the pieces: not twice in memory
        return Part(self.length, self._digest.digest(), kept[:at_most])

    def forget(self) -> None:
        """The bytes are in their record."""
        self._kept, self._room = [], 0


class Upload:
    """A body on its way: an async iterator of its pieces, taken once.

    `length` is None where the client does not say it. `begun`: the first bytes, where they were
    looked at before the rest came. `kept_bytes`: how many of them may be kept. `failure`
    is why the body did not become whole, for whoever sees only that the upstream was left.
    """

    def __init__(
        self, body: Body, begun: bytes, length: int | None, at_most: int, keep: int,
        *, whole: bool = False,
    ) -> None:  # fmt: skip
        """`whole`: nothing comes behind `begun`."""
        self.length = length
        self.failure: Refusal | None = None
        self.tally, self.kept_bytes = Tally(keep), keep
        self.begun = begun
        self._body, self._at_most = body, at_most
        self._whole = whole

    def bound(self, at_most: int) -> None:
        """End at fewer bytes than was said before."""
        self._at_most = at_most
        if max(self.length or 0, len(self.begun)) > at_most:
            raise too_large(at_most)

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        if self.begun:
            piece, self.begun = self.begun, b""
            self.tally.add(piece)
            return piece
        if self._whole:
            raise StopAsyncIteration
        try:
            piece, more = await self._body.receive()
            if self.tally.length + len(piece) > self._at_most:
                raise too_large(self._at_most)
        except Refusal as refusal:
            self.failure = refusal
            raise
        self._whole = not more
        self.tally.add(piece)
        return piece


async def take_body(
    body: Body, headers: dict[bytes, bytes], load: Load, at_most: int, hold: int | None,
    keep: int, look: int = 0,
) -> bytes | Upload:  # fmt: skip
    """The whole body, or an Upload that keeps its first `keep` bytes, if it is longer than `hold`
    (None: never); of one whose length is said, `look` bytes have come then. The caller gives back
    room in `load` for the bytes, or for `kept_bytes` of them. Refused as soon as it is known to be
    longer than `at_most`."""
    hold = at_most if hold is None else hold
    stated = headers.get(b"content-length")
    length = int(stated) if stated is not None else None
    if length is not None and length > at_most:
        words = f"content-length {length}; at most {at_most} bytes are taken"
        raise Refusal("request_too_large", words)
    if length is not None and length > hold:
        keep = min(keep, length)
        take_room(load, keep)
        try:
            begun, more = await _first(body, look)
        except BaseException:
            load.held_bytes -= keep
            raise
        return Upload(body, begun, length, at_most, keep, whole=not more)
    held = 0
    try:
        chunks: list[bytes] = []
        more = True
        while more and held <= hold:
            chunk, more = await body.receive()
            if held + len(chunk) > at_most:
                raise too_large(at_most)
            take_room(load, len(chunk))
            held += len(chunk)
            chunks.append(chunk)
    except BaseException:
        load.held_bytes -= held
        raise
    whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if not more:
        return whole
    load.held_bytes -= held
    take_room(load, keep)
    return Upload(body, whole, None, at_most, keep)


def take_room(load: Load, size: int) -> None:
    if not load.hold(size):
        raise Refusal("memory_full", CODES["memory_full"][1])


async def _first(body: Body, size: int) -> tuple[bytes, bool]:
    """At least so many bytes of a body, and whether more come."""
    begun, more = b"", True
    while more and len(begun) < size:
        piece, more = await body.receive()
        begun += piece
    return begun, more


def too_large(at_most: int) -> Refusal:
    return Refusal("request_too_large", f"more than {at_most} bytes; no more are taken")
