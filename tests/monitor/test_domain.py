"""The domain classifier: right about chance, and it sees what no single feature shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as drawn
from scipy import stats

from gateway.card import Feature
from gateway.monitor.column import Column
from gateway.monitor.domain import ROWS_AT_MOST, Domain, mann_whitney, tell_apart
from gateway.monitor.drift import RULES, compare

FEATURES = 12


def pair(seed: int, correlation: float = 0.0, n: int = 500, reference_n: int = 2_000):
    """Two samples of independent normals; in the second, two features are correlated."""
    dice = np.random.default_rng(seed)
    then, now = (dice.normal(size=(size, FEATURES)) for size in (reference_n, n))
    now[:, 1] = correlation * now[:, 0] + np.sqrt(1 - correlation**2) * now[:, 1]
    return then, now


def test_without_drift_it_is_wrong_as_often_as_it_says():
    """200 seeded windows over 200 references: p-values are uniform, and the floor is rarely met."""
    found = [tell_apart(Domain((), (), then), now) for then, now in map(pair, range(200))]
    p_values = [p for _, p in found]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert sum(area - 0.5 >= RULES.area for area, _ in found) <= 6


def test_a_correlation_alone_is_seen_here_and_nowhere_else():
    """0 to 0.7 between two of twelve features at 500: told in each of 20 windows at the level of
    all comparisons together; of their single features' tests not one in 240 shows at that level."""
    feature = Feature(name="x", type="number", meaning="x", range=(-50, 50))
    level = RULES.alpha / (FEATURES + 3)
    singly = 0
    for seed in range(20):
        then, now = pair(seed, 0.7)
        area, p_value = tell_apart(Domain((), (), then), now)
        assert p_value < level
        assert area - 0.5 >= RULES.area
        for place in range(FEATURES):
            columns = [Column.of_reference(feature, side[:, place]) for side in (then, now)]
            singly += compare(*columns).p_value < level
    assert singly == 0


@pytest.mark.parametrize("value", [None, "text", float("inf"), float("nan"), True, 10**400])
def test_what_is_broken_does_not_break_it(value):
    """Missing is the mean, an infinity is far; what else it is, data quality says."""
    card = type("Card", (), {"features": (
        Feature(name="a", type="number", meaning="a", range=(0, 1)),
        Feature(name="b", type="category", meaning="b", categories=("x", "y", "z")),
    )})()  # fmt: skip
    dice = np.random.default_rng(3)
    domain = Domain.of(card, {"a": dice.random(9_000), "b": np.array(["x", "y", "z"] * 3_000)})
    rows = domain.encode([(value, "y"), (0.5, value)])
    assert domain.rows.shape == (ROWS_AT_MOST, 3)
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 5.0
    assert rows[0, 1:].tolist() == [1.0, 0.0]


@given(
    drawn.lists(drawn.integers(-9, 9), min_size=2, max_size=40),
    drawn.lists(drawn.integers(-9, 9), min_size=2, max_size=40),
)
def test_the_areas_chance_is_scipys(one, other):
    """Ties and all; where every value is the same one, nothing differs."""
    now, then = np.array(one, dtype=float), np.array(other, dtype=float)
    area, chance = mann_whitney(now, then)
    if len({*one, *other}) == 1:
        assert (area, chance) == (0.5, 1.0)
        return
    expected = stats.mannwhitneyu(now, then, alternative="greater", method="asymptotic")
    assert area * now.size * then.size == pytest.approx(expected.statistic)
    assert chance == pytest.approx(expected.pvalue, rel=1e-9)
