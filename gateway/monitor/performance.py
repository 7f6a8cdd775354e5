"""How good the scores were, once it is known what became of the decisions. Pure.

With labels: accuracy (Wilson), the area under the ROC curve (DeLong, Biometrics 44, 1988, 837-845,
on the logit scale), Brier score, calibration by bin (Wilson) and as a whole (Spiegelhalter,
Statistics in Medicine 5, 1986, 421-433). Without labels: what the same figures would be if the
scores were calibrated (CBPE). That estimate is blind to a changed meaning of the inputs, so its
error on the labelled decisions stands beside it.

`positive` is what the score is the probability of: the side at or above the card's threshold;
`upside`, that a decision was that side: as it was recorded, by the threshold in force with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from gateway.card import Card
from gateway.monitor.proportion import (
    CONFIDENCE,
    Interval,
    mcnemar,
    newcombe_paired,
    normal_quantile,
    wilson,
)

BINS = 10
AUC_AT_LEAST = 5
"""Labels of either class without which an area under the curve says nothing."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Bin:
    """Scores in [low, high): how many, their mean, the share that was positive."""

    low: float
    high: float
    n: int
    predicted: float
    observed: float
    interval: Interval


@dataclass(frozen=True)
class Figures:
    """Accuracy, area under the curve and Brier score; the area is None with too few of a class."""

    accuracy: float
    auc: float | None
    brier: float


@dataclass(frozen=True)
class Realised:
    """Of `n` labelled decisions. `calibration_p`: small where scores are no probabilities."""

    n: int
    positives: int
    figures: Figures
    accuracy_interval: Interval
    auc_interval: Interval | None
    brier_interval: Interval
    calibration: tuple[Bin, ...]
    calibration_error: float
    calibration_p: float | None


@dataclass(frozen=True)
class Errors:
    """Of `n` labelled decisions whose score is a quantity: mean error, its interval, and sizes."""

    n: int
    bias: float
    bias_interval: Interval
    mean_absolute: float
    root_mean_square: float


@dataclass(frozen=True)
class CohortReport:
    """The decisions of one day. `estimate_error`: of the estimate on those that have a label.

    `unusable`: labels that the version's card cannot read. `errors` is for quantities, `realised`
    and the estimates for probabilities; None where nothing can be said.
    """

    version: str
    arm: str
    day: str
    decisions: int
    labelled: int
    coverage: float
    unusable: int = 0
    realised: Realised | None = None
    estimated: Figures | None = None
    estimate_error: Figures | None = None
    errors: Errors | None = None


@dataclass(frozen=True)
class PairedAccuracy:
    """A shadow's `version` and the one that answered, `against`, on the same `n` requests whose
    label is known: how many both had right, only the latter, only the shadow, neither; the
    `difference` of their accuracies, the shadow's less the other's."""

    version: str
    against: str
    n: int
    both: int
    only_against: int
    only_version: int
    neither: int
    accuracy: float
    accuracy_against: float
    difference: float
    interval: Interval
    p_value: float


def paired_accuracy(
    version: str, against: str, both: int, only_against: int, only_version: int, neither: int
) -> PairedAccuracy:
    """Of at least one pair; Newcombe's interval for pairs, McNemar's test (mid-p)."""
    n = both + only_against + only_version + neither
    return PairedAccuracy(
        version, against, n, both, only_against, only_version, neither,
        (both + only_version) / n, (both + only_against) / n, (only_version - only_against) / n,
        newcombe_paired(both, only_against, only_version, neither),
        mcnemar(only_against, only_version),
    )  # fmt: skip


def is_right(card: Card, outcome: str | None, label: Any) -> bool | None:
    """Whether a decision, as it was recorded, is what became of it; None: it cannot be said."""
    words, read = card.outputs.outcome, actual(card, label)
    if words is None or read is None or card.outputs.score.kind == "quantity":
        return None
    if outcome not in (words.at_or_above, words.below):
        return None
    return (outcome == words.at_or_above) == bool(read)


def actual(card: Card, value: Any) -> float | None:
    """A label as a number: 1 positive, 0 not, or the quantity; None where the card cannot read
    it."""
    if card.outputs.score.kind == "quantity":
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if plain else None
    words = card.outputs.outcome
    if isinstance(value, str) and words is not None:
        return {words.below: 0.0, words.at_or_above: 1.0}.get(value)
    return float(value) if value in (0, 1) and not isinstance(value, str) else None


def upside_of(card: Card, scores: Floats, outcomes: Sequence[str | None]) -> Flags:
    """Which decisions were the side at or above the threshold, by the words recorded with them;
    only where a card has no words, or other ones since, by the score."""
    words = card.outputs.outcome
    threshold = words.threshold if words is not None else 0.5
    found = scores >= threshold
    if words is not None:
        known = np.array([one in (words.at_or_above, words.below) for one in outcomes], dtype=bool)
        told = np.array([one == words.at_or_above for one in outcomes], dtype=bool)
        found = np.where(known, told, found)
    return np.asarray(found, dtype=np.bool_)


def realise(scores: Floats, positive: Flags, upside: Flags) -> Realised:
    """Figures of at least one labelled decision; scores are probabilities."""
    n, right = scores.size, int((upside == positive).sum())
    losses = (scores - positive) ** 2
    found, interval = area(scores, positive)
    bins = calibrated(scores, positive)
    spread = normal_quantile(CONFIDENCE) * float(losses.std(ddof=1)) / sqrt(n) if n > 1 else 1.0
    brier = float(losses.mean())
    return Realised(
        n=n,
        positives=int(positive.sum()),
        figures=Figures(right / n, found, brier),
        accuracy_interval=wilson(right, n),
        auc_interval=interval,
        brier_interval=Interval(max(0.0, brier - spread), min(1.0, brier + spread)),
        calibration=bins,
        calibration_error=sum(one.n * abs(one.predicted - one.observed) for one in bins) / n,
        calibration_p=spiegelhalter(scores, positive),
    )


def area(scores: Floats, positive: Flags) -> tuple[float | None, Interval | None]:
    """Chance that a positive one scores above another (ties count half), with DeLong's interval.

    No interval where the classes do not overlap: its variance would be zero, which it is not.
    """
    yes, no = scores[positive], scores[~positive]
    if min(yes.size, no.size) < AUC_AT_LEAST:
        return None, None
    ranks = stats.rankdata(scores)
    of_yes = (ranks[positive] - stats.rankdata(yes)) / no.size
    of_no = 1 - (ranks[~positive] - stats.rankdata(no)) / yes.size
    found = float(of_yes.mean())
    if not 0 < found < 1:
        return found, None
    error = sqrt(of_yes.var(ddof=1) / yes.size + of_no.var(ddof=1) / no.size)
    half = normal_quantile(CONFIDENCE) * error / (found * (1 - found))
    middle = log(found / (1 - found))
    low, high = (1 / (1 + exp(-(middle + side * half))) for side in (-1, 1))
    return found, Interval(low, high)


def calibrated(scores: Floats, positive: Flags) -> tuple[Bin, ...]:
    """The bins of equal width that hold anything."""
    places = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    bins = []
    for place in range(BINS):
        inside = places == place
        if n := int(inside.sum()):
            hits = int(positive[inside].sum())
            bins.append(Bin(place / BINS, (place + 1) / BINS, n, float(scores[inside].mean()),
                            hits / n, wilson(hits, n)))  # fmt: skip
    return tuple(bins)


def spiegelhalter(scores: Floats, positive: Flags) -> float | None:
    """Two-sided p-value of calibrated scores; None where all are 0, 1/2 or 1."""
    weights = 1 - 2 * scores
    variance = float((weights**2 * scores * (1 - scores)).sum())
    if variance <= 0:
        return None
    z = float(((positive - scores) * weights).sum()) / sqrt(variance)
    return float(2 * special.ndtr(-abs(z)))


def estimate(scores: Floats, upside: Flags) -> Figures:
    """The figures that calibrated scores would have, without labels: each score counts as that
    share of a positive decision."""
    chance = np.clip(scores, 0.0, 1.0)
    right = np.where(upside, chance, 1 - chance)
    return Figures(
        accuracy=float(right.mean()),
        auc=_expected_area(scores, chance),
        brier=float((chance * (1 - chance)).mean()),
    )


def _expected_area(scores: Floats, chance: Floats) -> float | None:
    """Mann-Whitney's statistic with expected memberships; ties count half."""
    _, places = np.unique(scores, return_inverse=True)
    yes = np.bincount(places, weights=chance)
    no = np.bincount(places, weights=1 - chance)
    total = float(yes.sum() * no.sum())
    if min(float(yes.sum()), float(no.sum())) < AUC_AT_LEAST:
        return None
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum()) / total


def errors(scores: Floats, values: Floats) -> Errors:
    """Of at least one labelled decision."""
    gaps = scores - values
    n, bias = gaps.size, float(gaps.mean())
    spread = normal_quantile(CONFIDENCE) * float(gaps.std(ddof=1)) / sqrt(n) if n > 1 else np.inf
    return Errors(
        n=n,
        bias=bias,
        bias_interval=Interval(bias - spread, bias + spread),
        mean_absolute=float(np.abs(gaps).mean()),
        root_mean_square=sqrt(float((gaps**2).mean())),
    )


def read_labels(card: Card, labels: Sequence[Any]) -> tuple[Floats, int]:
    """Labels as numbers, NaN where there is none, and how many the card cannot read."""
    read = [None if label is None else actual(card, label) for label in labels]
    strange = sum(one is None and label is not None for one, label in zip(read, labels))
    return np.array([np.nan if one is None else one for one in read], dtype=np.float64), strange


def gap(estimated: Figures, realised: Figures) -> Figures:
    """How far an estimate without labels was above what the labels then showed."""
    area = None
    if estimated.auc is not None and realised.auc is not None:
        area = estimated.auc - realised.auc
    return Figures(estimated.accuracy - realised.accuracy, area, estimated.brier - realised.brier)
