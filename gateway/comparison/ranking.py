"""Two rankings: how much of the top they share, and how alike their orders are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.comparison.outcome import SAME, Row

PERSISTENCE = 0.9
"""Of rank-biased overlap: the first ten ranks carry 86 % of the weight."""


def ranked(value: Any) -> list[Any] | None:
    """Identifiers from the first rank on; of scores (one is a float) their places, highest first.

    None: it is no ranking, or an identifier stands twice.
    """
    if not isinstance(value, list):
        return None
    if any(isinstance(item, float) for item in value):
        if not all(isinstance(item, (int, float)) for item in value):
            return None
        return sorted(range(len(value)), key=lambda place: (-value[place], place))
    if not all(isinstance(item, (str, int)) for item in value) or len(set(value)) < len(value):
        return None
    return value


def overlap(one: Sequence[Any], other: Sequence[Any], top: int) -> float:
    """Share of the first `top` that both have; of shorter rankings of what there is."""
    deep = min(top, max(len(one), len(other)))
    return len(set(one[:top]) & set(other[:top])) / deep if deep else 1.0


def rank_biased_overlap(
    one: Sequence[Any], other: Sequence[Any], persistence: float = PERSISTENCE
) -> float:
    """RBO extrapolated from the depth at which the shorter ends: 0 (nothing shared) to 1.

    Webber, Moffat, Zobel, ACM TOIS 28 (2010), equation 30 (rankings of even depth).
    """
    depth = min(len(one), len(other))
    if not depth:
        return float(len(one) == len(other))
    seen_one: set[Any] = set()
    seen_other: set[Any] = set()
    shared, total, weight = 0, 0.0, 1.0
    for place in range(depth):
        a, b = one[place], other[place]
        shared += 1 if a == b else (a in seen_other) + (b in seen_one)
        seen_one.add(a)
        seen_other.add(b)
        weight *= persistence
        total += weight * shared / (place + 1)
    return (1 - persistence) / persistence * total + weight * shared / depth


def compare_rankings(one: Any, other: Any, settings: Mapping[str, Any]) -> Row:
    """Agree if they share enough of the top; severe as their orders differ."""
    mine, theirs = ranked(one), ranked(other)
    if mine is None or theirs is None:
        return Row(False, 1.0, "type")
    shared = overlap(mine, theirs, settings["top"])
    if mine == theirs:
        return SAME
    severity = 1.0 - rank_biased_overlap(mine, theirs)
    if shared * 1_000_000 >= settings["overlap"]:
        return Row(True, severity, "jitter")
    return Row(False, severity, "ranking")
