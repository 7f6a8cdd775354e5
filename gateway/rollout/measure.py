"""What a guard takes of a block's two sides, and when there is enough of it to compare: pure.

A sample is plain numbers. Blocks are joined into a window until it is full; whether it is full must
not change when the two sides are swapped, nor may `factor`: the symmetry that `eprocess.Paired`
rests on. Values are oriented so that higher is worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.rollout import histogram
from gateway.rollout.block import ArmCounts, Block, GroupCounts
from gateway.rollout.histogram import Histogram

EVENTS = 4
"""Bad events of both sides that close a window of rates: below a margin of one event, the sign of
a difference says nothing. Without a margin each block is a window."""
MARGIN_EVENTS = 1
"""Units of which the margin is an event close one, too, where errors are rare: safe need not wait
for events that a good version does not have. Of fewer, a single event would be over the margin."""
BLOCKS_MAX = 12
"""Blocks that close a window of rates, however few the events."""
PER_UNIT_AT_LEAST = 20
DECISIONS_AT_LEAST = 100
"""Of scores."""
GROUP_AT_LEAST = 50
"""Decisions of a group, and of all others."""

Pair = tuple[int, int]
Sides = tuple[tuple[int, int], tuple[int, int]]
RateOf = Literal["bad", "wrong", "noise"]


@dataclass(frozen=True, slots=True)
class Rate:
    """Events of n. Sample: (n, events)."""

    of: RateOf
    margin: float
    sized: bool = True
    """Whether `MARGIN_EVENTS` closes windows: not in edition 1."""

    empty = (0, 0)

    def take(self, block: Block) -> Sides:
        canary, control, pairs = block.canary, block.control, block.pairs
        match self.of:
            case "bad":
                return (canary.units, canary.bad_units), (control.units, control.bad_units)
            case "wrong":
                return _labelled(canary), _labelled(control)
            case "noise":
                return (pairs.triples, pairs.n10), (pairs.triples, pairs.n01)

    def joined(self, one: Pair, other: Pair) -> Pair:
        return one[0] + other[0], one[1] + other[1]

    def is_full(self, canary: Pair, control: Pair, blocks: int) -> bool:
        if not canary[0] or not control[0]:
            return False
        if self.sized and min(canary[0], control[0]) * self.margin >= MARGIN_EVENTS:
            return True
        return not self.margin or canary[1] + control[1] >= EVENTS or blocks >= BLOCKS_MAX

    def size(self, sample: Pair) -> int:
        return sample[0]

    def value(self, sample: Pair) -> float:
        return sample[1] / sample[0]


def _labelled(arm: ArmCounts) -> Pair:
    return arm.right + arm.wrong, arm.wrong


@dataclass(frozen=True, slots=True)
class Latency:
    """Logarithm of a quantile, or of the mean (`share` None). Sample: a histogram."""

    share: float | None

    empty: Histogram = ()

    def take(self, block: Block) -> tuple[Histogram, Histogram]:
        return block.canary.latency, block.control.latency

    def joined(self, one: Histogram, other: Histogram) -> Histogram:
        return histogram.merged(one, other)

    def is_full(self, canary: Histogram, control: Histogram, blocks: int) -> bool:
        least = PER_UNIT_AT_LEAST
        if self.share is not None:
            least = max(least, math.ceil(2 / (1 - self.share) - 1e-9))
        return min(histogram.size(canary), histogram.size(control)) >= least

    def size(self, sample: Histogram) -> int:
        return histogram.size(sample)

    def value(self, sample: Histogram) -> float:
        if self.share is None:
            return histogram.log_mean(sample)
        return histogram.log_quantile(sample, self.share)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Logarithm of tokens per unit. Sample: (units, total)."""

    empty = (0, 0)

    def take(self, block: Block) -> Sides:
        canary, control = block.canary, block.control
        return (canary.units, canary.tokens), (control.units, control.tokens)

    def joined(self, one: Pair, other: Pair) -> Pair:
        return one[0] + other[0], one[1] + other[1]

    def is_full(self, canary: Pair, control: Pair, blocks: int) -> bool:
        return (min(canary[0], control[0]) >= PER_UNIT_AT_LEAST
                and min(canary[1], control[1]) > 0)  # fmt: skip

    def size(self, sample: Pair) -> int:
        return sample[0]

    def value(self, sample: Pair) -> float:
        return math.log(sample[1] / sample[0])


@dataclass(frozen=True, slots=True)
class Distance:
    """Of scores to a reference that was frozen before. Sample: counts by bin.

    `reference`: shares by bin; Wasserstein is in units of a bin's width times their number.
    """

    stat: str
    reference: tuple[float, ...]

    empty: tuple[int, ...] = ()

    def take(self, block: Block) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return block.canary.scores, block.control.scores

    def joined(self, one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(one, other)) if one and other else one or other

    def is_full(self, canary: tuple[int, ...], control: tuple[int, ...], blocks: int) -> bool:
        return min(sum(canary), sum(control)) >= DECISIONS_AT_LEAST

    def size(self, sample: tuple[int, ...]) -> int:
        return sum(sample)

    def value(self, sample: tuple[int, ...]) -> float:
        if self.stat == "psi_to_reference":
            return _stability(sample, self.reference)
        gaps = _cumulated_gaps(sample, self.reference)
        if self.stat == "ks_to_reference":
            return max(gaps)
        return sum(gaps) / len(sample)


def _cumulated_gaps(counts: Sequence[int], shares: Sequence[float]) -> list[float]:
    total, gaps, below, expected = sum(counts), [], 0, 0.0
    for count, share in zip(counts, shares):
        below += count
        expected += share
        gaps.append(abs(below / total - expected))
    return gaps


def _stability(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Population stability index; half a decision more in each bin, so that none is empty."""
    total = sum(counts) + len(counts) / 2
    psi = 0.0
    for count, share in zip(counts, shares):
        now, then = (count + 0.5) / total, max(share, 1e-4)
        psi += (now - then) * math.log(now / then)
    return psi


Groups4 = tuple[int, int, int, int]


def of_group(arm: ArmCounts, group: str) -> Groups4:
    """Decisions and favourable ones of a group, and of all others of its key."""
    key = group.partition("=")[0] + "="
    own = arm.groups.get(group, GroupCounts())
    rest = [one for name, one in arm.groups.items() if name.startswith(key)]
    return (own.decisions, own.favourable,
            sum(one.decisions for one in rest) - own.decisions,
            sum(one.favourable for one in rest) - own.favourable)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gap:
    """How far a group's favourable share is below that of all others.

    Sample: (decisions, favourable) of the group, then of the others.
    """

    group: str

    empty = (0, 0, 0, 0)

    def take(self, block: Block) -> tuple[Groups4, Groups4]:
        return of_group(block.canary, self.group), of_group(block.control, self.group)

    def joined(self, one: Groups4, other: Groups4) -> Groups4:
        a, b, c, d = (x + y for x, y in zip(one, other))
        return a, b, c, d

    def is_full(self, canary: Groups4, control: Groups4, blocks: int) -> bool:
        return min(self.size(canary), self.size(control)) >= GROUP_AT_LEAST

    def size(self, sample: Groups4) -> int:
        return min(sample[0], sample[2])

    def value(self, sample: Groups4) -> float:
        return sample[3] / sample[2] - sample[1] / sample[0]


@dataclass(frozen=True, slots=True)
class Behind:
    """The same within the canary alone: all others against the group, each (decisions, favourable).

    It cannot call equal versions worse by itself (they may well treat groups unlike), so it is only
    used together with `Gap`: a group that loses an advantage is not behind, and not a finding.
    """

    group: str

    empty = (0, 0)

    def take(self, block: Block) -> Sides:
        own, own_good, rest, rest_good = of_group(block.canary, self.group)
        return (rest, rest_good), (own, own_good)

    def joined(self, one: Pair, other: Pair) -> Pair:
        return one[0] + other[0], one[1] + other[1]

    def is_full(self, others: Pair, own: Pair, blocks: int) -> bool:
        return min(others[0], own[0]) >= GROUP_AT_LEAST

    def size(self, sample: Pair) -> int:
        return sample[0]

    def value(self, sample: Pair) -> float:
        return sample[1] / sample[0]


Measure = Rate | Latency | Tokens | Distance | Gap | Behind


def factor(one: int, other: int) -> float:
    """What a window's difference is multiplied with: larger windows say more."""
    return math.sqrt(min(one, other))
