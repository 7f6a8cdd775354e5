import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats.contingency import relative_risk

from gateway.monitor import proportion

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("own", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0000),
    ],
)
def test_newcombe_gives_the_published_intervals(own, other, low, high):
    """Newcombe 1998, table II, method 10, to the four digits printed there."""
    assert proportion.newcombe(*own, *other) == pytest.approx((low, high), abs=6e-5)


def test_newcombe_changes_sign_when_the_groups_change_places():
    """The interval of a - b is the mirrored interval of b - a."""
    low, high = proportion.newcombe(243, 339, 1852, 2041)
    assert proportion.newcombe(1852, 2041, 243, 339) == pytest.approx((-high, -low))


@given(counts)
def test_wilson_equals_scipy(pair):
    """Wilson's interval is scipy's for every count."""
    expected = binomtest(*pair).proportion_ci(0.95, method="wilson")
    assert proportion.wilson(*pair) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts, st.sampled_from([0.05, 0.01, 0.0001]))
def test_exact_bounds_equal_scipy(pair, alpha):
    """Each one-sided bound is half of scipy's exact two-sided interval at 2 alpha."""
    expected = binomtest(*pair).proportion_ci(1 - 2 * alpha, method="exact")
    bounds = proportion.at_least(*pair, alpha), proportion.at_most(*pair, alpha)
    assert bounds == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(1, 50), st.integers(51, 99), st.integers(1, 50), st.integers(51, 99))
def test_katz_equals_scipy(count, n, other_count, other_n):
    """Katz's interval is that of scipy's relative risk."""
    expected = relative_risk(count, n, other_count, other_n).confidence_interval(0.95)
    found = proportion.katz(count, n, other_count, other_n)
    assert found == pytest.approx((expected.low, expected.high))
