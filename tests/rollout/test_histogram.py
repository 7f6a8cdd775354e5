"""Latency histograms: quantiles near numpy's, whatever the order of merging."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rollout import histogram


def test_quantiles_are_within_a_bucket():
    """p50 to p99 differ from the sample's own by less than the width of a bucket."""
    drawn = np.random.default_rng(5).lognormal(8, 0.6, 20_000)
    counts = histogram.of(drawn)
    for share in (0.5, 0.9, 0.95, 0.99):
        expected = math.log(np.quantile(drawn, share))
        assert histogram.log_quantile(counts, share) == pytest.approx(expected, abs=0.04)
    assert histogram.log_mean(counts) == pytest.approx(math.log(drawn.mean()), abs=0.04)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e12), min_size=1), st.lists(st.floats(0, 1e12)))
def test_merging_is_counting_together(one, other):
    """Two histograms merged are the histogram of both; no bucket is out of bounds."""
    merged = histogram.merged(histogram.of(one), histogram.of(other))
    assert merged == histogram.of(one + other)
    assert all(0 <= bucket < histogram.BUCKETS and count > 0 for bucket, count in merged)


def test_bounds_of_a_bucket():
    """A bucket has its upper end and not its lower one."""
    for bucket in (1, 7, 100, 524):
        edge = histogram.GROWTH**bucket
        assert (bucket, bucket + 1) == (
            histogram.bucket_of(edge),
            histogram.bucket_of(edge * 1.001),
        )
    assert (0, 525) == (histogram.bucket_of(0), histogram.bucket_of(1e30))


def test_nothing_has_no_quantile():
    """An empty histogram refuses."""
    with pytest.raises(ValueError, match="empty"):
        histogram.log_quantile((), 0.5)
    with pytest.raises(ValueError, match="empty"):
        histogram.log_mean(())
