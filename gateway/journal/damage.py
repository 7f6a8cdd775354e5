"""Damage, and what was decided about it.

Damage is a place in a journal behind which records cannot be believed though they were durable.
Nothing reads over it until somebody accepts the loss (`headworks journal repair --accept-loss`):
then exactly the range that was accepted is stepped over, and told as a gap. The range reaches to
the end of the damaged segment. Frames that still look whole behind the damage are part of it: their
chain of checksums is broken, and a journal that picks what it likes to believe convinces nobody.

    state/journal/<name>/accepted     JSON, a list: segment, offset, first, upto, reason, by, at
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from gateway.disk import write_durably

SET_BACK = -1


@dataclass(frozen=True, slots=True)
class Damage:
    """Records `first` to `upto` (exclusive) of a journal cannot be read. `upto` is None while no
    sound segment follows: the writer may still be in the damaged one."""

    journal: str
    segment: int
    offset: int
    first: int
    upto: int | None
    what: str

    @classmethod
    def set_back(cls, journal: str, end: int, sealed: int) -> Damage:
        """The journal ends before records that the ledger holds: an old copy was put in its place,
        and numbers are given twice. Nobody can accept that; its offset is that of no place."""
        what = f"set back: it ends at record {end}, but {sealed} are sealed (a restored copy?)"
        return cls(journal, -1, SET_BACK, end, None, what)

    def __str__(self) -> str:
        place = f"/{self.segment:08d}.segment" if self.segment >= 0 else ""
        return f"{self.journal}{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Somebody's decision to go on without the records of a damage. `at`: ns since 1970."""

    segment: int
    offset: int
    first: int
    upto: int | None
    reason: str
    by: str
    at: int

    def covers(self, damage: Damage) -> bool:
        """Whether it is this damage, and no more than what was accepted."""
        same = (self.segment, self.offset) == (damage.segment, damage.offset)
        return same and self.first <= damage.first and self.upto in (None, damage.upto)


@dataclass(frozen=True, slots=True)
class Gap:
    """Records `first` to `upto` (exclusive) are lost, and somebody took that upon themselves."""

    first: int
    upto: int
    reason: str
    by: str


def read_accepted(path: Path) -> list[Accepted]:
    """ValueError where the file is not what `write_accepted` wrote."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        return [Accepted(**told) for told in orjson.loads(text)]
    except TypeError as error:
        raise ValueError(str(error)) from None


def write_accepted(path: Path, accepted: Iterable[Accepted]) -> None:
    write_durably(path, orjson.dumps([asdict(each) for each in accepted]))
