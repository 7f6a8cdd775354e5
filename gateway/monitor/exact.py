"""Exact chances that scipy has too, at a tenth of its time: a window asks for dozens of them."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, factorial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SAME = 1 + 1e-7
"""Tables as likely as the one that was seen differ by rounding only."""
DURBIN_SIZE, DURBIN_LEVEL = 140, 4.0
"""Up to both, size and size x statistic^2, scipy takes Pomeranz' recursion: milliseconds."""

Floats = NDArray[np.float64]


def fisher(seen: int, row: int, other: int, column: int) -> float:
    """Two-sided p-value of Fisher's test of a 2 x 2 table: its first cell, the sums of both rows
    and of the first column. Chances grow from that of the likeliest table by exact ratios."""
    low, high = max(0, column - other), min(column, row)
    cells = np.arange(low, high, dtype=np.float64)
    ratios = (row - cells) * (column - cells) / ((cells + 1) * (other - column + cells + 1))
    rising = int(np.count_nonzero(ratios >= 1))
    before = np.cumprod(1 / ratios[:rising][::-1])[::-1]
    chances = np.concatenate([before, [1.0], np.cumprod(ratios[rising:])])
    extreme = chances[chances <= chances[seen - low] * SAME].sum()
    return float(min(1.0, extreme / chances.sum()))


def kolmogorov_tail(statistic: float, size: int) -> float:
    """Chance that one sample's distribution function is off by `statistic` or more."""
    level = size * statistic**2
    if size > DURBIN_SIZE or level > DURBIN_LEVEL or not 1 < size * statistic < size / 2:
        return float(np.clip(stats.kstwo.sf(statistic, size), 0.0, 1.0))
    return float(np.clip(1 - _durbin(statistic, size), 0.0, 1.0))


def _durbin(statistic: float, size: int) -> float:
    """The chance of less, by a power of a matrix (Durbin 1973; Marsaglia, Tsang and Wang, Journal
    of Statistical Software 8, 2003)."""
    middle = ceil(size * statistic)
    rest = middle - size * statistic
    steps = 2 * middle - 1
    matrix, shares = _steps(steps)
    matrix = matrix.copy()
    powers = rest ** np.arange(1, steps + 1)
    matrix[:, 0] -= powers
    matrix[-1] -= powers[::-1]
    matrix[-1, 0] += max(2 * rest - 1, 0.0) ** steps
    found = np.linalg.matrix_power(matrix * shares, size)[middle - 1, middle - 1]
    return float(found * np.prod(np.arange(1, size + 1) / size))


@lru_cache(maxsize=64)
def _steps(steps: int) -> tuple[Floats, Floats]:
    """Where the matrix is not empty, and one over the factorial of each step."""
    far = np.arange(steps)[:, None] - np.arange(steps)[None, :] + 1
    shares = np.array([1 / factorial(step) for step in range(steps + 1)])
    return (far >= 0).astype(np.float64), shares[np.maximum(far, 0)]
