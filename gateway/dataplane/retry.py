"""Whether an exchange with an upstream is attempted again, and after how long: pure.

Never after a byte of an answer's body was read, never for a body that passed by, never beyond the
budget, and never when the time that is left is shorter than an ordinary answer takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BACKOFF_S: Final = 0.025
BACKOFF_MAX_S: Final = 0.25
MILLION: Final = 1_000_000


class Typical:
    """The median of what is observed, nearly: a step up or down at each observation."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0.0

    def note(self, value: float) -> None:
        if not self.value:
            self.value = value
        else:
            self.value *= 1.05 if value > self.value else 0.95


def budget(policy: Mapping[str, Any], open_exchanges: int) -> int:
    """Retries that may be under way beside so many open exchanges."""
    return max(int(policy["at_least"]), open_exchanges * int(policy["budget"]) // MILLION)


def backoff(retry: int, draw: float) -> float:
    """Seconds before the n-th retry (from 1), spread over [0, (2^n - 1) * 25 ms), at most 250 ms;
    `draw` lies in [0, 1)."""
    return min(draw * ((1 << retry) - 1) * BACKOFF_S, BACKOFF_MAX_S)


def cause(code: str, phase: str) -> str | None:
    """Under which word of `retries.on` a failure falls, if it is known that nothing was done."""
    if phase in ("resolve", "connect", "tls"):
        return "connect"
    if code == "upstream_reset" and phase == "reused_closed":
        return "reused"
    return None


def retry_after_s(value: bytes | None) -> float:
    """Seconds of an upstream's retry-after; 0 where there is none. A date counts as too long."""
    if value is None:
        return 0.0
    return float(value) if value.isdigit() and len(value) < 7 else float("inf")


def wait_s(
    policy: Mapping[str, Any], why: str | None, retry: int, left_s: float, typical_s: float,
    after_s: float, draw: float,
) -> float | None:  # fmt: skip
    """Seconds to wait before the n-th retry (from 1) of a failure that falls under `why`; None: the
    failure stands. `after_s` is what the upstream asked for."""
    if why is None or why not in policy["on"] or retry > policy["attempts"]:
        return None
    wait: float = max(backoff(retry, draw), after_s)
    return wait if left_s - wait > typical_s else None
