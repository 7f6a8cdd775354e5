"""What is wrong with the answers of one window: the score that the card declares.

The card promises a score in each answer, so what lacks or breaks it is compared with the promise
(at most `quality.EXCESS_FLOOR` of the answers, exact binomial) and not with a sample. An answer
that is always the same, or comes in steps, is compared with the reference's own scores.

Rounding: of the *distinct* scores, how many lie on the multiples of a power of ten, in the window
and in the reference, by Fisher's exact test. Distinct ones, so that a score that many decisions
share (0, 1, a leaf of a stump) counts once and no drift towards it looks like rounding.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gateway.card import Card
from gateway.monitor import proportion
from gateway.monitor.column import Column
from gateway.monitor.quality import EXCESS_FLOOR, Finding, Kind, QualityState, stuck
from gateway.monitor.reference import Reference, bounds_of
from gateway.monitor.window import Window

STEPS = np.arange(-6, 5)
"""Decimals that a score may have been rounded to; below 0: to tens, hundreds and so on."""
EXAMPLES = 5
DISTINCT_AT_LEAST = 3
ROUNDED_AT_LEAST = 0.2
"""Of the distinct scores, beyond the reference's share: one of several upstreams may round."""
ULP = 2.0**-23
"""How far, in proportion, single precision may have moved a rounded number."""
LOSS = 0.5
"""Rounding that leaves so few of the reference's distinct scores is a fault; less is a watch: four
digits of a probability change no decision and no distribution."""

Floats = NDArray[np.float64]


def inspect(
    window: Window, scores: Column, card: Card, reference: Reference, alpha: float
) -> tuple[Finding, ...]:
    """What is not `ok` with the answers, each kind at risk `alpha`."""
    low, high = bounds_of(card) or (-inf, inf)
    ids: dict[Kind, list[str]] = {"missing": [], "wrong_type": [], "out_of_range": []}
    for one in window.decisions:
        if one.flaw is not None:
            ids[one.flaw].append(one.id)
        elif one.score is not None and not low <= one.score <= high:
            ids["out_of_range"].append(one.id)
    found = [_beyond_promise(kind, some, len(window), alpha) for kind, some in ids.items() if some]
    if reference.scores is not None:
        found += stuck(reference.scores, scores, alpha)
        found += rounded(reference.scores, scores, alpha)
    return tuple(one for one in found if one.state != "ok")


def _beyond_promise(kind: Kind, ids: list[str], n: int, alpha: float) -> Finding:
    count = len(ids)
    chance = float(stats.binom.sf(count - 1, n, EXCESS_FLOOR))
    state: QualityState = "fault" if chance < alpha else "watch"
    low = proportion.at_least(count, n, alpha)
    some = tuple(ids[:EXAMPLES])
    return Finding(kind, state, count, n, count / n, low, 0.0, EXCESS_FLOOR, chance, some)


def rounded(reference: Column, window: Column, alpha: float) -> list[Finding]:
    """One finding where scores come in steps that the reference's do not have."""
    then, now = _on_steps(reference), _on_steps(window)
    n, m = now.distinct.size, then.distinct.size
    if n < DISTINCT_AT_LEAST or not m:
        return []
    shares, before = now.counts / n, then.counts / m
    if not (shares - before >= ROUNDED_AT_LEAST).any():  # as nearly always: the test costs more
        return []
    chances = stats.hypergeom.sf(now.counts - 1, n + m, now.counts + then.counts, n) * STEPS.size
    seen = (chances < alpha) & (shares - before >= ROUNDED_AT_LEAST)
    if not seen.any():
        return []
    # Tenths are hundredths too: the widest step that nearly all of them have is the one.
    place = int(np.flatnonzero(seen & (shares >= 0.9 * shares[seen].max()))[0])
    left = np.unique(np.rint(then.distinct * 10.0 ** STEPS[place])).size
    state: QualityState = "fault" if left < LOSS * m else "watch"
    count, reference_count = int(now.counts[place]), int(then.counts[place])
    return [
        Finding(
            kind="rounded",
            state=state,
            count=count,
            n=n,
            share=count / n,
            at_least=proportion.at_least(count, n, alpha),
            reference_share=reference_count / m,
            reference_at_most=proportion.at_most(reference_count, m, alpha),
            chance=float(chances[place]),
            level=f"{10.0 ** -STEPS[place]:g}",
        )
    ]


class _OnSteps:
    """The distinct values of a column, and how many of them are multiples of each step."""

    def __init__(self, numbers: Floats) -> None:
        self.distinct = np.unique(numbers)
        scaled = self.distinct[:, None] * 10.0**STEPS
        near = np.abs(scaled - np.rint(scaled)) <= ULP * np.abs(scaled)
        self.counts = near.sum(axis=0)


@lru_cache(maxsize=256)
def _on_steps(column: Column) -> _OnSteps:
    """Made once for a reference, which is the same object in each window."""
    return _OnSteps(column.numbers if column.numbers is not None else np.empty(0))
