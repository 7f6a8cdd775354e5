"""Groups and what became of them: who has labels, and whether errors fall on some more than others.

Counts of labelled decisions by group come from leaves of their own, since a group is known only
where the decision's sealed context can be read. Missing labels that differ by group bias every
figure below, hence coverage comes first; and nobody learns what a denied loan would have become.

`favourable` is the outcome that is not adverse; `good` says that the label is on that side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gateway.card import Card
from gateway.monitor.bias import GROUP_AT_LEAST, OUTCOME_AT_LEAST, UNKNOWN
from gateway.monitor.performance import actual
from gateway.monitor.proportion import CONFIDENCE, Interval, newcombe, wilson
from gateway.monitor.twosample import independence
from gateway.monitor.window import Decision

COUNTS_AT_MOST = 400
"""Counts of one leaf, which has to stay below 64 KiB."""

Told = tuple[int, int, int, Any]
"""A label as it was told: observed (ns), leaf, place in it, value; the greatest is in force."""
Case = tuple[str, str, str, str, str, int, int]
"""version, arm, day, key, group, favourable (1, 0; -1 unknown), good (1, 0; -1 unknown)."""


@dataclass(frozen=True)
class Members:
    """Decisions of one group that a window holds, by the day they were made."""

    day: str
    key: str
    value: str
    n: int


@dataclass(frozen=True)
class Rate:
    """A share of `n`, and its difference from that of the group with the highest share.

    `against` and `difference` are None for that group, and where either has too few.
    """

    n: int
    share: float | None
    interval: Interval | None
    against: str | None = None
    difference: float | None = None
    difference_interval: Interval | None = None


@dataclass(frozen=True)
class GroupOutcomes:
    """One group: label coverage of the `decisions` in closed windows, and rates among labelled.

    `opportunity`: favourable among the good (equal opportunity); `mistaken`: favourable among the
    others; their intervals of differences hold together (Bonferroni), as equalised odds wants.
    `calibration`: share of the good less the mean score for it.
    """

    key: str
    value: str
    decisions: int
    labelled: int
    coverage: float | None
    opportunity: Rate
    mistaken: Rate
    calibration: float | None


@dataclass(frozen=True)
class KeyOutcomes:
    """The groups of one key of a version in an arm. `coverage_p`: chance of coverages that differ
    this much if labels were missing alike in all groups."""

    version: str
    arm: str
    key: str
    coverage_p: float | None
    groups: tuple[GroupOutcomes, ...]


def day_of(at: int) -> str:
    """The UTC day of a time in nanoseconds."""
    return datetime.fromtimestamp(at // 10**9, UTC).date().isoformat()


def members(decisions: Iterable[Decision], keys: Sequence[str]) -> tuple[Members, ...]:
    found = Counter(
        (day_of(decision.at), key, decision.groups.get(key) or UNKNOWN)
        for decision in decisions
        for key in keys
    )
    return tuple(Members(*place, n) for place, n in sorted(found.items()))


def in_force(told: Iterable[Told]) -> Any:
    """The label observed last, of those the one that came last; None: none, or taken back."""
    return max(told, default=(0, 0, 0, None), key=lambda one: one[:3])[3]


def case(
    card: Card, record: Mapping[str, Any], decision: Mapping[str, Any], key: str, group: str,
    value: Any,
) -> Case:  # fmt: skip
    """Where a labelled decision is counted."""
    words, read = card.outputs.outcome, actual(card, value)
    favourable = good = -1
    if words is not None and decision["outcome"] is not None:
        favourable = int(decision["outcome"] != words.adverse)
    if words is not None and read is not None and card.outputs.score.kind == "probability":
        good = int((words.at_or_above if read else words.below) != words.adverse)
    where = (str(record["version"]), str(record["arm"]), day_of(record["at"]))
    return (*where, key, group, favourable, good)


def chance_of_good(card: Card, score: float) -> float:
    """The score as a probability of the favourable side."""
    words = card.outputs.outcome
    upside = words is not None and words.at_or_above == words.adverse
    return 1 - score if upside else score


def judge_outcomes(
    version: str, arm: str, key: str,
    seen: Mapping[str, int], cases: Mapping[tuple[str, int, int], tuple[int, float]],
) -> KeyOutcomes:  # fmt: skip
    """`seen`: decisions by group; `cases`: by group, favourable, good: count and summed score."""
    values = sorted({*seen, *(value for value, _, _ in cases)})

    def count(value: str, favourable: Sequence[int], good: Sequence[int]) -> int:
        return sum(cases.get((value, f, g), (0, 0.0))[0] for f in favourable for g in good)

    every = (-1, 0, 1)
    labelled = {value: count(value, every, every) for value in values}
    opportunity = rates({v: (count(v, (1,), (1,)), count(v, (0, 1), (1,))) for v in values})
    mistaken = rates({v: (count(v, (1,), (0,)), count(v, (0, 1), (0,))) for v in values})
    groups = []
    for value in values:
        known = count(value, every, (0, 1))
        chance = sum(cases.get((value, f, g), (0, 0.0))[1] for f in every for g in (0, 1))
        share = (count(value, every, (1,)) - chance) / known if known else None
        total = seen.get(value, 0)
        coverage = min(1.0, labelled[value] / total) if total else None
        groups.append(
            GroupOutcomes(
                key,
                value,
                total,
                labelled[value],
                coverage,
                opportunity[value],
                mistaken[value],
                share,
            )  # fmt: skip
        )
    return KeyOutcomes(version, arm, key, missing_alike(seen, labelled), tuple(groups))


def rates(pairs: Mapping[str, tuple[int, int]]) -> dict[str, Rate]:
    """By group: hits of n; differences where both have enough, each interval at half the risk."""
    enough = {
        value: (hits, n)
        for value, (hits, n) in pairs.items()
        if n >= GROUP_AT_LEAST and min(hits, n - hits) >= OUTCOME_AT_LEAST
    }
    best = max(enough, key=lambda value: enough[value][0] / enough[value][1], default=None)
    confidence = 1 - (1 - CONFIDENCE) / 2
    found = {}
    for value, (hits, n) in pairs.items():
        share = hits / n if n else None
        alone = Rate(n, share, wilson(hits, n) if n else None)
        found[value] = alone
        if best is not None and value in enough and value != best:
            top, of = enough[best]
            interval = newcombe(hits, n, top, of, confidence)
            gap = hits / n - top / of
            found[value] = Rate(n, share, alone.interval, best, gap, interval)
    return found


def missing_alike(seen: Mapping[str, int], labelled: Mapping[str, int]) -> float | None:
    """None with fewer than two groups of decisions."""
    pairs = [(min(labelled[value], n), n) for value, n in seen.items() if n]
    if len(pairs) < 2:
        return None
    with_label = np.array([have for have, _ in pairs], dtype=np.int64)
    without = np.array([n - have for have, n in pairs], dtype=np.int64)
    if not with_label.sum() or not without.sum():
        return 1.0
    return independence(with_label, without).p_value
