"""What the disk has left, and what is given up for it, rung by rung.

    FINE    nothing
    WARN    a word: less than 20 % are left of a budget or of the filesystem (10 GiB are enough of
            any filesystem, whatever its size)
    SPARE   less than 10 %: no shadow traffic, and bodies that no decision needs leave a digest only
    REFUSE  a budget is used up, or the filesystem to its last reserve: answers are refused

At the last rung the reserve (a preallocated file) is released: health, narrowing of a table and
erasure need a little room to make room. It is taken again when there is enough. The deciding
functions are pure; who acts: workers (shadow, bodies, refusals, the reserve), the supervisor
(measuring the stores, status).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

WARN_BELOW, SPARE_BELOW = 0.20, 0.10
FLOOR = 4
"""The filesystem counts as used up when less than this part of the reserve is free beside it."""
AMPLE = 10 * 1024**3
DAY_S = 86400.0


class Rung(IntEnum):
    FINE = 0
    WARN = 1
    SPARE = 2
    REFUSE = 3


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a store and of its filesystem. `at_most` None: no budget of its own.

    `free` is what the filesystem has beside the reserve, whether that is held or was released.
    """

    used: int
    at_most: int | None
    free: int
    total: int

    @property
    def left(self) -> float:
        """Share that is left, of the budget or the filesystem, whichever is less; a filesystem
        counts as no larger than five times what is ample."""
        share = self.free / min(self.total, AMPLE / WARN_BELOW) if self.total else 0.0
        if self.at_most:
            share = min(share, (self.at_most - self.used) / self.at_most)
        return min(1.0, max(0.0, share))


def rung_of(room: Room, reserve: int) -> Rung:
    """What is to be given up for this store."""
    spent = room.at_most is not None and room.used >= room.at_most
    if spent or room.free < reserve // FLOOR:
        return Rung.REFUSE
    if room.left < SPARE_BELOW:
        return Rung.SPARE
    return Rung.WARN if room.left < WARN_BELOW else Rung.FINE


def bytes_a_day(samples: Sequence[tuple[float, int]]) -> float:
    """The growth by least squares over (seconds, bytes); 0 with fewer than two moments."""
    count = len(samples)
    if count < 2:
        return 0.0
    middle = sum(at for at, _ in samples) / count
    spread = sum((at - middle) ** 2 for at, _ in samples)
    if not spread:
        return 0.0
    return sum((at - middle) * used for at, used in samples) / spread * DAY_S


def days_left(room: Room, growth: float) -> float | None:
    """Days until the store is full at this growth (bytes a day); None: not at this growth."""
    left = room.free if room.at_most is None else min(room.free, room.at_most - room.used)
    if growth <= 0:
        return None
    return max(0.0, left / growth)


def measure(folder: Path) -> int:
    """Bytes that a folder's files take on disk. What goes while it is counted counts nothing."""
    total = 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def write_rungs(state: Path, rungs: dict[str, Rung]) -> None:
    """Tell the workers what the stores' budgets ask for. OSError: there is no room even for it."""
    path = state / "run" / "disk.json"
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(rungs))
    os.replace(beside, path)


def read_rung(state: Path) -> Rung:
    """The highest rung that a store's budget asks for."""
    try:
        told = json.loads((state / "run" / "disk.json").read_text())
        return Rung(max(told.values(), default=0))
    except (FileNotFoundError, ValueError):
        return Rung.FINE


class Reserve:
    """A preallocated file that is given up when nothing else is left."""

    def __init__(self, path: Path, size: int) -> None:
        """`size` in bytes, but no more than a twentieth of the filesystem."""
        found = os.statvfs(path.parent)
        self._path, self.size = path, min(size, found.f_blocks * found.f_frsize // 20)

    @property
    def held(self) -> int:
        """Bytes that the file has."""
        try:
            return self._path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def free_beside(self) -> tuple[int, int]:
        """Free and total bytes of the filesystem, as if the reserve were held whole."""
        found = os.statvfs(self._path.parent)
        free = found.f_bavail * found.f_frsize - max(0, self.size - self.held)
        return max(0, free), found.f_blocks * found.f_frsize

    def follow(self, rung: Rung) -> None:
        """Held below the last rung, released there. OSError: there is no room to take it again."""
        if rung is Rung.REFUSE:
            self._path.unlink(missing_ok=True)
        elif self.held < self.size:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.size)
            finally:
                os.close(descriptor)
