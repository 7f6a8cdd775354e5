import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import bias
from gateway.monitor.bias import OTHER, UNKNOWN, count_groups, judge_key, pending_after

HMDA = Path(__file__).parents[2] / "models" / "data" / "hmda.csv"


def judged(counts, pending=None, fresh=500):
    return judge_key("race", [{"race": counts}], pending or {}, fresh, 100)


def state(found, value):
    return next(group for group in found.groups if group.value == value)


def test_two_keys_are_counted_together():
    """`race+sex` has its own groups; where one of both is not told the decision is unknown."""
    members = [
        ({"race": "a", "sex": "f"}, True), ({"race": "a", "sex": "m"}, False),
        ({"race": "a", "sex": "f"}, False), ({"race": "b"}, True), ({}, False),
    ]  # fmt: skip
    keys = bias.with_intersections(("race", "sex"))
    assert keys == ("race", "sex", "race+sex")
    assert bias.count_groups(members, keys, ())["race+sex"] == {
        "a+f": (1, 1), "a+m": (1, 0), "unknown": (1, 1)
    }  # fmt: skip


def test_an_intersection_breaches_where_neither_key_does():
    """Women of one race and men of the other are denied twice as often: the sums hide it."""
    rates = {("a", "f"): 0.4, ("a", "m"): 0.8, ("b", "f"): 0.8, ("b", "m"): 0.4}
    keys = bias.with_intersections(("race", "sex"))
    members = [
        ({"race": race, "sex": sex}, number >= share * 500)
        for (race, sex), share in rates.items() for number in range(500)
    ]  # fmt: skip
    block = bias.count_groups(members, keys, ())
    states = {
        key: {g.value: g.state for g in bias.judge_key(
            key, [block], {"race+sex/a+f": 500, "race+sex/b+m": 500}, 500, 100).groups}
        for key in keys
    }  # fmt: skip
    assert set(states["race"].values()) == set(states["sex"].values()) == {"ok"}
    assert (states["race+sex"]["a+f"], states["race+sex"]["b+m"]) == ("breach", "breach")


def test_hmda_is_a_watch():
    """Denials 28.3 % against 9.3 %: ratio 0.790, Katz interval 0.738 to 0.846 straddles 0.8."""
    with HMDA.open() as file:
        tally = Counter((row["black"], row["deny"]) for row in csv.DictReader(file))
    found = judged({v: (tally[v, "no"], tally[v, "yes"]) for v in ("no", "yes")})
    black = state(found, "yes")
    assert (found.highest, black.state, black.n) == ("no", "watch", 339)
    assert (1 - black.rate, 1 - state(found, "no").rate) == pytest.approx((0.283, 0.093), abs=5e-4)
    assert black.rivalry.ratio == pytest.approx(0.790, abs=5e-4)
    assert black.rivalry.ratio_interval == pytest.approx((0.738, 0.846), abs=5e-4)
    assert black.rivalry.adverse_ratio == pytest.approx(3.06, abs=5e-3)


@pytest.mark.parametrize("few", [(60, 39), (200, 9), (9, 200)])
def test_small_groups_are_insufficient(few):
    """Under 100 members, or under 10 of either outcome, nothing is compared."""
    small = state(judged({"few": few, "many": (900, 100), "more": (800, 100)}), "few")
    assert (small.state, small.rivalry) == ("insufficient", None)


def test_one_group_alone_cannot_be_compared():
    """Without a second sufficient group there is no highest rate and no `ok`."""
    found = judged({"a": (900, 100), "b": (5, 5)})
    assert (found.highest, {g.state for g in found.groups}) == (None, {"insufficient"})


def test_near_equal_rates_are_ok():
    """A lower bound at or above 0.8 is `ok`."""
    assert state(judged({"a": (900, 100), "b": (890, 110)}), "b").state == "ok"


def test_a_breach_needs_new_decisions():
    """Below 0.8 is pending at first and a breach once a minimum of later decisions agree."""
    counts = {"a": (900, 100), "b": (400, 600)}
    pending, seen = {}, []
    for fresh in (500, 3, 40, 60):
        found = judged(counts, pending, fresh)
        pending = pending_after([found], pending, fresh)
        seen.append((state(found, "b").state, state(found, "b").breach_pending))
    assert seen == [("watch", True), ("watch", True), ("watch", True), ("breach", False)]


def test_a_group_that_recovers_starts_over():
    """An interval that reaches 0.8 again forgets the first sight."""
    found = judged({"a": (900, 100), "b": (720, 280)}, {"race/b": 500})
    assert state(found, "b").state == "watch"
    assert pending_after([found], {"race/b": 500}, 500) == {}


def test_undisclosed_values_are_a_group():
    """Decisions without the key, or with an empty value, are counted as unknown."""
    members = [({"race": "black"}, True), ({}, False), ({"race": ""}, True)]
    block = count_groups(members, ["race"], [])
    assert block == {"race": {"black": (0, 1), UNKNOWN: (1, 1)}}


def test_values_beyond_the_limit_are_counted_together():
    """A thousand values, or one too long, make `(other)`; no decision is lost."""
    members = [({"race": f"r{i}"}, False) for i in range(1000)]
    members += [({"race": "x" * 100}, True), ({}, True)]
    counts = count_groups(members, ["race"], [])["race"]
    assert len(counts) == bias.GROUP_VALUES_AT_MOST + 2
    assert counts[OTHER] == (1000 - bias.GROUP_VALUES_AT_MOST, 1)
    assert counts[UNKNOWN] == (0, 1)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())), max_size=5))
def test_blocks_add_up_exactly(windows):
    """The sum over blocks is the count over all members at once."""
    blocks = []
    for window in windows:
        blocks.append(count_groups([({"k": v}, bad) for v, bad in window], ["k"], blocks))
    every = [({"k": value}, bad) for window in windows for value, bad in window]
    assert bias.summed("k", blocks) == count_groups(every, ["k"], [])["k"]
