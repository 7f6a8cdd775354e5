"""Who is compared with whom: mirrors, of the same width, eligible since the same step."""

import pytest

from gateway.rollout.slices import HALF, control_slice, side
from gateway.split import Rollout

PLANS = [
    (0, 10_000), (10_000, 10_000), (250_000, 0), (500_000, 0), (500_000, 10_000), (750_000, 10_000),
    (990_000, 10_000), (1_000_000, 0), (400_000, 200_000), (600_000, 400_000),
]  # fmt: skip


@pytest.mark.parametrize(("weight", "holdout"), PLANS)
def test_both_sides_are_mirrors(weight, holdout):
    """A bucket counts for the canary exactly if its mirror counts for the control."""
    for bucket in range(0, HALF, 997):
        pair = side(bucket, weight, holdout), side(bucket + HALF, weight, holdout)
        assert pair in ((None, None), ("canary", "control"))


@pytest.mark.parametrize(("weight", "holdout"), PLANS)
def test_the_table_sends_them_where_they_are_compared(weight, holdout):
    """The table has the canary's buckets on the new version and the control's on stable."""
    rollout = Rollout("r", 1, "v1", "v2", weight, holdout, 0, 0)
    for bucket in range(0, 1_000_000, 997):
        which = side(bucket, weight, holdout)
        at = next((i for i in rollout.intervals() if i.low <= bucket < i.high), None)
        if which == "canary":
            assert at is not None
            assert at.arm == "canary"
        if which == "control":
            assert at is not None
            assert at.arm == ("holdout" if weight + holdout == 1_000_000 else "control")


@pytest.mark.parametrize("holdout", [0, 10_000, 50_000])
def test_mirrors_become_eligible_together(holdout):
    """Over any ramp, a bucket is first in evidence at the step at which its mirror is."""
    ramp = [10_000, 50_000, 250_000, 500_000, 750_000, 1_000_000 - holdout]
    for bucket in range(0, HALF, 4_999):
        first = [
            next((n for n, w in enumerate(ramp) if side(b, w, holdout)), None)
            for b in (bucket, bucket + HALF)
        ]
        assert first[0] == first[1]


def test_the_holdout_is_fresh_at_full_weight():
    """No unit of the holdout or of its mirror was in evidence before the last step."""
    low, high = control_slice(990_000, 10_000)
    assert (990_000, 1_000_000) == (low, high)
    for weight in (10_000, 500_000, 750_000):
        assert side(low, weight, 10_000) is None
        assert side(low - HALF, weight, 10_000) is None
