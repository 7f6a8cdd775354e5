"""A tree ensemble's attributions, looked up: one code and one table row a unit.

`explain/tables.py` says what a unit is and builds the tables. Codes are made per column: its cuts
divide it into intervals, and NaN, each with the bits that it sets in every unit; a row's codes are
the OR over its columns. Table rows are added in the order of the units, whatever the batch: a row's
bits do not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 16
"""So many rows are sooner summed one by one; more of them together, unit by unit."""


@dataclass(frozen=True)
class ColumnBits:
    """`cuts` [k] ascending, and the bits [k + 2, units] of each interval and of NaN."""

    column: int
    cuts: NDArray[Any]
    bits: NDArray[np.uint8]


def codes(columns: Sequence[ColumnBits], units: int, matrix: NDArray[Any]) -> NDArray[np.uint8]:
    """[n, units]"""
    found = np.zeros((len(matrix), units), np.uint8)
    for asked in columns:
        x = matrix[:, asked.column]
        interval = np.searchsorted(asked.cuts, x, side="right")
        interval[np.isnan(x)] = len(asked.cuts) + 1
        found |= asked.bits[interval]
    return found


@dataclass(frozen=True)
class Lookup:
    """`offsets` [units]: where each unit's rows begin in `table` [rows, features]."""

    columns: tuple[ColumnBits, ...]
    offsets: NDArray[np.int32]
    table: NDArray[np.float64]

    def values(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Attributions [n, features]."""
        places = codes(self.columns, len(self.offsets), matrix) + self.offsets
        values = np.zeros((len(matrix), self.table.shape[1]))
        if len(matrix) > FEW:
            row = np.empty_like(values)
            for place in np.ascontiguousarray(places.T):
                # "clip" spares a copy; no place is outside.
                values += self.table.take(place, axis=0, out=row, mode="clip")
            return values
        for number, place in enumerate(places):
            gathered = self.table.take(place, axis=0)
            # Along the first axis numpy adds one after the other; but a single feature leaves only
            # one axis, which it would add in pairs.
            alone = gathered.shape[1] == 1
            total = np.add.accumulate(gathered)[-1] if alone else np.add.reduce(gathered)
            values[number] += total
        return values
