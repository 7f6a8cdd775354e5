import numpy as np
import pytest

from gateway.card import Feature
from gateway.monitor.column import Column
from gateway.monitor.quality import excess, inspect, repeated

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
    return {finding.kind: finding for finding in inspect(reference, window, LEVEL)}


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
    """Half of the window repeated is a watch, a tenth is not."""
    assert repeated(250, 500, 20, 2380).state == "watch"
    assert repeated(50, 500, 20, 2380) is None
