from itertools import combinations
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.card import Feature
from gateway.monitor.column import Column
from gateway.monitor.flaws import inspected, level_of_counts
from gateway.monitor.quality import excess, inspect, repeated
from gateway.protocol.row import columns_of_rows

NUMBER = Feature(name="lvr", type="number", meaning="loan to value", range=(0, 1))
FLAG = Feature(name="dmi", type="category", meaning="denied", categories=("no", "yes"))
LEVEL = 0.01 / 12


def reference_numbers(missing=0, n=5000):
    values = np.linspace(0, 1, n)
    values[:missing] = np.nan
    return Column.of_reference(NUMBER, values)


def flags(yes, n):
    return Column.of_reference(FLAG, np.array(["yes"] * yes + ["no"] * (n - yes), dtype=object))


def found(reference, feature, values):
    window = Column.of_window(feature, values, reference)
    return {finding.kind: finding for finding in inspect(reference, window, LEVEL, LEVEL)}


def test_clean_values_have_no_findings():
    """Values like the reference's give nothing to say."""
    assert found(reference_numbers(), NUMBER, np.linspace(0.1, 0.9, 500).tolist()) == {}


def test_missing_values_beyond_the_reference_are_a_fault():
    """1 % missing in the reference and 4 % of 1,000 now is a fault; 1 % now is not."""
    good = np.linspace(0.1, 0.9, 1000).tolist()
    reference = reference_numbers(missing=50)
    assert found(reference, NUMBER, [None] * 40 + good[40:])["missing"].state == "fault"
    assert found(reference, NUMBER, [None] * 10 + good[10:]) == {}


@pytest.mark.parametrize(
    ("feature", "bad", "kind"),
    [(NUMBER, 7.0, "out_of_range"), (NUMBER, "x", "wrong_type"), (FLAG, "maybe", "unseen")],
)
def test_what_the_reference_never_showed(feature, bad, kind):
    """One such value in 500 is a watch, ten are a fault."""
    reference = reference_numbers() if feature is NUMBER else flags(500, 5000)
    good = np.linspace(0, 1, 500).tolist() if feature is NUMBER else ["no", "yes"] * 250
    assert found(reference, feature, [bad, *good[1:]])[kind].state == "watch"
    assert found(reference, feature, [bad] * 10 + good[10:])[kind].state == "fault"


def test_a_constant_feature_is_stuck_where_the_reference_varies():
    """500 equal values of a continuous feature are a fault; of a constant one they are nothing."""
    assert found(reference_numbers(), NUMBER, [0.5] * 500)["stuck"].state == "fault"
    assert found(flags(0, 2000), FLAG, ["no"] * 500) == {}


def test_a_rare_flag_that_is_never_set_is_only_watched():
    """2 % `yes` in the reference and none in 1,000 is worth a look and wakes nobody."""
    finding = found(flags(48, 2380), FLAG, ["no"] * 1000)["stuck"]
    assert (finding.state, finding.count) == ("watch", 1000)
    assert finding.at_least > finding.reference_at_most


def test_a_sure_but_tiny_rise_is_no_fault():
    """0.1 % more missing values among a million are below the floor."""
    assert excess("missing", 11_000, 1_000_000, 100_000, 10_000_000, LEVEL).state == "ok"


def test_repeated_rows_are_told_when_they_are_many():
    """Half of the window repeated is a fault, a tenth is not."""
    assert repeated(250, 500, 20, 2380).state == "fault"
    assert repeated(50, 500, 20, 2380) is None


def sent(feature, values):
    """A column as it comes off the wire, of rows of JSON."""
    card = SimpleNamespace(features=(feature,))
    return columns_of_rows(card, {}, [{feature.name: value} for value in values])[feature.name]


@pytest.mark.parametrize(
    ("feature", "good", "bad", "kind"),
    [
        (NUMBER, 0.5, "0.5", "wrong_type"),
        (NUMBER, 0.5, {"value": 1}, "wrong_type"),
        pytest.param(NUMBER, 0.5, 10**400, "out_of_range", id="huge"),
        (NUMBER, 0.5, None, "missing"),
        (FLAG, "no", 1, "wrong_type"),
        (FLAG, "no", True, "wrong_type"),
        (FLAG, "no", None, "missing"),
        (FLAG, "no", "maybe", "unseen"),
    ],
)
def test_what_was_sent_is_told_by_its_own_name(feature, good, bad, kind):
    """Of 500 rows of JSON ten are bad: the fault has the name of what is wrong with them, and no
    other fault is told."""
    reference = reference_numbers() if feature is NUMBER else flags(500, 5000)
    varied = np.linspace(0, 1, 490).tolist() if feature is NUMBER else ["no", "yes"] * 245
    told = found(reference, feature, sent(feature, [bad] * 10 + varied))
    assert [(one.kind, one.count, one.state) for one in told.values()] == [(kind, 10, "fault")]
    assert found(reference, feature, sent(feature, [good] * 10 + varied)) == {}


def test_a_number_that_the_card_names_as_a_category_is_one():
    """A code that is sent as 3 where the card says `3` is no fault: the wire has both."""
    codes = Feature(name="code", type="category", meaning="a code", categories=("1", "3"))
    reference = Column.of_reference(codes, np.array(["1", "3"] * 1000, dtype=object))
    assert found(reference, codes, sent(codes, [1, 3] * 250)) == {}


REGION = Feature(name="region", type="category", meaning="where", categories=tuple("abcdef"))


def test_a_category_that_the_reference_never_shows_is_unseen():
    """Named by the card, never in the reference, 3 % now: a fault that names it. Once in 500 it
    says nothing: a sample may lack what is rare."""
    reference = Column.of_reference(REGION, np.array(list("abcde") * 400, dtype=object))
    told = found(reference, REGION, ["f"] * 15 + list("abcde") * 97)["unseen"]
    assert (told.state, told.level, told.count) == ("fault", "f", 15)
    assert told.reference_share == 0.0
    assert found(reference, REGION, ["f"] + list("abcde") * 100) == {}


def test_many_rare_categories_do_not_cry_wolf():
    """Four hundred categories of which a reference of 1,000 lacks some by chance: in 200 windows of
    the same traffic no fault, though many of their values are of what it lacks."""
    names = tuple(f"c{place}" for place in range(400))
    many = Feature(name="many", type="category", meaning="rare ones", categories=names)
    dice = np.random.default_rng(3)
    reference = Column.of_reference(many, dice.choice(np.array(names, dtype=object), 1000))
    lacking = sum(count == 0 for count in reference.counts[:-1])
    assert lacking > 20
    for _ in range(200):
        assert found(reference, many, dice.choice(np.array(names, dtype=object), 500)) == {}


ROWS, TAKEN = 9, 3
"""Rows of window and reference together, and of the window."""


@some.composite
def features(draw):
    """One feature's values in all rows: some are missing, some broken, the others all differ."""
    if draw(some.booleans()):
        kinds = some.sampled_from(["a", "b", "c", "d", "none of these", 7, None])
        return REGION, draw(some.lists(kinds, min_size=ROWS, max_size=ROWS))
    kinds = some.lists(some.sampled_from([None, "x", 7.0, 0.5, 0.5]), min_size=ROWS, max_size=ROWS)
    return NUMBER, [v if v != 0.5 else at / 100 for at, v in enumerate(draw(kinds))]


@settings(max_examples=40, deadline=None)
@given(some.lists(features(), min_size=1, max_size=3), some.sampled_from([0.01, 0.02, 0.04, 0.06]))
def test_all_that_is_counted_keeps_its_risk_together(drawn, level):
    """Without drift any three of nine rows are as likely the window. In no more of all 84 ways than
    the risk of the family, one alarm or more: whatever the features have in common."""
    wrong = 0
    for taken in combinations(range(ROWS), TAKEN):
        now, then = {}, {}
        for place, (feature, values) in enumerate(drawn):
            rest = [value for at, value in enumerate(values) if at not in taken]
            then[place] = Column.of_window(feature, rest, None)
            now[place] = Column.of_window(feature, [values[at] for at in taken], then[place])
        found = inspected(now, SimpleNamespace(columns=then), level)
        told = [one for some in found.values() for one in some if one.kind != "stuck"]
        wrong += any(one.state == "fault" for one in told)
    assert wrong / comb(ROWS, TAKEN) <= 4 * len(drawn) * level


def test_what_nothing_shows_takes_no_share():
    """Of three features two lack values: a share for each feature, not for each kind. Five of
    twelve kinds seen: a share for each of these."""
    good = np.linspace(0.1, 0.9, 500).tolist()
    lacking = Column.of_window(NUMBER, [None, *good[1:]], None)
    broken = Column.of_window(NUMBER, [None, "x", *good[2:]], None)
    whole = Column.of_window(NUMBER, good, None)
    assert level_of_counts([(whole, lacking), (lacking, whole), (whole, whole)], 0.001) == 0.004
    told = level_of_counts([(whole, broken), (broken, whole), (whole, lacking)], 0.001)
    assert told == pytest.approx(0.012 / 5)
