"""Seeded blocks for tests: two arms and pairs, with what is wrong as arguments."""

from __future__ import annotations

import numpy as np

from gateway.rollout import histogram
from gateway.rollout.block import ArmCounts, Block, GroupCounts, PairCounts, PairGroup

SECOND = 10**9


def arm(rng, *, units=100, bad=0.01, slower=1.0, favourable=(0.6, 0.6), shift=0.0, wrong=0.1):
    """One side of a block: errors, log-normal latencies, two groups, scores, labels, tokens."""
    n = int(rng.poisson(units))
    bad_units = int(rng.binomial(n, bad))
    groups = {}
    for name, size, share in zip("ab", (n - n // 3, n // 3), favourable):
        groups[f"race={name}"] = GroupCounts(size, 0, size, int(rng.binomial(size, share)))
    scores = np.clip(rng.beta(2, 5, n) + shift, 0, 0.999)
    labels = int(rng.binomial(n, 0.2))
    wrongs = int(rng.binomial(labels, wrong))
    return ArmCounts(
        exchanges=n, bad_exchanges=bad_units, units=n, bad_units=bad_units,
        latency=histogram.of(rng.lognormal(9, 0.5, n) * slower), groups=groups,
        scores=tuple(np.bincount((scores * 20).astype(int), minlength=20).tolist()),
        right=labels - wrongs, wrong=wrongs,
        tokens=int(rng.poisson(300 * n)),
    )  # fmt: skip


def pairs(rng, *, units=80, disagree=0.005, flips=0.002, lost=(0.01, 0.01), noise=(0.02, 0.02),
          compared=1.0, only=(0.05, 0.05), favourable=(0.6, 0.6)):  # fmt: skip
    eligible = int(rng.poisson(units)) + 2
    n = eligible if compared == 1 else int(rng.binomial(eligible, compared))
    groups = {}
    for name, size, share, good in zip("ab", (n - n // 3, n // 3), lost, favourable):
        before = int(rng.binomial(size, good))
        gained, gone = rng.binomial(size - before, 0.02), rng.binomial(before, share)
        groups[f"race={name}"] = PairGroup(size, int(gained), int(gone), before)
    n10, n01, _ = rng.multinomial(n // 2, (*noise, 1 - sum(noise)))
    primary, shadow, _ = rng.multinomial(n // 2, (*only, 1 - sum(only)))
    return PairCounts(
        eligible=eligible, compared=n, units=n, disagreements=int(rng.binomial(n, disagree)),
        flips=int(rng.binomial(n, flips)), triples=n // 2, n10=int(n10), n01=int(n01),
        labels=n // 2, only_primary_right=int(primary), only_shadow_right=int(shadow),
        groups=groups,
    )  # fmt: skip


def block(number, canary=None, control=None, pairs=None, **rest):
    return Block(
        rollout="mortgage-v2", attempt=1, number=number, began=number * 10 * SECOND,
        ended=(number + 1) * 10 * SECOND, step=0, canary=canary or ArmCounts(),
        control=control or ArmCounts(), pairs=pairs or PairCounts(), **rest,
    )  # fmt: skip


def blocks(seed, count, canary=None, control=None, paired=None, *, start=0):
    """Blocks with both arms and pairs; arguments of `arm` and `pairs` by side."""
    rng = np.random.default_rng(seed)
    return [
        block(number, arm(rng, **(canary or {})), arm(rng, **(control or {})),
              pairs(rng, **(paired or {})))
        for number in range(start, start + count)
    ]  # fmt: skip
