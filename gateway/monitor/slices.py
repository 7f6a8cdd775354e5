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

from gateway.card import Card
from gateway.modelsettings import DriftSettings
from gateway.monitor import baseline, drift
from gateway.monitor.baseline import Baseline
from gateway.monitor.bias import admitted, group_of
from gateway.monitor.column import is_missing
from gateway.monitor.drift import Comparison, Drift
from gateway.monitor.places import Floats
from gateway.monitor.reference import Reference
from gateway.monitor.window import Decision

VALUES_AT_MOST = 12
"""Of a key, the first that came; all others are one slice, `(other)`."""
QUALITY_FLOOR = 0.05
"""Least change of the shares of missing and of unreadable values of a feature, together."""
KINDS = 3
"""Of a value: read, missing, not as the card says."""
PLACE = ("0", 0)

Pending = Mapping[str, tuple[float, ...]]


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


def add(
    before: Slices, decisions: Sequence[Decision], card: Card, reference: Reference,
    keys: Sequence[str],
) -> Slices:  # fmt: skip
    """With a window's decisions counted in."""
    former = before.slices if before.places == reference.digest else {}
    fell = _placed(decisions, card, reference)
    found: dict[str, dict[str, Slice]] = {}
    for key in keys:
        slices = dict(former.get(key, {}))
        known = dict.fromkeys(slices)
        values = [admitted(group_of(one.groups, key), known, VALUES_AT_MOST) for one in decisions]
        for value in dict.fromkeys(values):
            mine = np.array([one == value for one in values])
            old = slices.get(value, Slice())
            counts = {
                cause: np.bincount(places[mine & (places >= 0)], minlength=width)
                + np.array(old.counts.get(cause, 0.0))
                for cause, (places, width) in fell.items()
            }
            told = {cause: tuple(float(c) for c in one.tolist()) for cause, one in counts.items()}
            slices[value] = Slice(old.n + int(mine.sum()), told, old.past)
        found[key] = slices
    return Slices(reference.digest, found)


def _placed(
    decisions: Sequence[Decision], card: Card, reference: Reference
) -> dict[str, tuple[np.typing.NDArray[np.int64], int]]:
    """By cause: where each decision falls (-1: nowhere), and how many places there are."""
    by_feature = list(zip(*(decision.values for decision in decisions)))
    found = {}
    for place, at in zip(reference.places, reference.placed):
        if place.cause == "score":
            found["score"] = place.of([one.score for one in decisions]), baseline.width(place)
            continue
        fell = place.of(by_feature[at])
        kinds = np.where(fell >= 0, 0, [1 if is_missing(v) else 2 for v in by_feature[at]])
        found[place.cause] = fell, baseline.width(place)
        found[f"quality/{place.cause.removeprefix('feature/')}"] = kinds, KINDS
    words = card.outputs.outcome
    if words is not None:
        told = [-1 if one.outcome is None else int(one.outcome == words.adverse)
                for one in decisions]  # fmt: skip
        found["outcome"] = np.array(told, dtype=np.int64), 2
    return found


def judge(
    counted: Slices, reference: Reference, rules: DriftSettings, minimum: int,
    running: Mapping[str, int], everywhere: Mapping[str, tuple[str, ...]], *, broken: bool,
) -> tuple[tuple[SliceReport, ...], Slices, dict[str, Drift]]:  # fmt: skip
    """The slices' reports, what they are afterwards, and their drifts by whole cause.

    `everywhere`: by cause, what all the traffic shows of it; `broken`: the window has a fault, and
    is not learned from.
    """
    compared = {
        f"slice/{key}/{value}/{cause}": comparison
        for key, value, one in _each(counted)
        if one.n >= minimum
        for cause, comparison in _compare(one, reference, rules, minimum).items()
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
        if one.n >= minimum:
            past = one.past if broken else _learned(one, reference)
            after[key][value] = Slice(past=past)
    return tuple(reports), Slices(counted.places, after), told


def _each(counted: Slices) -> list[tuple[str, str, Slice]]:
    return [
        (key, value, one)
        for key, by_value in counted.slices.items()
        for value, one in sorted(by_value.items())
    ]


def _arrays(one: Slice) -> dict[tuple[str, int], tuple[int, dict[str, Floats]]]:
    return {PLACE: (one.n, {cause: np.array(counts) for cause, counts in one.counts.items()})}


def _learned(one: Slice, reference: Reference) -> Baseline:
    return baseline.learn(one.past, reference, _arrays(one), "rolling")


def _compare(
    one: Slice, reference: Reference, rules: DriftSettings, minimum: int
) -> dict[str, Comparison]:
    found = baseline.compare(one.past, reference, _arrays(one), rules, minimum)
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
        told[cause] = replace(one, suppressed_by=by)
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
        f"{one.prefix}{cause}": "not_enough_data" if shown.suppressed_by else shown.state
        for one in reports
        for cause, shown in one.drifts.items()
    }
