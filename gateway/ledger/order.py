"""The one order of all leaves, as bytes: pure. Leaves lie in many logs; this says which is next.

    state/ledger/order/<number of the first leaf>.order

A file begins with a head that names the logs and sources it speaks of, each with how far it had
come; then one record a leaf. Invariants:
1. A leaf exists exactly when its record is whole: its entry was durable before.
2. A record's checksum is seeded by the one before it (the first: by the head's), so a stale tail
   never fits. The first that does not fit ends the file.
3. The last file alone says how far every log and every journal has come.

Head: u32 length, u32 CRC-32, JSON, zeros up to a multiple of 32. Record, 32 bytes, little-endian:
u32 log, u32 source, u64 place in the log, u64 sequence in the source, u32 CRC-32 of the entry,
u32 CRC-32 of the 28 bytes before, seeded. `log` and `source` are places in the head's lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import orjson

FORMAT = 2
PREFIX = struct.Struct("<II")
BODY = struct.Struct("<IIQQI")
CHECK = struct.Struct("<I")
RECORD_BYTES = BODY.size + CHECK.size
NO_SOURCE = 0xFFFFFFFF


class Record(NamedTuple):
    log: int
    source: int
    place: int
    sequence: int
    entry_checksum: int


@dataclass(slots=True)
class Head:
    """`logs`: size of each; `sources`: last sealed sequence of each; both before `first`."""

    first: int
    logs: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)

    def encode(self) -> tuple[bytes, int]:
        """The head's bytes, and the checksum that seeds the first record's."""
        text = orjson.dumps(
            {"format": FORMAT, "first": self.first, "logs": list(self.logs.items()),
             "sources": list(self.sources.items())}
        )  # fmt: skip
        seed = crc32(text)
        data = PREFIX.pack(len(text), seed) + text
        return data + bytes(-len(data) % RECORD_BYTES), seed

    @classmethod
    def decode(cls, data: bytes) -> tuple[Head, int, int]:
        """Head, its length in bytes, the seed. ValueError where it is not whole."""
        if len(data) < PREFIX.size:
            raise ValueError("the head is not whole")
        length, seed = PREFIX.unpack_from(data)
        text = data[PREFIX.size : PREFIX.size + length]
        if len(text) != length or crc32(text) != seed:
            raise ValueError("the head is damaged")
        told = orjson.loads(text)
        if told["format"] > FORMAT:
            raise ValueError(f"format {told['format']} is newer than {FORMAT}, which is read here")
        whole = PREFIX.size + length
        head = cls(told["first"], dict(told["logs"]), dict(told["sources"]))
        return head, whole + -whole % RECORD_BYTES, seed


def encode_record(record: Record, seed: int) -> tuple[bytes, int]:
    body = BODY.pack(*record)
    checksum = crc32(body, seed)
    return body + CHECK.pack(checksum), checksum


def read_records(data: bytes, seed: int) -> Iterator[tuple[Record, int]]:
    """Whole records in order, each with its checksum; ends at the first that does not fit."""
    for start in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        body = data[start : start + BODY.size]
        checksum = crc32(body, seed)
        if CHECK.unpack_from(data, start + BODY.size)[0] != checksum:
            return
        yield Record._make(BODY.unpack(body)), checksum
        seed = checksum


def record_in(path: Path, number: int) -> tuple[str, Record] | None:
    """Log and record of leaf `number` in its file, found by its place alone.

    The chain of checksums is not followed: the entry's own checksum says whether it is the one.
    """
    with path.open("rb") as file:
        data = file.read(PREFIX.size)
        length = PREFIX.unpack(data)[0]
        head, offset, _ = Head.decode(data + file.read(length))
        file.seek(offset + (number - head.first) * RECORD_BYTES)
        body = file.read(RECORD_BYTES)
    if number < head.first or len(body) < RECORD_BYTES:
        return None
    record = Record._make(BODY.unpack(body[: BODY.size]))
    return list(head.logs)[record.log], record
