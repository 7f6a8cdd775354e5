"""One feature's values, read the same way from the reference and from a window.

What cannot be read as the card says is counted, never guessed: `missing` (None, NaN),
`wrong_type` (a string for a number, a number for a text unless the card names it, a fraction for an
integer, a bool), `out_of_range` (the card's range, infinities included), `unseen` (a category that
the card does not name). A value that the card does not name is never kept as text: callers may send
anything, and reports go to the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.card import Feature
from gateway.protocol.flaw import INFINITE, Converted, Flaw

LEVELS_AT_MOST = 20
"""Integers with no more distinct values than this in the reference are compared as categories."""

PLAIN = {float, int, type(None)}
"""Types that numpy converts as we do, None to NaN."""

Levels = tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Column:
    """Counts of n values, and those that could be read.

    `numbers` (number, integer): finite values, sorted. `counts` (category, integer of few values):
    int64, one per level and one more for all other values; `most_frequent` counts the mode.
    """

    n: int
    missing: int
    wrong_type: int
    out_of_range: int
    unseen: int
    most_frequent: int
    numbers: NDArray[np.float64] | None
    levels: Levels | None
    counts: NDArray[np.int64] | None

    @property
    def present(self) -> int:
        return self.n - self.missing - self.wrong_type

    @property
    def comparable(self) -> int:
        """Values that a drift test can use."""
        return self.present if self.numbers is None else int(self.numbers.size)

    @classmethod
    def of_reference(cls, feature: Feature, values: NDArray[Any]) -> Column:
        """A frozen column; raises ValueError when numbers are not numbers."""
        if feature.type == "category":
            return read_categories(feature, values.tolist())
        numbers = np.asarray(values, dtype=np.float64)
        kept = single(numbers[~np.isnan(numbers)])
        wrong = fractions(kept) if feature.type == "integer" else np.zeros(kept.size, dtype=bool)
        missing = numbers.size - kept.size
        levels = few_levels(kept[~wrong]) if feature.type == "integer" else None
        return of_numbers(feature.range, kept[~wrong], missing, int(wrong.sum()), levels)

    @classmethod
    def of_window(cls, feature: Feature, values: Sequence[object], like: Column | None) -> Column:
        """The values of one window, on the levels of the reference column `like`."""
        if feature.type == "category":
            return read_categories(feature, values)
        numbers, wrong = numbers_of(values)
        kept = single(numbers[~np.isnan(numbers)])
        missing = len(values) - kept.size - wrong
        if feature.type == "integer":
            kept = kept[~fractions(kept)]
        levels = like.levels if like is not None else None
        return of_numbers(feature.range, kept, missing, len(values) - missing - kept.size, levels)


def of_numbers(
    bounds: tuple[float, float] | None,
    values: NDArray[np.float64],
    missing: int,
    wrong_type: int,
    levels: Levels | None,
) -> Column:
    """A column of numbers without NaN; `levels` None means that they are compared as numbers."""
    low, high = single(np.array(bounds or (-inf, inf), dtype=np.float64)).tolist()
    ordered = np.sort(values)
    finite = ordered[np.isfinite(ordered)]
    finite.flags.writeable = False
    return Column(
        n=values.size + missing + wrong_type,
        missing=missing,
        wrong_type=wrong_type,
        out_of_range=values.size - int(((finite >= low) & (finite <= high)).sum()),
        unseen=0,
        most_frequent=longest_run(ordered),
        numbers=finite,
        levels=levels,
        counts=None if levels is None else counted(finite.tolist(), levels),
    )


def longest_run(ordered: NDArray[np.float64]) -> int:
    """How often the most frequent of sorted values occurs."""
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])
    last = ordered.size - 1
    return int(np.diff(ends, prepend=-1, append=last).max(initial=0)) if ordered.size else 0


def read_categories(feature: Feature, values: Sequence[object]) -> Column:
    levels = feature.categories or ()
    present = [value for value in values if not is_missing(value)]
    texts = [value for value in present if type(value) is str or is_category(value, levels)]
    counts = counted(texts, levels)
    return Column(
        n=len(values),
        missing=len(values) - len(present),
        wrong_type=len(present) - len(texts),
        out_of_range=0,
        unseen=int(counts[-1]),
        most_frequent=max(Counter(texts).values(), default=0),
        numbers=None,
        levels=levels,
        counts=counts,
    )


def counted(values: Iterable[object], levels: Levels) -> NDArray[np.int64]:
    """How often each level occurs, and in the last place how often anything else does."""
    tally = Counter(values)
    of_levels = [tally[level] for level in levels]
    counts = np.array([*of_levels, tally.total() - sum(of_levels)], dtype=np.int64)
    counts.flags.writeable = False
    return counts


def few_levels(values: NDArray[np.float64]) -> Levels | None:
    distinct = np.unique(values[np.isfinite(values)])
    return tuple(int(value) for value in distinct) if 0 < distinct.size <= LEVELS_AT_MOST else None


def is_category(value: object, levels: Levels) -> bool:
    """A text; or what was none and is, as text, one that the card names."""
    return isinstance(value, str) and (type(value) is not Converted or value in levels)


def is_missing(value: object) -> bool:
    """Only NaN differs from itself; one that stands for something else is not missing."""
    return value is None or (bool(value != value) and type(value) is not Flaw)


def numbers_of(values: Sequence[object]) -> tuple[NDArray[np.float64], int]:
    """Values as floats, NaN for what is missing and for what is no number; how many of the latter.

    What came as plain numbers, as nearly all does, is converted as a whole.
    """
    if set(map(type, values)) <= PLAIN:
        try:
            return np.array(values, dtype=np.float64), 0
        except OverflowError:  # an integer beyond the floats: one by one
            pass
    read = [number_of(value) for value in values]
    numbers = np.array([nan if number is None else number for number in read], dtype=np.float64)
    return numbers, sum(number is None for number in read)


def number_of(value: object) -> float | None:
    """The value as a float (NaN when missing), or None when it is not a number."""
    if type(value) is float:
        return value
    if value is None:
        return nan
    if type(value) is Flaw:
        return inf if value is INFINITE else None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond the floats is out of every range
        return inf


def fractions(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values no integer can be; infinities are left to the range check."""
    found: NDArray[np.bool_] = np.isfinite(values) & (values != np.floor(values))
    return found


def single(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to single precision, in doubles.

    A request's 0.8 may have become a model's 0.800000011920929 on its way here while the reference
    kept 0.8: unequal, each tie would look like drift, and the end of a range like a value beyond.
    """
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)
