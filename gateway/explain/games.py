"""The game of one leaf: what each feature adds to it, between a row and the background.

For a row x and a background row b, a coalition S takes its features from x and the others from b.
The leaf holds the mixed row iff no feature of S is wrong in x and none outside S is wrong in b
(wrong: an answer of that feature leads away from the leaf). With A the features wrong in b only
and B those wrong in x only, and none wrong in both, the leaf's weight v is divided as

    +v (|A|-1)! |B|! / (|A|+|B|)!  to each of A,    -v |A|! (|B|-1)! / (|A|+|B|)!  to each of B

(independent TreeSHAP: Lundberg et al. 2020, Nature Machine Intelligence 2, algorithm 3 of the
supplement). The features wrong in a row are its *pattern*, one bit a feature of the leaf. So the
mean over the background needs only the background's histogram of patterns.
"""

from __future__ import annotations

from functools import cache
from math import factorial

import numpy as np
from numpy.typing import NDArray

from gateway.explain.attribution import Floats


def shares(features: int) -> tuple[Floats, Floats]:
    """Share of the weight for one of A, and for one of B: both [|A| to features, |B| to features].

    Zero where the set is empty; the second is negative.
    """
    for_one_of_a = np.zeros((features + 1, features + 1))
    for a in range(1, features + 1):
        for b in range(features + 1 - a):
            for_one_of_a[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
    return for_one_of_a, -for_one_of_a.T


def leaf_table(weight: float, histogram: Floats) -> Floats:
    """Attributions by the row's pattern, [2**p, p], for a histogram [2**p] that sums to one."""
    seen = np.flatnonzero(histogram)
    kernel = _kernel(len(histogram).bit_length() - 1)
    return np.asarray(weight * np.tensordot(histogram[seen], kernel[seen], axes=1), np.float64)


@cache
def _kernel(features: int) -> Floats:
    """Share by background pattern, row pattern and feature: [2**p, 2**p, p]."""
    patterns = np.arange(2**features)
    in_background, in_row = patterns[:, None], patterns[None, :]
    sizes = np.bitwise_count(in_background), np.bitwise_count(in_row)
    alive = (in_background & in_row) == 0
    for_a, for_b = shares(features)
    kernel = np.zeros((2**features, 2**features, features))
    for i in range(features):
        kernel[..., i] += _bit(in_background, i) * for_a[sizes]
        kernel[..., i] += _bit(in_row, i) * for_b[sizes]
    return np.asarray(kernel * alive[..., None])


def _bit(patterns: NDArray[np.int_], place: int) -> NDArray[np.int_]:
    return np.asarray((patterns >> place) & 1)
