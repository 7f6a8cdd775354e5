"""Has one part of the traffic changed, where all of it together shows nothing?

A slice is the decisions of one value of a key of the context: a monitored group, or a key that
`monitor.slices` names. It is compared with its own past, since a part is not like the whole, in
windows of its own: windows of the series are added up until `minimum` decisions of the slice are in
them. All slices' comparisons of a window stand in one correction. What all the traffic shows is
told as that, and suppresses it here.

It is counts by place, as a baseline is: no values are kept, and no decision is named as one of a
slice, since which group a decision was of is nowhere in clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gateway.modelsettings import DriftSettings
from gateway.monitor import baseline, drift
from gateway.monitor.baseline import Baseline, Placed
from gateway.monitor.bias import admitted, groups_of
from gateway.monitor.column import is_missing
from gateway.monitor.drift import Comparison, Drift, telling_state
from gateway.monitor.places import Floats, Integers
from gateway.monitor.reference import Reference

VALUES_AT_MOST = 12
"""Of a key, the first that came; all others are one slice, `(other)`."""
QUALITY_FLOOR = 0.05
"""Least change of the shares of missing and of unreadable values of a feature, together."""
KINDS = 3
"""Of a value: read, missing, not as the card says."""
PLACE = ("0", 0)

Pending = Mapping[str, tuple[float, ...]]
Fell = Mapping[tuple[str, int], tuple[int, Mapping[str, Floats]]]


@dataclass(frozen=True)
class Slice:
    """`n` decisions since its last window and their counts by cause; what it was until then."""

    n: int = 0
    counts: Pending = field(default_factory=dict)
    past: Baseline = Baseline()


@dataclass(frozen=True)
class Slices:
    """By key and value; `places`: digest of the bins that they count in."""

    places: str = ""
    slices: Mapping[str, Mapping[str, Slice]] = field(default_factory=dict)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Slices:
        """Read what `asdict` gave; raises KeyError or TypeError for anything else."""
        return Slices(
            data["places"],
            {
                key: {
                    value: Slice(
                        one["n"],
                        {cause: tuple(counts) for cause, counts in one["counts"].items()},
                        Baseline.from_json(one["past"]),
                    )
                    for value, one in by_value.items()
                }
                for key, by_value in data["slices"].items()
            },
        )


@dataclass(frozen=True)
class SliceReport:
    """`n` decisions since its last window. `drifts`: by cause, of the `compared` those that show
    anything or did; `waiting`: the causes that could not be judged."""

    key: str
    value: str
    n: int
    state: str
    compared: int
    drifts: Mapping[str, Drift]
    waiting: tuple[str, ...]

    @property
    def prefix(self) -> str:
        return f"slice/{self.key}/{self.value}/"


def add(before: Slices, placed: Placed, reference: Reference, keys: Sequence[str]) -> Slices:
    """With a window's decisions counted in."""
    former = before.slices if before.places == reference.digest else {}
    fell = _with_kinds(placed, reference) if keys else placed
    found: dict[str, dict[str, Slice]] = {}
    for key in keys:
        slices = dict(former.get(key, {}))
        known = dict.fromkeys(slices)
        told = groups_of([one.groups for one in placed.decisions], key)
        names = {value: admitted(value, known, VALUES_AT_MOST) for value in dict.fromkeys(told)}
        values = list(dict.fromkeys(names.values()))
        codes = np.array([values.index(names[value]) for value in names], dtype=np.int64)
        numbers = {value: number for number, value in enumerate(names)}
        codes = codes[[numbers[value] for value in told]]
        sizes = np.bincount(codes, minlength=len(values)).tolist()
        for value, n, counts in zip(values, sizes, _counted(fell, codes, len(values))):
            old = slices.get(value, Slice())
            slices[value] = Slice(old.n + n, _sums(old.counts, counts), old.past)
        found[key] = slices
    return Slices(reference.digest, found)


def _counted(fell: Placed, codes: Integers, values: int) -> list[dict[str, list[int]]]:
    """By slice, by cause: how many values fell where; all of a key counted in one pass."""
    widths = np.array(list(fell.widths.values()))
    starts = np.cumsum(widths) - widths
    bins = np.stack([fell.bins[cause] for cause in fell.widths])
    wide = int(widths.sum())
    places = (bins + starts[:, None] + codes * wide)[bins >= 0]
    counts = np.bincount(places, minlength=values * wide).reshape(values, wide).tolist()
    spans = list(zip(fell.widths, starts.tolist(), widths.tolist()))
    return [{cause: row[at : at + n] for cause, at, n in spans} for row in counts]


def _sums(old: Pending, fresh: Mapping[str, list[int]]) -> Pending:
    return {
        cause: tuple(float(n + m) for n, m in zip(counts, old[cause], strict=True))
        if cause in old
        else tuple(map(float, counts))
        for cause, counts in fresh.items()
    }


def _with_kinds(placed: Placed, reference: Reference) -> Placed:
    """And of each feature which values could be read."""
    at_of = {place.cause: at for place, at in zip(reference.places, reference.placed)}
    bins, widths = {}, {}
    for cause, fell in placed.bins.items():
        bins[cause], widths[cause] = fell, placed.widths[cause]
        if not cause.startswith("feature/"):
            continue
        kinds = np.zeros(fell.size, dtype=np.int64)
        for row in np.flatnonzero(fell < 0).tolist():
            missing = is_missing(placed.decisions[row].values[at_of[cause]])
            kinds[row] = 1 if missing else 2
        told = f"quality/{cause.removeprefix('feature/')}"
        bins[told], widths[told] = kinds, KINDS
    return Placed(placed.decisions, bins, widths)


def judge(
    counted: Slices, reference: Reference, rules: DriftSettings, minimum: int,
    running: Mapping[str, int], everywhere: Mapping[str, tuple[str, ...]], *, broken: bool,
) -> tuple[tuple[SliceReport, ...], Slices, dict[str, Drift]]:  # fmt: skip
    """The slices' reports, what they are afterwards, and their drifts by whole cause.

    `everywhere`: by cause, what all the traffic shows of it; `broken`: the window has a fault, and
    is not learned from.
    """
    full = {f"slice/{key}/{value}/": (one, _arrays(one)) for key, value, one in _each(counted)
            if one.n >= minimum}  # fmt: skip
    compared = {
        f"{prefix}{cause}": comparison
        for prefix, (one, fell) in full.items()
        for cause, comparison in _compare(one.past, fell, reference, rules, minimum).items()
    }
    judged = drift.verdicts(compared, running, {}, rules)
    after = {key: dict(one) for key, one in counted.slices.items()}
    reports: list[SliceReport] = []
    told: dict[str, Drift] = {}
    for key, value, one in _each(counted):
        prefix = f"slice/{key}/{value}/"
        mine = {c.removeprefix(prefix): d for c, d in judged.items() if c.startswith(prefix)}
        mine = _suppressed(mine, everywhere)
        told |= {f"{prefix}{cause}": found for cause, found in mine.items()}
        reports.append(_report(key, value, one, mine, running))
        if prefix in full:
            past = one.past
            if not broken:
                past = baseline.learn(past, reference, full[prefix][1], "rolling")
            after[key][value] = Slice(past=past)
    return tuple(reports), Slices(counted.places, after), told


def _each(counted: Slices) -> list[tuple[str, str, Slice]]:
    return [
        (key, value, one)
        for key, by_value in counted.slices.items()
        for value, one in sorted(by_value.items())
    ]


def _arrays(one: Slice) -> Fell:
    return {PLACE: (one.n, {cause: np.array(counts) for cause, counts in one.counts.items()})}


def _compare(
    past: Baseline, fell: Fell, reference: Reference, rules: DriftSettings, minimum: int
) -> dict[str, Comparison]:
    found = baseline.compare(past, reference, fell, rules, minimum)
    floors = {cause: QUALITY_FLOOR for cause in found if cause.startswith("quality/")}
    if "outcome" in found:
        floors["outcome"] = rules.outcome
    return found | {cause: replace(found[cause], floor=floor) for cause, floor in floors.items()}


def _suppressed(
    found: Mapping[str, Drift], everywhere: Mapping[str, tuple[str, ...]]
) -> dict[str, Drift]:
    """By what all the traffic shows, and a feature by the quality of its own values."""
    told = {}
    for cause, one in found.items():
        by = everywhere.get(cause, ())
        flaw = f"quality/{cause.removeprefix('feature/')}"
        if cause.startswith("feature/") and flaw in found and found[flaw].running:
            by = (*by, flaw)
        told[cause] = replace(one, suppressed_by=by) if by else one
    return told


def _report(
    key: str, value: str, one: Slice, mine: Mapping[str, Drift], running: Mapping[str, int]
) -> SliceReport:
    prefix = f"slice/{key}/{value}/"
    states = [found.state for found in mine.values() if not found.suppressed_by]
    grave = next((state for state in ("drift", "watch", "ok") if state in states), None)
    return SliceReport(
        key=key,
        value=value,
        n=one.n,
        state=grave or "not_enough_data",
        compared=len(mine),
        drifts={
            cause: found
            for cause, found in mine.items()
            if found.running or found.significant or f"{prefix}{cause}" in running
        },
        waiting=tuple(cause for cause in one.counts if cause not in mine),
    )


def everywhere(
    broken: Mapping[str, tuple[str, ...]], drifts: Mapping[str, Drift], moved: Mapping[str, Drift]
) -> dict[str, tuple[str, ...]]:
    """By the cause of a slice, what all the traffic shows of it already."""
    shown = {cause: (cause,) for cause, found in drifts.items() if found.running}
    shown |= {cause: (f"baseline/{cause}",) for cause, found in moved.items() if found.running}
    faulty = {
        f"quality/{cause.removeprefix('feature/')}": kinds
        for cause, kinds in broken.items()
        if cause.startswith("feature/")
    }
    return shown | faulty | dict(broken)


def states(reports: Sequence[SliceReport]) -> dict[str, str]:
    """By whole cause; a suppressed drift counts as not judged, and so does what is awaited."""
    found = {f"{one.prefix}{cause}": "not_enough_data" for one in reports for cause in one.waiting}
    return found | {
        f"{one.prefix}{cause}": telling_state(shown)
        for one in reports
        for cause, shown in one.drifts.items()
    }
