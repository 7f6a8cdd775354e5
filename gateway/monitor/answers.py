"""What is wrong with the answers of one window: the score that the card declares.

The card promises a score in each answer, so what lacks or breaks it is compared with the promise
(at most `quality.EXCESS_FLOOR` of the answers, exact binomial) and not with a sample. An answer
that is always the same is compared with the reference's own scores; one that comes in steps with
those or, of a version that nobody here can score, with its windows before.

Rounding: of the *distinct* scores, how many lie on the multiples of a power of ten, in the window
and in the reference, by Fisher's exact test. Distinct ones, so that a score that many decisions
share (0, 1, a leaf of a stump) counts once and no drift towards it looks like rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any

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


@dataclass(frozen=True)
class Steps:
    """Of `decisions` with a score, how many `distinct` values, and of those how many are multiples
    of each step."""

    decisions: int = 0
    distinct: int = 0
    counts: tuple[int, ...] = (0,) * STEPS.size

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Steps:
        """Read what `asdict` gave; raises KeyError or TypeError for anything else."""
        return Steps(int(data["decisions"]), int(data["distinct"]), tuple(data["counts"]))

    def with_more(self, other: Steps) -> Steps:
        """With a window's; a tenth of what was is forgotten, so that it is of some windows."""
        ours = (self.decisions, self.distinct, *self.counts)
        theirs = (other.decisions, other.distinct, *other.counts)
        decisions, distinct, *counts = (a - a // 10 + b for a, b in zip(ours, theirs))
        return Steps(decisions, distinct, tuple(counts))


def inspect(
    window: Window, scores: Column, card: Card, reference: Reference, alpha: float, before: Steps
) -> tuple[Finding, ...]:
    """What is not `ok` with the answers, each kind at risk `alpha`; `before`: of the windows that
    were, for where the reference has no scores."""
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
    found += rounded(reference.scores or before, scores, alpha)
    return tuple(one for one in found if one.state != "ok")


def _beyond_promise(kind: Kind, ids: list[str], n: int, alpha: float) -> Finding:
    count = len(ids)
    chance = float(stats.binom.sf(count - 1, n, EXCESS_FLOOR))
    state: QualityState = "fault" if chance < alpha else "watch"
    low = proportion.at_least(count, n, alpha)
    some = tuple(ids[:EXAMPLES])
    return Finding(kind, state, count, n, count / n, low, 0.0, EXCESS_FLOOR, chance, some)


def steps_of(column: Column) -> Steps:
    return _on_steps(column).steps


def rounded(reference: Column | Steps, window: Column, alpha: float) -> list[Finding]:
    """One finding where scores come in steps that the reference's, or those before, do not have."""
    then = reference if isinstance(reference, Steps) else steps_of(reference)
    now = steps_of(window)
    n, m = now.distinct, then.distinct
    if n < DISTINCT_AT_LEAST or not m:
        return []
    ours, theirs = np.array(now.counts), np.array(then.counts)
    shares, before = ours / n, theirs / m
    if not (shares - before >= ROUNDED_AT_LEAST).any():  # as nearly always: the test costs more
        return []
    chances = stats.hypergeom.sf(ours - 1, n + m, ours + theirs, n) * STEPS.size
    seen = (chances < alpha) & (shares - before >= ROUNDED_AT_LEAST)
    if not seen.any():
        return []
    # Tenths are hundredths too: the widest step that nearly all of them have is the one.
    place = int(np.flatnonzero(seen & (shares >= 0.9 * shares[seen].max()))[0])
    state: QualityState = "fault" if _loses(reference, now, int(STEPS[place])) else "watch"
    count, reference_count = now.counts[place], then.counts[place]
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


def _loses(reference: Column | Steps, now: Steps, step: int) -> bool:
    """Whether less than half of the different scores is left: of the reference's, were they rounded
    so; or of a window's share of different ones before."""
    if isinstance(reference, Steps):
        return now.distinct / now.decisions < LOSS * reference.distinct / reference.decisions
    distinct = _on_steps(reference).distinct
    return bool(np.unique(np.rint(distinct * 10.0**step)).size < LOSS * distinct.size)


class _OnSteps:
    """The distinct values of a column, and how many of them are multiples of each step."""

    def __init__(self, numbers: Floats) -> None:
        self.distinct = np.unique(numbers)
        scaled = self.distinct[:, None] * 10.0**STEPS
        near = np.abs(scaled - np.rint(scaled)) <= ULP * np.abs(scaled)
        counts = tuple(near.sum(axis=0).tolist())
        self.steps = Steps(int(numbers.size), int(self.distinct.size), counts)


@lru_cache(maxsize=256)
def _on_steps(column: Column) -> _OnSteps:
    """Made once for a reference, which is the same object in each window."""
    return _OnSteps(column.numbers if column.numbers is not None else np.empty(0))
