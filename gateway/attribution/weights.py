"""A linear model's attributions, from the columns of its matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Weights:
    """`weights` and `means` (of the background) are [columns], `players` the number of the feature
    that each column belongs to."""

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    players: NDArray[np.intp]
    features: int

    def values(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Attributions [n, features]; a row's bits do not depend on the rows beside it."""
        parts = self.weights * (matrix.astype(np.float64) - self.means)
        values = np.zeros((len(matrix), self.features))
        for column, player in enumerate(self.players):
            values[:, player] += parts[:, column]
        return values
