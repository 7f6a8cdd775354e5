"""Bias: do groups get the favourable outcome at different rates?

A window of 500 holds few members of a small group, so groups are judged on the exact counts of the
last `BIAS_WINDOWS` windows. A ratio of rates is never read without its interval: below `RATIO` the
four-fifths rule of thumb (29 CFR 1607.4(D)) sees adverse impact, and only an interval that lies
below it as a whole is a `breach`. Nothing here says that a model keeps any law.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from gateway.monitor.proportion import Interval, katz, newcombe
from gateway.monitor.twosample import independence

RATIO = 0.8
BIAS_WINDOWS = 20
GROUP_AT_LEAST = 100
OUTCOME_AT_LEAST = 10
"""Members of either outcome without which a group's rate says nothing."""

UNKNOWN = "unknown"
OTHER = "(other)"
GROUP_VALUES_AT_MOST = 32
"""Values told apart per key; those that come later are counted together as `OTHER`."""
VALUE_LENGTH_AT_MOST = 64

GroupState = Literal["insufficient", "ok", "watch", "breach"]
Block = Mapping[str, Mapping[str, tuple[int, int]]]
"""Counts of one window: key -> value -> (favourable, adverse)."""


@dataclass(frozen=True)
class Rivalry:
    """A group against the one with the highest rate; intervals of 95 %.

    `ratio` is of favourable rates (impact ratio), `adverse_ratio` of adverse ones: where nearly
    all are approved the first hides what the second shows.
    """

    against: str
    difference: float
    difference_interval: Interval
    ratio: float
    ratio_interval: Interval
    adverse_ratio: float
    adverse_ratio_interval: Interval
    p_value: float


@dataclass(frozen=True)
class Group:
    """`rate`: share of favourable outcomes. `rivalry` is None for the highest and for too few."""

    value: str
    n: int
    adverse: int
    rate: float
    state: GroupState
    breach_pending: bool = False
    rivalry: Rivalry | None = None


@dataclass(frozen=True)
class GroupsOfKey:
    """The groups of one key over the last `windows` windows."""

    key: str
    windows: int
    highest: str | None
    groups: tuple[Group, ...]


def count_groups(
    members: Iterable[tuple[Mapping[str, str], bool]],
    keys: Sequence[str],
    former: Sequence[Block],
) -> Block:
    """Count one window; `members` gives each decision's groups and whether it was adverse."""
    known = {key: dict.fromkeys(v for block in former for v in block.get(key, {})) for key in keys}
    tally: Counter[tuple[str, str, bool]] = Counter()
    for groups, adverse in members:
        for key in keys:
            value = admitted(group_of(groups, key), known[key])
            tally[key, value, adverse] += 1
    return {
        key: {
            value: (tally[key, value, False], tally[key, value, True])
            for value in sorted(known[key])
            if tally[key, value, False] + tally[key, value, True]
        }
        for key in keys
    }


def with_intersections(keys: Sequence[str]) -> tuple[str, ...]:
    """Each key, and each two of them together, as `race+sex`: what neither shows alone."""
    return (*keys, *(f"{one}+{other}" for one, other in combinations(keys, 2)))


def group_of(groups: Mapping[str, str], key: str) -> str:
    """The value of a key or of two together; unknown where one of them is not told."""
    parts = [groups.get(part) or UNKNOWN for part in key.split("+")]
    return UNKNOWN if UNKNOWN in parts else "+".join(parts)


def admitted(value: str, known: dict[str, None]) -> str:
    """The name that a value is counted under; adds it to `known` while there is room."""
    if value not in known:
        room = len(known) < GROUP_VALUES_AT_MOST and len(value) <= VALUE_LENGTH_AT_MOST
        value = value if room or value == UNKNOWN else OTHER
        known[value] = None
    return value


def judge_key(
    key: str,
    blocks: Sequence[Block],
    pending: Mapping[str, int],
    fresh: int,
    minimum: int,
) -> GroupsOfKey:
    """Judge one key; `pending` counts, by `key/value`, decisions since a first sight below RATIO.

    The blocks overlap from window to window, so a breach is confirmed only when `fresh` and
    earlier decisions since the first sight reach `minimum`.
    """
    totals = summed(key, blocks)
    enough = {value: counts for value, counts in totals.items() if is_sufficient(*counts)}
    highest = max(enough, key=lambda value: rate(*enough[value]), default=None)
    if len(enough) < 2:
        highest = None
    groups = []
    for value, (favourable, adverse) in totals.items():
        n = favourable + adverse
        if highest is None or value not in enough:
            groups.append(Group(value, n, adverse, favourable / n, "insufficient"))
            continue
        if value == highest:
            groups.append(Group(value, n, adverse, favourable / n, "ok"))
            continue
        rivalry = compare_groups(highest, totals[value], totals[highest])
        since = pending.get(f"{key}/{value}")
        confirmed = since is not None and since + fresh >= minimum
        state = state_of(rivalry.ratio_interval, confirmed)
        waits = state == "watch" and rivalry.ratio_interval.high < RATIO
        groups.append(Group(value, n, adverse, favourable / n, state, waits, rivalry))
    return GroupsOfKey(key, len(blocks), highest, tuple(groups))


def summed(key: str, blocks: Sequence[Block]) -> dict[str, tuple[int, int]]:
    values = sorted({value for block in blocks for value in block.get(key, {})})
    counts = {
        value: [block.get(key, {}).get(value, (0, 0)) for block in blocks] for value in values
    }
    return {
        value: (sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))
        for value, pairs in counts.items()
    }


def is_sufficient(favourable: int, adverse: int) -> bool:
    fewest = min(favourable, adverse)
    return favourable + adverse >= GROUP_AT_LEAST and fewest >= OUTCOME_AT_LEAST


def rate(favourable: int, adverse: int) -> float:
    return favourable / (favourable + adverse)


def compare_groups(against: str, own: tuple[int, int], theirs: tuple[int, int]) -> Rivalry:
    """Both pairs are (favourable, adverse), every count above zero."""
    n, other_n = sum(own), sum(theirs)
    table = np.array([own, theirs], dtype=np.int64)
    return Rivalry(
        against=against,
        difference=own[0] / n - theirs[0] / other_n,
        difference_interval=newcombe(own[0], n, theirs[0], other_n),
        ratio=(own[0] / n) / (theirs[0] / other_n),
        ratio_interval=katz(own[0], n, theirs[0], other_n),
        adverse_ratio=(own[1] / n) / (theirs[1] / other_n),
        adverse_ratio_interval=katz(own[1], n, theirs[1], other_n),
        p_value=independence(table[0], table[1]).p_value,
    )


def state_of(ratio: Interval, confirmed: bool) -> GroupState:
    if ratio.low >= RATIO:
        return "ok"
    return "breach" if ratio.high < RATIO and confirmed else "watch"


def pending_after(
    judged: Iterable[GroupsOfKey], before: Mapping[str, int], fresh: int
) -> dict[str, int]:
    """Decisions since each group was first seen below RATIO; gone when its interval is not."""
    after = {}
    for found in judged:
        for group in found.groups:
            name = f"{found.key}/{group.value}"
            if group.rivalry is not None and group.rivalry.ratio_interval.high < RATIO:
                after[name] = before[name] + fresh if name in before else 0
    return after
