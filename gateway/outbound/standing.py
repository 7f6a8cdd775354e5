"""How far the witnesses are, and the words for it. Times are steady nanoseconds.

A log *waits* for a witness from the moment its newest checkpoint is seen to be another than the
one the witness cosigned last. The lag of a witness is the longest such wait, and the leaves that
no cosignature of its covers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.clock import isoformat
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.note import VerifierKey

NANO = 1_000_000_000
BEHIND_S = 60.0
"""A wait that is worth a word; a round takes ten seconds."""


@dataclass
class LogStanding:
    """One log with one witness. `known`: the size from which the next proof must lead."""

    newest: Checkpoint
    cosigned: Checkpoint | None = None
    known: int = 0
    waits_since: int | None = None
    not_before: int = 0
    alarm: str | None = None
    trouble: str | None = None

    @property
    def news(self) -> bool:
        return self.newest.size > 0 and self.newest != self.cosigned

    @property
    def leaves(self) -> int:
        return max(0, self.newest.size - (self.cosigned.size if self.cosigned else 0))


@dataclass
class WitnessStanding:
    """One witness. `failures`: in a row, of the witness itself; `at`: its last cosignature."""

    key: VerifierKey
    url: str
    logs: dict[str, LogStanding] = field(default_factory=dict)
    failures: int = 0
    not_before: int = 0
    trouble: str | None = None
    forgot: str | None = None
    at: int | None = None

    def lag_s(self, now: int) -> float:
        waits = [each.waits_since for each in self.logs.values() if each.waits_since is not None]
        return max(0.0, (now - min(waits)) / NANO) if waits else 0.0

    def lag_leaves(self) -> int:
        return sum(log.leaves for log in self.logs.values() if log.waits_since is not None)

    def alarms(self) -> list[str]:
        """What must be looked into at once, a sentence each."""
        return [log.alarm for log in self.logs.values() if log.alarm is not None]

    def why(self) -> str | None:
        """The reason of its lag, if one is known."""
        troubles = (log.trouble for log in self.logs.values() if log.trouble is not None)
        return self.trouble or next(troubles, None)

    def words(self, now: int) -> list[str]:
        """What is not as it should be and is no alarm, a sentence each."""
        said = []
        if (lag := self.lag_s(now)) >= BEHIND_S:
            why = f": {reason}" if (reason := self.why()) else ""
            said.append(f"witness {self.key.name} is {_length(lag)} behind{why}")
        if self.forgot is not None:
            said.append(self.forgot)
        return said

    def document(self, now: int) -> dict[str, Any]:
        return {
            "name": self.key.name,
            "url": self.url,
            "lag_seconds": round(self.lag_s(now), 1),
            "lag_records": self.lag_leaves(),
            "cosigned": None if self.at is None else isoformat(self.at * NANO),
            "logs": len(self.logs),
            "trouble": self.why(),
            "alarms": self.alarms(),
        }


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"
