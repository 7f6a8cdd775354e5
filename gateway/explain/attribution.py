"""What an explanation is made of, whichever method made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""Feature name -> 1-D array of n values: float64 for numbers (NaN: missing), object or str for
categories (None: missing)."""

Floats: TypeAlias = NDArray[np.float64]
Space: TypeAlias = Literal["margin", "output"]
Method: TypeAlias = Literal["linear", "trees", "coalitions", "permutations"]

# A float32 probability cannot come nearer to 0 or 1 than this and still differ from it on both
# sides, so log-odds end at about +-16.6.
PROBABILITY_STEP = 2.0**-24
# Room for onnxruntime's float32 sums beside our float64 ones, relative to what is summed.
RELATIVE_ROOM = 1e-4


class Unreadable(ValueError):
    """A graph, or a part of it, that is not recognised with certainty; the message says why."""


@dataclass(frozen=True)
class Attributions:
    """The explanations of n rows: `base + values.sum(1) + residuals == predictions`.

    `budget`: scores that the model is asked for to explain one row; 0: what was read is enough.
    """

    method: Method
    space: Space
    features: tuple[str, ...]
    base: float
    values: Floats
    predictions: Floats
    residuals: Floats
    standard_errors: Floats | None
    background: str
    background_rows: int
    seed: int | None
    budget: int

    @cached_property
    def additive(self) -> NDArray[np.bool_]:
        """[n]: the residual is no more than float32 scores leave; false is a broken explanation."""
        return np.abs(self.residuals) <= room(self.space, self.predictions, self.base, self.values)


def log_odds(probabilities: Floats) -> Floats:
    """ln(p / (1 - p)), of probabilities kept one float32 step away from 0 and 1."""
    p = np.clip(probabilities, PROBABILITY_STEP, 1 - PROBABILITY_STEP)
    return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def in_space(space: Space, scores: Floats) -> Floats:
    return log_odds(scores) if space == "margin" else scores


def room(space: Space, predictions: Floats, base: float, values: Floats) -> Floats:
    """[n]: how far base plus values may lie from a float32 prediction.

    A score rounded by d moves its log-odds by d / (p (1 - p)); a saturated score has none, and
    says only that the margin lies beyond.
    """
    room_of_sums = RELATIVE_ROOM * (1 + abs(base) + np.abs(values).sum(axis=1))
    if space == "output":
        return np.asarray(room_of_sums, np.float64)
    p = 1 / (1 + np.exp(-np.abs(predictions)))
    rounding = 4 * PROBABILITY_STEP / (p * (1 - p))
    beyond = np.maximum(0, np.abs(base + values.sum(axis=1)) - np.abs(predictions))
    saturated = p >= 1 - 8 * PROBABILITY_STEP
    return np.asarray(room_of_sums + rounding + np.where(saturated, beyond, 0), np.float64)
