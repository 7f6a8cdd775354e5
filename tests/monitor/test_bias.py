import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import bias
from gateway.monitor.bias import OTHER, UNKNOWN, count_groups, judge_key, pending_after

HMDA = Path(__file__).parents[2] / "models" / "data" / "hmda.csv"


def judged(counts, pending=None, fresh=None):
    return judge_key("race", [{"race": counts}], pending or {}, {"race": fresh or {}})


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
            key, [block], {"race+sex/a+f": (0,) * 4, "race+sex/b+m": (0,) * 4}, block).groups}
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


def confirmed_after(windows, counts):
    """The state of `b` after each window of fresh counts of both groups."""
    pending, seen = {}, []
    for fresh in windows:
        found = judged(counts, pending, fresh)
        pending = pending_after([found], pending, {"race": fresh})
        seen.append(state(found, "b").state)
    return seen


BELOW = {"a": (900, 100), "b": (400, 600)}


def test_a_breach_needs_new_decisions_of_the_group_itself():
    """The first sight does not count; then 100 of the group with ten of either outcome do."""
    some = {"a": (90, 10), "b": (20, 30)}
    assert confirmed_after([some] * 3, BELOW) == ["watch", "watch", "breach"]
    assert confirmed_after([some, *[{"a": (450, 50)}] * 9], BELOW) == ["watch"] * 10


def test_new_decisions_that_tell_otherwise_confirm_nothing():
    """Old counts alone are no breach, however many new ones there are."""
    assert confirmed_after([{"a": (90, 10), "b": (90, 10)}] * 9, BELOW) == ["watch"] * 9


def test_a_group_that_recovers_starts_over():
    """An interval that reaches 0.8 again forgets the first sight."""
    before = {"race/b": (20, 30, 90, 10)}
    found = judged({"a": (900, 100), "b": (720, 280)}, before)
    assert state(found, "b").state == "watch"
    assert pending_after([found], before, {}) == {}


def test_where_nearly_all_are_approved_the_adverse_ratio_speaks():
    """98 % and 94 %: a ratio of 0.96 hides three times as many declined."""
    counts, some = {"a": (4900, 100), "b": (1880, 120)}, {"a": (490, 10), "b": (188, 12)}
    found = state(judged(counts), "b")
    assert found.rivalry.ratio_interval.low > 0.9
    assert (found.state, found.breach_pending) == ("watch", True)
    assert confirmed_after([some] * 3, counts) == ["watch", "breach", "breach"]


def test_the_highest_of_many_is_corrected_for():
    """The more groups there are the surer each difference has to be."""
    counts = {"a": (450, 50), "b": (340, 160)}
    alone = state(judged(counts), "b").rivalry.ratio_interval
    rest = {f"r{n}": (440, 60) for n in range(8)}
    amid = state(judged(counts | rest), "b").rivalry.ratio_interval
    assert amid.low < alone.low < alone.high < amid.high


def test_small_windows_are_kept_until_there_are_many_decisions():
    """At 50 a day all of 30 days are there; at 500 a window the last 10,000."""
    day, block = bias.DAY_NS, {"race": {"a": (20, 5), "b": (20, 5)}}
    blocks, begun = (), ()
    for window in range(100):
        blocks, begun = bias.keep(blocks, begun, block, window * day)
    assert sum(map(bias.size, blocks)) == 31 * 50
    for _ in range(300):
        blocks, begun = bias.keep(blocks, begun, {"race": {"a": (400, 100)}}, 100 * day)
    assert len(blocks) == 20
    assert bias.summed("race", blocks) == {"a": (8000, 2000)}


def test_small_windows_of_a_day_are_one_block():
    """And none of their counts is lost."""
    blocks, begun = (), ()
    for window in range(24):
        told = {"race": {"ab"[window % 2]: (10, 2)}}
        blocks, begun = bias.keep(blocks, begun, told, window * 3600 * 10**9)
    assert len(blocks) == 1
    assert bias.summed("race", blocks) == {"a": (120, 24), "b": (120, 24)}


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
