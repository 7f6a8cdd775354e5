"""Windows tumble: each decision of a series is in exactly one.

A window closes when `count` decisions are in it, or when a later leaf, of any traffic, is past
`opened_at + at_most`. Both are read from the ledger and never from a clock, so the same leaves give
the same windows on every machine and after every restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card
from gateway.modelsettings import DriftSettings
from gateway.monitor.column import Column
from gateway.monitor.reference import Reference, bounds_of, duplicates, score_column
from gateway.protocol.tensor import Fault


@dataclass(frozen=True)
class Decision:
    """One row of an exchange; `values` in the order of the card's features, None = missing.
    `attributions`: of the card's used features, in their order; None: not explained here.
    `flaw`: what is wrong with an answer that has no score where one is declared."""

    leaf: int
    at: int
    id: str
    score: float | None
    outcome: str | None
    values: tuple[object, ...]
    groups: Mapping[str, str]
    attributions: tuple[float, ...] | None = None
    flaw: Fault | None = None


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """`minimum`: fewer decisions are not judged. `at_most_ns`: longest a window stays open."""

    count: int = 500
    at_most_ns: int
    minimum: int = 100
    groups: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    drift: DriftSettings = DriftSettings()
    baseline: Literal["none", "rolling", "day", "week"] = "none"

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.count:
            raise ValueError(f"window: minimum {self.minimum} is not in 1..count ({self.count})")
        if self.at_most_ns <= 0:
            raise ValueError(f"window: at_most {self.at_most_ns} ns is not above zero")

    @staticmethod
    def of(monitor: Mapping[str, Any]) -> WindowSettings:
        """A model's settings of monitoring, as a revision has them."""
        count = monitor["window"]["count"]
        return WindowSettings(
            count=count,
            at_most_ns=int(monitor["window"]["at_most"] * 1e9),
            minimum=min(100, count),
            groups=tuple(monitor["groups"]),
            slices=tuple(dict.fromkeys([*monitor["groups"], *monitor.get("slices", ())]))
            if monitor.get("baseline") == "rolling"
            else (),
            baseline=monitor.get("baseline", "none"),
            drift=DriftSettings.model_validate(monitor.get("drift", {})),
        )

    @property
    def is_heard(self) -> bool:
        """Whether sequential detectors run: of traffic with a cycle they would alarm each day."""
        return self.drift.sequential.run > 0 and self.baseline not in ("day", "week")


class Window:
    """The open window of one series: a model's version in one arm."""

    def __init__(self, model: str, version: str, arm: str) -> None:
        self.model, self.version, self.arm = model, version, arm
        self.decisions: list[Decision] = []
        self.is_cut = False
        """Closed before its time, by what comes: another artifact, or a series that needs room."""

    def __repr__(self) -> str:
        return f"<Window {self.series} {len(self.decisions)} decisions>"

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def series(self) -> str:
        return f"{self.model}/{self.version}/{self.arm}"

    @property
    def opened_at(self) -> int:
        """Nanoseconds of the first decision in ledger order."""
        return self.decisions[0].at

    def add(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def is_full(self, settings: WindowSettings) -> bool:
        return len(self.decisions) >= settings.count

    def is_overdue(self, at: int, settings: WindowSettings) -> bool:
        """Whether a leaf of time `at` (ns) closes this window before anything joins it."""
        return bool(self.decisions) and at > self.opened_at + settings.at_most_ns

    def closed(self, settings: WindowSettings) -> tuple[int, Literal["count", "time", "cut"]]:
        """When (ns) and by what rule; workers' times may cross a little, hence the latest. Never
        after what closes it: an alert of it would be from the future."""
        if self.is_full(settings) or self.is_cut:
            latest = max(decision.at for decision in self.decisions)
            return latest, "count" if self.is_full(settings) else "cut"
        return self.opened_at + settings.at_most_ns, "time"

    def columns(self, card: Card, reference: Reference) -> dict[str, Column]:
        by_feature = zip(card.features, zip(*(decision.values for decision in self.decisions)))
        return {
            feature.name: Column.of_window(feature, values, reference.columns.get(feature.name))
            for feature, values in by_feature
        }

    def scores(self, card: Card) -> Column:
        read = [np.nan if d.score is None else d.score for d in self.decisions]
        wrong = sum(d.flaw is not None and d.flaw != "missing" for d in self.decisions)
        return score_column(np.array(read, dtype=np.float64), bounds_of(card), wrong)

    def rows(self, reference: Reference) -> NDArray[np.float64]:
        """As the reference's domain classifier sees them."""
        return reference.domain.encode([decision.values for decision in self.decisions])

    def attributions(self, features: int) -> NDArray[np.float64]:
        """[n, features] of the decisions that were explained."""
        told = [d.attributions for d in self.decisions if d.attributions is not None]
        return np.array(told, dtype=np.float64).reshape(-1, features)

    def outcomes(self) -> list[str]:
        return [d.outcome for d in self.decisions if d.outcome is not None]

    def duplicates(self) -> int:
        return duplicates(decision.values for decision in self.decisions)
