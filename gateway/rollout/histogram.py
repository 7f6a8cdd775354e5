"""Latencies as counts in buckets that grow by 4 %: bounded, mergeable, the same on every machine.

Bucket i has the latencies in (1.04^(i-1), 1.04^i] microseconds; 0 has what is at most one, the last
one what is longer than a quarter of an hour. Only buckets in use are kept, in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

GROWTH = 1.04
BUCKETS = 526
_LOG = math.log(GROWTH)

Histogram = tuple[tuple[int, int], ...]
"""(bucket, count) pairs, buckets ascending, counts above zero."""


def bucket_of(microseconds: float) -> int:
    if microseconds <= 1:
        return 0
    return min(BUCKETS - 1, math.ceil(math.log(microseconds) / _LOG - 1e-9))


def of_counts(counts: Mapping[int, int]) -> Histogram:
    return tuple(sorted((bucket, count) for bucket, count in counts.items() if count))


def of(microseconds: Iterable[float]) -> Histogram:
    counts: dict[int, int] = {}
    for value in microseconds:
        bucket = bucket_of(value)
        counts[bucket] = counts.get(bucket, 0) + 1
    return of_counts(counts)


def merged(one: Histogram, other: Histogram) -> Histogram:
    if not one or not other:
        return one or other
    counts = dict(one)
    for bucket, count in other:
        counts[bucket] = counts.get(bucket, 0) + count
    return of_counts(counts)


def size(histogram: Histogram) -> int:
    return sum(count for _, count in histogram)


def log_quantile(histogram: Histogram, share: float) -> float:
    """Natural logarithm of the quantile in microseconds, spread evenly over its bucket.

    ValueError when the histogram is empty.
    """
    wanted = share * size(histogram)
    below = 0
    for bucket, count in histogram:
        if below + count >= wanted:
            return (bucket - 1 + (wanted - below) / count) * _LOG
        below += count
    raise ValueError("an empty histogram has no quantile")


def log_mean(histogram: Histogram) -> float:
    """Natural logarithm of the mean in microseconds, each latency at its bucket's upper end."""
    total = size(histogram)
    if not total:
        raise ValueError("an empty histogram has no mean")
    return math.log(sum(count * GROWTH**bucket for bucket, count in histogram) / total)
