"""What comparing two answers came to: per row and as a whole, as a leaf says it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DIFFERING_AT_MOST = 64
"""Rows of one exchange that are listed one by one; all of them are counted."""
DIGITS = 4

NOTES = frozenset({"jitter", "near_tie", "both_failed"})
"""Reasons that are worth a count though the rows agree."""


@dataclass(frozen=True, slots=True)
class Row:
    """`severity` from 0 (the same) to 1; `reason` is a word of ours; `direction`, of a flip, has
    the two outcomes of the cards as `approve>deny`."""

    agree: bool
    severity: float = 0.0
    reason: str | None = None
    direction: str | None = None


SAME = Row(True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one exchange. `kind`: how it was compared; `why`: why it could not be, and nothing else
    holds then."""

    kind: str | None
    rows: Sequence[Row] = ()
    why: str | None = None

    @property
    def agree(self) -> bool:
        """Whether every row agrees."""
        return self.why is None and all(row.agree for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Canonical values for a leaf: no name or value of a caller's."""
        if self.why is not None:
            return {"not_compared": self.why}
        worst = max(self.rows, key=lambda row: (not row.agree, row.severity), default=SAME)
        told: dict[str, Any] = {
            "agree": worst.agree, "kind": self.kind, "rows": len(self.rows),
            "severity": round(worst.severity, DIGITS),
        }  # fmt: skip
        if worst.reason is not None:
            told["reason"] = worst.reason
        if worst.direction is not None:
            told["direction"] = worst.direction
        return told if len(self.rows) == 1 else told | self._counted()

    def _counted(self) -> dict[str, Any]:
        """What several rows need beside the worst of them."""
        differing = [(place, row) for place, row in enumerate(self.rows) if not row.agree]
        reasons = Counter(row.reason for row in self.rows if row.reason)
        directions = Counter(row.direction for row in self.rows if row.direction)
        return {
            "disagree": len(differing),
            "reasons": dict(reasons),
            "directions": dict(directions),
            "turned": [place for place, row in enumerate(self.rows) if row.direction][
                :DIFFERING_AT_MOST
            ],
            "differing": [
                [place, round(row.severity, DIGITS), row.reason]
                for place, row in differing[:DIFFERING_AT_MOST]
            ],
        }


def not_compared(why: str) -> Comparison:
    return Comparison(None, (), why)
