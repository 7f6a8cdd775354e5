"""Linear models: what a feature adds is its columns' weights times the distance from the mean.

With a linear model the Shapley value of the interventional game has a closed form,
phi_i = sum over the columns of i of w (x - E[background]) (Strumbelj and Kononenko 2014;
Lundberg and Lee 2017, corollary 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.attribution.weights import Weights
from gateway.explain.attribution import Floats, Space, Unreadable
from gateway.explain.graph import Reading, combination


class LinearModel:
    """Weights [columns] and their features; the matrix is [n, columns], of any float type."""

    def __init__(
        self, reading: Reading, features: tuple[str, ...], background: NDArray[Any]
    ) -> None:
        width = len(reading.owners)
        coefficients = np.asarray(reading.attributes.get("coefficients", ()), np.float64)
        if not len(coefficients) or len(coefficients) % width:
            raise Unreadable(f"{len(coefficients)} coefficients for {width} columns")
        weights = coefficients.reshape(-1, width)
        intercepts = np.asarray(reading.attributes.get("intercepts", ()), np.float64)
        if not len(intercepts):
            intercepts = np.zeros(len(weights))
        if len(intercepts) != len(weights):
            raise Unreadable(f"{len(intercepts)} intercepts for {len(weights)} sums")
        signs, self.space = combination(reading, len(weights))
        sums: Floats = signs @ weights
        means: Floats = background.astype(np.float64).mean(axis=0)
        players = np.array([features.index(owner) for owner in reading.owners], np.intp)
        self.form = Weights(sums, means, players, len(features))
        self.base = float(signs @ intercepts + sums @ means)

    space: Space

    def values(self, matrix: NDArray[Any]) -> Floats:
        """Attributions [n, features]; a row's bits do not depend on the rows beside it."""
        return self.form.values(matrix)
