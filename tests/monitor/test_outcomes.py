"""Outcomes by group: which label is in force, whose interval, whose coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.outcomes import in_force, judge_outcomes, missing_alike, rates

told = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 5), st.integers(0, 5), st.sampled_from([0, 1, None])
    ),
    max_size=8,
    unique_by=lambda one: one[1:3],
)


@given(told, st.randoms())
def test_the_label_in_force_does_not_depend_on_the_order_of_arrival(labels, dice):
    """Observed last, then told last; and a fold over any prefix agrees with the whole."""
    mixed = labels.copy()
    dice.shuffle(mixed)
    assert in_force(labels) == in_force(mixed)
    best = max(labels, default=None, key=lambda one: one[:3])
    assert in_force(labels) == (best[3] if best else None)


def test_few_have_no_difference():
    """Under 100, or under 10 of either outcome, a group is told and not compared."""
    found = rates({"a": (80, 160), "b": (40, 99), "c": (9, 200)})
    assert all(rate.difference is None for rate in found.values())
    assert found["b"].share == 40 / 99


def test_differences_are_against_the_highest():
    """The highest has none; the others' hold against it with their sign."""
    found = rates({"a": (150, 200), "b": (100, 200), "c": (120, 200)})
    assert found["a"].difference is None
    assert (found["b"].against, found["b"].difference) == ("a", -0.25)
    assert found["b"].difference_interval.high < 0


def test_both_intervals_hold_together_in_95_of_100():
    """Equalised odds: opportunity's and mistaken's differences at 97.5 % each; of 1,000 seeded
    pairs of groups at most 7 % have either wrong."""
    dice = np.random.default_rng(7)
    missed = 0
    for _ in range(1000):
        wrong = False
        for share, other in ((0.8, 0.7), (0.3, 0.2)):
            pairs = {"a": (int(dice.binomial(200, share)), 200),
                     "b": (int(dice.binomial(150, other)), 150)}  # fmt: skip
            found = rates(pairs)
            value = next(value for value, rate in found.items() if rate.against)
            low, high = found[value].difference_interval
            truth = (other - share) if value == "b" else (share - other)
            wrong |= not low <= truth <= high
        missed += wrong
    assert missed <= 70


def test_labels_that_are_missing_alike_are_not_told_and_others_are():
    """A tenth against a half of 500 is no chance; the same share is."""
    assert missing_alike({"a": 500, "b": 500}, {"a": 250, "b": 50}) < 1e-6
    assert missing_alike({"a": 500, "b": 500}, {"a": 250, "b": 250}) > 0.9
    assert missing_alike({"a": 500}, {"a": 250}) is None


def test_cases_become_rates():
    """Favourable among the good, and among the others; what nobody can read counts for coverage."""
    cases = {("a", 1, 1): (80, 64.0), ("a", 0, 1): (20, 8.0), ("a", 1, 0): (5, 3.0),
             ("a", 0, 0): (45, 9.0), ("a", 1, -1): (2, 1.5)}  # fmt: skip
    (group,) = judge_outcomes("v1", "stable", "race", {"a": 304}, cases).groups
    assert (group.labelled, group.decisions, group.coverage) == (152, 304, 0.5)
    assert (group.opportunity.n, group.opportunity.share) == (100, 0.8)
    assert (group.mistaken.n, group.mistaken.share) == (50, 0.1)
    assert group.calibration == pytest.approx((100 - 84) / 150)


def outcome_states(shares, n=1000, newer=0.5, scores=None):
    """Groups whose good are favoured at these shares, and one in ten of the others."""
    cases, late = {}, {}
    for value, share in shares.items():
        for good, favoured in ((1, share), (0, 0.1)):
            for favourable, part in ((1, favoured), (0, 1 - favoured)):
                count = round(n * part)
                score = (scores or {}).get(value, 0.5) * count
                cases[value, favourable, good] = (count, score)
                late[value, favourable, good] = (round(count * newer), score * newer)
    return {g.value: g for g in judge_outcomes("v1", "stable", "race", {}, cases, late).groups}


def test_states_of_equal_opportunity_and_odds():
    """From the highest down and the lowest up; few are insufficient, the unsure are watched."""
    found = outcome_states({"a": 0.9, "b": 0.6, "c": 0.88})
    assert {v: (g.opportunity.state, g.opportunity.state_above) for v, g in found.items()} == {
        "a": ("ok", "breach"), "b": ("breach", "ok"), "c": ("ok", "breach")
    }  # fmt: skip
    assert {g.odds for g in found.values()} == {"breach"}
    assert {g.mistaken.state for g in found.values()} == {"ok"}
    assert outcome_states({"a": 0.9, "b": 0.8})["b"].opportunity.state == "watch"
    assert outcome_states({"a": 0.9, "b": 0.6}, n=60)["b"].odds == "insufficient"
    assert outcome_states({"a": 0.9})["a"].odds == "insufficient"


def test_a_breach_of_labels_needs_newer_labels():
    """Without a hundred newer ones of each group that say the same it is watched."""
    assert outcome_states({"a": 0.9, "b": 0.6}, newer=0.05)["b"].opportunity.state == "watch"


def test_calibration_is_judged_both_ways():
    """Half came true: scores of 0.5 are ok, 0.35 and 0.65 are each a breach, 0.56 is unsure."""
    scores = {"a": 0.5, "b": 0.35, "c": 0.65, "d": 0.56}
    found = outcome_states(dict.fromkeys(scores, 0.5), scores=scores)
    assert {value: group.calibration_state for value, group in found.items()} == {
        "a": "ok", "b": "breach", "c": "breach", "d": "watch"
    }  # fmt: skip
    low, high = found["b"].calibration_interval
    assert low < found["b"].calibration < high


def test_equal_groups_breach_hardly_ever():
    """Of 2,000 seeded sets of four groups with the same rates none is a breach."""
    dice = np.random.default_rng(3)
    for _ in range(2000):
        drawn = {v: (int(dice.binomial(300, 0.6)), 300) for v in "abcd"}
        late = {v: (round(hits / 2), 150) for v, (hits, _) in drawn.items()}
        states = [(one.state, one.state_above) for one in rates(drawn, late).values()]
        assert "breach" not in {state for both in states for state in both}
