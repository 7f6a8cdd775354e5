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


def newcombe_paired(
    both: int, first: int, second: int, neither: int, confidence: float = CONFIDENCE
) -> Interval:
    """Newcombe's interval for the second share less the first, of the same cases: `first` had it
    the first time alone, `second` the second time alone (Statistics in Medicine 17, 1998,
    2635-2650, method 10: two Wilson intervals, less what the two have in common)."""
    n = both + first + second + neither
    share, other = (both + second) / n, (both + first) / n
    own = wilson(both + second, n, confidence)
    theirs = wilson(both + first, n, confidence)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = both * neither - first * second
    corrected = max(product - n / 2, 0.0) if product > 0 else product
    common = corrected / sqrt(margins) if margins else 0.0
    down, up = share - own.low, own.high - share
    other_down, other_up = other - theirs.low, theirs.high - other
    below = sqrt(max(0.0, down**2 - 2 * common * down * other_up + other_up**2))
    above = sqrt(max(0.0, up**2 - 2 * common * up * other_down + other_down**2))
    return Interval(share - other - below, share - other + above)


def mcnemar(first: int, second: int) -> float:
    """Two-sided mid-p value of McNemar's exact test (Fagerland, Lydersen and Laake, BMC Medical
    Research Methodology 13:91, 2013); 1 where nothing differs."""
    n, fewest = first + second, min(first, second)
    if first == second:
        return 1.0
    tail = 2 * float(special.bdtr(fewest, n, 0.5))
    exactly = exp(-n * log(2) + special.gammaln(n + 1) - special.gammaln(fewest + 1)
                  - special.gammaln(n - fewest + 1))  # fmt: skip
    return max(0.0, min(1.0, tail - exactly))


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
