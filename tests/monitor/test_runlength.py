"""Expected runs of a CUSUM, against its simulation and against a published approximation."""

from math import exp

import numpy as np
import pytest

from gateway.monitor.runlength import Law, expected_run, hazard, threshold_for

NORMAL = Law(
    tuple(np.linspace(-4, 4, 161).tolist()),
    tuple((w := np.exp(-(np.linspace(-4, 4, 161) ** 2) / 2)) / w.sum()),
)
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
    assert 1 / hazard(law, 0.125, large, 100_000) == pytest.approx(20_000, rel=0.011)


def test_a_reference_that_is_too_small_is_said():
    """Ten rows do not tell a quarter of a deviation once in a million."""
    with pytest.raises(ValueError, match="no threshold"):
        threshold_for(NORMAL, 0.125, 10, 1e6)
