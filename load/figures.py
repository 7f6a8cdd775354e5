"""Figures of a run: percentiles, medians, ratios and their spread. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in microseconds."""

    p50: float
    p99: float
    p999: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the extremes it is the median of."""

    median: float
    least: float
    most: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in ascending order."""
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[min(len(ordered), max(1, math.ceil(share * len(ordered)))) - 1]


def latency(seconds: Sequence[float]) -> Latency:
    """Of latencies in seconds, in any order."""
    ordered = sorted(seconds)
    p50, p99, p999 = (percentile(ordered, share) * 1e6 for share in (0.5, 0.99, 0.999))
    return Latency(p50, p99, p999)


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> Spread | None:
    """Ours over theirs, round by round: what two figures of one round share falls out of it."""
    rounds = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    return spread(rounds) if rounds else None
