"""What production itself was: a reference that moves with the traffic, beside the frozen one.

The frozen sample answers whether a version should be trained again; this answers whether something
happened. `rolling`: the last windows, each next one counting a little less. `day`, `week`: the same
hour of the day or the week (UTC) before, each earlier period counting a little less, so that
traffic with a cycle is compared with its like. Either learns a slow drift in: it is no reference
for that.

It is counts by place, no values, and is kept in the series' state to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from gateway.card import Card
from gateway.modelsettings import DriftSettings
from gateway.monitor import drift, twosample
from gateway.monitor.drift import Comparison, Drift
from gateway.monitor.places import Floats, Integers, Places
from gateway.monitor.reference import Reference
from gateway.monitor.window import Decision

Kind = Literal["none", "rolling", "day", "week"]
ROLLING_DECAY = 0.95
"""Of counts with each window: as good as the last 39 windows of one size."""
PERIOD_DECAY = 0.75
"""Of a slot's counts with each day or week: as good as the last seven."""
HOUR_NS = 3600 * 10**9
SLOTS = {"day": 24, "week": 168}
TIMES_AT_LEAST = 2.0
"""A baseline smaller than so many windows is not compared with."""

Counts = Mapping[str, Floats]


@dataclass(frozen=True)
class Slot:
    """Decayed counts by cause; `n` their weights' sum, `squares` that of their squares; `period`:
    the day or week of the newest."""

    period: int = 0
    n: float = 0.0
    squares: float = 0.0
    counts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def effective(self) -> float:
        """The size of a plain sample that is as precise."""
        return self.n**2 / self.squares if self.squares else 0.0


@dataclass(frozen=True)
class Baseline:
    """`places`: digest of the bins that it counts in. Slots by their number; rolling has one."""

    places: str = ""
    slots: Mapping[str, Slot] = field(default_factory=dict)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Baseline:
        """Read what `asdict` gave; raises KeyError or TypeError for anything else."""
        slots = {
            name: Slot(**told | {"counts": {c: tuple(v) for c, v in told["counts"].items()}})
            for name, told in data["slots"].items()
        }
        return Baseline(data["places"], slots)


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the values of decisions fall, by cause: -1 is nowhere. `widths`: of so many places."""

    decisions: Sequence[Decision]
    bins: Mapping[str, Integers]
    widths: Mapping[str, int]

    @staticmethod
    def of(decisions: Sequence[Decision], card: Card, reference: Reference) -> Placed:
        by_feature = list(zip(*(decision.values for decision in decisions)))
        scores = [decision.score for decision in decisions]
        bins = {
            place.cause: place.of(scores if place.cause == "score" else by_feature[at])
            for place, at in zip(reference.places, reference.placed)
        }
        widths = {place.cause: width(place) for place in reference.places}
        words = card.outputs.outcome
        if words is not None:
            told = [-1 if d.outcome is None else d.outcome == words.adverse for d in decisions]
            bins["outcome"], widths["outcome"] = np.array(told, dtype=np.int64), 2
        return Placed(decisions, bins, widths)


def counted(placed: Placed, kind: Kind) -> dict[tuple[str, int], tuple[int, dict[str, Floats]]]:
    """By slot and period: how many decisions, and where their values fall."""
    slots: dict[tuple[str, int], list[int]] = {}
    for row, decision in enumerate(placed.decisions):
        slots.setdefault(_slot(decision.at, kind), []).append(row)
    return {slot: (len(rows), _tally(placed, rows)) for slot, rows in sorted(slots.items())}


def _slot(at: int, kind: Kind) -> tuple[str, int]:
    if kind not in SLOTS:
        return ("0", 0)
    hours = at // HOUR_NS
    return (str(hours % SLOTS[kind]), hours // SLOTS[kind])


def _tally(placed: Placed, rows: list[int]) -> dict[str, Floats]:
    found = {}
    for cause, bins in placed.bins.items():
        fell = bins[rows]
        found[cause] = np.bincount(fell[fell >= 0], minlength=placed.widths[cause]).astype(float)
    return found


def width(place: Places) -> int:
    return len(place.levels) if place.edges is None else place.edges.size + 1


def learn(
    before: Baseline, reference: Reference, window: Mapping[tuple[str, int], tuple[int, Counts]],
    kind: Kind,
) -> Baseline:  # fmt: skip
    """With a window that was not at fault."""
    slots = dict(before.slots) if before.places == reference.digest else {}
    for (name, period), (n, counts) in window.items():
        old = slots.get(name, Slot(period))
        periods = max(0, period - old.period)
        decay = ROLLING_DECAY if kind == "rolling" else PERIOD_DECAY**periods
        slots[name] = Slot(
            period=max(period, old.period),
            n=old.n * decay + n,
            squares=old.squares * decay**2 + n,
            counts={
                cause: _sums(old.counts.get(cause), decay, fell.tolist())
                for cause, fell in counts.items()
            },
        )
    return Baseline(reference.digest, slots)


def _sums(old: tuple[float, ...] | None, decay: float, fresh: list[float]) -> tuple[float, ...]:
    """A few numbers each: an array would cost ten times as much."""
    if old is None:
        return tuple(fresh)
    return tuple(then * decay + now for then, now in zip(old, fresh, strict=True))


def compare(
    before: Baseline, reference: Reference, window: Mapping[tuple[str, int], tuple[int, Counts]],
    rules: DriftSettings, minimum: int,
) -> dict[str, Comparison]:  # fmt: skip
    """A window against its like: each slot's shares, mixed as the window mixes slots. Nothing
    where one of its slots is not known well enough."""
    total = sum(n for n, _ in window.values())
    if before.places != reference.digest or not total:
        return {}
    mixed: dict[str, Floats] = {}
    now: dict[str, Floats] = {}
    variance = 0.0
    for (name, _), (n, counts) in window.items():
        slot = before.slots.get(name)
        if slot is None or slot.effective < TIMES_AT_LEAST * n:
            return {}
        variance += (n / total) ** 2 / slot.effective
        for cause, fell in counts.items():
            then = np.array(slot.counts.get(cause, ()), dtype=float)
            if then.size == fell.size and (known := then.sum()):
                mixed[cause] = mixed.get(cause, 0.0) + n / total * then / known
                now[cause] = now.get(cause, 0.0) + fell
    ordered = {place.cause for place in reference.places if place.edges is not None}
    sizes = {cause: int(fell.sum()) for cause, fell in now.items()}
    return {
        cause: _compared(
            shares / shares.sum(), 1 / variance, now[cause], sizes[cause], rules, cause in ordered
        )
        for cause, shares in mixed.items()
        if sizes[cause] >= minimum
    }


def _compared(
    shares: Floats, effective: float, now: Floats, n: int, rules: DriftSettings, ordered: bool
) -> Comparison:
    """Shares known as from a sample of `effective` values, against n counts."""
    m = max(1, int(effective))
    if not ordered:
        then = np.round(shares * m).astype(np.int64)
        return drift.compare_counts(then, now.astype(np.int64), rules)
    distance = float(np.abs(shares.cumsum() - (now / n).cumsum()).max())
    return Comparison(
        test="kolmogorov_smirnov",
        n=n,
        reference_n=m,
        statistic=distance,
        p_value=twosample.limiting_p_value(distance, m, n),
        effect=distance,
        floor=rules.distance,
    )


def prefixed(moved: Mapping[str, Drift]) -> dict[str, Drift]:
    """As causes of their own, which are counted on where only the frozen one suppresses them."""
    return {
        f"baseline/{cause}": replace(found, suppressed_by=())
        if found.suppressed_by == (cause,)
        else found
        for cause, found in moved.items()
    }
