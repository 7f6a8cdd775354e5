"""The ledger: leaves in one order over many Merkle logs, appended by one writer, read by anybody.

    state/ledger/order/           the order of all leaves (`order.py`)
    state/ledger/<log>/           the logs' entries and tiles (`entries.py`, `signer.py`)
    state/ledger/committed        how many leaves are durable, 8 bytes

Invariants:
1. A leaf's number is its place in the order, counted from 0; it is never given twice.
2. Entries are durable before their order records, those before `committed`: whoever reads below it
   reads what a power loss cannot take back. A number it shows may be too low, never too high.
3. Each leaf of a journal names it and its sequence, in the order too: the last order file alone
   says where sealing goes on.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from gateway.disk import hold, sync_folder, write_durably
from gateway.ledger.entries import EntryFiles, EntryReader, Gone, LedgerDamaged
from gateway.ledger.order import (
    NO_SOURCE,
    RECORD_BYTES,
    Head,
    Record,
    encode_record,
    read_records,
    record_in,
)

FILE_RECORDS = 262_144
READ_RECORDS = 4096


class Ledger:
    """The writing side; one process. `positions`: last sealed sequence of each source."""

    def __init__(self, state: Path, file_records: int = FILE_RECORDS) -> None:
        self.root = state / "ledger"
        (self.root / "order").mkdir(parents=True, exist_ok=True)
        self._lock = hold(self.root / "lock")
        self._file_records = file_records
        self.positions: dict[str, int] = {}
        self._ordered: dict[str, int] = {}  # positions without what waits for a commit
        self.logs: dict[str, EntryFiles] = {}
        self.number = 0
        self.broken = False
        self._pending: list[tuple[str, str | None, int, int, int]] = []
        self._known: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._descriptor = -1
        self._records = 0
        self._recover()

    def _recover(self) -> None:
        """Believe every whole record, cut what follows, make it durable, go on behind it."""
        files = _files(self.root)
        known = read_committed(self.root)
        if not files and known:
            raise LedgerDamaged(f"{known} leaves were durable and no file has their order")
        sizes: dict[str, int] = {}
        if files:
            sizes = self._read_last(files[-1], known)
        for log, size in sizes.items():
            if (self.root / log).exists():
                self.logs[log] = EntryFiles(self.root / log, size)
        if not files:
            self._begin_file()
        self._open_mark()
        self._raise_mark()

    def _read_last(self, path: Path, known: int) -> dict[str, int]:
        data = path.read_bytes()
        try:
            head, start, seed = Head.decode(data)
        except ValueError as error:
            raise LedgerDamaged(f"{path.name}: {error}") from None
        self.number, self._checksum = head.first, seed
        logs, sources = list(head.logs), list(head.sources)
        end = start
        for record, checksum in read_records(data[start:], seed):
            self._checksum = checksum
            end += RECORD_BYTES
            self.number += 1
            head.logs[logs[record.log]] = record.place + 1
            if record.source != NO_SOURCE:
                head.sources[sources[record.source]] = record.sequence
        if self.number < known:
            raise LedgerDamaged(f"{path.name}: leaf {self.number} is damaged, {known} were durable")
        self._know(logs, sources)
        self.positions, self._ordered = head.sources, dict(head.sources)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, end)
        os.fsync(self._descriptor)
        self._size, self._records = end, (end - start) // RECORD_BYTES
        return head.logs

    def _know(self, logs: list[str], sources: list[str]) -> None:
        self._known = (
            {name: place for place, name in enumerate(logs)},
            {name: place for place, name in enumerate(sources)},
        )

    def _begin_file(self) -> None:
        """Sizes and positions are those before what waits: its records are yet to come."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        before = {name: log.size for name, log in self.logs.items()}
        for log, source, *_ in self._pending:
            before[log] -= 1
            if source is not None:
                self._ordered.setdefault(source, -1)
        head = Head(self.number - len(self._pending), before, self._ordered)
        data, self._checksum = head.encode()
        path = self.root / "order" / f"{head.first:020d}.order"
        write_durably(path, data)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._size, self._records = len(data), 0
        self._know(list(head.logs), list(head.sources))

    def _open_mark(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._mark = os.open(self.root / "committed", flags, 0o600)

    def _raise_mark(self) -> None:
        os.pwrite(self._mark, struct.pack("<Q", self.number), 0)

    def open_log(self, name: str) -> EntryFiles:
        """The log to append to, made if it is new."""
        log = self.logs.get(name)
        if log is None:
            log = self.logs[name] = EntryFiles(self.root / name, 0)
            for folder in (self.root / name).parents:  # its name has to last as long as its leaves
                sync_folder(folder)
                if folder == self.root:
                    break
        return log

    def append(self, log: str, leaf: bytes, source: str | None = None, sequence: int = 0) -> int:
        """Queue a leaf for the next `commit`; its number. The leaf names source and sequence."""
        index = self.open_log(log).append(leaf)
        self._pending.append((log, source, index, sequence, crc32(leaf)))
        if source is not None:
            self.positions[source] = sequence
        self.number += 1
        return self.number - 1

    def commit(self) -> None:
        """Write what was appended, make it durable, and only then say so."""
        if not self._pending:
            return
        if self.broken:
            raise OSError("a commit of the ledger failed before: open it again")
        self.broken = True
        touched = {entry[0] for entry in self._pending}
        for name in touched:
            self.logs[name].flush()
        logs, sources = self._known
        new = any(log not in logs or (source is not None and source not in sources)
                  for log, source, *_ in self._pending)  # fmt: skip
        if new or self._records >= self._file_records:
            self._begin_file()
        self._write_order()
        self._raise_mark()
        for name in touched:
            self.logs[name].settle()
        self.broken = False

    def _write_order(self) -> None:
        logs, sources = self._known
        frames = []
        for log, source, index, sequence, checksum in self._pending:
            place = NO_SOURCE
            if source is not None:
                place, self._ordered[source] = sources[source], sequence
            frame, self._checksum = encode_record(
                Record(logs[log], place, index, sequence, checksum), self._checksum
            )
            frames.append(frame)
        self._pending.clear()
        data = b"".join(frames)
        if os.pwrite(self._descriptor, data, self._size) != len(data):
            raise OSError("a write to the ledger was short")
        os.fdatasync(self._descriptor)
        self._size += len(data)
        self._records += len(frames)

    def forget(self, name: str) -> None:
        """The log was dropped: nothing is appended to it any more."""
        self.logs.pop(name).close()

    def close(self) -> None:
        for log in self.logs.values():
            log.close()
        for descriptor in (self._descriptor, self._mark, self._lock):
            os.close(descriptor)


def _files(root: Path) -> list[Path]:
    return sorted((root / "order").glob("*.order"))


def read_committed(root: Path) -> int:
    """How many leaves are durable."""
    try:
        data = (root / "committed").read_bytes()
    except FileNotFoundError:
        return 0
    number: int = struct.unpack("<Q", data)[0] if len(data) == 8 else 0
    return number


class OrderReader:
    """Where durable leaves lie, from `start` on, then whatever is committed."""

    def __init__(self, root: Path, start: int) -> None:
        self.root, self.next = root, start
        self._path: Path | None = None
        self._offset = self._seed = self._number = 0
        self._logs: list[str] = []

    def read(self, at_most: int) -> Iterator[tuple[int, str, Record]]:
        """Up to `at_most` further (number, log, record). LedgerDamaged where one is not whole."""
        committed = min(read_committed(self.root), self.next + at_most)
        while self.next < committed:
            path = self._holding()
            if path != self._path:
                self._enter(path)
            yield from self._read_file(path, committed)

    def _holding(self) -> Path:
        held = [path for path in _files(self.root) if int(path.stem) <= self.next]
        if not held:
            raise LedgerDamaged(f"no file has the order of leaf {self.next}")
        return held[-1]

    def _enter(self, path: Path) -> None:
        """The head, and as many records as lie before the wanted one."""
        with path.open("rb") as file:
            data = file.read(8)
            data += file.read(int.from_bytes(data[:4], "little"))
        try:
            head, self._offset, self._seed = Head.decode(data)
        except ValueError as error:
            raise LedgerDamaged(f"{path.name}: {error}") from None
        self._path, self._number, self._logs = path, head.first, list(head.logs)

    def _read_file(self, path: Path, committed: int) -> Iterator[tuple[int, str, Record]]:
        with path.open("rb") as file:
            while self.next < committed:
                file.seek(self._offset)
                start = self._offset
                wanted = max(READ_RECORDS, self.next - self._number + 1)
                for record, checksum in read_records(file.read(wanted * RECORD_BYTES), self._seed):
                    number = self._number
                    self._number, self._seed = number + 1, checksum
                    self._offset += RECORD_BYTES
                    if number == self.next:
                        self.next += 1
                        yield number, self._logs[record.log], record
                    if self.next >= committed:
                        return
                if self._offset == start:
                    if self._holding() == path:
                        raise LedgerDamaged(f"{path.name}: leaf {self.next} is damaged")
                    return


class LedgerReader:
    """Durable leaves from `start` on, then whatever is committed. Any process, any number.

    Leaves of logs that were dropped are passed over.
    """

    def __init__(self, state: Path, start: int = 0) -> None:
        self.root = state / "ledger"
        self._order = OrderReader(self.root, start)
        self._logs: dict[str, EntryReader] = {}

    @property
    def next(self) -> int:
        return self._order.next

    def lag(self) -> int:
        return max(0, read_committed(self.root) - self.next)

    def read(self, at_most: int) -> Iterator[tuple[int, bytes]]:
        """Up to `at_most` further leaves, numbered. LedgerDamaged where one is not whole."""
        for number, log, record in self._order.read(at_most):
            try:
                yield number, self._entry(log, record)
            except Gone:
                continue
            except LedgerDamaged as error:
                raise LedgerDamaged(f"leaf {number}: {error}") from None

    def _entry(self, log: str, record: Record) -> bytes:
        """What was read ahead may have been taken back by a crash and written anew: look again."""
        reader = self._logs.get(log)
        if reader is None:
            reader = self._logs[log] = EntryReader(self.root / log)
        try:
            entry = reader.read(record.place)
        except LedgerDamaged:
            entry = b""
        if crc32(entry) != record.entry_checksum:
            reader.close()
            entry = reader.read(record.place)
        if crc32(entry) != record.entry_checksum:
            raise LedgerDamaged(f"{log}: entry {record.place} is damaged")
        return entry

    def close(self) -> None:
        for reader in self._logs.values():
            reader.close()


def place_of(state: Path, number: int) -> tuple[str, int]:
    """Log and index of a leaf. LookupError: it is not durable, or there is none."""
    for _, log, record in OrderReader(state / "ledger", number).read(1):
        return log, record.place
    raise LookupError(f"leaf {number}")


def leaf_at(state: Path, number: int) -> bytes | None:
    """One durable leaf, at the cost of a seek; None where it is not durable or its log is gone."""
    root = state / "ledger"
    held = [path for path in _files(root) if int(path.stem) <= number]
    if number >= read_committed(root) or not held:
        return None
    found = record_in(held[-1], number)
    if found is None:
        return None
    log, record = found
    reader = EntryReader(root / log)
    try:
        entry = reader.read(record.place)
    except Gone:
        return None
    finally:
        reader.close()
    if crc32(entry) != record.entry_checksum:
        raise LedgerDamaged(f"leaf {number}: entry {record.place} of {log} is damaged")
    return entry
