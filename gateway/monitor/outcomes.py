"""Groups and what became of them: who has labels, and whether errors fall on some more than others.

Counts of labelled decisions by group come from leaves of their own, since a group is known only
where the decision's sealed context can be read. Missing labels that differ by group bias every
figure below, hence coverage comes first; and nobody learns what a denied loan would have become.

`favourable` is the outcome that is not adverse; `good` says that the label is on that side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gateway.card import Card
from gateway.monitor.bias import (
    GROUP_AT_LEAST,
    OUTCOME_AT_LEAST,
    GroupState,
    groups_of,
    with_intersections,
)
from gateway.monitor.performance import actual
from gateway.monitor.proportion import CONFIDENCE, Interval, newcombe, wilson
from gateway.monitor.twosample import independence
from gateway.monitor.window import Decision

COUNTS_AT_MOST = 400
"""Counts of one leaf, which has to stay below 64 KiB."""
GAP = 0.1
"""Rates that differ by more are told: ten of a hundred who deserve the same get another answer."""
CALIBRATION_GAP = 0.05
"""Mean scores further than this from the share that came true are told."""

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
    """A share of `n`, and its differences from the groups with the highest and the lowest share.

    `against` and `difference` are None for the highest, `over` and `above` for the lowest, and all
    where there are too few. `state` is of the difference from the highest, `state_above` from the
    lowest.
    """

    n: int
    share: float | None
    interval: Interval | None
    against: str | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    state: GroupState = "insufficient"
    over: str | None = None
    above: float | None = None
    above_interval: Interval | None = None
    state_above: GroupState = "insufficient"


@dataclass(frozen=True)
class GroupOutcomes:
    """One group: label coverage of the `decisions` in closed windows, and rates among labelled.

    `opportunity`: favourable among the good (equal opportunity); `mistaken`: favourable among the
    others; their intervals of differences hold together (Bonferroni), as equalised odds wants.
    `odds` is the worst state of both, in either direction. `calibration`: share of the good less
    the mean score for it, with its interval and state.
    """

    key: str
    value: str
    decisions: int
    labelled: int
    coverage: float | None
    opportunity: Rate
    mistaken: Rate
    calibration: float | None
    odds: GroupState = "insufficient"
    calibration_interval: Interval | None = None
    calibration_state: GroupState = "insufficient"


@dataclass(frozen=True)
class KeyOutcomes:
    """The groups of one key of a version in an arm. `coverage_p`: chance of coverages that differ
    this much if labels were missing alike in all groups."""

    version: str
    arm: str
    key: str
    coverage_p: float | None
    groups: tuple[GroupOutcomes, ...]


DAY_NS = 86_400 * 10**9


def day_of(at: int) -> str:
    """The UTC day of a time in nanoseconds."""
    return datetime.fromtimestamp(at // 10**9, UTC).date().isoformat()


def members(decisions: Iterable[Decision], keys: Sequence[str]) -> tuple[Members, ...]:
    told = list(decisions)
    days = [one.at // DAY_NS for one in told]
    names = {day: day_of(day * DAY_NS) for day in set(days)}
    found = {
        (names[day], key, value): n
        for key in with_intersections(keys)
        for (day, value), n in Counter(
            zip(days, groups_of([one.groups for one in told], key))
        ).items()
    }
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


Cases = Mapping[tuple[str, int, int], tuple[int, float]]
"""By group, favourable, good: count and summed score."""
EVERY = (-1, 0, 1)


def judge_outcomes(
    version: str, arm: str, key: str,
    seen: Mapping[str, int], cases: Cases, newer: Cases | None = None,
) -> KeyOutcomes:  # fmt: skip
    """`seen`: decisions by group; `newer`: those of the cases whose labels came last, about a half,
    without which there is no breach."""
    values = sorted({*seen, *(value for value, _, _ in cases)})
    labelled = {value: count(cases, value, EVERY, EVERY) for value in values}
    late = newer or {}
    opportunity = rates(hits(cases, values, 1), hits(late, values, 1))
    mistaken = rates(hits(cases, values, 0), hits(late, values, 0))
    groups = []
    for value in values:
        total, rated = seen.get(value, 0), (opportunity[value], mistaken[value])
        share, interval, state = calibration_of(cases, late, value)
        groups.append(
            GroupOutcomes(
                key=key,
                value=value,
                decisions=total,
                labelled=labelled[value],
                coverage=min(1.0, labelled[value] / total) if total else None,
                opportunity=opportunity[value],
                mistaken=mistaken[value],
                calibration=share,
                odds=gravest(s for rate in rated for s in (rate.state, rate.state_above)),
                calibration_interval=interval,
                calibration_state=state,
            )
        )
    return KeyOutcomes(version, arm, key, missing_alike(seen, labelled), tuple(groups))


def count(cases: Cases, value: str, favourable: Sequence[int], good: Sequence[int]) -> int:
    return sum(cases.get((value, f, g), (0, 0.0))[0] for f in favourable for g in good)


def hits(cases: Cases, values: Iterable[str], good: int) -> dict[str, tuple[int, int]]:
    """By group: the favoured of those who are `good` (1) or not (0)."""
    return {v: (count(cases, v, (1,), (good,)), count(cases, v, (0, 1), (good,))) for v in values}


def calibration_of(
    cases: Cases, newer: Cases, value: str
) -> tuple[float | None, Interval | None, GroupState]:
    """Share of the good less the mean score: too low or too high, either counts."""
    n, share, interval = gap_of_scores(cases, value)
    if share is None or interval is None or n < GROUP_AT_LEAST:
        return share, interval, "insufficient"
    good = count(cases, value, EVERY, (1,))
    if min(good, n - good) < OUTCOME_AT_LEAST:
        return share, interval, "insufficient"
    side = 1 if share > 0 else -1
    late, then, _ = gap_of_scores(newer, value)
    confirmed = late >= GROUP_AT_LEAST and then is not None and side * then > CALIBRATION_GAP
    turned = interval if side < 0 else Interval(-interval.high, -interval.low)
    return share, interval, state_of_gap(turned, CALIBRATION_GAP, confirmed)


def gap_of_scores(cases: Cases, value: str) -> tuple[int, float | None, Interval | None]:
    known = count(cases, value, EVERY, (0, 1))
    if known <= 0:
        return 0, None, None
    good = count(cases, value, EVERY, (1,))
    chance = sum(cases.get((value, f, g), (0, 0.0))[1] for f in EVERY for g in (0, 1)) / known
    low, high = wilson(good, known)
    return known, good / known - chance, Interval(low - chance, high - chance)


def state_of_gap(interval: Interval, gap: float, confirmed: bool) -> GroupState:
    """Of a difference that is bad below -`gap`."""
    if interval.low >= -gap:
        return "ok"
    return "breach" if interval.high < -gap and confirmed else "watch"


def gravest(states: Iterable[GroupState]) -> GroupState:
    order: Sequence[GroupState] = ("insufficient", "ok", "watch", "breach")
    return max(states, key=order.index)


def rates(
    pairs: Mapping[str, tuple[int, int]], newer: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Rate]:
    """By group: hits of n; differences where both have enough, each interval at half the risk,
    shared by the groups that are compared with the same one."""
    enough = {
        value: (hits, n)
        for value, (hits, n) in pairs.items()
        if n >= GROUP_AT_LEAST and min(hits, n - hits) >= OUTCOME_AT_LEAST
    }
    order = sorted(enough, key=lambda value: enough[value][0] / enough[value][1])
    confidence = 1 - (1 - CONFIDENCE) / 2 / max(1, len(enough) - 1)
    late = newer or {}
    found = {}
    for value, (hits, n) in pairs.items():
        one = Rate(n, hits / n if n else None, wilson(hits, n) if n else None)
        if value in enough and len(order) > 1:
            one = beside(one, value, order[-1], enough, late, confidence)
            one = above(one, value, order[0], enough, late, confidence)
        found[value] = one
    return found


Pairs = Mapping[str, tuple[int, int]]


def beside(one: Rate, value: str, best: str, pairs: Pairs, newer: Pairs, confidence: float) -> Rate:
    """With its difference from the highest."""
    if value == best:
        return replace(one, state="ok")
    interval = newcombe(*pairs[value], *pairs[best], confidence)
    state = state_of_gap(interval, GAP, still_apart(value, best, newer))
    gap = difference(pairs, value, best)
    return replace(one, against=best, difference=gap, difference_interval=interval, state=state)


def above(one: Rate, value: str, least: str, pairs: Pairs, newer: Pairs, confidence: float) -> Rate:
    """With its difference from the lowest."""
    if value == least:
        return replace(one, state_above="ok")
    interval = newcombe(*pairs[value], *pairs[least], confidence)
    turned = Interval(-interval.high, -interval.low)
    state = state_of_gap(turned, GAP, still_apart(least, value, newer))
    gap = difference(pairs, value, least)
    return replace(one, over=least, above=gap, above_interval=interval, state_above=state)


def difference(pairs: Pairs, value: str, other: str) -> float:
    return pairs[value][0] / pairs[value][1] - pairs[other][0] / pairs[other][1]


def still_apart(value: str, best: str, newer: Pairs) -> bool:
    """Whether the newer labels say the same, where there are enough of both."""
    counts = [newer.get(name, (0, 0)) for name in (value, best)]
    return (
        all(n >= GROUP_AT_LEAST for _, n in counts)
        and counts[0][0] / counts[0][1] - counts[1][0] / counts[1][1] < -GAP
    )


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
