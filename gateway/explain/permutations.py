"""Shapley values of any score, estimated from antithetic permutations.

Walking from a background row to the explained row, one feature after the other, the changes of
the score add up to the difference of both; a feature's mean change over all orders is its Shapley
value. Every order is walked forwards and backwards (Mitchell et al. 2022, JMLR 23, section 4.1),
and every background row gets the same number of orders, so base plus values is exact and only
the division between features has an error, which is stated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.explain.attribution import Floats

# Bounds memory: so many walks of features + 1 rows are scored at once.
WALKS_AT_A_TIME = 64
# Each background row gets two pairs of walks at least, since the error is estimated within it.
PAIRS_A_BACKGROUND_ROW_AT_LEAST = 2
PAIRS_AT_LEAST = 64

Worths = Callable[[NDArray[np.intp], NDArray[np.bool_]], Floats]
"""Scores [m] of mixed rows: background row numbers [m], and what is taken from x [m, features]."""


def pairs_a_background_row(background_rows: int) -> int:
    return max(PAIRS_A_BACKGROUND_ROW_AT_LEAST, -(-PAIRS_AT_LEAST // background_rows))


def scores_asked(background_rows: int, features: int) -> int:
    """Each pair of each background row is walked both ways, through features + 1 mixed rows."""
    return 2 * pairs_a_background_row(background_rows) * background_rows * (features + 1)


def estimate(
    worths: Worths, background_rows: int, features: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Values and their standard errors, both [features], from `scores_asked` scores."""
    pairs = pairs_a_background_row(background_rows)
    orders = generator.permuted(np.tile(np.arange(features), (background_rows * pairs, 1)), axis=1)
    walks = np.concatenate([orders, orders[:, ::-1]])
    rows = np.tile(np.repeat(np.arange(background_rows), pairs), 2)

    parts = [
        slice(start, start + WALKS_AT_A_TIME) for start in range(0, len(walks), WALKS_AT_A_TIME)
    ]
    by_feature = np.concatenate([_changes(worths, rows[part], walks[part]) for part in parts])

    by_pair = (by_feature[: len(orders)] + by_feature[len(orders) :]) / 2
    by_row = by_pair.reshape(background_rows, pairs, features)
    variance_of_mean = by_row.var(axis=1, ddof=1) / pairs
    errors = np.sqrt(variance_of_mean.sum(axis=0)) / background_rows
    return by_row.mean(axis=(0, 1)), errors


def _changes(worths: Worths, rows: NDArray[np.intp], walks: NDArray[np.intp]) -> Floats:
    """What each feature changed on each walk, [walks, features]."""
    features = walks.shape[1]
    # places[w, i]: when feature i switches; after s switches those with place < s come from x.
    places = np.argsort(walks, axis=1)
    taken = places[:, None, :] < np.arange(features + 1)[None, :, None]
    scores = worths(np.repeat(rows, features + 1), taken.reshape(-1, features))
    changes = np.diff(scores.reshape(len(walks), features + 1), axis=1)
    return np.take_along_axis(changes, places, axis=1)
