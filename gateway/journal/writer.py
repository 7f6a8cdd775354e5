"""The journal's writer: group commit. Nothing is released before this file says so.

Invariants:
1. One writer a folder (a lock), one write and one fdatasync under way at a time.
2. A record's future resolves after the fdatasync that covers it (`durable`), or after the write
   (`bounded`: survives the process; the fdatasync that is under way or next covers it).
3. A failed fdatasync is never retried: the segment is poisoned, every waiter fails, `on_failure` is
   called and the process is expected to end. The next start recovers.
4. A commit under way for longer than `stall` fails its waiters, and new records are refused until
   the disk answers. Their records may become durable all the same: each is then followed by a
   `withheld` record, so that the ledger never claims an answer that nobody got.
5. Recovery happens before the first append and always begins a new segment.
6. No request's cancellation reaches a commit: callbacks of the loop do it, no request's task.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.clock import Clock
from gateway.disk import hold, sync_folder
from gateway.errors import JournalUnavailable
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.recovery import recover
from gateway.journal.segment import START, Kind, SegmentHead, encode_commit, encode_frame
from gateway.journal.syncer import best_syncer


@dataclass(slots=True)
class Statistics:
    records: int = 0
    bytes: int = 0
    commits: int = 0
    commit_ns: int = 0  # time spent between write and durable, summed
    stalls: int = 0
    refused: int = 0
    withheld: int = 0


@dataclass(slots=True)
class _Segment:
    number: int
    descriptor: int
    cipher: AESGCM
    size: int


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[None]
    id: str


class Journal:
    """Append-only and durable; see the top of this file. Made by `open_journal`."""

    def __init__(
        self,
        folder: JournalFolder,
        clock: Clock,
        *,
        segment_bytes: int,
        stall_s: float,
        queue_bytes: int,
        next_sequence: int,
        first: _Segment,
        lock: int,
        on_failure: Callable[[OSError], None],
    ) -> None:
        self.folder, self.clock = folder, clock
        self.statistics = Statistics()
        self._loop = asyncio.get_running_loop()
        self._syncer = best_syncer(self._loop)
        self._segment_bytes, self._stall_s, self._queue_bytes = segment_bytes, stall_s, queue_bytes
        self._on_failure = on_failure
        self._lock = lock
        self._preparer = ThreadPoolExecutor(1, "segment")
        self._prepared: Future[_Segment] | None = None
        self._next = self._durable = self._written = next_sequence
        self._pending: list[tuple[Kind, bytes, bytes, _Waiter | None, bool]] = []
        self._pending_bytes = 0
        self._committing: list[_Waiter] = []
        self._unmarked = False
        self._busy = self._scheduled = False
        self._stalled = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._failed: OSError | None = None
        self._closing: asyncio.Future[None] | None = None
        self._started_ns = 0
        self._checksum, self._head = 0, b""
        self._begin(first)
        self._write([])  # a segment that has begun tells readers that the one before is closed
        os.fdatasync(first.descriptor)

    def __repr__(self) -> str:
        state = "failed" if self._failed else "stalled" if self._stalled else "open"
        return (
            f"<Journal {self.folder.name} {state}, {self._durable} durable,"
            f" {self._next + len(self._pending) - self._durable} waiting>"
        )

    @property
    def writable(self) -> bool:
        return self._failed is None and not self._stalled and self._closing is None

    @property
    def durable_upto(self) -> int:
        return self._durable

    def append(
        self, header: Mapping[str, Any], sealed: bytes, *, durable: bool = True
    ) -> asyncio.Future[None]:
        """Queue a record; the future resolves when it may be relied on, by the rules above.

        `sealed` is what `record.encode_parts` made. Raises JournalUnavailable at once when the
        journal is failed, stalled, closed, or its queue is full.
        """
        text = record.encode_header(header)
        size = len(text) + len(sealed)
        if not self.writable or self._pending_bytes + size > self._queue_bytes:
            self.statistics.refused += 1
            raise JournalUnavailable(repr(self))
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue(Kind.RECORD, text, sealed, _Waiter(future, header["id"]), durable)
        return future

    def mark(self) -> None:
        """Say that the worker is alive at this time; written with the next commit."""
        if self.writable:
            text = record.encode_header(
                {"kind": "mark", "at": self.clock.steady(), "wall": self.clock.wall()}
            )
            self._queue(Kind.MARK, text, b"", None, True)

    def _queue(
        self, kind: Kind, text: bytes, sealed: bytes, waiter: _Waiter | None, durable: bool
    ) -> None:
        self._pending.append((kind, text, sealed, waiter, durable))
        self._pending_bytes += len(text) + len(sealed)
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Write all that waits and start its fdatasync; runs in the loop, never in a request."""
        self._scheduled = False
        if self._busy or self._failed or not (self._pending or self._unmarked):
            return
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        self._started_ns = self.clock.steady()
        try:
            self._write(pending)
        except OSError as error:
            self._fail(error, [waiter for *_, waiter, _ in pending if waiter])
            return
        if not pending:
            return  # a lone marker: no one waits for it
        self._busy = True
        self.statistics.commits += 1
        self._stall_timer = self._loop.call_later(self._stall_s, self._stall)
        try:
            self._syncer.sync(self._segment.descriptor, self._synced)
        except OSError as error:
            self._synced(error)

    def _write(self, pending: list[tuple[Kind, bytes, bytes, _Waiter | None, bool]]) -> None:
        needed = 64 + sum(len(text) + len(sealed) + 64 for _, text, sealed, *_ in pending)
        if self._offset + needed > self._segment.size and self._offset > START:
            self._rotate(needed)
        marker, self._checksum = encode_commit(self._durable, self._salt, self._checksum)
        frames, early = [self._head, marker], list[_Waiter]()
        self._head = b""
        for kind, text, parts, waiter, durable in pending:
            sealed = b""
            if kind is Kind.RECORD:
                sealed = record.seal(self._segment.cipher, self._next, text, parts)
            frame, self._checksum = encode_frame(kind, self._next, text, sealed, self._checksum)
            frames.append(frame)
            if kind is Kind.RECORD:
                self._next += 1
                self.statistics.records += 1
            if waiter is not None:
                (self._committing if durable else early).append(waiter)
        data = b"".join(frames)
        if os.pwrite(self._segment.descriptor, data, self._offset) != len(data):
            raise OSError("a write to the journal was short")
        self._offset += len(data)
        self._written = self._next
        self._unmarked = False
        self.statistics.bytes += len(data)
        _resolve(early)

    def _synced(self, error: OSError | None) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._busy = False
        waiters, self._committing = self._committing, []
        if error is not None:
            self._fail(error, waiters)
            return
        self.statistics.commit_ns += self.clock.steady() - self._started_ns
        self._durable = self._written
        self._unmarked = True
        if self._stalled:
            self._stalled = False
            self._withhold(waiters)
        _resolve(waiters)
        if self._closing is not None and not self._pending:
            self._finish()
        else:
            self._commit()
        self._prepare_in_time()

    def _stall(self) -> None:
        """The disk has not answered in time: fail those who wait, refuse new ones."""
        self._stalled = True
        self.statistics.stalls += 1
        waiting = [waiter for *_, waiter, _ in self._pending if waiter]
        error = JournalUnavailable(f"a commit lasts longer than {self._stall_s:g} s")
        _reject([*self._committing, *waiting], error)

    def _withhold(self, waiters: list[_Waiter]) -> None:
        """The stalled commit came through: say of each record that its answer was not given."""
        late = waiters + [waiter for *_, waiter, _ in self._pending if waiter]
        self._pending = [(*entry[:3], None, True) for entry in self._pending]
        for waiter in late:
            text = record.encode_header({"format": 1, "id": waiter.id, "kind": "withheld"})
            parts = record.encode_parts({}, record.EMPTY, record.EMPTY)
            self.statistics.withheld += 1
            self._pending.append((Kind.RECORD, text, parts, None, True))
            self._pending_bytes += len(text) + len(parts)

    def _fail(self, error: OSError, waiters: list[_Waiter]) -> None:
        self._failed = error
        waiting = [waiter for *_, waiter, _ in self._pending if waiter]
        _reject([*waiters, *self._committing, *waiting], JournalUnavailable(str(error)))
        self._pending, self._committing = [], []
        if self._closing is not None and not self._closing.done():
            self._closing.set_exception(error)
        self._on_failure(error)

    def _begin(self, segment: _Segment) -> None:
        self._segment = segment
        self._offset = 0
        self._salt = int.from_bytes(os.urandom(4), "little")
        self._checksum = self._salt
        identity = self.folder.identity.encode()
        self._head = SegmentHead(self._salt, self._next, self.clock.steady(), identity).encode()

    def _rotate(self, needed: int) -> None:
        """Close the full segment at its length and go on in the next. Nothing is under way."""
        os.ftruncate(self._segment.descriptor, self._offset)
        os.fsync(self._segment.descriptor)
        os.close(self._segment.descriptor)
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            following = make_segment(self.folder, self._segment.number + 1, self._segment_bytes)
        else:
            following = prepared.result()  # waits: two makers of one segment would destroy it
        if following.size < needed:
            os.posix_fallocate(following.descriptor, 0, needed)
            following.size = needed
        self._begin(following)

    def _prepare_in_time(self) -> None:
        """Have the next segment made, with its key and its name on disk, before it is needed."""
        if self._prepared is None and self._offset > self._segment.size // 2:
            number = self._segment.number + 1
            self._prepared = self._preparer.submit(
                make_segment, self.folder, number, self._segment_bytes
            )

    async def close(self) -> None:
        """Commit what waits, cut the segment at its length. Later appends are refused."""
        if self._failed is None and self._closing is None:
            self._closing = self._loop.create_future()
            if not self._busy and not self._pending:
                self._finish()
            await self._closing
        self._syncer.close()
        if self._prepared is not None:
            unused = await asyncio.wrap_future(self._prepared)
            os.close(unused.descriptor)
            self.folder.destroy(unused.number)
        self._preparer.shutdown(wait=True)
        os.close(self._lock)

    def _finish(self) -> None:
        assert self._closing is not None
        try:
            self._write([])
            os.ftruncate(self._segment.descriptor, self._offset)
            os.fsync(self._segment.descriptor)
            os.close(self._segment.descriptor)
        except OSError as error:
            self._fail(error, [])
        else:
            self._closing.set_result(None)


def _resolve(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.future.done():
            waiter.future.set_result(None)


def _reject(waiters: list[_Waiter], error: JournalUnavailable) -> None:
    for waiter in waiters:
        if not waiter.future.done():
            waiter.future.set_exception(error)
            waiter.future.exception()  # a waiter may have left: its error is no surprise


def make_segment(folder: JournalFolder, number: int, size: int) -> _Segment:
    """A preallocated file of zeros, with its key and its name durable."""
    cipher = folder.make_key(number)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(folder.segment(number), flags, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        folder.destroy(number)
        raise
    os.fsync(descriptor)
    sync_folder(folder.path)
    return _Segment(number, descriptor, cipher, size)


async def open_journal(
    folder: JournalFolder,
    clock: Clock,
    *,
    segment_bytes: int,
    stall_s: float,
    queue_bytes: int,
    on_failure: Callable[[OSError], None],
) -> Journal:
    """Lock the folder, recover what a crash left, begin a new segment."""
    folder.make()
    lock = hold(folder.path / "lock")
    try:
        state = recover(folder)
        first = make_segment(folder, state.next_segment, segment_bytes)
        return Journal(
            folder,
            clock,
            segment_bytes=segment_bytes,
            stall_s=stall_s,
            queue_bytes=queue_bytes,
            next_sequence=state.next_sequence,
            first=first,
            lock=lock,
            on_failure=on_failure,
        )
    except BaseException:
        os.close(lock)
        raise
