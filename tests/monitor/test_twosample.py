import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from gateway.monitor import twosample

tied = st.lists(st.integers(0, 8).map(float), min_size=1, max_size=40)
spread = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)
rows = st.integers(2, 6).flatmap(
    lambda k: st.tuples(*[st.lists(st.integers(0, 300), min_size=k, max_size=k)] * 2)
)


def as_sorted(values):
    return np.sort(np.array(values, dtype=np.float64))


@given(st.one_of(st.tuples(tied, tied), st.tuples(spread, spread)))
def test_kolmogorov_smirnov_equals_scipy_with_ties(samples):
    """Statistic and exact p-value are scipy's, ties included (scipy gives up at 1 + 1e-16)."""
    then, now = map(as_sorted, samples)
    with warnings.catch_warnings(record=True) as gave_up:
        warnings.simplefilter("always")
        expected = stats.ks_2samp(then, now, method="exact")
    distance = twosample.kolmogorov_smirnov(then, now)
    p_value = twosample.kolmogorov_smirnov_p_value(distance, then.size, now.size)
    assert distance == pytest.approx(expected.statistic, abs=1e-12)
    assert p_value == pytest.approx(1.0 if gave_up else expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_large_samples_get_the_asymptotic_p_value_of_scipy(shift):
    """Beyond the exact limit the p-value is that of scipy's asymptotic method: to nine digits where
    it may decide something, else to three places."""
    dice = np.random.default_rng(7)
    then, now = np.sort(dice.normal(size=4000)), np.sort(dice.normal(shift, size=500))
    expected = stats.ks_2samp(then, now, method="asymp")
    distance = twosample.kolmogorov_smirnov(then, now)
    found = twosample.kolmogorov_smirnov_p_value(distance, then.size, now.size)
    near = pytest.approx(expected.pvalue, rel=1e-9)
    if expected.pvalue >= twosample.CLEAR:
        near = pytest.approx(expected.pvalue, abs=5e-4)
    assert found == near


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2])
def test_cramer_von_mises_equals_scipys(shift):
    """Statistic and asymptotic p-value, where no value comes twice."""
    dice = np.random.default_rng(7)
    then, now = np.sort(dice.normal(size=2000)), np.sort(dice.normal(shift, size=500))
    expected = stats.cramervonmises_2samp(now, then, method="asymptotic")
    statistic, p_value = twosample.cramer_von_mises(then, now)
    assert statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("law", ["two values", "ten values", "a third is zero", "one digit"])
def test_cramer_von_mises_calls_ties_no_drift(law):
    """Of 200 windows of the reference's own law no more than 5 % are significant at 0.05, give or
    take chance; a window that moved by half a deviation is. scipy's mid-ranks call all of the first
    three a drift."""
    dice = np.random.default_rng(8)

    def drawn(n, shift=0.0):
        values = dice.normal(shift, size=n)
        if law == "a third is zero":
            values[dice.random(n) < 1 / 3] = 0
        tied = {"two values": values > 0.5, "ten values": (2 * values).clip(-4.5, 4.5).round(),
                "one digit": values.round(1)}  # fmt: skip
        return np.sort(np.asarray(tied.get(law, values), dtype=np.float64))

    then = drawn(5000)
    found = [twosample.cramer_von_mises(then, drawn(500))[1] for _ in range(200)]
    assert sum(p < 0.05 for p in found) <= stats.binom.isf(1e-4, 200, 0.05)
    assert twosample.cramer_von_mises(then, drawn(500, 0.5))[1] < 1e-6


@pytest.mark.parametrize(("n", "m"), [(100, 100), (100, 500), (500, 100), (500, 500), (101, 997)])
def test_the_exact_p_value_is_not_worked_out_where_it_decides_nothing(n, m, monkeypatch):
    """Where it is left out it is above any level that can be set; elsewhere it is what is told."""
    exact = twosample.exact_p_value
    asked = []
    monkeypatch.setattr(twosample, "exact_p_value", lambda *of: asked.append(of) or exact(*of))
    for shift in np.linspace(0.3, 2.5, 23):
        statistic = round(shift * math.sqrt(1 / n + 1 / m) * n * m) / (n * m)
        before = len(asked)
        told, truth = twosample.window_p_value(statistic, n, m), exact(statistic, n, m)
        if len(asked) == before:
            assert told >= twosample.CLEAR
            assert truth > 0.2
        else:
            assert told == truth
    assert 0 < len(asked) < 20


def test_small_exact_p_values_keep_their_digits():
    """Two samples of 300 that do not overlap have p = 2 / C(600, 300), which is not zero."""
    found = twosample.exact_p_value(1.0, 300, 300)
    assert found == pytest.approx(2 / math.comb(600, 300), rel=1e-9)


@given(rows)
def test_counts_that_are_not_small_get_scipys_chi_squared(pair):
    """Without small cells statistic and p-value are scipy's, uncorrected."""
    table = np.array(pair) + 20
    expected = stats.chi2_contingency(table, correction=False)
    assume(expected.expected_freq.min() >= twosample.EXPECTED_AT_LEAST)
    found = twosample.independence(*table)
    assert found.test == "chi_squared"
    assert (found.statistic, found.p_value) == pytest.approx(
        (expected.statistic, expected.pvalue), rel=1e-9, abs=1e-300
    )


@given(rows)
def test_any_counts_get_a_probability(pair):
    """Empty, rare and many categories all give a p-value in [0, 1], and equal rows give 1."""
    then, now = (np.array(counts) for counts in pair)
    assume(then.sum() > 0)
    assume(now.sum() > 0)
    assert 0 <= twosample.independence(then, now).p_value <= 1
    assert twosample.independence(then, then).p_value == pytest.approx(1.0)


def test_two_categories_with_small_counts_get_fishers_test():
    """A 2 x 2 table with an expected count under 5 is answered exactly."""
    found = twosample.independence(np.array([98, 2]), np.array([95, 5]))
    assert found.test == "fisher"
    assert found.p_value == pytest.approx(stats.fisher_exact([[98, 2], [95, 5]]).pvalue)


def test_rare_categories_are_pooled_first():
    """Three rare categories become one, so that chi-squared has cells of at least 5."""
    columns = list(zip([500, 400, 3, 2, 4], [480, 420, 4, 3, 2]))
    assert twosample.pooled(columns) == [(9, 9), (400, 420), (500, 480)]


def test_the_stability_bound_is_what_chance_gives():
    """Without drift the index passes its bound in about 1 of 100 windows, at any n."""
    dice = np.random.default_rng(3)
    for n in (200, 1000):
        then = dice.multinomial(5000, [0.1] * 10, size=2000)
        now = dice.multinomial(n, [0.1] * 10, size=2000)
        over = sum(s.psi > s.bound for s in map(twosample.stability, then, now, [0.01] * 2000))
        assert 8 <= over <= 40


def test_a_constant_reference_has_two_bins():
    """Values above a constant reference fall into a bin of their own."""
    edges = twosample.deciles(np.zeros(50))
    then = twosample.between(edges, np.zeros(50))
    now = twosample.between(edges, np.array([0.0, 0.0, 1.0]))
    assert (then.tolist(), now.tolist()) == ([50, 0], [2, 1])
