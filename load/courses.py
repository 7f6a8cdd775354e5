"""What changes in a stream of mixed traffic, how much of it, and how it comes. Dice are arguments.

Sizes of unlike kinds are comparable by the share of decisions that would have to be other ones, at
the least, for the new law to be the old one (total variation). A normal mean that moves by 0.1,
0.25, 0.5 or 1 deviation is 4, 10, 20 or 38 % of them, so the other kinds have the sizes that are
as much. Every size is one of what has changed altogether: a course says which share of it a
decision has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from load import mixed
from load.mixed import Drawn
from load.synthetic import Floats

WINDOW = 500
GRADES = (0.1, 0.25, 0.5, 1.0)
"""Deviations of a mean; all kinds' sizes are in their order."""
SHARES = tuple(float(2 * special.ndtr(sigma / 2) - 1) for sigma in GRADES)
WIDER = (0.086, 0.229, 0.512, 1.309)
"""By which a normal spread grows, for the same shares."""
CORRELATIONS = (0.124, 0.296, 0.526, 0.797)
"""Of two normal features that had none, for the same shares."""


class Course(NamedTuple):
    """`share`: of the change, by decisions since it began. `windows`: watched since then."""

    name: str
    windows: int
    share: Callable[[Any, NDArray[np.int64]], Floats]


def _abrupt(dice: Any, at: NDArray[np.int64]) -> Floats:
    return np.ones(at.size)


def _gradual(dice: Any, at: NDArray[np.int64]) -> Floats:
    return np.asarray(dice.random(at.size) < at / 2_000, dtype=np.float64)


def _incremental(dice: Any, at: NDArray[np.int64]) -> Floats:
    return np.minimum(1.0, at / 4_000)


def _recurring(dice: Any, at: NDArray[np.int64]) -> Floats:
    return np.asarray(at // WINDOW % 6 < 2, dtype=np.float64)


COURSES = (
    Course("abrupt: all at once", 12, _abrupt),
    Course("gradual: each decision of the new law or the old, by dice, over 2,000", 12, _gradual),
    Course("incremental: the size itself grows, over 4,000", 12, _incremental),
    Course("recurring: in two windows of every six", 18, _recurring),
)


class Kind(NamedTuple):
    """`make` changes columns by what each row has of the change. `touched`: features that no longer
    are what they were, alone or together; of nothing, none."""

    name: str
    told: str
    sizes: tuple[float, ...]
    touched: tuple[str, ...]
    make: Callable[[Any, Drawn, Floats], None]

    def title(self, size: float) -> str:
        shown = 100 * size if "%" in self.told else size
        return f"{self.name} {self.told.format(shown)}".strip()

    def is_told_by(self, cause: str) -> bool:
        """Whether a page of this cause is one of this change. What is paged of nothing, all is."""
        family, *names = cause.split("/")
        return not self.touched or family == "joint" or bool({*names} & {*self.touched})


def moved(dice: Any, columns: Drawn, amount: Floats) -> None:
    columns["x3"] += amount


def widened(dice: Any, columns: Drawn, amount: Floats) -> None:
    columns["x3"] *= 1 + amount


def correlated(dice: Any, columns: Drawn, amount: Floats) -> None:
    columns["x6"] = amount * columns["x3"] + np.sqrt(1 - amount**2) * columns["x6"]


def turned_over(dice: Any, columns: Drawn, amount: Floats) -> None:
    first, second = mixed.LEVELS["product"][:2]
    chance = amount / mixed.SHARES["product"][0]
    product = columns["product"]
    product[(product == first) & (dice.random(amount.size) < chance)] = second


def _lost(dice: Any, columns: Drawn, amount: Floats) -> None:
    columns["x5"][dice.random(amount.size) < amount] = np.nan


NOTHING = Kind("nothing", "", (0.0,), (), lambda dice, columns, amount: None)
KINDS = (
    NOTHING,
    Kind("mean", "by {:g} sigma", GRADES, ("x3",), moved),
    Kind("spread", "wider by {:.0f} %", WIDER, ("x3",), widened),
    Kind("correlation", "0 to {:.2f}", CORRELATIONS, ("x3", "x6"), correlated),
    Kind("categories,", "{:.0f} % turned over", SHARES, ("product",), turned_over),
    Kind("values,", "{:.0f} % lost", SHARES, ("x5",), _lost),
)


def changed(dice: Any, kind: Kind, size: float, course: Course, place: int) -> Drawn:
    """A window's columns, the `place`th since the change began."""
    columns = mixed.drawn(dice, WINDOW)
    at = np.arange(place * WINDOW, (place + 1) * WINDOW)
    kind.make(dice, columns, size * course.share(dice, at))
    return columns
