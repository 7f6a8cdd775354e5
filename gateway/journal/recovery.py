"""What a start finds in a journal's folder, and what it does about it.

A torn tail (records that no one was told of since a commit) is cut, the segment closed at its last
whole record. Damage is left as it lies, for whoever wants to know what happened; the writer goes on
behind it in a new segment, and whoever reads the journal stops in front of it. A segment that was
begun and is not there is damage too; one that is there and all zeros was never written to. It stays
until the next one is begun: without it the start after a second crash would miss it. No number is
ever given twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from gateway.journal.allocation import OpenSegment, begin_segment, make_segment
from gateway.journal.damage import Damage
from gateway.journal.directory import JournalFolder
from gateway.journal.segment import Extent, SegmentHead, commits_behind, survey

CHUNK = 1024**2
LEAP = 1_000_000
"""Sequences left free behind damage: the unreadable part may have used any of them."""


@dataclass(frozen=True, slots=True)
class Recovered:
    next_segment: int
    next_sequence: int
    torn_bytes: int
    damage: Damage | None
    unused: int | None = None  # begun and never written to: to be destroyed once another is begun


def recover(folder: JournalFolder) -> Recovered:
    """Make the folder ready for a new segment; the writer's lock is held by the caller.

    Only the newest segment in use can be torn: each start closes the one it found.
    """
    begun, retired = folder.begun(), folder.retired()
    numbers = folder.segments()
    empty = {number for number in numbers if _is_empty(folder, number)}
    for number in empty - {begun.segment}:
        folder.destroy(number)
    unused = begun.segment if begun.segment in empty else None
    newest = max(set(numbers) - empty, default=-1)
    following = max(newest, begun.segment, retired.segment) + 1
    if unused is None and begun.segment > max(newest, retired.segment):
        return _lost(folder, following, max(begun.sequence, retired.sequence))
    if newest <= retired.segment:
        return Recovered(following, retired.sequence, 0, None, unused)
    return replace(_judge(folder, newest, following), unused=unused)


def begin_behind(
    folder: JournalFolder, recovered: Recovered, size: int, now_ns: int
) -> OpenSegment:
    """Begin the segment that `recover` leaves room for; only now is the unused one not needed."""
    segment = make_segment(folder, recovered.next_segment, size)
    begin_segment(folder, segment, recovered.next_sequence, now_ns)
    if recovered.unused is not None:
        folder.destroy(recovered.unused)
    return segment


def _is_empty(folder: JournalFolder, number: int) -> bool:
    """Whether the segment is all zeros: its head would be durable before anything else."""
    with open(folder.segment(number), "rb") as file:
        while chunk := file.read(CHUNK):
            if chunk.strip(b"\0"):
                return False
    return True


def _lost(folder: JournalFolder, following: int, known: int) -> Recovered:
    what = "the segment was begun and is not there"
    damage = Damage(folder.name, following - 1, 0, known, known + LEAP, what)
    return Recovered(following, known + LEAP, 0, damage)


def _judge(folder: JournalFolder, number: int, following: int) -> Recovered:
    data = folder.segment(number).read_bytes()
    head = _sound_head(data)
    if head is None:
        # Where its records began is known from `begun` alone, where they end not at all.
        known = max(folder.begun().sequence, _last_sequence(folder, number))
        what = "the segment's head is damaged"
        damage = Damage(folder.name, number, 0, known, known + LEAP, what)
        return Recovered(following, known + LEAP, 0, damage)
    extent = survey(data, head)
    if extent.damaged_at is not None:
        what = f"damaged at offset {extent.damaged_at}"
        upto = _promised(data, head, extent) + LEAP
        at, first = extent.damaged_at, extent.next_sequence
        return Recovered(following, upto, 0, Damage(folder.name, number, at, first, upto, what))
    _cut(folder, number, extent.end)
    torn = len(data[extent.end :].rstrip(b"\0"))
    return Recovered(following, extent.next_sequence, torn, None)


def _sound_head(data: bytes) -> SegmentHead | None:
    try:
        return SegmentHead.decode(data)
    except ValueError:
        return None


def _last_sequence(folder: JournalFolder, before: int) -> int:
    for number in reversed([each for each in folder.segments() if each < before]):
        data = folder.segment(number).read_bytes()
        if (head := _sound_head(data)) is not None:
            return survey(data, head).next_sequence
    return folder.retired().sequence


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
