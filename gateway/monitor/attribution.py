"""Has what moves the score left the reference? By feature, and by the order of the features.

The reference is the frozen sample's rows, explained by the explainer that explains the decisions,
so nothing has to be collected first and a version is held to what it was trained for. A feature's
attributions are compared as a feature's values are. The ranking is by mean |attribution|; two
rankings differ by the share of pairs of features that stand the other way round, (1 - tau) / 2 by
Kendall's tau (Biometrika 30, 1938). Features of like weight change places by chance, so the share
is held against a bootstrap of the reference's own rows. Pure; the dice are seeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor, log

import numpy as np
from numpy.typing import NDArray

from gateway.modelsettings import DriftSettings
from gateway.monitor import drift
from gateway.monitor.column import Column, of_numbers, single
from gateway.monitor.drift import Comparison, Drift

Floats = NDArray[np.float64]
PREFIX = "attribution/"
RANKING = "attribution/ranking"
ROWS_AT_MOST = 2000
"""Rows of the reference that are explained, evenly spread: a sampled explanation takes 2 ms."""
DRAWS_AT_MOST = 20_000
"""Of the bootstrap; with more than 200 comparisons in a window Bonferroni asks for more, and the
ranking is shown and never significant."""
DRAWS_BEYOND = 4
"""Draws expected above the level at which the ranking would be significant."""
STEP = 1.1
"""Windows of like size share a bootstrap: sizes are rounded down to powers of it, which asks more
of a window and never less."""
BLOCK = 128
SEED = 7


@dataclass(frozen=True, eq=False)
class AttributionReference:
    """`values`: m rows by p `features`; `background`: digest of what they are explained against."""

    background: str
    features: tuple[str, ...]
    values: Floats
    columns: Mapping[str, Column]
    importance: Floats

    @staticmethod
    def of(features: Sequence[str], values: Floats, background: str) -> AttributionReference:
        return AttributionReference(
            background, tuple(features), values, as_columns(features, values), importance(values)
        )


@dataclass(frozen=True)
class AttributionOfFeature:
    """`before`, `after`: mean |attribution|, in the reference and in the window."""

    name: str
    drift: Drift
    before: float
    after: float


@dataclass(frozen=True)
class AttributionReport:
    """Of the `n` decisions of a window that were explained exactly or by sampling, here."""

    background: str
    n: int
    features: tuple[AttributionOfFeature, ...]
    ranking: Drift


def as_columns(features: Sequence[str], values: Floats) -> dict[str, Column]:
    finite = values[np.isfinite(values).all(axis=1)]
    return {
        name: of_numbers(None, single(finite[:, at]), len(values) - len(finite), 0, None)
        for at, name in enumerate(features)
    }


def importance(values: Floats) -> Floats:
    """Mean |attribution| by feature."""
    finite = values[np.isfinite(values).all(axis=1)]
    return np.asarray(np.abs(finite).mean(axis=0), dtype=np.float64)


def compare(
    reference: AttributionReference, window: Floats, rules: DriftSettings
) -> dict[str, Comparison]:
    """The tests of a window's attributions (n rows by the reference's features), by cause. A
    feature named `ranking` has none of its own: the cause is taken."""
    columns = as_columns(reference.features, window)
    compared = {
        f"{PREFIX}{name}": drift.compare(then, columns[name], rules)
        for name, then in reference.columns.items()
        if f"{PREFIX}{name}" != RANKING
    }
    if (ranking := compare_ranking(reference, window, rules)) is not None:
        compared[RANKING] = ranking
    return compared


def compare_ranking(
    reference: AttributionReference, window: Floats, rules: DriftSettings
) -> Comparison | None:
    """None where the reference ranks no feature above another."""
    then, now = reference.importance, importance(window)
    if not _pairs(then).any():
        return None
    share = float(reversed_share(then, now[None, :])[0])
    n, m = len(window), len(reference.values)
    chance = chances(reference, n, rules)
    return Comparison(
        test="kendall_bootstrap",
        n=n,
        reference_n=m,
        statistic=1 - 2 * share,
        p_value=float((1 + np.count_nonzero(chance >= share - 1e-12)) / (1 + chance.size)),
        effect=share,
        floor=rules.ranking,
    )


def chances(reference: AttributionReference, n: int, rules: DriftSettings) -> Floats:
    """What shares a window of n rows shows without drift."""
    comparisons = 2 * len(reference.features) + 4
    draws = min(DRAWS_AT_MOST, ceil(DRAWS_BEYOND * comparisons / rules.alpha))
    m = len(reference.values)
    return null(reference, rounded(n * m / (n + m)), draws)


def reversed_share(then: Floats, now: Floats) -> Floats:
    """[k] of `now` [k, p]: of the pairs that `then` [p] tells apart, those the other way round; one
    that is now level counts a half."""
    one, other = np.triu_indices(then.size, 1)
    order = _pairs(then)
    told = np.sign(now[:, one] - now[:, other]) @ order
    return np.asarray((1 - told / np.abs(order).sum()) / 2, dtype=np.float64)


def _pairs(values: Floats) -> Floats:
    one, other = np.triu_indices(values.size, 1)
    return np.asarray(np.sign(values[one] - values[other]), dtype=np.float64)


def rounded(rows: float) -> int:
    """`rows` >= 1 down to a power of STEP."""
    return max(1, floor(STEP ** floor(log(max(rows, 1.0), STEP))))


@lru_cache(maxsize=256)
def null(reference: AttributionReference, rows: int, draws: int) -> Floats:
    """Reversed shares of `draws` samples of so many of the reference's own rows. n rows against m
    are as uncertain as n m / (n + m) rows against all there is."""
    dice = np.random.default_rng((SEED, rows))
    weights = np.abs(reference.values[np.isfinite(reference.values).all(axis=1)])
    found = []
    for start in range(0, draws, BLOCK):
        chosen = dice.integers(0, len(weights), (min(BLOCK, draws - start), rows))
        found.append(reversed_share(reference.importance, weights[chosen].mean(axis=1)))
    return np.concatenate(found)


def explained(drifts: Mapping[str, Drift]) -> dict[str, Drift]:
    """What a feature shows suppresses what its own attributions show of it."""
    found = dict(drifts)
    for cause, one in drifts.items():
        feature = f"feature/{cause.removeprefix(PREFIX)}"
        if cause.startswith(PREFIX) and feature in drifts and drifts[feature].running:
            found[cause] = replace(one, suppressed_by=(*one.suppressed_by, feature))
    return found


def report(
    reference: AttributionReference | None, window: Floats, drifts: Mapping[str, Drift]
) -> AttributionReport | None:
    """None where the window's decisions are not explained."""
    if reference is None or not len(window):
        return None
    now = importance(window)
    unjudged = Drift("not_enough_data")
    return AttributionReport(
        background=reference.background,
        n=len(window),
        features=tuple(
            AttributionOfFeature(name, drifts.get(f"{PREFIX}{name}", unjudged), before, after)
            for name, before, after in zip(
                reference.features, reference.importance.tolist(), now.tolist()
            )
            if f"{PREFIX}{name}" != RANKING
        ),
        ranking=drifts.get(RANKING, unjudged),
    )
