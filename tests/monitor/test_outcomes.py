"""Outcomes by group: which label is in force, whose interval, whose coverage."""

from __future__ import annotations

import numpy as np
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
    assert group.calibration == (100 - 84) / 150
