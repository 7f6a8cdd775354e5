"""How long a CUSUM runs before it alarms by chance, and the threshold for a wanted run. Pure.

The statistic S becomes max(0, S + x - k) with each value and alarms at h. Put on a lattice, it is a
Markov chain whose expected run is one linear system (Brook and Evans, Biometrika 59, 1972), for any
distribution of values: no normal law is assumed and nothing is simulated.

A reference shows the law of values only as well as its size lets it. The true shares of bins that
its own quantiles bound are Dirichlet's, with the rows in each bin as parameters (Wilks, Annals of
Mathematical Statistics 13, 1942); for levels of a category that is the Bayesian bootstrap (Rubin,
Annals of Statistics 9, 1981). Near the threshold the chance of an alarm grows exponentially with
the mean and the variance of the values, so the chance under the reference's own law is too low.
What is held is the chance averaged over that distribution, as the expected run times of Cobb, Van
Looveren and Klaise (AISTATS 2022) are. A rise of the mean comes with a heavier tail on that side:
a mean that moves alone would misjudge lopsided laws by a third.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CELLS = 160
"""Points of the lattice below the threshold: against 960 the run is 1 to 2 % short."""
NODES = (5, 2)
"""Of the Gauss-Hermite rules over references: for their error of the mean, and of the variance."""
STEPS_MAX = 40
THRESHOLD_MAX = 2_000.0
RUN_MAX = 1e13
"""Beyond, the linear system has no digits left."""

Floats = NDArray[np.float64]


class Law(NamedTuple):
    """A finite distribution: values and their weights, which sum to one."""

    values: tuple[float, ...]
    weights: tuple[float, ...]


def expected_run(law: Law, slack: float, threshold: float, cells: int = CELLS) -> float:
    """Values until the statistic, begun at zero, reaches `threshold`; `slack` is k.

    Infinite where no value raises the statistic, or where it takes longer than `RUN_MAX`.
    """
    if max(law.values) <= slack:
        return inf
    unit = threshold / cells
    steps = _lattice(np.array(law.values) - slack, np.array(law.weights), unit, cells)
    # Row i, column j of the chain: the chance to go from i to j; all below zero ends at zero.
    places = np.arange(cells)
    chain = steps[places[None, :] - places[:, None] + cells]
    upto = np.cumsum(steps)
    chain[:, 0] = upto[cells - places]
    try:
        run = float(np.linalg.solve(np.eye(cells) - chain, np.ones(cells))[0])
    except np.linalg.LinAlgError:
        return inf
    return run if 0 < run < RUN_MAX else inf


def _lattice(values: Floats, weights: Floats, unit: float, cells: int) -> Floats:
    """Chances of steps -cells .. cells, with the mean and the variance of the values; the outermost
    hold all beyond."""
    mean = float(values @ weights)
    variance = float((values - mean) ** 2 @ weights)
    spread = _split(values, weights, unit, cells)[1]
    if variance > 0 and spread > 0:  # splitting widens: narrow the values by as much first
        values = mean + (values - mean) * sqrt(variance / spread)
    return _split(values, weights, unit, cells)[0]


def _split(values: Floats, weights: Floats, unit: float, cells: int) -> tuple[Floats, float]:
    """Each value on the two points beside it, so that the mean stays; and the variance then."""
    places = values / unit
    low = np.floor(places).astype(np.int64)
    share = places - low
    mean = float(values @ weights)
    variance = float(
        ((low * unit - mean) ** 2 * (1 - share) + ((low + 1) * unit - mean) ** 2 * share) @ weights
    )
    steps = np.zeros(2 * cells + 1)
    np.add.at(steps, np.clip(low + cells, 0, 2 * cells), weights * (1 - share))
    np.add.at(steps, np.clip(low + 1 + cells, 0, 2 * cells), weights * share)
    return steps, variance


def hazard(law: Law, slack: float, threshold: float, rows: int) -> float:
    """Chance of an alarm per value, averaged over references of so many rows."""
    return float(
        sum(share / expected_run(true, slack, threshold) for share, true in true_laws(law, rows))
    )


@lru_cache(maxsize=64)
def true_laws(law: Law, rows: int) -> tuple[tuple[float, Law], ...]:
    """What a stream's law may be where the reference shows `law`, and how likely it is.

    To first order Dirichlet's shares move by `weights * score / sqrt(rows)` where a standardised
    score's mean moves by one standard error. Two scores are followed: the values, and what their
    squares tell beyond them. A law of two values has no such rest.
    """
    values, weights = np.array(law.values), np.array(law.weights)
    first = _standard(values, weights)
    rest = first**2 - 1 - float(first**3 @ weights) * first
    some = float(rest**2 @ weights) > 1e-9
    second = _standard(rest, weights) if some else rest
    found = []
    for mean, likely in _rule(NODES[0]):
        for spread, share in _rule(NODES[1] if some else 1):
            moved = weights * np.maximum(0, 1 + (mean * first + spread * second) / sqrt(rows))
            found.append((likely * share, Law(law.values, tuple((moved / moved.sum()).tolist()))))
    return tuple(found)


def _standard(values: Floats, weights: Floats) -> Floats:
    middle = values - values @ weights
    return np.asarray(middle / np.sqrt(middle**2 @ weights))


def _rule(nodes: int) -> list[tuple[float, float]]:
    """Nodes of the Gauss-Hermite rule, and their shares."""
    places, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return list(zip(places.tolist(), (weights / weights.sum()).tolist()))


@lru_cache(maxsize=512)
def threshold_for(law: Law, slack: float, rows: int, run: float) -> float:
    """The threshold at which alarms come once in `run` values on average, or up to 1 % less often.

    Regula falsi on the logarithm, which is nearly straight in the threshold. ValueError where the
    reference is too small to tell a shift of twice `slack` so seldom.
    """

    def excess(threshold: float) -> float:
        found = hazard(law, slack, threshold, rows)
        return log(found * run) if found else -inf

    low, high = 1.0, 32.0
    at_low, at_high = excess(low), excess(high)
    if at_low <= 0:  # it hardly ever rises: a rare level cannot be missed for long
        return low
    while at_high > 0:
        low, at_low, high = high, at_high, 2 * high
        if high > THRESHOLD_MAX:
            raise ValueError(f"no threshold below {THRESHOLD_MAX:g} gives a run of {run:g}")
        at_high = excess(high)
    for _ in range(STEPS_MAX):
        middle = low + (high - low) * min(0.95, max(0.05, at_low / (at_low - at_high)))
        found = excess(middle)
        if -0.01 < found <= 0:
            return middle
        low, at_low, high, at_high = (
            (middle, found, high, at_high) if found > 0 else (low, at_low, middle, found)
        )
    return high
