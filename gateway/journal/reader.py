"""Reading a journal while it is written: in order, durable records only, never past damage.

A reader remembers where it stands (segment, offset, checksum) and gives each durable record once.
What is written but not yet followed by a commit marker is not given: a power loss could still take
it back. Damage stops the reader; `damage` then says where. Once its loss is accepted (damage.py)
and a sound segment follows, the reader gives a `Gap` in its place and goes on in that segment.
Numbers have no holes: where a segment begins behind the number that is next, and what lies between
was not retired, the records between are missing, which is damage too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.journal import record
from gateway.journal.damage import Damage, Gap
from gateway.journal.directory import JournalFolder
from gateway.journal.segment import (
    START,
    Broken,
    Frame,
    Kind,
    SegmentHead,
    commits_behind,
    read_frames,
)

CHUNK = 512 * 1024
WINDOW = 256 * 1024
MARKER_BYTES = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A durable record: its place, its header as canonical bytes, its parts in clear."""

    segment: int
    sequence: int
    header: bytes
    parts: bytes


class JournalReader:
    """Records of one folder with sequence >= `start`, then whatever is appended.

    `damage` is None while all is well. After a gap, `next_sequence` is the gap's end.
    """

    def __init__(self, folder: JournalFolder, start: int = 0) -> None:
        self.folder = folder
        self.next_sequence = start
        self.damage: Damage | None = None
        self.marked_ns = 0
        self.caught_up = False
        self._number: int | None = None
        self._descriptor = -1
        self._head: SegmentHead | None = None
        self._cipher: AESGCM | None = None
        self._offset = 0
        self._checksum = 0
        self._durable = 0
        self._waiting: deque[Frame] = deque()
        self._marks: deque[tuple[int, int]] = deque()
        self._passed_ns = 0

    def __repr__(self) -> str:
        state = str(self.damage) if self.damage else f"at {self._offset} of segment {self._number}"
        return f"<JournalReader {self.folder.name} {state}, next {self.next_sequence}>"

    @property
    def passed_ns(self) -> int:
        """The newest mark before which every record was given: whatever ended before it is known.
        `marked_ns` may be ahead of it, `caught_up` says whether the last read left nothing."""
        while self._marks and self._marks[0][0] < self.next_sequence:
            self._passed_ns = max(self._passed_ns, self._marks.popleft()[1])
        return self._passed_ns

    @property
    def segment(self) -> int | None:
        """The segment being read: all before it are done with."""
        return self._number

    def read(self, at_most: int) -> Iterator[Entry | Gap]:
        """Up to `at_most` further durable records; fewer means that no more are there now."""
        given = 0
        self.caught_up = False
        while given < at_most:
            if self._has_ready():
                entry = self._entry(self._waiting.popleft())
                if entry is not None:
                    given += 1
                    yield entry
            elif self.damage is not None:
                gap = self._step_over()
                if gap is None:
                    return
                given += 1
                yield gap
            elif self._head is None:
                if not self._open_next() and self.damage is None:
                    self.caught_up = True
                    return
            elif not self._advance() and self.damage is None and not self._leave():
                self.caught_up = True
                return

    def _step_over(self) -> Gap | None:
        """Go on behind the damage, if its loss was accepted and its end is known."""
        assert self.damage is not None
        following = self.folder.sound_after(self.damage.segment)
        if following is None:
            return None
        number, head = following
        upto = max(head.first_sequence, self.damage.first)
        self.damage = replace(self.damage, upto=upto)
        accepted = next((a for a in self.folder.accepted() if a.covers(self.damage)), None)
        if accepted is None:
            return None
        self.close()
        first = self.damage.first
        self._number, self.damage, self.next_sequence = number - 1, None, upto
        return Gap(first, upto, accepted.reason, accepted.by)

    def _open_next(self) -> bool:
        """Open the next segment that has begun. The first one wanted is the last that can hold
        `next_sequence`."""
        if self._number is None:
            self._number = self._before_wanted()
        retired = self.folder.retired()
        while (found := self.folder.begun_after(self._number)) is not None:
            number, head = found
            if number <= retired.segment:
                self._number = number  # sealed to its end; a crash left it without its key
                continue
            if head is None:
                self._damaged(number, 0, "the segment's head is damaged")
                return False
            if self._missing(head):
                return False
            try:
                descriptor = os.open(self.folder.segment(number), os.O_RDONLY)
            except FileNotFoundError:
                self._number = number  # retired between two looks
                continue
            try:
                cipher = self.folder.cipher(number)
            except (ValueError, FileNotFoundError) as error:
                os.close(descriptor)
                if not self.folder.segment(number).exists():
                    continue
                self._damaged(number, START, f"its key cannot be read: {error}")
                return False
            self._number, self._descriptor = number, descriptor
            self._head, self._cipher = head, cipher
            self._offset, self._checksum, self._durable = START, head.salt, 0
            return True
        return False

    def _before_wanted(self) -> int:
        """The number before the segment that holds `next_sequence`: those before it are done with,
        and their keys may be gone."""
        for number in reversed(self.folder.segments()):
            try:
                head = self.folder.head(number)
            except (FileNotFoundError, ValueError):
                continue
            if head is not None and head.first_sequence <= self.next_sequence:
                return number - 1
        return -1

    def _missing(self, head: SegmentHead) -> bool:
        """Whether records between the next one and this segment's first are not there."""
        expected = self.next_sequence
        if head.first_sequence <= expected:
            return False
        if head.first_sequence <= self.folder.retired().sequence:
            self.next_sequence = head.first_sequence  # sealed and gone; the caller asked for less
            return False
        assert self._number is not None
        upto = head.first_sequence - 1
        self._damaged(self._number, self._offset, f"records {expected} to {upto} are missing")
        return True

    def _damaged(self, segment: int, offset: int, what: str, first: int | None = None) -> None:
        following = self.folder.sound_after(segment)
        upto = following[1].first_sequence if following is not None else None
        first = self.next_sequence if first is None else first
        self.damage = Damage(self.folder.name, segment, offset, first, upto, what)

    def _has_ready(self) -> bool:
        """Whether a record that was read is known to be durable."""
        return bool(self._waiting) and self._waiting[0].sequence < self._durable

    def _advance(self) -> bool:
        """Read on in the open segment; whether anything was new."""
        if not os.pread(self._descriptor, 4, self._offset).strip(b"\0"):
            return False  # the usual look at an idle journal costs no more than this
        size = CHUNK
        while True:
            data = os.pread(self._descriptor, size, self._offset)
            start = self._offset
            try:
                for frame in read_frames(data, self._offset, self._checksum, start):
                    self._take(frame)
            except Broken as broken:
                self._judge(broken.offset)
                return self._offset > start
            if self._offset == start and data[:4].strip(b"\0"):
                if len(data) == size:
                    size *= 4  # one frame is longer than what was read
                    continue
                self._judge(start)  # it claims to be longer than the file
            return self._offset > start

    def _take(self, frame: Frame) -> None:
        self._offset, self._checksum = frame.end, frame.checksum
        if frame.kind == Kind.COMMIT:
            self._durable = max(self._durable, frame.sequence)
        elif frame.kind == Kind.RECORD:
            self._waiting.append(frame)
        elif frame.kind == Kind.MARK:
            at = _mark_time(frame.header)
            self.marked_ns = max(self.marked_ns, at)
            self._marks.append((self._waiting[-1].sequence if self._waiting else -1, at))

    def _judge(self, offset: int) -> None:
        """A bad frame: not yet whole, torn, or damage. Only what is shown durable is damage."""
        assert self._head is not None
        following = self._waiting[-1].sequence + 1 if self._waiting else self.next_sequence
        following = max(following, self._head.first_sequence)
        behind = max(self._durable_behind(offset, following), self._first_after())
        if following < behind and not self._whole_now(offset):
            assert self._number is not None
            self._durable = max(self._durable, following)  # as shown: what is before it is given
            what = f"damaged at offset {offset}, record {following} on"
            self._damaged(self._number, offset, what, max(following, self.next_sequence))

    def _durable_behind(self, offset: int, following: int) -> int:
        """What commit markers behind `offset` say is durable, as far as it is more than
        `following`. Read in windows: this is asked at each look that meets the writer at work."""
        assert self._head is not None
        best = 0
        while best <= following:
            data = os.pread(self._descriptor, WINDOW + MARKER_BYTES, offset)
            if not data.strip(b"\0"):
                break  # frames leave no gap: behind zeros there is nothing
            found = (upto for _, upto in commits_behind(data, 0, self._head.salt))
            best = max(best, max(found, default=0))
            offset += WINDOW
        return best

    def _whole_now(self, offset: int) -> bool:
        """Look again, after the mark behind was seen: the writer may have been at work between."""
        size = CHUNK
        while True:
            data = os.pread(self._descriptor, size, offset)
            try:
                if next(read_frames(data, offset, self._checksum, offset), None) is not None:
                    return True
            except Broken:
                return False
            if len(data) < size:
                return False
            size *= 4

    def _first_after(self) -> int:
        """First sequence of the next sound segment, if one has begun; else 0."""
        assert self._number is not None
        following = self.folder.sound_after(self._number)
        return following[1].first_sequence if following is not None else 0

    def _leave(self) -> bool:
        """Close the segment if the writer has gone on to another one; all of it is durable then."""
        assert self._number is not None
        if self.folder.begun_after(self._number) is None:
            return False
        size = os.fstat(self._descriptor).st_size
        unread = self._offset < size and os.pread(self._descriptor, 8, self._offset).strip(b"\0")
        if unread and (self._advance() or self.damage is not None):
            return True  # the writer wrote between our look and its leaving
        # What is unread even so is a broken marker: no record is missing, or it were damage.
        if self._waiting:
            self._durable = max(self._durable, self._waiting[-1].sequence + 1)
            return True
        os.close(self._descriptor)
        self._head, self._cipher = None, None
        return True

    def _entry(self, frame: Frame) -> Entry | None:
        """The frame as a record; None: not wanted, or it does not open, which is damage."""
        if frame.sequence < self.next_sequence:
            return None
        assert self._cipher is not None
        assert self._number is not None
        try:
            parts = record.unseal(self._cipher, frame.sequence, frame.header, frame.sealed)
        except InvalidTag:
            what = f"record {frame.sequence} does not open with its key"
            self._damaged(self._number, frame.offset, what)
            self._waiting.clear()
            return None
        self.next_sequence = frame.sequence + 1
        return Entry(self._number, frame.sequence, frame.header, parts)

    def unsure_bytes(self) -> int:
        """Bytes behind the last record given, in the open segment, that are no zeros: records not
        yet known to be durable, a torn tail, or what lies behind damage."""
        if self._head is None:
            return 0
        start = self._waiting[0].offset if self._waiting else self._offset
        size = os.fstat(self._descriptor).st_size - start
        return len(os.pread(self._descriptor, size, start).rstrip(b"\0"))

    def close(self) -> None:
        if self._head is not None:
            os.close(self._descriptor)
            self._head, self._cipher = None, None
        self._waiting.clear()


def _mark_time(header: bytes) -> int:
    time = orjson.loads(header)["at"]
    assert isinstance(time, int)
    return time
