"""Changes of a part: what moves the score, and one slice of the traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gateway.monitor.window import Decision
from load import mixed
from load.pages import Table
from load.synthetic import judged

WINDOW = 500
QUIET, CHANGED = 12, 8
"""Windows before a change of a part, which is compared with its own past, and after it."""


def parts(scale: float) -> list[Table]:
    """What moves the score, and a part of the traffic: pages of attributions and of slices."""
    repeats = max(3, round(12 * scale))
    cases: dict[str, Callable[[Any, mixed.Drawn], np.typing.NDArray[np.float64]]] = {
        "nothing": lambda dice, columns: mixed.attributions_of(columns),
        "attributions: the first three features change places": _turned,
        "attributions: the ranking is turned round": _reversed,
    }
    rows = [_row(name, repeats, "attribution", attribute=case) for name, case in cases.items()]
    for size in (0.25, 0.5, 1.0):
        rows.append(_row(f"slice: one region of five (20 %) by {size:g} sigma in one feature",
                         repeats, "slice", shift=size))  # fmt: skip
    rows.append(_row("slice: the same region loses 30 % of one feature's values", repeats, "slice",
                     lost=0.3))  # fmt: skip
    note = (f"{repeats} streams each: {QUIET} windows of {WINDOW} as the reference is, then "
            f"{CHANGED} with the change. Mixed traffic, everything on by default. What all the "
            "traffic shows is told as that and not of its part.")  # fmt: skip
    return [("Attributions and slices", note,
             ["change", "paged for the part within 2 windows", "4", f"{CHANGED}",
              "for anything within 4", "for anything before the change"], rows)]  # fmt: skip


def _turned(dice: Any, columns: mixed.Drawn) -> np.typing.NDArray[np.float64]:
    told = mixed.attributions_of(columns)
    told[:, :3] *= np.array([0.5 / 1.0, 1.0 / 0.9, 0.9 / 0.8]) * 0.8
    return told


def _reversed(dice: Any, columns: mixed.Drawn) -> np.typing.NDArray[np.float64]:
    """As of another artifact: each feature with the weight of the one opposite."""
    return np.asarray(mixed.attributions_of(columns) / mixed.WEIGHTS * mixed.WEIGHTS[::-1])


def _row(
    name: str, repeats: int, family: str, attribute: Any = None, shift: float = 0.0,
    lost: float = 0.0,
) -> list[str]:  # fmt: skip
    firsts, early, soon = [], 0, 0
    for seed in range(repeats):
        reference, attributed = mixed.reference_of(seed % 6)
        dice = np.random.default_rng([seed, 133])

        def stream(dice: Any = dice) -> Iterator[list[Decision]]:
            for number in range(QUIET + CHANGED):
                changed = number >= QUIET
                yield mixed.decisions_of(
                    dice, WINDOW, number * WINDOW,
                    attribute=attribute if changed else None,
                    region=("south", shift, lost) if changed else None,
                )  # fmt: skip

        told = [r.opened for r in
                judged(reference, mixed.all_on(), stream(), mixed.CARD, attributed)]  # fmt: skip
        early += any(told[:QUIET])
        soon += any(told[QUIET : QUIET + 4])
        after = [any(cause.startswith(family) for cause in one) for one in told[QUIET:]]
        firsts.append(after.index(True) + 1 if any(after) else 99)
    shares = (f"{100 * np.mean(np.array(firsts) <= k):.0f} %" for k in (2, 4, CHANGED))
    return [name, *shares, f"{100 * soon / repeats:.0f} %", f"{early} of {repeats}"]
