"""Room for so many series: where none is left, the one that is idle longest goes.

One that was heard of within the hour keeps its place, or too many busy ones would drive each other
out for ever; whoever comes then has none, which is counted. All goes by the ledger's time, so the
same leaves let the same series go, before a restart or after it.

What goes is forgotten: its past, its detectors, its windows running. A series that begins, or
begins again, counts on from the highest number of those that went, so no window's id comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.telemetry.metrics import Metrics

IDLE_NS = 3600 * 10**9
LET_GO = "let_go"
"""Beside the names of series, which have slashes."""


class Room:
    """`number`: where a series begins to count; `gone` and `refused`: since they were told last."""

    def __init__(self, of: str, most: int, told: Mapping[str, Any]) -> None:
        """`told`: what is kept of series by their names, each with `seen`, and what `to_json` of
        this gave as `let_go`. Of a former release's series nobody knows when they were seen."""
        self.of, self._most = of, most
        self._seen: dict[str, int] = {
            name: one.get("seen", 0) for name, one in told.items() if name != LET_GO
        }
        self.number: int = told.get(LET_GO, 0)
        self.gone = self.refused = 0

    def enter(self, name: str, at: int) -> tuple[bool, str | None]:
        """Whether a series has a place at a time (ns), and which one goes for it."""
        if self.has(name):
            self._seen[name] = max(at, self._seen.get(name, 0))
            return True, None
        idlest = min(self._seen, key=lambda one: (self._seen[one], one))
        if at - self._seen[idlest] < IDLE_NS:
            self.refused += 1
            return False, None
        del self._seen[idlest]
        self._seen[name] = at
        return True, idlest

    def admit(self, series: dict[str, Any], name: str, at: int) -> bool:
        """`enter`; whichever goes is taken out of `series`, which have a `number` each."""
        entered, idlest = self.enter(name, at)
        if idlest is not None:
            self.leave(series.pop(idlest).number)
        return entered

    def has(self, name: str) -> bool:
        """Whether a series has a place, or one is free for it."""
        return name in self._seen or len(self._seen) < self._most

    def leave(self, number: int) -> None:
        """One that goes has counted so far."""
        self.number = max(self.number, number)
        self.gone += 1

    def seen(self, name: str) -> int:
        return self._seen.get(name, 0)

    def tell(self, metrics: Metrics) -> None:
        metrics.count("headworks_series_let_go", self.of, by=self.gone)
        metrics.count("headworks_series_refused", self.of, by=self.refused)
        self.gone = self.refused = 0

    def to_json(self) -> dict[str, int]:
        """To be kept beside the series."""
        return {LET_GO: self.number} if self.number else {}

    def kept(self, series: Mapping[str, Any]) -> dict[str, Any]:
        """`series`, each with when it was seen, as a room that begins again wants them told."""
        told = {name: one.to_json() | {"seen": self.seen(name)} for name, one in series.items()}
        return told | self.to_json()
