"""Two numbers, and two decisions made of scores. Pure.

A decision agrees when its outcome does: the score behind it may tremble (*jitter*, counted apart)
without anybody being decided differently. Where a flip is no more than that, because both scores
lie next to their thresholds, `near_tie` says how near is near.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

from gateway.card import Card
from gateway.comparison.outcome import SAME, Row


def same(one: float, other: float, atol: float, rtol: float) -> bool:
    """|a - b| <= atol + rtol * max(|a|, |b|); NaN equals NaN, an infinity only itself."""
    if one == other:
        return True
    if not (isfinite(one) and isfinite(other)):
        return isnan(one) and isnan(other)
    return abs(one - other) <= atol + rtol * max(abs(one), abs(other))


def distance(one: float, other: float) -> float:
    """|a - b| / (|a| + |b|), from 0 to 1; what cannot be subtracted is 1 apart."""
    if one == other or (isnan(one) and isnan(other)):
        return 0.0
    if not (isfinite(one) and isfinite(other)):
        return 1.0
    return min(1.0, abs(one - other) / (abs(one) + abs(other)))


def compare_numbers(one: float, other: float, settings: Mapping[str, Any]) -> Row:
    if same(one, other, settings["atol"], settings["rtol"]):
        return SAME
    return Row(False, distance(one, other), "number")


def compare_decisions(
    one: Mapping[str, Any], other: Mapping[str, Any], cards: tuple[Card, Card],
    settings: Mapping[str, Any],
) -> Row:  # fmt: skip
    """`one` and `other`: score and outcome, as leaves have them, each by its version's card."""
    score, theirs = one["score"], other["score"]
    if one["outcome"] is None or other["outcome"] is None:
        return compare_numbers(score, theirs, settings)
    moved = not same(score, theirs, settings["atol"], settings["rtol"])
    if one["outcome"] == other["outcome"]:
        return Row(True, _apart(score, theirs, cards), "jitter") if moved else SAME
    severity = _apart(score, theirs, cards)
    direction = f"{one['outcome']}>{other['outcome']}"
    near = settings["near_tie"]
    if near is not None and _near(score, cards[0], near) and _near(theirs, cards[1], near):
        return Row(True, severity, "near_tie")
    return Row(False, severity, "flip", direction)


def _apart(one: float, other: float, cards: tuple[Card, Card]) -> float:
    """Of probabilities the difference, of quantities the relative one."""
    if all(card.outputs.score.kind == "probability" for card in cards):
        return min(1.0, abs(one - other))
    return distance(one, other)


def _near(score: float, card: Card, margin: float) -> bool:
    words = card.outputs.outcome
    return words is not None and abs(score - words.threshold) <= margin
