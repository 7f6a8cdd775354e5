"""Where values fall: bins of equal share in the reference, or the levels of a category.

What a window or a detector remembers of values is how many fell where, never the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from gateway.card import Feature
from gateway.monitor.column import Column, Levels, fractions, numbers_of, single

STEPS = 50
"""Of a number's range, where no reference says where its values lie."""

Shares = tuple[float, ...]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Places:
    """Where the values of one cause fall: `edges` between bins, or the levels of a category.

    What lies outside `low` .. `high` is a matter of data quality and falls nowhere.
    """

    cause: str
    edges: Floats | None = None
    levels: Levels = ()
    low: float = -inf
    high: float = inf
    whole: bool = False

    def of(self, values: Sequence[object]) -> Integers:
        """Bin of each value, -1 for what is not fed."""
        if self.edges is None:
            known = {level: place for place, level in enumerate(self.levels)}
            found = [known.get(v, -1) if isinstance(v, str) else -1 for v in values]
            return np.array(found, dtype=np.int64)
        numbers = single(numbers_of(values)[0])
        places = np.searchsorted(self.edges, numbers, side="left")
        fed = (numbers >= self.low) & (numbers <= self.high) & np.isfinite(numbers)
        if self.whole:
            fed &= ~fractions(numbers)
        return np.asarray(np.where(fed, places, -1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Gauges:
    """Places of numbers side by side; `columns`: which of all places they are. A few decisions are
    read at once, and one call of numpy costs as much for one column as for twenty."""

    columns: tuple[int, ...]
    edges: tuple[Floats, ...]
    low: Floats
    high: Floats
    whole: NDArray[np.bool_]

    def of(self, values: Sequence[Sequence[object]]) -> Integers:
        """Rows x columns of columns' values, as `Places.of` has each."""
        every = [value for column in values for value in column]
        numbers = single(numbers_of(every)[0].reshape(len(values), -1).T)
        fed = (numbers >= self.low) & (numbers <= self.high) & np.isfinite(numbers)
        fed &= ~(self.whole & fractions(numbers))
        found = np.full(numbers.shape, -1, dtype=np.int64)
        for column, edges in enumerate(self.edges):
            found[:, column] = edges.searchsorted(numbers[:, column], side="left")
        return np.where(fed, found, -1)


def gauges_of(places: Sequence[Places]) -> Gauges:
    taken = [(column, one) for column, one in enumerate(places) if one.edges is not None]
    return Gauges(
        columns=tuple(column for column, _ in taken),
        edges=tuple(one.edges for _, one in taken if one.edges is not None),
        low=np.array([one.low for _, one in taken]),
        high=np.array([one.high for _, one in taken]),
        whole=np.array([one.whole for _, one in taken], dtype=bool),
    )


def places_of_feature(feature: Feature, column: Column, bins: int) -> tuple[Places, Shares]:
    """Where a feature's values fall, and the reference's share of each place."""
    cause = f"feature/{feature.name}"
    if feature.type == "category":
        assert column.counts is not None
        counts = column.counts[:-1]
        shares = counts / max(1, counts.sum())
        return Places(cause, levels=feature.categories or ()), tuple(shares.tolist())
    low, high = single(np.array(feature.range or (-inf, inf), dtype=np.float64)).tolist()
    return places_of_numbers(cause, column, bins, low, high, whole=feature.type == "integer")


def places_without_reference(feature: Feature) -> Places:
    """Where nothing is known of a feature's values but its description: each level, counts in
    steps of a quarter octave, other numbers in fiftieths of their range."""
    cause = f"feature/{feature.name}"
    if feature.type == "category":
        return Places(cause, levels=feature.categories or ())
    low, high = feature.range or (0.0, 1.0)
    edges = np.linspace(low, high, STEPS + 1)
    if feature.type == "integer":
        octaves = np.arange(int(4 * np.log2(max(2.0, high - low))) + 1) / 4
        edges = np.unique(np.concatenate([[low], low + np.floor(2**octaves)]))
    return Places(cause, edges=edges, low=low, high=high, whole=feature.type == "integer")


def places_of_numbers(
    cause: str,
    column: Column,
    bins: int,
    low: float = -inf,
    high: float = inf,
    *,
    whole: bool = False,
) -> tuple[Places, Shares]:
    assert column.numbers is not None
    numbers = column.numbers[(column.numbers >= low) & (column.numbers <= high)]
    if column.levels is not None:
        levels = np.array(column.levels, dtype=np.float64)
        edges = (levels[1:] + levels[:-1]) / 2
    else:
        edges = np.unique(np.quantile(numbers, np.arange(1, bins) / bins, method="lower"))
    counts = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=edges.size + 1)
    place = Places(cause, edges=edges, low=low, high=high, whole=whole)
    return place, tuple((counts / max(1, counts.sum())).tolist())
