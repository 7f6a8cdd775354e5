"""A window as a detector of another family wants it, and what it said of it. Pure.

Each detector reads the features that it can: numbers, categories by the number of their level,
flags, or all of them as the domain classifier has them. Rows with a value that cannot be read are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card, Feature
from gateway.monitor.column import numbers_of
from gateway.monitor.reference import Reference

ROWS_AT_MOST = 5_000
KERNEL_ROWS_AT_MOST = 2_000
"""Of MMDDrift, which takes 22 s of a processor a window for 5,000, and 4 s for these."""
Floats = NDArray[np.float64]
NUMBERS = ("KSDrift", "CVMDrift", "CVMDriftOnline")
CATEGORIES = ("ChiSquareDrift",)
FLAGS = ("FETDrift", "FETDriftOnline")
WHOLE = ("ClassifierDrift", "MMDDrift", "LSDDDrift")


@dataclass(frozen=True)
class FamilyVerdict:
    """What a detector said of `n` rows of a `window`; by feature, in the order of `features`, where
    it has such figures. `alarms`: of an online one. `why`: it said nothing. `unjudged`: windows of
    the series that it was not asked of in time, since the analyst began."""

    detector: str
    n: int
    is_drift: bool = False
    features: tuple[str, ...] = ()
    p_values: tuple[float, ...] = ()
    distances: tuple[float | None, ...] = ()
    threshold: float | None = None
    alarms: int = 0
    why: str | None = None
    window: str = ""
    unjudged: int = 0


@dataclass(frozen=True)
class FamilyReport:
    """A verdict among those of the windows before; `running`: windows in a row with drift."""

    state: str
    running: int
    verdict: FamilyVerdict


def chosen(card: Card, reference: Reference, detector: str) -> tuple[Feature, ...]:
    """The features that a detector reads; none: it cannot be used for this model."""
    known = [feature for feature in card.features if feature.name in reference.columns]
    if detector in NUMBERS:
        return tuple(f for f in known if f.type != "category")
    if detector in CATEGORIES:
        return tuple(f for f in known if f.type == "category")
    if detector in FLAGS:
        return tuple(f for f in known if f.type == "category" and len(f.categories or ()) == 2)
    return tuple(known)


def reference_rows(
    card: Card, reference: Reference, detector: str, features: Sequence[Feature]
) -> Floats:
    if detector in WHOLE:
        rows = reference.domain.rows
    else:
        rows = readable([encoded(f, reference.values[f.name].tolist()) for f in features])
    count = min(len(rows), KERNEL_ROWS_AT_MOST if detector == "MMDDrift" else ROWS_AT_MOST)
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(np.int64))]


def window_rows(
    card: Card, reference: Reference, detector: str, features: Sequence[Feature],
    rows: Sequence[Sequence[object]],
) -> Floats:  # fmt: skip
    """`rows` in the order of the card's features."""
    if detector in WHOLE:
        return reference.domain.encode(rows)
    by_feature = dict(zip([feature.name for feature in card.features], zip(*rows)))
    return readable([encoded(feature, by_feature[feature.name]) for feature in features])


def encoded(feature: Feature, values: Sequence[object]) -> Floats:
    """Numbers as they are, categories as the number of their level; NaN for what cannot be read."""
    if feature.type == "category":
        named = enumerate(feature.categories or ())
        levels: dict[object, float] = {level: float(place) for place, level in named}
        read = [levels.get(v, np.nan) if isinstance(v, str) else np.nan for v in values]
        return np.array(read, dtype=np.float64)
    return numbers_of(values)[0]


def readable(columns: Sequence[Floats]) -> Floats:
    rows = np.stack(columns, axis=1)
    return np.asarray(rows[np.isfinite(rows).all(axis=1)], dtype=np.float64)


def verdict_of(
    detector: str, n: int, features: Sequence[Feature], said: dict[str, Any]
) -> FamilyVerdict:
    """From the answer of the family's process."""
    each = len(said["p_values"]) == len(features)
    return FamilyVerdict(
        detector=detector,
        n=n,
        is_drift=bool(said["is_drift"]),
        features=tuple(f.name for f in features) if each else (),
        p_values=tuple(said["p_values"]),
        distances=tuple(said["distances"]),
        threshold=said.get("threshold"),
        alarms=len(said.get("alarms", ())),
    )


def report_of(verdict: FamilyVerdict, running: int, wanted: int) -> FamilyReport:
    """`running`: windows in a row before; one that says nothing moves no count."""
    if verdict.why is not None:
        return FamilyReport("not_enough_data", running, verdict)
    running = running + 1 if verdict.is_drift else 0
    state = "drift" if running >= wanted else "watch" if running else "ok"
    return FamilyReport(state, running, verdict)
