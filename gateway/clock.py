"""Time as an argument.

Two times are kept apart. *Steady* time decides: it never runs backwards (CLOCK_BOOTTIME plus an
offset fixed at start, so that it also reads as nanoseconds since 1970). *Wall* time is what people
compare with other systems; an operator or NTP may step it.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final, Protocol


class Clock(Protocol):
    def steady(self) -> int:
        """Nanoseconds since 1970 that never run backwards."""

    def wall(self) -> int:
        """Nanoseconds since 1970 as the host believes."""


class SystemClock:
    """`offset`: nanoseconds from CLOCK_BOOTTIME to 1970, fixed once for all processes of a tree;
    a child that starts after a step of the wall clock must agree with the others."""

    def __init__(self, offset: int | None = None) -> None:
        now = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.offset = now if offset is None else offset

    def steady(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.offset

    def wall(self) -> int:
        return time.time_ns()


ENDS: Final = tuple(f".{milliseconds:03d}Z" for milliseconds in range(1000))


def isoformat(nanoseconds: int) -> str:
    """UTC with milliseconds, as every page and record of ours prints a time."""
    milliseconds = nanoseconds // 1_000_000
    seconds = milliseconds // 1000
    return _to_the_second(seconds) + ENDS[milliseconds - 1000 * seconds]


@lru_cache(maxsize=8)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
