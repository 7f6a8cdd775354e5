import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as drawn
from scipy import stats

from gateway.card import Feature
from gateway.monitor import drift
from gateway.monitor.column import Column
from gateway.monitor.drift import Comparison, compare, compare_outcomes, running_after, verdicts

NUMBER = Feature(name="dir", type="number", meaning="debt to income", range=(-9, 9))
FLAG = Feature(name="dmi", type="category", meaning="denied", categories=("no", "yes"))


def comparison(p_value, effect=0.5, floor=0.1):
    return Comparison("chi_squared", 500, 5000, 1.0, p_value, effect, floor)


def test_a_shift_of_half_a_sigma_is_seen_in_every_window_of_500():
    """40 of 40 windows shifted by 0.5 sigma are significant at 1 % over 12 features."""
    dice = np.random.default_rng(11)
    reference = Column.of_reference(NUMBER, dice.normal(size=5000))
    for _ in range(40):
        values = dice.normal(0.5, 1, 500).tolist()
        found = compare(reference, Column.of_window(NUMBER, values, reference))
        assert found.p_value < drift.RULES.alpha / 12
        assert found.effect >= found.floor
        assert found.psi > found.psi_bound


def test_a_rare_flag_that_vanishes_is_no_drift():
    """2 % `yes` becoming none moves only 2 % of the decisions: under the floor, whatever p is."""
    then = Column.of_reference(FLAG, np.array(["yes"] * 48 + ["no"] * 2332, dtype=object))
    found = compare(then, Column.of_window(FLAG, ["no"] * 500, then))
    assert found.effect == pytest.approx(48 / 2380)
    assert verdicts({"feature/dmi": found}, {"feature/dmi": 1}, {})["feature/dmi"].state == "ok"


def test_a_constant_feature_equals_itself():
    """A feature that is constant then and now has p = 1 and no effect."""
    for feature, value in ((NUMBER, 1.0), (FLAG, "no")):
        kind = np.float64 if feature is NUMBER else object
        then = Column.of_reference(feature, np.array([value] * 300, dtype=kind))
        found = compare(then, Column.of_window(feature, [value] * 200, then))
        assert (found.p_value, found.effect, found.psi) == (1.0, 0.0, 0.0)


def test_the_second_window_running_makes_a_drift():
    """Seen once is a watch, twice running a drift, and a clean window starts over."""
    running = {}
    states = []
    for p_value in (1e-9, 1e-9, 0.5, 1e-9):
        judged = verdicts({"score": comparison(p_value)}, running, {})
        running = running_after(running, judged)
        states.append(judged["score"].state)
    assert states == ["watch", "drift", "ok", "watch"]


def test_small_effects_are_shown_and_ignored():
    """At n = 1e6 a p-value of 1e-9 under the floor is significant and `ok`."""
    judged = verdicts({"score": comparison(1e-9, effect=0.02)}, {"score": 1}, {})["score"]
    assert (judged.state, judged.significant, judged.running) == ("ok", True, 0)


def test_the_level_is_shared_by_all_comparisons():
    """p = 0.002 passes alone and not among 12; q-values are Benjamini and Hochberg's."""
    alone = verdicts({"a": comparison(0.002)}, {}, {})["a"]
    many = {f"f{i}": comparison(p) for i, p in enumerate([0.002, *np.linspace(0.1, 0.9, 11)])}
    among = verdicts(many, {}, {})
    assert (alone.state, among["f0"].state) == ("watch", "ok")
    expected = stats.false_discovery_control([c.p_value for c in many.values()])
    assert [d.q_value for d in among.values()] == pytest.approx(expected)


def test_a_fault_neither_confirms_nor_clears():
    """Under a quality fault the drift is shown with its cause and the count of windows stays."""
    for p_value in (1e-9, 0.9):
        judged = verdicts({"a": comparison(p_value)}, {"a": 1}, {"a": ("missing",)})
        assert judged["a"].suppressed_by == ("missing",)
        assert running_after({"a": 1}, judged) == {"a": 1}


def test_outcomes_are_compared_as_two_shares():
    """18 % denials against 12 % carries its interval and passes the floor of 5 points."""
    found = compare_outcomes(90, 500, 285, 2380)
    assert found.p_value == pytest.approx(
        stats.chi2_contingency([[285, 2095], [90, 410]], correction=False).pvalue
    )
    assert found.difference.low < 90 / 500 - 285 / 2380 < found.difference.high
    assert found.effect > found.floor


@given(drawn.lists(drawn.sampled_from([0.0, 1e-300, 0.003, 0.01, 0.04, 0.5, 1.0]), min_size=1))
def test_q_values_are_scipys(p_values):
    """Benjamini-Hochberg's, ties and ends included."""
    expected = stats.false_discovery_control(p_values, method="bh")
    assert drift.q_values_of(p_values) == pytest.approx(expected.tolist(), rel=1e-12)
