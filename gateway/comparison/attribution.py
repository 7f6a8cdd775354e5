"""Two explanations of one request: do both versions give the same features the weight? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TOP = 4
"""As many features as reasons are given at most."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """`top`: share of the strongest features that both have; `signs`: of those, the share that
    push the same way; `order`: Spearman's rank correlation of the strengths, -1 to 1."""

    top: float
    signs: float
    order: float


def compare_attributions(
    one: Mapping[str, float], other: Mapping[str, float], top: int = TOP
) -> Likeness | None:
    """By feature; None where the two have no feature in common."""
    names = sorted(one.keys() & other.keys())
    if not names:
        return None
    mine, theirs = _strongest(one, top), _strongest(other, top)
    shared = mine & theirs
    agreeing = sum([one[name] * other[name] >= 0 for name in shared])
    ranks, others = _ranks([abs(one[n]) for n in names]), _ranks([abs(other[n]) for n in names])
    deep = min(top, max(len(one), len(other)))
    return Likeness(
        len(shared) / deep, agreeing / len(shared) if shared else 0.0, _correlation(ranks, others)
    )


def _strongest(values: Mapping[str, float], top: int) -> set[str]:
    order = sorted([(-abs(value), name) for name, value in values.items()])
    return {name for _, name in order[:top]}


def _ranks(values: list[float]) -> list[float]:
    """From 0 on; equal values share the middle of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    if len(set(values)) == len(values):
        for rank, place in enumerate(order):
            ranks[place] = rank
        return ranks
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end - 1) / 2
        start = end
    return ranks


def _correlation(one: list[float], other: list[float]) -> float:
    """Pearson's, of ranks; 1 where neither varies, 0 where one does not."""
    middle = (len(one) - 1) / 2  # of ranks, whatever is level: all below is exact in floats
    mine, theirs = [rank - middle for rank in one], [rank - middle for rank in other]
    both = sum([a * b for a, b in zip(mine, theirs)])
    spread = sum([a * a for a in mine]) * sum([b * b for b in theirs])
    if spread <= 0:
        return 1.0 if one == other else 0.0
    return float(both / spread**0.5)
