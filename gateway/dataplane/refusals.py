"""Refusals of strangers, coalesced: they are recorded, but cannot fill the disk.

A refusal without a matched model and caller is recorded one by one up to `EACH_A_SECOND` a second
and code; above that, one record a second says how many more there were.
"""

from __future__ import annotations

from collections import Counter

EACH_A_SECOND = 10


class Refusals:
    def __init__(self) -> None:
        self._second = 0
        self._given: Counter[str] = Counter()

    def admit(self, code: str, now_ns: int) -> bool:
        """Whether this refusal gets a record of its own."""
        self._roll(now_ns)
        self._given[code] += 1
        return self._given[code] <= EACH_A_SECOND

    def due(self, now_ns: int) -> dict[str, int]:
        """Counts of a second that is over, by code, that had no record of their own; once."""
        second = now_ns // 1_000_000_000
        if second == self._second:
            return {}
        over = {code: n - EACH_A_SECOND for code, n in self._given.items() if n > EACH_A_SECOND}
        self._given.clear()
        self._second = second
        return over

    def _roll(self, now_ns: int) -> None:
        """A new second begins only when the old one's counts were taken or none are owed."""
        second = now_ns // 1_000_000_000
        if second != self._second and max(self._given.values(), default=0) <= EACH_A_SECOND:
            self._given.clear()
            self._second = second
