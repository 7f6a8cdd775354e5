"""What `headworks journal` shows and does; works on the files, whether the gateway runs or not."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from gateway.disk import Occupied, hold
from gateway.journal.allocation import close_segment
from gateway.journal.damage import Accepted, Damage
from gateway.journal.directory import Garbled, JournalFolder
from gateway.journal.reader import Entry, JournalReader
from gateway.journal.recovery import begin_behind, recover
from gateway.journal.segment import START, encode_commit

AT_ONCE = 4096


def is_written(folder: JournalFolder) -> bool:
    """Whether a writer holds the folder."""
    try:
        os.close(hold(folder.lock))
    except Occupied:
        return True
    return False


def describe(folder: JournalFolder) -> dict[str, Any]:
    """A journal as its files say: every record is read and opened with its key."""
    try:
        folder.check()
    except Garbled as error:
        return _undescribed(folder, error)
    reader = JournalReader(folder)
    first: int | None = None
    records, gaps = 0, []
    for entry in reader.read(1 << 62):
        if isinstance(entry, Entry):
            first = entry.sequence if first is None else first
            records += 1
        else:
            gaps.append(asdict(entry))
    segments = folder.segments()
    begun = [number for number in segments if _is_begun(folder, number)]
    told = {
        "journal": folder.name,
        "written": is_written(folder),
        "segments": segments,
        "bytes": folder.size(),
        "records": records,
        "first": first,
        "next": reader.next_sequence,
        "retired_upto": folder.retired().sequence,
        "keys_missing": [number for number in begun if not folder.key(number).exists()],
        "unsure_bytes": reader.unsure_bytes(),
        "damage": asdict(reader.damage) | {"text": str(reader.damage)} if reader.damage else None,
        "gaps": gaps,
        "set_aside": sorted(path.name for path in folder.path.glob("*.damaged")),
    }
    reader.close()
    return told


def _undescribed(folder: JournalFolder, error: Garbled) -> dict[str, Any]:
    """Where a small file is garbled nothing that the segments say can be placed."""
    return {
        "journal": folder.name, "written": is_written(folder), "segments": folder.segments(),
        "bytes": folder.size(), "records": 0, "first": None, "next": None, "retired_upto": None,
        "keys_missing": [], "unsure_bytes": 0, "damage": {"text": str(error)}, "gaps": [],
        "set_aside": sorted(path.name for path in folder.path.glob("*.damaged")),
    }  # fmt: skip


def _is_begun(folder: JournalFolder, number: int) -> bool:
    try:
        return folder.head(number) is not None
    except (FileNotFoundError, ValueError):
        return True


def accept_loss(folder: JournalFolder, reason: str, by: str, at: int) -> list[Damage]:
    """Accept each damage that a reader meets, with its whole range; what was accepted.

    The range ends where the next sound segment begins. Where none follows: a running writer goes
    on in a new one when it sees what was accepted; where none runs, an empty one is begun here.
    """
    folder.check()
    accepted: list[Damage] = []
    reader = JournalReader(folder)
    while True:
        for _ in reader.read(AT_ONCE):
            pass
        damage = reader.damage
        if damage is None or damage in accepted:
            reader.close()
            return accepted
        if damage.upto is None and not is_written(folder):
            begin_empty(folder)
            for _ in reader.read(1):
                pass
            damage = reader.damage or damage
        folder.accept(
            Accepted(damage.segment, damage.offset, damage.first, damage.upto, reason, by, at)
        )
        accepted.append(damage)


def begin_empty(folder: JournalFolder) -> None:
    """Begin a segment without records behind everything there is, as a start would.

    Occupied: a writer holds the folder.
    """
    lock = hold(folder.lock)
    try:
        found = recover(folder)
        segment = begin_behind(folder, found, 4096, 0)
        marker = encode_commit(found.next_sequence, segment.salt, segment.salt)[0]
        os.pwrite(segment.descriptor, marker, START)
        close_segment(segment.descriptor, START + len(marker))
    finally:
        os.close(lock)
