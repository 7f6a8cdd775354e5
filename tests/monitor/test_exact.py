"""Exact chances equal scipy's, whatever the table or the sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as drawn
from scipy import stats

from gateway.monitor.exact import fisher, kolmogorov_tail

CELL = drawn.integers(0, 60)


@given(CELL, CELL, CELL, CELL)
def test_fisher_is_scipys(a, b, c, d):
    """Of any small table, empty rows and columns included."""
    expected = stats.fisher_exact([[a, b], [c, d]]).pvalue
    assert fisher(a, a + b, c + d, a + c) == pytest.approx(expected, rel=1e-9)


@given(drawn.integers(0, 40), drawn.integers(100, 900), drawn.integers(0, 99))
def test_fisher_of_a_rare_thing_in_many_rows(seen, n, before):
    """As a window and a reference are: chances below all that a double can be are zero."""
    expected = stats.fisher_exact([[seen, n], [before, 20_000]]).pvalue
    found = fisher(seen, seen + n, before + 20_000, seen + before)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [2, 5, 50, 99, 139, 140, 141, 400])
def test_the_tail_is_scipys(size):
    """On both sides of the sizes and levels up to which it is calculated here."""
    for statistic in np.linspace(0.001, 1, 83).tolist():
        expected = float(stats.kstwo.sf(statistic, size))
        assert kolmogorov_tail(statistic, size) == pytest.approx(expected, rel=1e-8, abs=1e-13)
