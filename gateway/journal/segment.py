"""Segments and frames: the journal's bytes on disk, and what may be believed of them.

A segment is one preallocated file: a head, then frames, then zeros. Invariants:

1. A frame's checksum runs over its bytes and is seeded by the checksum of the frame before it
   (the first one's by the segment's random salt). A stale frame of the blocks' former life never
   fits.
2. Each write to the file begins with a *commit marker*: the number of records that were durable
   before it. A marker has a second checksum of its own (salt, number), so that it can be
   recognised behind damage.
3. A bad frame at record number n is a *torn tail* unless a marker behind it, or a following
   segment, shows that n was durable; then it is *damage*. A torn tail is what a crash may leave
   and is cut. Damage is never cut, read over or repaired silently.
4. `length` is bounded before anything is allocated.

Frame, little-endian, padded with zeros to 8 bytes:
    u32 length  u32 checksum  u8 kind  u8 format  u16 0  u32 header length  u64 sequence
    header (JSON, in clear)  sealed part (encrypted)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from zlib import crc32

FORMAT = 1
MAGIC = b"HWJ1"
SEGMENT_HEAD = struct.Struct("<4sHHIQQ16sI")
FRAME_HEAD = struct.Struct("<IIBBHIQ")
FRAME_START, FRAME_TAIL = struct.Struct("<II"), struct.Struct("<BBHIQ")
PADDING = [bytes(size) for size in range(8)]
START = 64
"""Offset of the first frame."""
FRAME_BYTES_MAX = 256 * 1024**2


class Kind(IntEnum):
    RECORD = 1
    COMMIT = 2
    MARK = 3


COMMIT: Final = Kind.COMMIT


@dataclass(frozen=True, slots=True)
class SegmentHead:
    salt: int
    first_sequence: int
    created_ns: int
    journal: bytes  # 8 random bytes that name the journal, for its whole life

    def encode(self) -> bytes:
        body = SEGMENT_HEAD.pack(
            MAGIC, FORMAT, 0, self.salt, self.first_sequence, self.created_ns, self.journal, 0
        )[:-4]
        return (body + struct.pack("<I", crc32(body))).ljust(START, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> SegmentHead | None:
        """None: zeros, a segment that was prepared and never used. ValueError: damage."""
        if not data[:START].strip(b"\0"):
            return None
        if len(data) < START:
            raise ValueError("the segment is shorter than its head")
        magic, form, _, salt, first, created, journal, check = SEGMENT_HEAD.unpack_from(data)
        if magic != MAGIC or check != crc32(data[: SEGMENT_HEAD.size - 4]):
            raise ValueError("the segment's head is damaged")
        if form > FORMAT:
            raise ValueError(
                f"segment format {form} is newer than {FORMAT}, which this program reads"
            )
        return cls(salt, first, created, journal.rstrip(b"\0"))


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    sequence: int
    header: bytes
    sealed: bytes
    offset: int
    end: int
    checksum: int


def add_frame(
    pieces: list[bytes], kind: Kind, sequence: int, header: bytes, sealed: bytes, seed: int
) -> int:
    """Put the frame behind `pieces`; its checksum. A long sealed part is not copied."""
    begin = FRAME_TAIL.pack(kind, FORMAT, 0, len(header), sequence) + header
    checksum = crc32(sealed, crc32(begin, seed))
    length = FRAME_START.size + len(begin) + len(sealed)
    pieces += (FRAME_START.pack(length, checksum), begin, sealed, PADDING[-length % 8])
    return checksum


def encode_commit(durable_upto: int, salt: int, seed: int) -> tuple[bytes, int]:
    pieces: list[bytes] = []
    checksum = add_commit(pieces, durable_upto, salt, seed)
    return b"".join(pieces), checksum


def add_commit(pieces: list[bytes], durable_upto: int, salt: int, seed: int) -> int:
    """Put a commit marker behind `pieces`; its checksum."""
    return add_frame(pieces, COMMIT, durable_upto, b"", _commit_check(durable_upto, salt), seed)


def _commit_check(durable_upto: int, salt: int) -> bytes:
    return struct.pack("<I", crc32(b"commit%d" % durable_upto, salt))


class Broken(Exception):
    """The bytes at `offset` are no valid frame."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"no valid frame at offset {offset}")
        self.offset = offset


def read_frames(data: bytes | memoryview, offset: int, seed: int, base: int = 0) -> Iterator[Frame]:
    """Frames of `data`, which begins at file offset `base`, from `offset` (in the file) on.

    Ends at zeros or where a frame is not yet whole at the end of `data`; raises Broken where the
    bytes cannot be a frame.
    """
    view = memoryview(data)
    size = len(view)
    at = offset - base
    while at + FRAME_HEAD.size <= size:
        length, checksum, kind, form, _, header_length, sequence = FRAME_HEAD.unpack_from(view, at)
        if length == 0:
            if any(view[at : at + FRAME_HEAD.size]):
                raise Broken(base + at)
            return
        if not FRAME_HEAD.size + header_length <= length <= FRAME_BYTES_MAX:
            raise Broken(base + at)
        if at + length > size:
            return
        if form > FORMAT or crc32(view[at + 8 : at + length], seed) != checksum:
            raise Broken(base + at)
        body = at + FRAME_HEAD.size
        end = at + length + -length % 8
        header = bytes(view[body : body + header_length])
        sealed = bytes(view[body + header_length : at + length])
        yield Frame(kind, sequence, header, sealed, base + at, base + end, checksum)
        seed = checksum
        at = end


def commits_behind(data: bytes | memoryview, offset: int, salt: int) -> Iterator[tuple[int, int]]:
    """(offset in `data`, durable_upto) of every commit marker at or behind `offset`.

    Markers are found by their own checksum, whatever lies between; what `data` cuts off is none.
    """
    view = bytes(data)
    pattern = struct.pack("<BBHI", Kind.COMMIT, FORMAT, 0, 0)
    length = struct.pack("<I", FRAME_HEAD.size + 4)
    at = view.find(pattern, offset)
    while at >= 0:
        start = at - 8
        whole = at + 20 <= len(view)
        if whole and start >= offset and start % 8 == 0 and view[start : start + 4] == length:
            (durable_upto,) = struct.unpack_from("<Q", view, at + 8)
            if view[at + 16 : at + 20] == _commit_check(durable_upto, salt):
                yield start, durable_upto
        at = view.find(pattern, at + 1)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a whole segment holds: where the believable part ends, and whether that is honest."""

    end: int
    checksum: int
    next_sequence: int
    torn: bool
    damaged_at: int | None


def survey(data: bytes, head: SegmentHead, durable_elsewhere: int = 0) -> Extent:
    """Read a closed or crashed segment to its end, by the rules at the top of this file.

    `durable_elsewhere`: records known durable from outside (a following segment's first sequence).
    """
    end, checksum, following = START, head.salt, head.first_sequence
    broken = None
    try:
        for frame in read_frames(data, START, head.salt):
            end, checksum = frame.end, frame.checksum
            if frame.kind == Kind.RECORD:
                following = frame.sequence + 1
    except Broken as error:
        broken = error.offset
    torn = bool(data[end:].strip(b"\0"))
    if torn and broken is None:
        broken = end
    known = max((upto for _, upto in commits_behind(data, end, head.salt)), default=0)
    damaged = following < max(known, durable_elsewhere)
    return Extent(end, checksum, following, torn, (broken or end) if damaged else None)
