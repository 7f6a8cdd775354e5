"""The journal's writer: group commit. Nothing is released before this file says so.

Invariants:
1. One writer a folder (a lock), one write and one fdatasync under way at a time; nothing is written
   while one is under way.
2. A record's future resolves after the fdatasync that covers it (`durable`), or after the write
   (`bounded`: survives the process; the fdatasync that is begun with it covers it).
3. A failed write or fdatasync is never retried: the segment is poisoned, every waiter fails,
   `on_failure` is called and the process is expected to end. The next start recovers. A segment
   that is not under its name any more after a commit counts as failed.
4. A commit under way for longer than `stall` fails its waiters, and new records are refused until
   the disk answers. Their records may become durable all the same: each is then followed by a
   `withheld` record, so that the ledger never claims an answer that nobody got. A note of them
   (withheld.py) is written before the waiters fail: a kill within the stall changes nothing.
5. Recovery happens before the first append and always begins a new segment.
6. No request's cancellation reaches a commit: callbacks of the loop do it, no request's task.
7. The loop never waits for the disk but in `pwrite` (the page cache) and `stat`, and at its end.
8. A receipt's key is durable before the receipt is made, its signature is made once a commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from gateway.clock import Clock
from gateway.disk import hold
from gateway.errors import JournalUnavailable
from gateway.journal import record
from gateway.journal.allocation import Allocation, OpenSegment, close_segment
from gateway.journal.directory import JournalFolder
from gateway.journal.receipt import Receipt, ReceiptKey
from gateway.journal.recovery import Recovered, begin_behind, recover
from gateway.journal.segment import START, Kind, add_commit, add_frame
from gateway.journal.statistics import Statistics
from gateway.journal.syncer import best_syncer
from gateway.journal.waiter import (
    Pending,
    awaited,
    ids_of,
    introduction,
    reject,
    resolve,
    withheld,
)
from gateway.journal.withheld import WithheldNote

LATE_NS = 50_000_000
"""What `bounded` promises: a flush that lasts longer is counted, and holds back all answers."""
NOTE_S = 0.25
"""How long waiters of a stalled commit wait for the note of them."""
RECORD: Final = Kind.RECORD
TIMER_SLACK_S = 0.001
"""Event loops count milliseconds: a timer may be early by one."""
log = logging.getLogger("headworks.journal")


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening a folder gives: its lock, the note, what was found, a segment to begin."""

    lock: int
    note: WithheldNote
    recovered: Recovered
    first: OpenSegment


class Journal:
    """Append-only and durable; see the top of this file. Made by `open_journal`."""

    def __init__(
        self,
        folder: JournalFolder,
        clock: Clock,
        opened: Opened,
        *,
        segment_bytes: int,
        segment_age_s: float,
        stall_s: float,
        queue_bytes: int,
        receipt_key: ReceiptKey | None,
        on_failure: Callable[[OSError], None],
    ) -> None:
        self.folder, self.clock, self.receipt_key = folder, clock, receipt_key
        self.statistics = Statistics()
        self.damage = opened.recovered.damage
        self._loop = asyncio.get_running_loop()
        self._syncer: Any = best_syncer(self._loop)  # tests put disks of their own in its place
        self._stall_s, self._queue_bytes = stall_s, queue_bytes
        self._segment_age_ns = int(segment_age_s * 1e9)
        self._on_failure = on_failure
        self._lock, self._note = opened.lock, opened.note
        self._noting = ThreadPoolExecutor(1, "withheld")
        self._accepted_ns = 0
        self._allocation = Allocation(folder, segment_bytes)
        self._next = self._durable = opened.recovered.next_sequence
        self._pending: list[Pending] = []
        self._pending_bytes = 0
        self._committing: list[Pending] = []
        self._unmarked = self._receipts_asked = False
        self._busy = self._scheduled = self._stalled = self._leave = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._late_at = 0.0
        self._failed: OSError | None = None
        self._closing: asyncio.Future[None] | None = None
        self._started_ns = 0
        self._checksum = 0
        self._begin(opened.first)

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
        self,
        header: Mapping[str, Any],
        sealed: bytes,
        *,
        durable: bool = True,
        receipt: bool = False,
    ) -> asyncio.Future[Receipt | None]:
        """Queue a record; the future resolves when it may be relied on, by the rules above, with
        the receipt if one was asked for (the header has an `id`, an `at` and a `commitment` then).

        `sealed` is what `record.encode_parts` made. Raises JournalUnavailable at once when the
        journal is failed, stalled, closed, or its queue is full.
        """
        text = record.encode_header(header)
        size = len(text) + len(sealed)
        if not self.writable or self._pending_bytes + size > self._queue_bytes:
            self.statistics.refused += 1
            raise JournalUnavailable(repr(self))
        signed = None
        if receipt and self.receipt_key is not None:
            signed = (header["id"], header["at"], header["commitment"])
            self._receipts_asked = True
        future: asyncio.Future[Receipt | None] = self._loop.create_future()
        self._queue(Pending(RECORD, text, sealed, durable, header["id"], future, signed), size)
        return future

    def mark(self) -> None:
        """Say that the worker is alive at this time; written with the next commit."""
        if self.writable:
            self._leave = self._leave or self._loss_accepted()
            told = {"kind": "mark", "at": self.clock.steady(), "wall": self.clock.wall()}
            text = record.encode_header(told)
            self._queue(Pending(Kind.MARK, text, b""), len(text))

    def _loss_accepted(self) -> bool:
        """Whether somebody accepted a loss in this segment since the last look: readers can go on
        only in the next one."""
        try:
            changed_ns = os.stat(self.folder.path / "accepted").st_mtime_ns
            if changed_ns == self._accepted_ns:
                return False
            self._accepted_ns = changed_ns
            return any(each.segment == self._segment.number for each in self.folder.accepted())
        except (OSError, ValueError):
            return False

    def _queue(self, pending: Pending, size: int) -> None:
        self._pending.append(pending)
        self._pending_bytes += size
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Write all that waits and start its fdatasync; runs in the loop, never in a request."""
        self._scheduled = False
        pending = self._pending
        if self._busy or self._failed is not None or not (pending or self._unmarked):
            return
        if not pending:
            self._write_marker()
            return
        needed = 64 + self._pending_bytes + 64 * len(pending)
        self._started_ns = now_ns = self.clock.steady()
        if self._is_over(needed, now_ns):
            self._change(needed, now_ns)
            return
        self._pending, self._pending_bytes = [], 0
        durable = [each for each in pending if each.durable and each.future is not None]
        try:
            self._write(pending)
            self._committing = durable
            self._start_waiting()
            self._syncer.sync(self._segment.descriptor, self._synced)
        except OSError as error:
            self._fail(error, awaited(pending))
            return
        if self._receipts_asked:
            self._sign(awaited(pending))
        if len(durable) < len(pending):
            self._release_early(pending)

    def _write_marker(self) -> None:
        """Alone: readers are told what is durable, and no one waits."""
        try:
            self._write([])
        except OSError as error:
            self._fail(error, [])

    def _release_early(self, pending: list[Pending]) -> None:
        """Who relies on a record as soon as it is written."""
        early = [each for each in pending if each.future is not None and not each.durable]
        self.statistics.at_risk = max(self.statistics.at_risk, len(early))
        resolve(early)

    def _start_waiting(self) -> None:
        """One timer for many commits: it looks again where the one under way is not yet late."""
        self._busy = True
        self._late_at = self._loop.time() + self._stall_s
        if self._stall_timer is None:
            self._stall_timer = self._loop.call_at(self._late_at, self._look)

    def _look(self) -> None:
        self._stall_timer = None
        if not self._busy or self._stalled:
            return
        if self._loop.time() + TIMER_SLACK_S < self._late_at:
            self._stall_timer = self._loop.call_at(self._late_at, self._look)
        else:
            self._stall()

    def _write(self, pending: list[Pending]) -> None:
        segment, statistics, sequence = self._segment, self.statistics, self._next
        pieces: list[bytes] = []
        checksum = add_commit(pieces, self._durable, segment.salt, self._checksum)
        for each in pending:
            if each.kind is RECORD:
                sealed = record.seal(segment.cipher, sequence, each.text, each.sealed)
                checksum = add_frame(pieces, RECORD, sequence, each.text, sealed, checksum)
                each.sealed = b""  # a body of megabytes is not held while the disk is at work
                sequence += 1
            else:
                checksum = add_frame(pieces, each.kind, sequence, each.text, b"", checksum)
        size = segment.write(pieces, self._offset)
        statistics.records += sequence - self._next
        statistics.bytes += size
        if pending:
            statistics.commits += 1
        self._checksum, self._next = checksum, sequence
        self._offset += size
        self._unmarked = False

    def _sign(self, waiters: list[Pending]) -> None:
        """Make the commit's receipts, in the time in which the disk is at work."""
        self._receipts_asked = False
        asked = [waiter for waiter in waiters if waiter.signed is not None]
        if not asked or self.receipt_key is None:
            return
        told = [waiter.signed for waiter in asked if waiter.signed is not None]
        for waiter, receipt in zip(asked, self.receipt_key.sign(told)):
            waiter.receipt = receipt
        self.statistics.receipts += len(asked)
        self.statistics.signatures += 1

    def _synced(self, error: OSError | None) -> None:
        self._busy = False
        waiters, self._committing = self._committing, []
        error = error or self._misplaced()
        if error is not None:
            self._fail(error, waiters)
            return
        now_ns = self.clock.steady()
        took = now_ns - self._started_ns
        self.statistics.commit_ns += took
        if took > LATE_NS:
            self.statistics.late += 1
        self._durable = self._next
        self._unmarked = True
        if self._stalled:
            self._withhold(waiters)
        resolve(waiters)
        self._go_on(now_ns)

    def _go_on(self, now_ns: int) -> None:
        if self._closing is not None and not self._pending:
            self._finish()
            return
        half_full = self._offset > self._segment.size // 2
        if half_full or self._is_aged(now_ns, self._segment_age_ns // 2):
            self._allocation.prepare(self._segment.number + 1)
        self._commit()  # it may change over to what was prepared: so this comes last

    def _misplaced(self) -> OSError | None:
        """Whether the segment lost its name: what is written to it then is not in the journal."""
        try:
            there = os.stat(self._path)
        except OSError as error:
            return error
        if (there.st_dev, there.st_ino) != self._file:
            return OSError(f"{self._path} is another file than the one that is written to")
        return None

    def _stall(self) -> None:
        """The disk has not answered in time: fail those who wait, refuse new ones."""
        self._stalled = True
        self.statistics.stalls += 1
        error = JournalUnavailable(f"a commit lasts longer than {self._stall_s:g} s")
        failed = [*self._committing, *awaited(self._pending)]
        noted = self._loop.run_in_executor(self._noting, self._note.note, ids_of(failed))
        timer = self._loop.call_later(NOTE_S, reject, failed, error)

        def done(noting: asyncio.Future[None]) -> None:
            timer.cancel()
            noting.exception()  # without a note a kill leaves one record too many, as documented
            reject(failed, error)

        noted.add_done_callback(done)

    def _withhold(self, waiters: list[Pending]) -> None:
        """The disk answers again: say of each record, before or behind it, that its answer was not
        given. A reject that has not happened yet happens now."""
        self._stalled = False
        late = waiters + awaited(self._pending)
        reject(late, JournalUnavailable("the commit came too late"))
        told = [withheld(identity) for identity in ids_of(late)]
        self.statistics.withheld += len(told)
        rest = [Pending(each.kind, each.text, each.sealed) for each in self._pending]
        self._pending = [*told, *rest]
        self._pending_bytes = sum(len(each.text) + len(each.sealed) for each in self._pending)
        if told:
            wiped = told[-1].future = self._loop.create_future()
            wiped.add_done_callback(self._wipe)

    def _wipe(self, said: asyncio.Future[Receipt | None]) -> None:
        """The withheld records are durable: the note is no longer needed."""
        if not said.cancelled() and said.exception() is None:
            self._noting.submit(self._note.wipe)

    def _fail(self, error: OSError, waiters: list[Pending]) -> None:
        self._failed = error
        self._busy = False
        failed = [*waiters, *awaited(self._pending)]
        try:
            self._note.note(ids_of(waiters))
        except OSError:
            pass  # the disk is gone: nothing can be noted
        reject(failed, JournalUnavailable(str(error)))
        self._pending, self._committing = [], []
        if self._closing is not None and not self._closing.done():
            self._closing.set_exception(error)
        self._on_failure(error)

    def _begin(self, segment: OpenSegment) -> None:
        self._segment = segment
        self._path = str(self.folder.segment(segment.number))
        ours = os.fstat(segment.descriptor)
        self._file = (ours.st_dev, ours.st_ino)  # while it is open, no other file can be these
        self._offset, self._leave = START, False
        self._first = self._next
        self._began_ns = self.clock.steady()
        self._checksum = segment.salt

    def _is_aged(self, now_ns: int, age_ns: int) -> bool:
        """A segment without records does not age."""
        return now_ns - self._began_ns > age_ns and self._next > self._first

    def _is_over(self, needed: int, now_ns: int) -> bool:
        """Whether the segment is full, old or to be left."""
        if self._offset <= START:
            return False
        full = self._offset + needed > self._segment.size
        return full or self._leave or self._is_aged(now_ns, self._segment_age_ns)

    def _change(self, needed: int, now_ns: int) -> None:
        """Close the segment and go on in the next; under the stall rule, as a commit."""
        self._start_waiting()
        changed = self._allocation.change(
            self._segment, self._offset, self._next, needed + 128, now_ns
        )
        changed.add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._changed, done, needed)
        )

    def _stay(self, error: BaseException) -> None:
        """There is no next segment now, but room in this one: try again after another age."""
        log.error("%s: no new segment: %s", self.folder.name, error)
        self._leave, self._began_ns = False, self.clock.steady()

    def _changed(self, done: Future[OpenSegment], needed: int) -> None:
        self._busy = False
        error = done.exception()
        if error is None:
            self._begin(done.result())
        elif self._offset + needed <= self._segment.size:
            self._stay(error)
        else:
            self._fail(error if isinstance(error, OSError) else OSError(str(error)), [])
            return
        if self._stalled:
            self._withhold([])
        self._go_on(self.clock.steady())

    async def say_first(self) -> None:
        """Write what a run begins with, durably: that the segment has begun (readers then know the
        one before is closed), what a former process could not say, the key of the receipts."""
        first = [withheld(identity) for identity in self._note.found]
        if self.receipt_key is not None:
            first.append(introduction(self.receipt_key, self.folder.name, self.clock))
        self._write(first)
        await asyncio.to_thread(os.fdatasync, self._segment.descriptor)
        self._durable, self._unmarked = self._next, True
        if self._note.found:
            await asyncio.to_thread(self._note.wipe)

    async def close(self) -> None:
        """Commit what waits, cut the segment at its length. Later appends are refused."""
        if self._failed is None and self._closing is None:
            self._closing = self._loop.create_future()
            if not self._busy and not self._pending:
                self._finish()
            await self._closing
        self._syncer.close()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        await asyncio.to_thread(self._allocation.close)
        await asyncio.to_thread(self._noting.shutdown)
        self._note.close()
        os.close(self._lock)

    def _finish(self) -> None:
        assert self._closing is not None
        try:
            self._write([])
            close_segment(self._segment.descriptor, self._offset)
        except OSError as error:
            self._fail(error, [])
        else:
            self._closing.set_result(None)


def _open(folder: JournalFolder, clock: Clock, segment_bytes: int, refuse_damage: bool) -> Opened:
    """Lock the folder, recover what a crash left, make a segment; may wait for the disk."""
    folder.make()
    lock = hold(folder.lock)
    try:
        recovered = recover(folder)
        damage = recovered.damage if refuse_damage else None
        if damage is not None and not any(each.covers(damage) for each in folder.accepted()):
            raise OSError(f"{damage}; journal.on_damage is refuse")
        note = WithheldNote(folder.path / "withheld")
        first = begin_behind(folder, recovered, segment_bytes, clock.steady())
        return Opened(lock, note, recovered, first)
    except BaseException:
        os.close(lock)
        raise


async def open_journal(
    folder: JournalFolder,
    clock: Clock,
    *,
    segment_bytes: int,
    stall_s: float,
    queue_bytes: int,
    on_failure: Callable[[OSError], None],
    segment_age_s: float = 600.0,
    receipt_key: ReceiptKey | None = None,
    refuse_damage: bool = False,
) -> Journal:
    """Lock the folder, recover what a crash left, begin a new segment.

    Occupied: another process writes to it. OSError: the disk, or damage that is to be refused.
    """
    opened = await asyncio.to_thread(_open, folder, clock, segment_bytes, refuse_damage)
    journal = Journal(
        folder,
        clock,
        opened,
        segment_bytes=segment_bytes,
        segment_age_s=segment_age_s,
        stall_s=stall_s,
        queue_bytes=queue_bytes,
        receipt_key=receipt_key,
        on_failure=on_failure,
    )
    await journal.say_first()
    return journal
