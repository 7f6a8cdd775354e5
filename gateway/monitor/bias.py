"""Bias: do groups get the favourable outcome at different rates?

A window of 500 holds few members of a small group, so groups are judged on the exact counts of the
last `KEPT_DECISIONS` decisions, of at most `KEPT_DAYS` days. A ratio of rates is never read without
its interval: below `RATIO` the four-fifths rule of thumb (29 CFR 1607.4(D)) sees adverse impact,
and only an interval that lies below it as a whole is a `breach`, once decisions made since that was
first seen say so too. Where nearly everybody gets the favourable outcome the adverse one is read
the same way. Nothing here says that a model keeps any law.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeVar, cast

import numpy as np

from gateway.monitor.proportion import CONFIDENCE, Interval, katz, newcombe
from gateway.monitor.twosample import independence

RATIO = 0.8
ADVERSE_ABOVE = 0.9
"""Highest rate above which adverse rates are compared as well: 99 % and 98 % have a ratio of 0.99,
and twice as many declined."""
KEPT_DECISIONS = 10_000
KEPT_DAYS = 30
BLOCK_AT_LEAST = 500
"""Decisions of a block; a window with fewer joins the block before, if of the same day."""
DAY_NS = 24 * 3600 * 10**9
GROUP_AT_LEAST = 100
OUTCOME_AT_LEAST = 10
"""Members of either outcome without which a group's rate says nothing."""

UNKNOWN = "unknown"
OTHER = "(other)"
GROUP_VALUES_AT_MOST = 32
"""Values told apart per key; those that come later are counted together as `OTHER`."""
VALUE_LENGTH_AT_MOST = 64

Counts = TypeVar("Counts", bound=tuple[int, ...])
GroupState = Literal["insufficient", "ok", "watch", "breach"]
Pair = tuple[int, int]
"""Favourable and adverse outcomes."""
Block = Mapping[str, Mapping[str, Pair]]
"""Counts of one window or more: key -> value -> (favourable, adverse)."""
Fresh = tuple[int, int, int, int]
"""Since a group was first seen below: its own favourable and adverse, and the highest group's."""


@dataclass(frozen=True)
class Rivalry:
    """A group against the one with the highest rate; intervals that hold together at 95 % for all
    groups of the key (Bonferroni: which is the highest is chosen by the same counts).

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
    """The groups of one key over the last `decisions` decisions."""

    key: str
    decisions: int
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
    told = list(members)
    outcomes = [adverse for _, adverse in told]
    for key in keys:
        values = groups_of([groups for groups, _ in told], key)
        for (value, adverse), n in Counter(zip(values, outcomes)).items():
            tally[key, admitted(value, known[key]), adverse] += n
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


def groups_of(groups: Sequence[Mapping[str, str]], key: str) -> list[str]:
    """`group_of` of each."""
    parts = [[one.get(part) or UNKNOWN for one in groups] for part in key.split("+")]
    if len(parts) == 1:
        return parts[0]
    names = {
        told: UNKNOWN if UNKNOWN in told else "+".join(told) for told in set(zip(*parts))
    }  # fmt: skip
    return [names[told] for told in zip(*parts)]


def admitted(value: str, known: dict[str, None], at_most: int = GROUP_VALUES_AT_MOST) -> str:
    """The name that a value is counted under; adds it to `known` while there is room."""
    if value not in known:
        room = len(known) < at_most and len(value) <= VALUE_LENGTH_AT_MOST
        value = value if room or value == UNKNOWN else OTHER
        known[value] = None
    return value


def judge_key(
    key: str, blocks: Sequence[Block], pending: Mapping[str, Fresh], fresh: Block
) -> GroupsOfKey:
    """Judge one key; `pending`, by `key/value`: counts since a first sight below; `fresh`: those
    of this window, which the newest of `blocks` holds too."""
    totals = summed(key, blocks)
    enough = {value: counts for value, counts in totals.items() if is_sufficient(*counts)}
    highest = max(enough, key=lambda value: rate(*enough[value]), default=None)
    if len(enough) < 2:
        highest = None
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(enough) - 1)
    groups = []
    for value, (favourable, adverse) in totals.items():
        n = favourable + adverse
        if highest is None or value not in enough:
            groups.append(Group(value, n, adverse, favourable / n, "insufficient"))
            continue
        if value == highest:
            groups.append(Group(value, n, adverse, favourable / n, "ok"))
            continue
        rivalry = compare_groups(highest, totals[value], totals[highest], confidence)
        since = pending.get(f"{key}/{value}")
        now = since and counted_since(since, key, value, highest, fresh)
        state = state_of(rivalry, favourable / n, now)
        waits = state == "watch" and is_below(rivalry, favourable / n)
        groups.append(Group(value, n, adverse, favourable / n, state, waits, rivalry))
    return GroupsOfKey(key, sum(map(sum, totals.values())), highest, tuple(groups))


def keep(
    blocks: Sequence[Mapping[str, Mapping[str, Counts]]],
    begun: Sequence[int],
    fresh: Mapping[str, Mapping[str, Counts]],
    at: int,
) -> tuple[tuple[Mapping[str, Mapping[str, Counts]], ...], tuple[int, ...]]:
    """The blocks with a window's counts, and when (ns) each began; `at`: when the window did.

    Small windows of a day are one block. What the rest can do without, or is too old, goes.
    """
    kept, times = list(blocks), list(begun)
    small = bool(kept) and size(kept[-1]) < BLOCK_AT_LEAST
    if small and at // DAY_NS == times[-1] // DAY_NS:
        kept[-1] = {key: summed(key, (kept[-1], fresh)) for key in {**kept[-1], **fresh}}
    else:
        kept, times = [*kept, fresh], [*times, at]
    while len(kept) > 1 and (
        sum(map(size, kept[1:])) >= KEPT_DECISIONS or times[0] < at - KEPT_DAYS * DAY_NS
    ):
        kept, times = kept[1:], times[1:]
    return tuple(kept), tuple(times)


def size(block: Mapping[str, Mapping[str, tuple[int, ...]]]) -> int:
    """Each key counts every decision, so any of them does."""
    return sum(map(sum, next(iter(block.values()), {}).values()))


def summed(key: str, blocks: Iterable[Mapping[str, Mapping[str, Counts]]]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    for block in blocks:
        for value, counts in block.get(key, {}).items():
            known = found.get(value)
            both = counts if known is None else tuple(map(sum, zip(known, counts)))
            found[value] = cast(Counts, both)
    return dict(sorted(found.items()))


def is_sufficient(favourable: int, adverse: int) -> bool:
    fewest = min(favourable, adverse)
    return favourable + adverse >= GROUP_AT_LEAST and fewest >= OUTCOME_AT_LEAST


def rate(favourable: int, adverse: int) -> float:
    return favourable / (favourable + adverse)


def compare_groups(
    against: str, own: Pair, theirs: Pair, confidence: float = CONFIDENCE
) -> Rivalry:
    """Both pairs are (favourable, adverse), every count above zero."""
    n, other_n = sum(own), sum(theirs)
    table = np.array([own, theirs], dtype=np.int64)
    return Rivalry(
        against=against,
        difference=own[0] / n - theirs[0] / other_n,
        difference_interval=newcombe(own[0], n, theirs[0], other_n, confidence),
        ratio=(own[0] / n) / (theirs[0] / other_n),
        ratio_interval=katz(own[0], n, theirs[0], other_n, confidence),
        adverse_ratio=(own[1] / n) / (theirs[1] / other_n),
        adverse_ratio_interval=katz(own[1], n, theirs[1], other_n, confidence),
        p_value=independence(table[0], table[1]).p_value,
    )


def is_below(found: Rivalry, own: float) -> bool:
    """Whether the interval of either ratio says adverse impact as a whole; `own`: the rate."""
    return found.ratio_interval.high < RATIO or (
        own / found.ratio > ADVERSE_ABOVE and found.adverse_ratio_interval.low > 1 / RATIO
    )


def state_of(found: Rivalry, own: float, since: Fresh | None) -> GroupState:
    if is_below(found, own):
        return "breach" if since is not None and is_confirmed(found, since) else "watch"
    return "ok" if found.ratio_interval.low >= RATIO else "watch"


def is_confirmed(found: Rivalry, since: Fresh) -> bool:
    """Enough decisions of both groups since the first sight, none of which the intervals had then,
    and their own rates tell the same."""
    favourable, adverse, *theirs = since
    n, other_n = favourable + adverse, sum(theirs)
    if not is_sufficient(favourable, adverse) or other_n < GROUP_AT_LEAST:
        return False
    if found.ratio_interval.high < RATIO:
        return favourable / n < RATIO * theirs[0] / other_n
    return RATIO * adverse / n > theirs[1] / other_n


def counted_since(since: Fresh, key: str, value: str, highest: str, fresh: Block) -> Fresh:
    counts = fresh.get(key, {})
    own, theirs = counts.get(value, (0, 0)), counts.get(highest, (0, 0))
    return (since[0] + own[0], since[1] + own[1], since[2] + theirs[0], since[3] + theirs[1])


def pending_after(
    judged: Iterable[GroupsOfKey], before: Mapping[str, Fresh], fresh: Block
) -> dict[str, Fresh]:
    """Counts since each group was first seen below; gone when it is not any more."""
    after: dict[str, Fresh] = {}
    for found in judged:
        for group in found.groups:
            name = f"{found.key}/{group.value}"
            if group.rivalry is not None and is_below(group.rivalry, group.rate):
                assert found.highest is not None
                since = before.get(name)
                after[name] = (
                    counted_since(since, found.key, group.value, found.highest, fresh)
                    if since is not None
                    else (0, 0, 0, 0)
                )
    return after
