"""Seeded traffic such as a real model has: numbers, counts, categories, missing values, groups.

Twelve features of one law each; a part of the values is missing or of no level that the card names,
in the reference as in the stream, so that data quality has something to be wrong about. Decisions
carry attributions (of a model that is linear in the features) and two keys of groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.card import Card
from gateway.monitor.attribution import AttributionReference
from gateway.monitor.reference import Columns, Reference
from gateway.monitor.window import Decision, WindowSettings
from load.synthetic import REFERENCE_ROWS, THRESHOLD, Floats, settings_of

NUMBERS = ("x0", "x1", "x2", "x3", "x4", "x5", "x6", "amount")
MISSING = {"x4": 0.01, "x5": 0.05, "amount": 0.01}
LEVELS = {"product": ("a", "b", "c", "d", "e"), "channel": ("web", "shop", "agent"),
          "returning": ("no", "yes")}  # fmt: skip
SHARES = {"product": (0.5, 0.25, 0.15, 0.07, 0.03), "channel": (0.6, 0.3, 0.099, 0.001),
          "returning": (0.9, 0.1)}  # fmt: skip
"""One channel in a thousand is none that the card names."""
NAMES = (*NUMBERS, "children", *LEVELS)
WEIGHTS = np.array([1.0, 0.9, 0.8, 0.5, 0.4, 0.35, 0.2, 0.15, 0.1, 0.05, 0.05, 0.02])
Attribute = Callable[[Any, Any], Floats]
REGIONS, REGION_SHARES = ("north", "east", "south", "west", "abroad"), (0.3, 0.3, 0.2, 0.15, 0.05)


def _feature(name: str) -> dict[str, Any]:
    if name in LEVELS:
        return {"name": name, "type": "category", "meaning": name, "categories": LEVELS[name]}
    kind = "integer" if name == "children" else "number"
    bounds = {"children": (0, 40), "amount": (0, 1e6)}.get(name, (-12, 12))
    return {"name": name, "type": kind, "meaning": name, "range": bounds}


CARD = Card.model_validate({
    "format": 1, "model": "mixed", "version": "v1", "summary": "Twelve features of all types.",
    "artifact": {"sha256": "1" * 64},
    "features": [_feature(name) for name in NAMES],
    "outputs": {
        "score": {"tensor": "p", "kind": "quantity", "meaning": "a sum of three features"},
        "outcome": {"below": "approve", "at_or_above": "deny", "adverse": "deny",
                    "threshold": THRESHOLD},
    },
    "training": {"data": {}, "code_commit": "0", "configuration": {}, "seed": 1}, "metrics": {},
})  # fmt: skip


Drawn = dict[str, np.typing.NDArray[Any]]


def drawn(dice: np.random.Generator, n: int) -> Drawn:
    """Columns of `n` rows: NaN and None are missing."""
    found: Drawn = {name: dice.normal(size=n) for name in NUMBERS if name != "amount"}
    found["amount"] = dice.lognormal(7.0, 1.0, n)
    for name, share in MISSING.items():
        found[name][dice.random(n) < share] = np.nan
    found["children"] = dice.poisson(2.0, n).astype(np.float64)
    for name, levels in LEVELS.items():
        named = np.array([*levels, "none of these"], dtype=object)[: len(SHARES[name])]
        found[name] = named[dice.choice(len(named), n, p=SHARES[name])]
    return found


def scores_of(columns: Columns) -> Floats:
    return np.asarray((columns["x0"] + columns["x1"] + columns["x2"]) / np.sqrt(3))


def attributions_of(columns: Columns) -> Floats:
    """Rows by features: weight times the distance from the middle, a missing value at it."""
    parts = []
    for name in NAMES:
        if name in LEVELS:
            parts.append((columns[name] == LEVELS[name][0]).astype(np.float64) - SHARES[name][0])
        else:
            numbers = np.log(columns[name]) - 7.0 if name == "amount" else columns[name]
            parts.append(np.nan_to_num(numbers - (2.0 if name == "children" else 0.0)))
    return np.asarray(np.stack(parts, axis=1) * WEIGHTS)


def reference_of(seed: int, rows: int = REFERENCE_ROWS) -> tuple[Reference, AttributionReference]:
    columns = drawn(np.random.default_rng([seed, 101]), rows)
    reference = Reference.of(CARD, columns, scores_of(columns), f"{seed:064d}")
    return reference, AttributionReference.of(NAMES, attributions_of(columns)[:2000], "background")


def decisions_of(
    dice: np.random.Generator, n: int, at: int = 0, columns: Drawn | None = None, *,
    explained: bool = True, attribute: Attribute | None = None,
    region: tuple[str, float, float] | None = None,
) -> list[Decision]:  # fmt: skip
    """`columns`: what is decided, where it is not `n` rows of the law itself; `attribute`: what
    explains it; `region`: in which x3 moves by so much and loses such a share of its values."""
    columns = columns or drawn(dice, n)
    sexes = dice.integers(0, 2, n).tolist()
    regions = dice.choice(len(REGIONS), n, p=REGION_SHARES)
    if region is not None:
        name, shift, lost = region
        there = regions == REGIONS.index(name)
        columns["x3"] = columns["x3"] + shift * there
        columns["x3"][there & (dice.random(n) < lost)] = np.nan
    values = [[None if v != v else v for v in columns[name].tolist()] for name in NAMES]
    scores = scores_of(columns).tolist()
    told = (attribute(dice, columns) if attribute else attributions_of(columns)).tolist()
    return [
        Decision(at + place, at + place, f"{at + place}/0", score,
                 "deny" if score >= THRESHOLD else "approve", row,
                 {"sex": "fm"[sexes[place]], "region": REGIONS[regions[place]]},
                 tuple(told[place]) if explained else None)
        for place, (score, row) in enumerate(zip(scores, zip(*values)))
    ]  # fmt: skip


def all_on(**changes: Any) -> WindowSettings:
    """As a model is watched by default, with two keys of groups, and their slices."""
    keys = ("sex", "region")
    return settings_of(**{"baseline": "rolling", "groups": keys, "slices": keys, **changes})
