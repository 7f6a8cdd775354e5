"""Erasure of a subject: the leaf first, then the destruction that it tells.

The `erasure` leaf in the root log is the write-ahead record. It is durable before anything is
destroyed, names key numbers (never the subject), and says what will go. Then, in this order:
keys are overwritten in place, the map's rows deleted without a trace, the ciphertexts found by the
index overwritten, and two marks raised, each beside what it speaks of:

    keys/subjects/erased     a number: the leaves of root below it are carried out in these keys
    state/bodies/erased      a number: and in these bodies

Invariants:
1. Nothing is unreadable without a leaf that says why; a crash at any point after the leaf is
   completed at the next start, by carrying out each leaf from the lower mark on. Doing it twice
   changes nothing.
2. An old backup of keys, or of bodies, brings its old mark: what was erased since is erased again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from gateway.disk import write_durably
from gateway.ledger.bodies import Blob, find, overwrite
from gateway.ledger.keyfiles import KeysUnusable
from gateway.ledger.subjects import Subjects, encode_number, read_number

BLOBS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Export:
    """A file that left the gateway: its model, its days (as 2026-11-23), whether it has values."""

    id: str
    model: str
    days: frozenset[str]
    values: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What an erasure will destroy; `to_json` are the fields of its leaf, with nothing personal.

    `exports`: those with values that held the subject; `exports_perhaps`: those with values of
    days whose bodies are gone by retention, so that nobody can tell any more.
    """

    numbers: tuple[int, ...]
    alive: int
    blobs: int
    bytes: int
    files: tuple[str, ...]
    exports: tuple[str, ...]
    exports_perhaps: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is left to erase: an unknown token, or erased before."""
        return not self.alive and not self.blobs

    def to_json(self) -> dict[str, Any]:
        return {
            "numbers": list(self.numbers),
            "keys": self.alive,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "files": list(self.files),
            "exports": list(self.exports),
            "exports_perhaps": list(self.exports_perhaps),
        }


@dataclass(frozen=True, slots=True)
class Done:
    """What was there to be destroyed; zeros where an earlier start had done it."""

    keys: int
    blobs: int


class Erasure:
    """The governor's; one thread at a time, after a commit of bodies."""

    def __init__(self, state: Path, keys: Path, subjects: Subjects) -> None:
        self.state = state
        self._subjects = subjects
        self._marks = (keys / "subjects" / "erased", state / "bodies" / "erased")

    @property
    def position(self) -> int:
        """The erasure leaves of root below this index are carried out in keys and in bodies."""
        return min(_raised_to(mark) for mark in self._marks)

    def plan(self, numbers: Collection[int], exports: Iterable[Export] = ()) -> Plan:
        """What would be destroyed; nothing is changed."""
        wanted = tuple(sorted(set(numbers)))
        count = size = 0
        files: dict[str, None] = {}
        for blob in find(self.state, wanted):
            count, size = count + 1, size + blob.length
            files[blob.file] = None
        alive = sum(self._subjects.alive(number) for number in wanted)
        held, perhaps = held_by(exports, files, self._is_there)
        return Plan(wanted, alive, count, size, tuple(files), held, perhaps)

    def _is_there(self, file: str) -> bool:
        return (self.state / "bodies" / f"{file}.index").exists()

    def carry_out(self, position: int, numbers: Collection[int]) -> Done:
        """Destroy; durable on return. `position`: the index of the leaf in root, plus one.

        Without numbers only the marks are raised, which shortens the next start's search.
        """
        keys = blobs = 0
        if numbers:
            keys = self._subjects.destroy(numbers)
            self._raise(self._marks[0], position)
            for file in groupby(find(self.state, numbers), key=lambda blob: blob.file):
                blobs += self._overwrite(file[1])
        for mark in self._marks:
            self._raise(mark, position)
        return Done(keys, blobs)

    def _overwrite(self, found: Iterable[Blob]) -> int:
        blobs = list(found)
        for start in range(0, len(blobs), BLOBS_AT_ONCE):
            overwrite(self.state, blobs[start : start + BLOBS_AT_ONCE])
        return len(blobs)

    def _raise(self, mark: Path, position: int) -> None:
        if _raised_to(mark) < position:
            write_durably(mark, encode_number(position))


def _raised_to(mark: Path) -> int:
    """0 where a mark is damaged: every erasure is carried out again, which changes nothing."""
    try:
        return read_number(mark)
    except KeysUnusable:
        return 0


def held_by(
    exports: Iterable[Export], files: Collection[str], is_there: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(exports that held a subject of these files, exports that perhaps did): ids of both."""
    held, perhaps = [], []
    for export in exports:
        days = [f"{export.model}/{day}" for day in sorted(export.days)]
        if not export.values:
            continue
        if any(day in files for day in days):
            held.append(export.id)
        elif not all(is_there(day) for day in days):
            perhaps.append(export.id)
    return tuple(held), tuple(perhaps)
