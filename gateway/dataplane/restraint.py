"""What holds copies back, so that answers never wait for them: pure.

Three judges, each of one thing: `Limit` of how many copies a shadow may have under way, by whether
it keeps up; `Breaker` of whether it answers at all; `Sampling` of whether this worker's event loop
has time for copies. Times are seconds of any clock that never runs backwards.
"""

from __future__ import annotations

OVERLOADED = frozenset({"upstream_timeout", "upstream_overloaded", "upstream_connect_failed"})
TOO_LARGE = "answer_too_large"
NO_ANSWER = OVERLOADED | {
    "upstream_reset", "upstream_protocol_error", "upstream_unavailable", TOO_LARGE
}  # fmt: skip
"""What cannot be compared. An answer too large to be held costs as much as several others."""
BUSY = frozenset({429, 503})

FAILURES = 5
"""Copies in a row without an answer that open the breaker."""
OPEN_S, OPEN_AT_MOST_S = 1.0, 30.0
LAG_S = 0.02
LAGGING_SECONDS = 5
SHARE_AT_LEAST = 1 / 64
SHARE_MORE = 1 / 8


class Limit:
    """Copies under way at once: a tenth fewer for one that the shadow had no time for, one more for
    one that it answered while half of them were in use."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)

    @property
    def value(self) -> int:
        return int(self._limit)

    def note(self, error: str | None, status: int, under_way: int) -> None:
        if error in OVERLOADED or status in BUSY:
            self._limit = max(1.0, self._limit * 0.9)
        elif 2 * under_way >= self._limit:
            self._limit = min(float(self._most), self._limit + 1)


class Breaker:
    """Open after so many copies without an answer to compare; then one is let through now and then,
    and an answer closes it. An error that the shadow says itself is an answer."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_s = OPEN_S
        self._until: float | None = None
        self._trying = False

    def lets(self, now: float) -> bool:
        """Whether a copy may be sent now; says yes to one at a time once its time is over."""
        if self._until is None:
            return True
        if self._trying or now < self._until:
            return False
        self._trying = True
        return True

    def is_open(self, now: float) -> bool:
        return self._until is not None and (self._trying or now < self._until)

    def note(self, error: str | None, now: float) -> None:
        self._trying = False
        if error not in NO_ANSWER:
            self._failures, self._until, self._open_s = 0, None, OPEN_S
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._until = now + self._open_s
            self._open_s = min(2 * self._open_s, OPEN_AT_MOST_S)

    def forget_try(self) -> None:
        """What was let through came to nothing that says how the shadow is."""
        self._trying = False


class Sampling:
    """The share of copies taken: half of it after five seconds running whose worst lag of the event
    loop was over 20 ms; an eighth more for each second below."""

    def __init__(self) -> None:
        self.share = 1.0
        self._lagging = 0
        self._worst = 0.0

    def note(self, lag_s: float) -> None:
        self._worst = max(self._worst, lag_s)

    def each_second(self) -> None:
        worst, self._worst = self._worst, 0.0
        if worst <= LAG_S:
            self._lagging = 0
            self.share = min(1.0, self.share + SHARE_MORE)
            return
        self._lagging += 1
        if self._lagging == LAGGING_SECONDS:
            self._lagging = 0
            self.share = max(SHARE_AT_LEAST, self.share / 2)

    def takes(self, exchange: str) -> bool:
        """By the exchange's random bits: its copies to several versions stay together."""
        return self.share >= 1.0 or int(exchange[-8:], 16) < self.share * (1 << 32)
