"""What is told about the future comes true about half of the time."""

import math

import numpy as np
from test_guard import folded, plan
from traffic import block, blocks

from gateway.rollout.block import ArmCounts
from gateway.rollout.outlook import blocks_until_worse, outlook

FAIR = blocks(31, 60, paired={"disagree": 0.004})


def test_nothing_is_told_before_there_is_evidence():
    """No window, no outlook."""
    which = plan("errors", "disagreement", "score_shift")
    state, *_ = folded(which, FAIR[:3])
    assert {(None, None)} == {(one.detectable, one.safe_in_s) for one in outlook(which, state, 1e6)}


def test_more_time_finds_smaller_differences():
    """What is detectable shrinks with time, and is never within the tolerance."""
    which = plan("errors", "latency_p95", "disagreement")
    state, *_ = folded(which, FAIR)
    hour, day = outlook(which, state, 3600), outlook(which, state, 86400)
    for place, least in enumerate((0.002, math.log(1.15), 0.02)):
        assert least < day[place].detectable < hour[place].detectable
    assert hour[0].detectable < 0.03
    assert hour[1].detectable < math.log(1.5)


def test_the_time_until_safe_comes_true():
    """Told after ten minutes, within a factor of two for versions that are alike."""
    which = plan("latency_p95", "disagreement")
    told = blocks(33, 400, paired={"disagree": 0.004})
    state, *_ = folded(which, told[:60])
    ahead = {one.guard: one.safe_in_s for one in outlook(which, state, 3600)}
    _, _, first = folded(which, told)
    for guard in ahead:
        came = (first[guard, "safe"] - 59) * 10
        assert came <= 0 and ahead[guard] == 0 or 0.5 < came / ahead[guard] < 2


def test_safe_of_errors_waits_for_bursts():
    """A tolerance of 0.2 points takes about an hour, however many the units."""
    which = plan("errors")
    rng = np.random.default_rng(5)
    told = []
    for number in range(60):
        sides = [ArmCounts(exchanges=5000, units=5000, bad_units=int(rng.binomial(5000, 0.001)))
                 for _ in range(2)]  # fmt: skip
        told.append(block(number, *sides))
    state, *_ = folded(which, told)
    (errors,) = outlook(which, state, 3600)
    assert 2400 < errors.safe_in_s < 4800


def test_when_a_worse_version_is_found_comes_true():
    """Median over a few streams of what was told at block 30, against when it was."""
    which, told, came = plan({"name": "errors", "worse_than": "+0pp"}), [], []
    for seed in range(12):
        stream = blocks(100 + seed, 200, {"bad": 0.03}, {"bad": 0.01})
        state, *_ = folded(which, stream[:20])
        told.append(19 + blocks_until_worse(state.guards[0], which.questions[0].rules, 0.02))
        came.append(folded(which, stream)[2]["errors", "worse"])
    assert 0.5 < np.median(came) / np.median(told) < 1.3
