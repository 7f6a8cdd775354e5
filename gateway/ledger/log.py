"""The ledger: leaves in order, appended by one writer, readable from disk by anybody.

    state/ledger/<number of the first leaf>.leaves    entries, oldest file first
    state/ledger/committed                            how many leaves are durable, 8 bytes

Invariants:
1. A leaf's number is its place, counted from 0 over all files; it is never given twice.
2. `committed` is raised only after the fdatasync that covers the leaves: whoever reads below it
   reads what a power loss cannot take back. A number it shows may be too low, never too high.
3. Each file begins with the position of every journal at that point, and each leaf names its
   journal and sequence: the last file alone says where sealing goes on.

Entry: u32 length, u32 CRC-32 seeded by the entry before (the first: by 0), then the bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import orjson

from gateway.disk import hold, write_durably

FORMAT = 1
ENTRY = struct.Struct("<II")
ENTRY_BYTES_MAX = 16 * 1024**2
FILE_BYTES = 64 * 1024**2
READ_BYTES = 1024**2


def _entries(data: bytes, seed: int) -> Iterator[tuple[bytes, int, int]]:
    """(bytes, end offset, checksum) of each whole entry; stops at the first that is not."""
    at = 0
    while at + ENTRY.size <= len(data):
        length, checksum = ENTRY.unpack_from(data, at)
        end = at + ENTRY.size + length
        if length > ENTRY_BYTES_MAX or end > len(data):
            return
        payload = data[at + ENTRY.size : end]
        if crc32(payload, seed) != checksum:
            return
        yield payload, end, checksum
        seed, at = checksum, end


class LedgerDamaged(Exception):
    """An entry below the durable mark does not have its checksum."""


class Ledger:
    """The writing side; one process. `positions`: last sealed sequence of each source."""

    def __init__(self, state: Path) -> None:
        self.root = state / "ledger"
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = hold(self.root / "lock")
        self.positions: dict[str, int] = {}
        self.number = 0
        self._buffer: list[bytes] = []
        self.last_leaf: bytes | None = None
        self._recover()

    def _recover(self) -> None:
        """Believe every whole entry, cut what follows, make it durable, go on behind it."""
        files = _files(self.root)
        known = read_committed(self.root)
        if not files and known:
            raise LedgerDamaged(f"{known} leaves were durable and no file holds them")
        if not files:
            self._begin_file()
            return
        path = files[-1]
        data = path.read_bytes()
        end = self._checksum = 0
        self.number = int(path.stem)
        for place, (payload, behind, checksum) in enumerate(_entries(data, 0)):
            end, self._checksum = behind, checksum
            if place == 0:
                self.positions = dict(orjson.loads(payload)["positions"])
            else:
                self._learn(payload)
                self.number += 1
        if end == 0 or self.number < known:
            raise LedgerDamaged(f"{path.name}: leaf {self.number} is damaged, {known} were durable")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, end)
        os.fsync(self._descriptor)
        self._size = end
        self._open_mark()
        self._raise_mark()

    def _learn(self, leaf: bytes) -> None:
        self.last_leaf = leaf
        document = orjson.loads(leaf)
        if (source := document.get("source")) is not None:
            self.positions[source] = document["sequence"]

    def _begin_file(self) -> None:
        path = self.root / f"{self.number:020d}.leaves"
        head = orjson.dumps({"format": FORMAT, "first": self.number, "positions": self.positions})
        self._checksum = crc32(head)
        entry = ENTRY.pack(len(head), self._checksum) + head
        write_durably(path, entry)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._size = len(entry)
        if self.number == 0:
            write_durably(self.root / "committed", bytes(8))
        self._open_mark()

    def _open_mark(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._mark = os.open(self.root / "committed", flags, 0o600)

    def _raise_mark(self) -> None:
        os.pwrite(self._mark, struct.pack("<Q", self.number), 0)

    def append(self, leaf: bytes, source: str | None = None, sequence: int = 0) -> int:
        """Queue a leaf for the next `commit`; its number. The leaf names source and sequence."""
        if len(leaf) > ENTRY_BYTES_MAX:
            raise ValueError(f"a leaf of {len(leaf)} bytes; at most {ENTRY_BYTES_MAX} can be read")
        self._checksum = crc32(leaf, self._checksum)
        self._buffer.append(ENTRY.pack(len(leaf), self._checksum))
        self._buffer.append(leaf)
        if source is not None:
            self.positions[source] = sequence
        number = self.number
        self.number += 1
        return number

    def commit(self) -> None:
        """Write what was appended, make it durable, and only then say so."""
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        if os.pwrite(self._descriptor, data, self._size) != len(data):
            raise OSError("a write to the ledger was short")
        self._size += len(data)
        os.fdatasync(self._descriptor)
        self._raise_mark()
        if self._size > FILE_BYTES:
            os.close(self._descriptor)
            os.close(self._mark)
            self._begin_file()

    def close(self) -> None:
        for descriptor in (self._descriptor, self._mark, self._lock):
            os.close(descriptor)


def _files(root: Path) -> list[Path]:
    return sorted(root.glob("*.leaves"))


def read_committed(root: Path) -> int:
    """How many leaves are durable."""
    try:
        data = (root / "committed").read_bytes()
    except FileNotFoundError:
        return 0
    number: int = struct.unpack("<Q", data)[0] if len(data) == 8 else 0
    return number


class LedgerReader:
    """Durable leaves from `start` on, then whatever is committed. Any process, any number."""

    def __init__(self, state: Path, start: int = 0) -> None:
        self.root = state / "ledger"
        self.next = start
        self._path: Path | None = None
        self._offset = self._checksum = self._number = 0

    def lag(self) -> int:
        return max(0, read_committed(self.root) - self.next)

    def read(self, at_most: int) -> Iterator[tuple[int, bytes]]:
        """Up to `at_most` further leaves, numbered. LedgerDamaged where one is not whole."""
        committed = min(read_committed(self.root), self.next + at_most)
        while self.next < committed:
            path = self._holding()
            if path != self._path:
                self._path, self._offset, self._checksum = path, 0, 0
                self._number = int(path.stem) - 1  # the file's head counts as the leaf before
            yield from self._read_file(path, committed)

    def _holding(self) -> Path:
        """The file that holds leaf `next`."""
        held = [path for path in _files(self.root) if int(path.stem) <= self.next]
        if not held:
            raise LedgerDamaged(f"no file holds leaf {self.next}")
        return held[-1]

    def _read_file(self, path: Path, committed: int) -> Iterator[tuple[int, bytes]]:
        size = READ_BYTES
        with path.open("rb") as file:
            while self.next < committed:
                start = self._offset
                file.seek(start)
                data = file.read(size)
                for payload, end, checksum in _entries(data, self._checksum):
                    number = self._number
                    self._number, self._offset, self._checksum = number + 1, start + end, checksum
                    if number == self.next:
                        self.next += 1
                        yield number, payload
                    if self.next >= committed:
                        return
                if self._offset == start and len(data) == size:
                    size *= 4  # one leaf is longer than what was read
                elif self._offset == start:
                    if self._holding() == path:
                        raise LedgerDamaged(f"{path.name}: leaf {self.next} is damaged")
                    return
