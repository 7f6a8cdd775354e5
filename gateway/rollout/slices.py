"""Which exchanges of a rollout are compared with which: pure.

The statistics hold because a unit's bucket is a hash: under one attempt's salt, bucket b and bucket
b + 500,000 are drawn alike. So a canary unit is evidence only while its mirror, half the buckets
further, is on the stable version as control or, at full weight, as holdout. Both mirrors became
eligible at the same step, whatever the weights were, so that "first exchange of a unit in the arm"
means the same in both; and at full weight the holdout and its mirror come to it with no unit used.
(Comparing the first e buckets of the canary would be wrong above 50 %: they have been in evidence
since the first step, so that only rare users are new there, while the control's are all new.)
"""

from __future__ import annotations

from typing import Literal

from gateway.declaration import MILLION

HALF = MILLION // 2
Side = Literal["canary", "control"]


def control_slice(weight_ppm: int, holdout_ppm: int) -> tuple[int, int]:
    """Buckets [low, high) that the canary is compared with; empty when nothing can be."""
    below = MILLION - holdout_ppm
    if weight_ppm >= below:
        return max(below, HALF), MILLION
    low = max(HALF, weight_ppm)
    return low, max(low, min(HALF + weight_ppm, below))


def side(bucket_ppm: int, weight_ppm: int, holdout_ppm: int) -> Side | None:
    """The side of the comparison that an exchange of this bucket counts on; None: on neither."""
    low, high = control_slice(weight_ppm, holdout_ppm)
    if low <= bucket_ppm < high:
        return "control"
    if low <= bucket_ppm + HALF < high:
        return "canary"
    return None
