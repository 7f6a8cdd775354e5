"""What a start finds in a journal's folder, and what it does about it.

A torn tail (records that no one was ever told of) is cut, the segment closed at its last whole
record. Damage is left as it lies, for whoever wants to know what happened; the writer goes on
behind it in a new segment, and whoever reads the journal stops in front of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gateway.journal.directory import JournalFolder
from gateway.journal.segment import Extent, SegmentHead, commits_behind, survey

LEAP = 1_000_000
"""Sequences left free behind damage: the unreadable part may have used any of them."""


@dataclass(frozen=True, slots=True)
class Recovered:
    next_segment: int
    next_sequence: int
    torn_bytes: int
    damage: str | None


def recover(folder: JournalFolder) -> Recovered:
    """Make the folder ready for a new segment; the writer's lock is held by the caller.

    Only the newest segment in use can be torn: each start closes the one it found.
    """
    numbers = folder.segments()
    following = numbers[-1] + 1 if numbers else 0
    for number in reversed(numbers):
        data = folder.segment(number).read_bytes()
        try:
            head = SegmentHead.decode(data)
        except ValueError as error:
            # Where its records began cannot be known: go on far behind the segment before it.
            before = _last_sequence(folder, [n for n in numbers if n < number])
            return Recovered(following, before + LEAP, 0, f"{number:08d}.segment: {error}")
        if head is None:
            folder.destroy(number)
            continue
        extent = survey(data, head)
        if extent.damaged_at is not None:
            words = f"{number:08d}.segment: damaged at offset {extent.damaged_at}"
            return Recovered(following, _promised(data, head, extent) + LEAP, 0, words)
        _cut(folder, number, extent.end)
        torn = len(data[extent.end :].rstrip(b"\0"))
        return Recovered(following, extent.next_sequence, torn, None)
    return Recovered(following, 0, 0, None)


def _last_sequence(folder: JournalFolder, numbers: list[int]) -> int:
    for number in reversed(numbers):
        data = folder.segment(number).read_bytes()
        try:
            head = SegmentHead.decode(data)
        except ValueError:
            continue
        if head is not None:
            return survey(data, head).next_sequence
    return 0


def _promised(data: bytes, head: SegmentHead, extent: Extent) -> int:
    known = (upto for _, upto in commits_behind(data, extent.end, head.salt))
    return max(known, default=extent.next_sequence)


def _cut(folder: JournalFolder, number: int, end: int) -> None:
    descriptor = os.open(folder.segment(number), os.O_RDWR)
    try:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
