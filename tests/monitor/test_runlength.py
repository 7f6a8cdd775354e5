"""Expected runs of a CUSUM, against its simulation and against a published approximation."""

from math import exp

import numpy as np
import pytest
from scipy import stats

from gateway.monitor.runlength import Law, expected_run, hazard, threshold_for, true_laws

NORMAL = Law(
    tuple(np.linspace(-4, 4, 161).tolist()),
    tuple((w := np.exp(-(np.linspace(-4, 4, 161) ** 2) / 2)) / w.sum()),
)
SQUARES = Law(
    tuple(((np.array(NORMAL.values) ** 2 - 1) / 2**0.5).tolist()),
    NORMAL.weights,
)
RARE = Law((0.0, 1.0), (0.998, 0.002))
COIN = Law((-((0.1 / 0.9) ** 0.5), (0.9 / 0.1) ** 0.5), (0.9, 0.1))


def siegmund(slack: float, threshold: float) -> float:
    """Siegmund (Sequential Analysis, 1985): the run of standard normal values."""
    reach = threshold + 1.166
    return (exp(2 * slack * reach) - 1 - 2 * slack * reach) / (2 * slack**2)


@pytest.mark.parametrize(("slack", "threshold"), [(0.125, 24.6), (0.25, 14.5), (0.5, 8.6)])
def test_the_run_of_normal_values_is_siegmunds(slack, threshold):
    """Within 4 %, what both approximations are good for."""
    assert expected_run(NORMAL, slack, threshold) == pytest.approx(
        siegmund(slack, threshold), rel=0.04
    )


@pytest.mark.parametrize("law", [NORMAL, COIN], ids=["normal", "coin"])
def test_the_run_is_the_simulated_one(law):
    """4,000 runs of a lopsided coin or of normal values: within four standard errors."""
    dice = np.random.default_rng(7)
    slack, threshold, paths = 0.25, 5.0, 4000
    runs, values = np.zeros(paths), np.zeros(paths)
    alive = np.ones(paths, dtype=bool)
    while alive.any():
        steps = dice.choice(law.values, size=paths, p=law.weights)
        values = np.maximum(0, values + steps - slack)
        runs += alive
        alive &= values < threshold
    error = runs.std() / paths**0.5
    assert abs(expected_run(law, slack, threshold) - runs.mean()) < 4 * error


@pytest.mark.parametrize("law", [NORMAL, COIN], ids=["normal", "coin"])
def test_a_threshold_gives_the_run_that_was_wanted(law):
    """And a small reference needs a higher one for the same run."""
    large, small = (threshold_for(law, 0.125, rows, 20_000.0) for rows in (100_000, 1_000))
    assert small > large
    assert 20_000 <= 1 / hazard(law, 0.125, large, 100_000) <= 20_000 * 1.011


@pytest.mark.parametrize("side", [1, -1], ids=["up", "down"])
def test_the_chance_is_the_average_over_what_a_coin_may_be(side):
    """Its true share is Beta's, integrated here by 200 quantiles. Each side of a lopsided coin
    within 2 %: were its mean alone unsure, one were a tenth too high and one a fifth too low."""
    coin = Law(tuple(side * value for value in COIN.values), COIN.weights)
    threshold = threshold_for(coin, 0.125, 5_000, 100_000.0)
    shares = stats.beta.ppf((np.arange(200) + 0.5) / 200, 500, 4_500)
    found = [
        1 / expected_run(Law(coin.values, (1 - share, share)), 0.125, threshold)
        for share in shares.tolist()
    ]
    assert hazard(coin, 0.125, threshold, 5_000) == pytest.approx(np.mean(found), rel=0.02)


@pytest.mark.parametrize("law", [NORMAL, SQUARES], ids=["normal", "squares"])
def test_the_chance_is_the_average_over_what_the_stream_may_be(law):
    """300 laws drawn from Dirichlet's, around a reference of 5,000 rows: within four standard
    errors of their mean."""
    threshold = threshold_for(law, 0.125, 5_000, 100_000.0)
    drawn = np.random.default_rng(3).dirichlet(5_000 * np.array(law.weights), size=300)
    found = [1 / expected_run(Law(law.values, tuple(one)), 0.125, threshold) for one in drawn]
    error = np.std(found) / len(found) ** 0.5
    assert abs(hazard(law, 0.125, threshold, 5_000) - np.mean(found)) < 4 * error


def test_laws_around_a_reference_keep_its_shares():
    """On average; and each is a law, where a rare level's share might fall below none."""
    shares = np.array(RARE.weights)
    for rows in (500, 5_000):
        chances, laws = zip(*true_laws(RARE, rows))
        each = np.array([law.weights for law in laws])
        assert each.min() >= 0
        assert each.sum(axis=1) == pytest.approx(1)
        assert np.array(chances) @ each == pytest.approx(shares, abs=1 / rows)


def test_a_reference_that_is_too_small_is_said():
    """Ten rows do not tell a quarter of a deviation once in a million."""
    with pytest.raises(ValueError, match="no threshold"):
        threshold_for(NORMAL, 0.125, 10, 1e6)
