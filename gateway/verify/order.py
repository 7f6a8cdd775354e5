"""The one order of all leaves, read from `order/*.order` by who did not write it.

Head: u32 length, u32 CRC-32, JSON, zeros to a multiple of 32. Record: u32 log, u32 source,
u64 place in the log, u64 sequence in the source, u32 CRC-32 of the entry, u32 CRC-32 of
the 28 bytes before, seeded by the checksum before it (the first: by the head's). Little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from gateway.verify.fault import Fault, Found

FORMAT = 2
RECORD = struct.Struct("<IIQQII")
CHECKED = 28
CHUNK = 4096 * RECORD.size
HEAD_BYTES_MAX = 64 * 1024**2
NO_SOURCE = 0xFFFFFFFF
Record = tuple[int, int, int, int, int, int]


def order_fault(kind: str, words: str, file: str | None, number: int | None = None) -> Found:
    return Found(Fault("order", kind, words, file, None, number))


class OrderFile:
    """One file: `first` leaf number, `logs` and `sources` with how far each had come before it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, f"order/{path.name}"
        with path.open("rb") as file:
            prefix = file.read(8)
            length, self.seed = struct.unpack("<II", prefix) if len(prefix) == 8 else (0, 0)
            padded = -(8 + length) % RECORD.size
            text, padding = b"", b""
            if length <= HEAD_BYTES_MAX:
                text, padding = file.read(length), file.read(padded)
        if length == 0 or len(text) != length or crc32(text) != self.seed:
            raise order_fault("head damaged", "it does not have its checksum", self.name)
        if padding != bytes(padded):
            raise order_fault("head damaged", "its padding is not zeros", self.name)
        self.start = 8 + length + padded
        self._read(text)

    def _read(self, text: bytes) -> None:
        try:
            told: dict[str, Any] = orjson.loads(text)
            form, self.first = told["format"], int(told["first"])
            self.logs: dict[str, int] = dict(told["logs"])
            self.sources: dict[str, int] = dict(told["sources"])
        except (ValueError, KeyError, TypeError):
            raise order_fault(
                "head damaged", "it does not say what a head says", self.name
            ) from None
        if form != FORMAT:
            raise order_fault("head damaged", f"format {form} is not {FORMAT}", self.name)
        if self.path.name != f"{self.first:020d}.order":
            raise order_fault("head damaged", f"it says to begin with {self.first}", self.name)

    def records(self, first: int) -> Iterator[list[Record]]:
        """Whole records in lists, from the file's first on; `self.rest` is what follows them."""
        seed, number, self.rest = self.seed, first, 0
        with self.path.open("rb") as file:
            file.seek(self.start)
            while data := file.read(CHUNK):
                whole: list[Record] = []
                for at, record in enumerate(
                    RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size])
                ):
                    start = at * RECORD.size
                    checksum = crc32(data[start : start + CHECKED], seed)
                    if checksum != record[5]:
                        break
                    seed = checksum
                    whole.append(record)
                number += len(whole)
                yield whole
                self.rest = len(data) - len(whole) * RECORD.size
                if self.rest:
                    self.rest += len(file.read())
                    return


def read_committed(ledger: Path) -> int:
    """How many leaves are said to be durable."""
    try:
        data = (ledger / "committed").read_bytes()
    except FileNotFoundError:
        raise order_fault(
            "missing", "nothing says how many leaves there are", "committed"
        ) from None
    if len(data) != 8:
        raise order_fault("damaged", f"{len(data)} bytes instead of 8", "committed")
    return int.from_bytes(data, "little")
