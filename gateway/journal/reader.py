"""Reading a journal while it is written: in order, durable records only, never past damage.

A reader remembers where it stands (segment, offset, checksum) and gives each durable record once.
What is written but not yet followed by a commit marker is not given: a power loss could still take
it back. Damage stops the reader for good; `damage` then says where.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.journal import record
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
    """Records of one folder with sequence >= `start`, then whatever is appended."""

    def __init__(self, folder: JournalFolder, start: int = 0) -> None:
        self.folder = folder
        self.next_sequence = start
        self.damage: str | None = None
        self.marked_ns = 0
        self._number: int | None = None
        self._descriptor = -1
        self._head: SegmentHead | None = None
        self._cipher: AESGCM | None = None
        self._offset = 0
        self._checksum = 0
        self._durable = 0
        self._waiting: deque[Frame] = deque()

    @property
    def segment(self) -> int | None:
        """The segment being read: all before it are done with."""
        return self._number

    def read(self, at_most: int) -> Iterator[Entry]:
        """Up to `at_most` further durable records; fewer means that no more are there now."""
        given = 0
        while given < at_most and self.damage is None:
            if self._head is None and not self._open_next():
                return
            moved = self._has_ready() or self._advance()
            while self._has_ready() and given < at_most:
                frame = self._waiting.popleft()
                if frame.sequence < self.next_sequence:
                    continue
                entry = self._entry(frame)
                if entry is None:
                    return
                self.next_sequence = frame.sequence + 1
                given += 1
                yield entry
            if not moved and (given >= at_most or not self._leave()):
                return

    def _open_next(self) -> bool:
        """Open the next segment that has begun. The first one wanted is the last that can hold
        `next_sequence`."""
        numbers = self.folder.segments()
        if self._number is not None:
            numbers = [number for number in numbers if number > self._number]
        else:
            numbers = self._from_wanted(numbers)
        for number in numbers:
            try:
                descriptor = os.open(self.folder.segment(number), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                head = SegmentHead.decode(os.pread(descriptor, START, 0))
                cipher = self.folder.cipher(number) if head is not None else None
            except (ValueError, FileNotFoundError) as error:
                os.close(descriptor)
                self.damage = f"{self.folder.name}/{number:08d}.segment: {error}"
                return False
            if head is None:
                os.close(descriptor)
                return False
            self._number, self._descriptor = number, descriptor
            self._head, self._cipher = head, cipher
            self._offset, self._checksum, self._durable = START, head.salt, 0
            return True
        return False

    def _from_wanted(self, numbers: list[int]) -> list[int]:
        """Leave out segments before the one that holds `next_sequence`: they are done with, and
        their keys may be gone."""
        for place in range(len(numbers) - 1, 0, -1):
            try:
                with open(self.folder.segment(numbers[place]), "rb") as file:
                    head = SegmentHead.decode(file.read(START))
            except (OSError, ValueError):
                continue
            if head is not None and head.first_sequence <= self.next_sequence:
                return numbers[place:]
        return numbers

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
            self.marked_ns = max(self.marked_ns, _mark_time(frame.header))

    def _judge(self, offset: int) -> None:
        """A bad frame: not yet whole, torn, or damage. Only what is shown durable is damage."""
        assert self._head is not None
        following = self._waiting[-1].sequence + 1 if self._waiting else self.next_sequence
        following = max(following, self._head.first_sequence)
        behind = max(self._durable_behind(offset, following), self._first_after())
        if following < behind and not self._whole_now(offset):
            place = f"{self.folder.name}/{self._number:08d}.segment"
            self.damage = f"{place}: damaged at offset {offset}, record {following} on"

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
        """First sequence of the following segment, if one has begun; else 0."""
        later = [n for n in self.folder.segments() if self._number is not None and n > self._number]
        for number in later[:1]:
            try:
                with open(self.folder.segment(number), "rb") as file:
                    head = SegmentHead.decode(file.read(START))
            except (OSError, ValueError):
                return 0
            return head.first_sequence if head else 0
        return 0

    def _leave(self) -> bool:
        """Close the segment if the writer has gone on to another one; all of it is durable then."""
        first_after = self._first_after()
        if not first_after and not self._begun_after():
            return False
        size = os.fstat(self._descriptor).st_size
        if self._offset < size and os.pread(self._descriptor, 8, self._offset).strip(b"\0"):
            return False  # the writer wrote between our look and its leaving
        if self._waiting:
            self._durable = max(self._durable, self._waiting[-1].sequence + 1)
            return True
        os.close(self._descriptor)
        self._head, self._cipher = None, None
        return True

    def _begun_after(self) -> bool:
        later = [n for n in self.folder.segments() if self._number is not None and n > self._number]
        for number in later[:1]:
            try:
                with open(self.folder.segment(number), "rb") as file:
                    return bool(file.read(START).strip(b"\0"))
            except FileNotFoundError:
                return False
        return False

    def _entry(self, frame: Frame) -> Entry | None:
        assert self._cipher is not None
        assert self._number is not None
        try:
            parts = record.unseal(self._cipher, frame.sequence, frame.header, frame.sealed)
        except InvalidTag:
            place = f"{self.folder.name}/{self._number:08d}.segment"
            self.damage = f"{place}: record {frame.sequence} does not open with its key"
            return None
        return Entry(self._number, frame.sequence, frame.header, parts)

    def close(self) -> None:
        if self._head is not None:
            os.close(self._descriptor)
            self._head = None


def _mark_time(header: bytes) -> int:
    time = orjson.loads(header)["at"]
    assert isinstance(time, int)
    return time
