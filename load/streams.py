"""Seeded traffic of rollouts, healthy and not, as blocks; and as plain counts for other judges.

Exchanges arrive as a Poisson process, so a unit's first one comes after an exponential time and the
rest need not be drawn one by one: counts of all exchanges are Poisson with the arm's own rate,
counts of first exchanges are of units. Both are exact for the model, which is in `Case`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gateway.rollout.block import ArmCounts, Block, GroupCounts, PairCounts
from gateway.rollout.histogram import BUCKETS, GROWTH

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
SECOND = 10**9
BLOCK_S = 10
LATENCY_MU, LATENCY_SIGMA = math.log(8_000), 0.5
"""Log-normal, in microseconds: p50 of 8 ms, p95 of 18 ms."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of traffic. Shares a block; `ramp`: (blocks, weight of the canary) by step.

    `users`: units of each arm at weight 1/2, who return with Zipf frequencies and have error rates
    of their own; None: each exchange is another unit's. `bursts`: share of blocks in which one arm
    alone fails at 20 % and is twice as slow, drawn for each arm; `burst_blocks`: how long one is.
    `cycle`: traffic and errors of both arms swing by this much, once over the whole stream.
    """

    name: str
    per_block: float = 1000
    ramp: tuple[tuple[int, float], ...] = ((60, 0.05), (60, 0.1), (240, 0.25))
    shadow_blocks: int = 0
    errors: tuple[float, float] = (0.01, 0.01)
    bursts: tuple[float, float] = (0.0, 0.0)
    burst_blocks: int = 1
    cycle: float = 0.0
    users: int | None = None
    slower: float = 1.0
    approval: tuple[float, float] = (0.6, 0.6)
    """Favourable share of the smaller group, a third of all, in canary and control."""
    disagree: float = 0.01
    flips: float = 0.005
    pair_bursts: float = 0.0
    copied: float = 0.1
    """Of all requests, how many are a pair."""


@dataclass(frozen=True)
class Arm:
    """Counts by block of one side: of all exchanges, and of units' first ones."""

    exchanges: Counts
    bad: Counts
    units: Counts
    bad_units: Counts
    latency: Counts
    groups: tuple[Counts, Counts, Counts, Counts]


def weights(case: Case) -> Array:
    """Of the canary, by block: none while it is a shadow."""
    told = [np.zeros(case.shadow_blocks)]
    told += [np.full(blocks, weight) for blocks, weight in case.ramp]
    return np.concatenate(told)


def steps(case: Case) -> list[int]:
    """The rollout's step, by block: the shadow is one, each weight is."""
    lengths = [case.shadow_blocks, *(length for length, _ in case.ramp)]
    return [step for step, length in enumerate(lengths) for _ in range(length)]


def arms(case: Case, rng: np.random.Generator) -> tuple[Arm, Arm]:
    share = weights(case)
    swing = 1 + case.cycle * np.sin(2 * np.pi * np.arange(share.size) / share.size)
    users = None if case.users is None else _users(case, share, swing, rng)
    made = []
    for side in (0, 1):
        burst = _bursts(case.bursts[side], case.burst_blocks, share.size, rng)
        rate = np.where(burst, 0.2, case.errors[side] * swing)
        traffic = case.per_block * share * swing
        if users is None:
            units = rng.poisson(traffic)
            bad = rng.binomial(units, rate)
            exchanges, bad_all = units, bad
        else:
            exchanges, bad_all, units, bad = users[side].drawn(traffic, rate, burst, rng)
        pace = case.slower if side == 0 else 1.0
        latency = rng.multinomial(units, _latencies(pace))
        latency[burst] = rng.multinomial(units[burst], _latencies(2 * pace))
        small = rng.binomial(units, 1 / 3)
        groups = (small, rng.binomial(small, case.approval[side]), units - small,
                  rng.binomial(units - small, 0.65))  # fmt: skip
        made.append(Arm(exchanges, bad_all, units, bad, latency, groups))
    return made[0], made[1]


def _bursts(share: float, blocks: int, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    starts = rng.random(size) < share / blocks
    return np.convolve(starts, np.ones(blocks))[:size] > 0


_PACES: dict[float, Array] = {}


def _latencies(pace: float) -> Array:
    """Chance of each bucket of the histogram."""
    if pace not in _PACES:
        edges = np.arange(BUCKETS) * math.log(GROWTH) - math.log(pace)
        below = stats.norm.cdf((edges - LATENCY_MU) / LATENCY_SIGMA)
        _PACES[pace] = np.diff(below, prepend=0.0) / below[-1]
    return _PACES[pace]


@dataclass(frozen=True)
class Users:
    """Units of one arm: when each is first seen, how often it comes, how often it fails."""

    first: Counts
    share: Array
    """Of the arm's exchanges, at its full width."""
    since: Counts
    fails: Array
    """Relative to the arm's rate, of mean 1 over exchanges of both arms."""

    def drawn(
        self, traffic: Array, rate: Array, burst: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Counts, Counts, Counts, Counts]:
        """Exchanges, bad ones, units and bad units by block."""
        size = traffic.size
        there = np.array([self.share[self.since <= n].sum() for n in np.unique(self.since)])
        failing = np.array(
            [(self.share * self.fails)[self.since <= n].sum() for n in np.unique(self.since)]
        )
        step = np.searchsorted(np.unique(self.since), np.arange(size), side="right") - 1
        seen = step >= 0
        own = np.where(seen, failing[step] / there[step], 1.0)
        own = np.where(burst, 1.0, own)
        exchanges = rng.poisson(traffic)
        bad = rng.binomial(exchanges, np.minimum(1.0, rate * own))
        inside = self.first < size
        first = self.first[inside]
        units = np.bincount(first, minlength=size)
        chance = np.where(burst[first], rate[first], rate[first] * self.fails[inside])
        bad_first = rng.random(first.size) < np.minimum(1.0, chance)
        return exchanges, bad, units, np.bincount(first[bad_first], minlength=size)


def _users(case: Case, share: Array, swing: Array, rng: np.random.Generator) -> tuple[Users, Users]:
    """Both arms' units, dealt out of one population as hashes do."""
    assert case.users is not None
    total = 2 * case.users
    frequency = 1 / np.arange(1, total + 1)
    fails = np.minimum(rng.gamma(0.3, 1 / 0.3, total), 30)
    bucket = rng.random(total)
    # Half the buckets are one arm at full width 1/2, the others the other arm.
    made = []
    traffic = case.per_block * 0.5 * swing
    elapsed = np.concatenate([[0.0], np.cumsum(traffic)])
    fails /= (frequency * fails).sum() / frequency.sum()
    for side in (0, 1):
        own = (bucket < 0.5) == (side == 0)
        place = bucket[own] % 0.5
        since = np.searchsorted(share, place, side="right")
        eligible = since < share.size
        of_arm = frequency[own] / frequency[own].sum()
        start = elapsed[np.minimum(since, share.size)]
        at = start + rng.exponential(1 / of_arm)
        first = np.searchsorted(elapsed, at, side="right") - 1
        first = np.where(eligible, first, share.size)
        made.append(Users(first, np.where(eligible, of_arm, 0.0),
                          np.where(eligible, since, share.size), fails[own]))  # fmt: skip
    return made[0], made[1]


def pairs(case: Case, rng: np.random.Generator) -> list[PairCounts]:
    """Of the shadow's blocks; a burst is a block in which a fifth of the shadows fails."""
    told = []
    for burst in rng.random(case.shadow_blocks) < case.pair_bursts:
        units = int(rng.poisson(case.per_block * case.copied))
        disagree = int(rng.binomial(units, 0.2 if burst else case.disagree))
        flips = int(rng.binomial(units, case.flips))
        told.append(PairCounts(eligible=units, compared=units, units=units,
                               disagreements=disagree, flips=flips))  # fmt: skip
    return told


def blocks(case: Case, sides: tuple[Arm, Arm], shadows: list[PairCounts]) -> Iterator[Block]:
    """What the judge sees of one run."""
    rows = [_histograms(side.latency) for side in sides]
    for number, step in enumerate(steps(case)):
        canary, control = (_arm(side, row[number], number) for side, row in zip(sides, rows))
        yield Block(
            "load", 1, number, number * BLOCK_S * SECOND, (number + 1) * BLOCK_S * SECOND, step,
            canary, control, shadows[number] if number < len(shadows) else PairCounts(),
        )  # fmt: skip


def _arm(side: Arm, latency: tuple[tuple[int, int], ...], number: int) -> ArmCounts:
    small, small_good, large, large_good = (int(one[number]) for one in side.groups)
    return ArmCounts(
        exchanges=int(side.exchanges[number]), bad_exchanges=int(side.bad[number]),
        units=int(side.units[number]), bad_units=int(side.bad_units[number]), latency=latency,
        groups={"group=small": GroupCounts(small, 0, small, small_good),
                "group=large": GroupCounts(large, 0, large, large_good)},
    )  # fmt: skip


def _histograms(latency: Counts) -> list[tuple[tuple[int, int], ...]]:
    told = []
    for row in latency:
        used = np.flatnonzero(row)
        told.append(tuple(zip(used.tolist(), row[used].tolist())))
    return told
