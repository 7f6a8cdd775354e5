"""Intervals for shares: how far a counted share may be from the truth.

Clopper-Pearson bounds (Biometrika 26, 1934) are exact and a little wide: right for alarms on rare
faults. Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, 873-890, method 10) and
Katz's log interval (Biometrics 34, 1978, 469-474) compare two independent shares.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import NamedTuple

from scipy import special

CONFIDENCE = 0.95
"""Two-sided confidence of every interval that is shown."""


class Interval(NamedTuple):
    low: float
    high: float


def at_least(count: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson lower bound of a share; wrong with probability <= `alpha`."""
    return 0.0 if count == 0 else float(special.betaincinv(count, n - count + 1, alpha))


def at_most(count: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson upper bound of a share; wrong with probability <= `alpha`."""
    return 1.0 if count == n else float(special.betaincinv(count + 1, n - count, 1 - alpha))


def wilson(count: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of `count` in `n` > 0 (JASA 22, 1927, 209-212)."""
    z = normal_quantile(confidence)
    middle = (2 * count + z * z) / (2 * (n + z * z))
    half = z * sqrt(z * z + 4 * count * (1 - count / n)) / (2 * (n + z * z))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def newcombe(
    count: int, n: int, other_count: int, other_n: int, confidence: float = CONFIDENCE
) -> Interval:
    """Newcombe's interval for `count / n - other_count / other_n`, from the two Wilson ones."""
    share, other = count / n, other_count / other_n
    own, theirs = wilson(count, n, confidence), wilson(other_count, other_n, confidence)
    return Interval(
        share - other - sqrt((share - own.low) ** 2 + (theirs.high - other) ** 2),
        share - other + sqrt((own.high - share) ** 2 + (other - theirs.low) ** 2),
    )


def katz(
    count: int, n: int, other_count: int, other_n: int, confidence: float = CONFIDENCE
) -> Interval:
    """Katz's log interval for the ratio of two shares; both counts must be above zero."""
    ratio = log(count / n) - log(other_count / other_n)
    error = sqrt(1 / count - 1 / n + 1 / other_count - 1 / other_n)
    half = normal_quantile(confidence) * error
    return Interval(exp(ratio - half), exp(ratio + half))


def normal_quantile(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))
