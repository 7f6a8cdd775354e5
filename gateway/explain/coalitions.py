"""Shapley values of any score, from all coalitions of its features."""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from gateway.explain.attribution import Floats

FEATURES_AT_MOST = 8


def coalitions(features: int) -> NDArray[np.bool_]:
    """[2**features, features]: coalition number s holds feature i iff bit i of s is set."""
    numbers = np.arange(2**features)[:, None]
    return ((numbers >> np.arange(features)) & 1).astype(np.bool_)


def shapley(worths: Floats) -> Floats:
    """[features] from the worths [2**features] of the coalitions in their order.

    phi_i = sum over S without i of (w(S + i) - w(S)) / (k C(k - 1, |S|)) (Shapley 1953).
    """
    features = len(worths).bit_length() - 1
    values = np.zeros(features)
    numbers = np.arange(len(worths))
    for i in range(features):
        without = numbers[(numbers >> i) & 1 == 0]
        sizes = np.bitwise_count(without)
        shares = np.array([1 / (features * comb(features - 1, size)) for size in range(features)])
        values[i] = np.sum(shares[sizes] * (worths[without + 2**i] - worths[without]))
    return values
