"""Mixed traffic in which one thing changes, as detectors of any family can read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.monitor.family import Floats, encoded
from gateway.monitor.reference import Reference
from load import mixed
from load.courses import correlated, moved, turned_over, widened

ROWS = 2_000
Columns = dict[str, np.typing.NDArray[Any]]
Change = Callable[[Any, Columns], None]


def _all_rows(make: Callable[[Any, Columns, Floats], None], amount: float) -> Change:
    """The matrix' change, of the same amount in each row."""
    return lambda dice, columns: make(dice, columns, np.full(len(columns["x3"]), amount))


def _rounded(dice: Any, columns: Columns) -> None:
    columns["x3"] = columns["x3"].round(0)


def _flagged(dice: Any, columns: Columns) -> None:
    columns["returning"][dice.random(len(columns["returning"])) < 0.1] = "yes"


CHANGES: dict[str, Change] = {
    "nothing": lambda dice, columns: None,
    **{f"mean of one by {size:g} sigma": _all_rows(moved, size) for size in (0.1, 0.25, 0.5, 1.0)},
    "spread of one by 1.5": _all_rows(widened, 0.5),
    "correlation of two, 0 to 0.6": _all_rows(correlated, 0.6),
    "one rounded to integers": _rounded,
    "a category from 50 to 35 %": _all_rows(turned_over, 0.15),
    "a flag from 10 to 19 %": _flagged,
}


def whole(dice: Any, n: int) -> Columns:
    """Mixed traffic in which everything is there and can be read: what all detectors take."""
    columns = mixed.drawn(dice, n)
    for name in mixed.MISSING:
        gone = np.isnan(columns[name])
        columns[name][gone] = dice.lognormal(7, 1, n)[gone] if name == "amount" else (
            dice.normal(size=n)[gone])  # fmt: skip
    columns["channel"][columns["channel"] == "none of these"] = "agent"
    return columns


def reference_of(seed: int, rows: int = ROWS) -> Reference:
    columns = whole(np.random.default_rng([seed, 111]), rows)
    return Reference.of(mixed.CARD, columns, mixed.scores_of(columns), f"{seed:064d}")


def encoded_all(columns: Any, features: list[Any]) -> Floats:
    found = np.stack([encoded(f, columns[f.name].tolist()) for f in features], axis=1)
    amounts = [place for place, feature in enumerate(features) if feature.name == "amount"]
    found[:, amounts] = np.log(found[:, amounts])  # else one feature is all that a kernel sees
    return found
