"""Whether requests hold what the card names. One that does not is in no window: a caller that
renames a feature would be monitored no longer, and nobody told.

Counted by exchange, in batches. A batch is a fault from `UNREADABLE_AT_LEAST` on, at once, and calm
when it ends with fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

BATCH = 100
UNREADABLE_AT_LEAST = 5
"""Of a batch: 5 %, which is grave for any other fault too."""


@dataclass(frozen=True)
class Readability:
    """The batch so far."""

    seen: int = 0
    unreadable: int = 0


def count(before: Readability, *, readable: bool) -> tuple[Readability, bool | None]:
    """The batch with one more exchange; a full one is followed by the next. True: this exchange
    makes it a fault. False: it ends a calm one."""
    if before.seen == BATCH:
        before = Readability()
    now = Readability(before.seen + 1, before.unreadable + (not readable))
    if not readable and now.unreadable == UNREADABLE_AT_LEAST:
        return now, True
    calm = now.seen == BATCH and now.unreadable < UNREADABLE_AT_LEAST
    return now, False if calm else None
