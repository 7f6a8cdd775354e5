"""One log's entries on disk: bundles of 256 (c2sp.org/tlog-tiles), the last one still growing.

    tile/entries/<N>          full bundles; they never change
    tail/<bundle number>      the growing bundle: the same bytes, appended

Invariants:
1. Bundles are written in order; a tail moves to its place as a full bundle only after the order
   says that all of its entries exist (`settle`), so what lies in `tile/` is never taken back.
2. Readers look for the full bundle first and then for the tail of the same number: a tail is moved,
   never emptied, so an open file goes on being right.
"""

from __future__ import annotations

import os
from pathlib import Path

from gateway.disk import sync_folder
from gateway.ledger.tiles import ENTRY_BYTES_MAX, LENGTH, TILE_WIDTH, Bundle

READ_BYTES = 1024**2


class LedgerDamaged(Exception):
    """What was durable is missing or does not have its checksum."""


class Gone(Exception):
    """The log was dropped as its retention says."""


def full_path(root: Path, number: int) -> Path:
    return root / Bundle(number).path


def tail_path(root: Path, number: int) -> Path:
    return root / "tail" / str(number)


def _end_of(data: bytes, entries: int) -> int | None:
    """Where the first `entries` entries end; None if there are not so many."""
    at = 0
    for _ in range(entries):
        if at + LENGTH.size > len(data):
            return None
        at += LENGTH.size + LENGTH.unpack_from(data, at)[0]
    return at if at <= len(data) else None


class EntryFiles:
    """The writing side of one log; `size` entries exist, whatever else a crash left."""

    def __init__(self, root: Path, size: int) -> None:
        self.root, self.size = root, size
        (root / "tail").mkdir(parents=True, exist_ok=True)
        self._pending: list[bytes] = []
        self._full: list[int] = []
        self._tail: int | None = None  # descriptor
        self._offset = 0
        self._made = False
        self._recover()

    def _recover(self) -> None:
        current, held = divmod(self.size, TILE_WIDTH)
        for path in (self.root / "tail").iterdir():
            number = int(path.name)
            if number < current:
                self._full.append(number)
            elif number > current or not held:
                path.unlink()
        self.settle()
        if current and not full_path(self.root, current - 1).exists():
            raise LedgerDamaged(f"{self.root}: bundle {current - 1} is missing")
        if held:
            self._open(current)
            assert self._tail is not None
            end = _end_of(tail_path(self.root, current).read_bytes(), held)
            if end is None:
                raise LedgerDamaged(f"{self.root}: tail {current} holds fewer than {held} entries")
            os.ftruncate(self._tail, end)
            os.fsync(self._tail)
            self._offset = end

    def _open(self, number: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._tail = os.open(tail_path(self.root, number), flags, 0o600)
        self._offset = 0
        self._made = True

    def append(self, entry: bytes) -> int:
        """Queue an entry for the next `flush`; its index."""
        if len(entry) > ENTRY_BYTES_MAX:
            raise ValueError(f"an entry of {len(entry)} bytes; at most {ENTRY_BYTES_MAX} fit")
        self._pending.append(entry)
        self.size += 1
        return self.size - 1

    def flush(self) -> None:
        """Write what was appended and make it durable, names too."""
        at = self.size - len(self._pending)
        entries, self._pending = self._pending, []
        while entries:
            number, held = divmod(at, TILE_WIDTH)
            some, entries = entries[: TILE_WIDTH - held], entries[TILE_WIDTH - held :]
            if self._tail is None:
                self._open(number)
            self._write(some)
            at += len(some)
            if at % TILE_WIDTH == 0:
                self._close()
                self._full.append(number)
        if self._made:
            sync_folder(self.root / "tail")
            self._made = False

    def _write(self, entries: list[bytes]) -> None:
        assert self._tail is not None
        data = b"".join([part for entry in entries for part in (LENGTH.pack(len(entry)), entry)])
        if os.pwrite(self._tail, data, self._offset) != len(data):
            raise OSError("a write to the ledger was short")
        self._offset += len(data)
        os.fdatasync(self._tail)

    def settle(self) -> None:
        """Move full bundles to their place: the order has all of their entries."""
        for number in self._full:
            path = full_path(self.root, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(tail_path(self.root, number), path)
        self._full.clear()

    def _close(self) -> None:
        assert self._tail is not None
        os.close(self._tail)
        self._tail = None

    def close(self) -> None:
        if self._tail is not None:
            self._close()


class EntryReader:
    """Entries of one log by index, quickest in order. Any process; any number."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._number = -1
        self._index = 0  # of the entry at `_at`
        self._data = b""
        self._at = 0
        self._offset = 0  # in the file, of the end of `_data`
        self._descriptor: int | None = None

    def read(self, index: int) -> bytes:
        """An entry that is known to exist. Gone, or LedgerDamaged where it is not there."""
        number = index // TILE_WIDTH
        if number != self._number or index < self._index:
            self._seek(number)
        while True:
            entry = self._next()
            if entry is None:
                raise LedgerDamaged(f"{self.root}: entry {index} is missing or cut")
            self._index += 1
            if self._index > index:
                return entry

    def _next(self) -> bytes | None:
        while True:
            if self._at + LENGTH.size <= len(self._data):
                start = self._at + LENGTH.size
                end = start + LENGTH.unpack_from(self._data, self._at)[0]
                if end <= len(self._data):
                    self._at = end
                    return self._data[start:end]
            assert self._descriptor is not None
            more = os.pread(self._descriptor, READ_BYTES, self._offset)
            if not more:
                return None
            self._data = self._data[self._at :] + more
            self._at = 0
            self._offset += len(more)

    def _seek(self, number: int) -> None:
        self.close()
        for path in (full_path(self.root, number), tail_path(self.root, number),
                     full_path(self.root, number)):  # fmt: skip
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                break
            except FileNotFoundError:
                continue
        else:
            if not self.root.exists():
                raise Gone(str(self.root))
            raise LedgerDamaged(f"{self.root}: bundle {number} is missing")
        self._number, self._index = number, number * TILE_WIDTH
        self._data, self._at, self._offset = b"", 0, 0

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._number = -1
