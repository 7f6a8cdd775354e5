"""What a comparison is worth if both arms are alike, by every way to swap them."""

import itertools

import numpy as np
import pytest
from traffic import block

from gateway.rollout import comparison, histogram
from gateway.rollout.block import ArmCounts
from gateway.rollout.comparison import Rules
from gateway.rollout.measure import Latency, Rate

BLOCKS = 8
STEPS = (0, 0, 0, 1, 1, 2, 2, 2)


def arm(rng, bad):
    n = 60
    return ArmCounts(
        exchanges=n, units=n, bad_units=int(rng.binomial(n, bad)),
        latency=histogram.of(rng.lognormal(9, 0.5, n) * (4 if bad > 0.2 else 1)),
    )  # fmt: skip


def values(rules, sides):
    """e-value of worse after each block, for every way to swap the arms: 2^blocks x blocks."""
    told = []
    for swaps in itertools.product((False, True), repeat=BLOCKS):
        state, row = comparison.begin(rules), []
        for number, (swap, pair) in enumerate(zip(swaps, sides)):
            one = block(number, *(reversed(pair) if swap else pair))
            one = type(one)(**{name: getattr(one, name) for name in one.__slots__}
                            | {"step": STEPS[number]})  # fmt: skip
            state = comparison.after(state, rules, one, evidence=True)
            row.append(np.exp(state.worse.now))
        told.append(row)
    return np.array(told)


@pytest.mark.parametrize("measure", [Rate("bad", 0.0), Rate("bad", 0.01), Latency(0.95)], ids=str)
def test_capital_is_fair_and_ville_s_bound_holds(measure):
    """With bursts, steps that begin anew, bounds and gates: the mean over all swaps never exceeds 1
    where each block is a window, and the share of swaps that ever reach 1/a is at most a."""
    margin = measure.margin if isinstance(measure, Rate) else 0.05
    rules = Rules(measure, margin, 0.02, 0.05)
    rng = np.random.default_rng(41)
    for _ in range(2):
        rates = rng.choice([0.02, 0.1, 0.5], (BLOCKS, 2), p=[0.4, 0.3, 0.3])
        sides = [tuple(arm(rng, rate) for rate in pair) for pair in rates]
        es = values(rules, sides)
        assert (es.mean(axis=0) <= 1 + 1e-9).all()
        assert es.max() > 1.5
        for a in (0.5, 0.3, 0.2, 0.1):
            assert (es.max(axis=1) >= 1 / a).mean() <= a
