"""Tests that ask whether two samples come from one distribution.

The statistics equal scipy's (`ks_2samp`, `chi2_contingency`, `fisher_exact`), ties included; they
are written out because the reference stays sorted from window to window.
"""

from __future__ import annotations

from itertools import accumulate
from math import log
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gateway.monitor import exact

EXACT_AT_MOST = 2_000
"""Values in both samples up to which the Kolmogorov-Smirnov p-value is exact (about 20 ms)."""

CLEAR, SAMPLE_AT_LEAST = 0.25, 100
"""A limiting p-value from the first on, of two samples of the second at least, is no sign of drift
by any level that can be set: the exact one is then above 0.2."""

EXPECTED_AT_LEAST = 5.0
"""Cells expected smaller than this make chi-squared unreliable (Cochran, Biometrics 10, 1954)."""

LIMIT_AT_LEAST, LIMIT_TERM = 0.003, 1e-10
"""Below the first the limiting law is 0 for any purpose; terms below the second add nothing."""

SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")

PSI_BINS = 10
PSI_SMOOTHING = 0.5
"""Added to each bin so that an empty one does not make the index infinite."""


class Independence(NamedTuple):
    test: str
    statistic: float | None
    p_value: float


class Stability(NamedTuple):
    psi: float
    bound: float | None


def kolmogorov_smirnov(reference: NDArray[np.float64], window: NDArray[np.float64]) -> float:
    """Largest gap between the distribution functions of two sorted samples, neither empty: it is
    at a value of the window or just below one."""
    gaps = [
        np.abs(reference.searchsorted(window, side) / reference.size
               - window.searchsorted(window, side) / window.size).max()
        for side in SIDES
    ]  # fmt: skip
    return float(max(gaps))


def kolmogorov_smirnov_p_value(statistic: float, n: int, m: int) -> float:
    """Chance of a gap this large under one continuous distribution; too large with ties.

    Exact up to `EXACT_AT_MOST` values, else that of one sample of n m / (n + m), as scipy does.
    """
    if n + m <= EXACT_AT_MOST:
        return exact_p_value(statistic, n, m)
    return limiting_p_value(statistic, n, m)


def window_p_value(statistic: float, n: int, m: int) -> float:
    """As above, but the limiting one where the exact one would decide nothing: nine windows of ten
    without drift, at a thousandth of the cost."""
    if min(n, m) >= SAMPLE_AT_LEAST and (limit := limiting_p_value(statistic, n, m)) >= CLEAR:
        return limit
    return kolmogorov_smirnov_p_value(statistic, n, m)


def limiting_p_value(statistic: float, n: int, m: int) -> float:
    """That of one sample of n m / (n + m); by the limit of many values, with two terms of what is
    beyond it (Vrbik, Pioneer Journal of Theoretical and Applied Statistics 15, 2018), where it
    would decide nothing."""
    size = round(n * m / (n + m))
    if size >= SAMPLE_AT_LEAST // 2:
        scaled = statistic * size**0.5
        scaled += 1 / (6 * size**0.5) + (scaled - 1) / (4 * size)
        if (limit := float(special.kolmogorov(scaled))) >= CLEAR:
            return limit
    return exact.kolmogorov_tail(statistic, size)


def exact_p_value(statistic: float, n: int, m: int) -> float:
    """Share of the orders of n and m values whose gap reaches `statistic` (Hodges 1958).

    An order is a lattice path from (0, 0) to (n, m). `reached[i]` is the share of paths to
    (i, k - i) that have met the gap; only positive terms are added, so small shares stay exact.
    """
    gap = round(statistic * n * m)
    if gap == 0:
        return 1.0
    i = np.arange(n + 1)
    reached = np.zeros(n + 1)
    for k in range(1, n + m + 1):
        before = np.concatenate([[0.0], reached[:-1]])
        reached = (i * before + (k - i) * reached) / k
        reached[np.abs(i * m - (k - i) * n) >= gap] = 1.0
        low, high = max(0, k - m), min(k, n)
        reached[:low] = 0.0
        reached[high + 1 :] = 0.0
    return float(reached[n])


def cramer_von_mises(
    reference: NDArray[np.float64], window: NDArray[np.float64]
) -> tuple[float, float]:
    """Statistic T and p-value of two sorted samples, by its asymptotic law (Anderson, Annals of
    Mathematical Statistics 33, 1962); without ties scipy's `cramervonmises_2samp`.

    Between ties the distribution functions count half of a value's own, which makes T smaller on
    the whole: the law, which knows no ties, errs on the side of no drift. Mid-ranks in the formula
    for ranks, as scipy has it, add what ties alone differ by: any two samples of a count do then.
    """
    n, m = window.size, reference.size
    together = np.concatenate([window, reference])
    gaps = _middles(window, together) - _middles(reference, together)
    statistic = n * m / (n + m) ** 2 * float(gaps @ gaps) + 1 / (4 * (n + m))
    mean = (1 + 1 / (n + m)) / 6
    numerator = (n + m + 1) * (4 * m * n * (n + m) - 3 * (m * m + n * n) - 2 * m * n)
    variance = numerator / (45 * (n + m) ** 2 * 4 * m * n)
    scaled = 1 / 6 + (statistic - mean) / np.sqrt(45 * variance)
    return statistic, float(np.clip(1 - _limit(scaled), 0.0, 1.0))


def _middles(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of sorted values that are below, half of the equal ones added."""
    below = np.searchsorted(values, at, "left") + np.searchsorted(values, at, "right")
    return np.asarray(below / (2 * values.size), dtype=np.float64)


def _limit(x: float) -> float:
    """Limiting distribution of the Cramer-von Mises statistic (Csorgo and Faraway, 1996)."""
    if x < LIMIT_AT_LEAST:
        return 0.0
    total, k = 0.0, 0
    while True:
        y = 4 * k + 1
        q = y * y / (16 * x)
        weight = float(special.gamma(k + 0.5) / special.gamma(k + 1)) / (np.pi**1.5 * np.sqrt(x))
        term = weight * np.sqrt(y) * np.exp(-q) * float(special.kv(0.25, q))
        total += float(term)
        k += 1
        if term < LIMIT_TERM:
            return total


def independence(reference: NDArray[np.int64], window: NDArray[np.int64]) -> Independence:
    """Chi-squared test of two rows of counts over the same categories.

    Rare categories are pooled until every expected count is at least `EXPECTED_AT_LEAST`; where
    two categories are left and that is still not so, Fisher's exact test answers.
    """
    pairs = [pair for pair in zip(reference.tolist(), window.tolist()) if sum(pair)]
    if len(pairs) < 2:
        return Independence("chi_squared", 0.0, 1.0)
    pairs = pooled(pairs)
    m, n = map(sum, zip(*pairs))
    totals = [then + now for then, now in pairs]
    if min(m, n) * min(totals) / (m + n) < EXPECTED_AT_LEAST:
        (then, now), _ = pairs
        return Independence("fisher", None, exact.fisher(then, m, n, then + now))
    statistic = 0.0
    for (then, now), total in zip(pairs, totals):
        of_then, of_now = m * total / (m + n), n * total / (m + n)
        statistic += (then - of_then) ** 2 / of_then + (now - of_now) ** 2 / of_now
    return Independence("chi_squared", statistic, float(special.chdtrc(len(pairs) - 1, statistic)))


def pooled(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Columns of a 2 x k table, the rarest added up, never below two columns."""
    rows = [sum(row) for row in zip(*pairs)]
    needed = EXPECTED_AT_LEAST * sum(rows) / max(min(rows), 1)
    rare = sum(sum(pair) < needed for pair in pairs)
    if rare == 0 or len(pairs) <= 2:
        return pairs
    ordered = sorted(pairs, key=sum)
    running = list(accumulate(map(sum, ordered)))
    while rare < len(pairs) - 1 and running[rare - 1] < needed:
        rare += 1
    rare = min(rare, len(pairs) - 1)
    then, now = map(sum, zip(*ordered[:rare]))
    return [(then, now), *ordered[rare:]]


def total_variation(reference: NDArray[np.int64], window: NDArray[np.int64]) -> float:
    """Half the summed difference of shares: the share of decisions that would have to move."""
    return float(np.abs(reference / reference.sum() - window / window.sum()).sum() / 2)


def stability(reference: NDArray[np.int64], window: NDArray[np.int64], alpha: float) -> Stability:
    """Population stability index of two rows of counts, and what it stays below by chance.

    Without drift the index is distributed about as (1/n + 1/m) chi-squared with bins - 1 degrees
    of freedom (Yurdakul, 2018), so a fixed band such as 0.1 means another thing at every n.
    """
    pairs = [
        (then + PSI_SMOOTHING, now + PSI_SMOOTHING)
        for then, now in zip(reference.tolist(), window.tolist())
        if then + now > 0
    ]
    if len(pairs) < 2:
        return Stability(0.0, None)
    m, n = map(sum, zip(*pairs))
    psi = sum((now / n - then / m) * log(now / n / (then / m)) for then, now in pairs)
    added = PSI_SMOOTHING * len(pairs)
    scale = 1 / (m - added) + 1 / (n - added)
    return Stability(psi, float(scale * special.chdtri(len(pairs) - 1, alpha)))


def deciles(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal ones merged."""
    return np.unique(np.quantile(reference, np.arange(1, PSI_BINS) / PSI_BINS))


def between(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of values between edges; one that is at an edge lies below it."""
    places = np.searchsorted(edges, values, side="left")
    return np.bincount(places, minlength=edges.size + 1).astype(np.int64, copy=False)
