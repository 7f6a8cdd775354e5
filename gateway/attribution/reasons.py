"""Principal reasons for an adverse outcome (Regulation B, 12 CFR 1002.9(b)(2)).

Reasons are given for the card's adverse outcome only, and only from features that pushed towards
it. More than four are not likely to help (comment 1), none may be left out because its relation
is not clear (comment 4), and there is no "other": a feature whose card has no reviewed reason is
told by its `meaning`, with an empty code, so that a reviewer sees what is still to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card

REASONS_AT_MOST = 4


@dataclass(frozen=True)
class Reason:
    code: str
    text: str
    feature: str
    attribution: float


def reasons(
    card: Card,
    features: Sequence[str],
    attributions_row: NDArray[np.float64],
    outcome: str,
    at_most: int,
) -> tuple[Reason, ...]:
    """The strongest pushes towards the adverse side, strongest first, ties in the given order.

    `attributions_row` is [features], of `Attributions.values`. Empty for another outcome than the
    adverse one. ValueError if `at_most` is not within 0 to 4.
    """
    if not 0 <= at_most <= REASONS_AT_MOST:
        raise ValueError(f"reasons: at most {REASONS_AT_MOST}, asked for {at_most}")
    words = card.outputs.outcome
    if words is None or outcome != words.adverse:
        return ()
    sign = 1.0 if words.adverse == words.at_or_above else -1.0
    pushes = sign * np.asarray(attributions_row, np.float64)
    strongest = [i for i in np.argsort(-pushes, kind="stable") if pushes[i] > 0][:at_most]
    return tuple(_reason(card, features[i], float(attributions_row[i])) for i in strongest)


def _reason(card: Card, name: str, attribution: float) -> Reason:
    feature = card.feature(name)
    if feature.reason is None:
        return Reason("", feature.meaning, name, attribution)
    return Reason(feature.reason.code, feature.reason.text, name, attribution)
