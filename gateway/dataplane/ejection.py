"""When an endpoint is left out, by its answers (ejection) and by checks (health): pure.

Ejection counts two kinds of failure apart, each by how many came in a row: what the server said
(5xx), and what we found ourselves (no connection, reset, no answer in time). The n-th ejection
lasts n times `base`, up to `at_most`; a quiet time as long as the last ejection forgets one.
Times are seconds of any clock that never runs backwards.
"""

from __future__ import annotations

from typing import Literal

Failure = Literal["status", "failure"]


def may_eject(endpoints: int, ejected: int, share_ppm: int) -> bool:
    """Whether one more may be left out: never the last one, and never more than the share."""
    return ejected + 1 < endpoints and (ejected + 1) * 1_000_000 <= endpoints * share_ppm


class Ejection:
    """One endpoint's failures and the time until which it is left out."""

    __slots__ = ("_at_most", "_base", "_failures", "_in_a_row", "count", "failing", "until")

    def __init__(self, failures: int, base: float, at_most: float) -> None:
        self._failures, self._base, self._at_most = failures, base, at_most
        self._in_a_row = {"status": 0, "failure": 0}
        self.failing = False  # since it last succeeded
        self.count = 0
        self.until = 0.0

    def succeeded(self) -> None:
        self._in_a_row["status"] = self._in_a_row["failure"] = 0
        self.failing = False

    def failed(self, kind: Failure) -> bool:
        """Whether it has failed often enough to be ejected."""
        self.failing = True
        if kind == "status":
            self._in_a_row["failure"] = 0  # it answered
        self._in_a_row[kind] += 1
        return self._in_a_row[kind] >= self._failures

    def eject(self, now: float, jitter: float) -> None:
        """`jitter` from 0 to 1 adds up to a tenth: endpoints do not come back together."""
        if self.until and now - self.until > min(self.count * self._base, self._at_most):
            self.count = max(0, self.count - 1)
        self.count += 1
        self.until = now + min(self.count * self._base, self._at_most) * (1 + jitter / 10)
        self.succeeded()

    def is_out(self, now: float) -> bool:
        return now < self.until

    def reprieve(self) -> None:
        """A check found it well: what was found by answers is forgiven."""
        self.until = 0.0
        self.succeeded()


class Health:
    """What active checks say of one endpoint: well until `down` failures in a row, then out until
    `up` successes in a row."""

    __slots__ = ("_down", "_in_a_row", "_up", "well")

    def __init__(self, down: int, up: int) -> None:
        self._down, self._up = down, up
        self._in_a_row = 0
        self.well = True

    def note(self, succeeded: bool) -> None:
        if succeeded == self.well:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= (self._up if succeeded else self._down):
            self.well = succeeded
            self._in_a_row = 0
