"""Performance by labels: equal to scikit-learn and scipy, and intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from gateway.monitor import performance

scored = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=20, max_size=300
)


def realised(scores, positive):
    return performance.realise(scores, positive, scores >= 0.5)


def sample(seed: int, n: int, slope: float = 1.0):
    """Calibrated scores where slope is 1, and what became of them."""
    dice = np.random.default_rng(seed)
    logits = dice.normal(size=n)
    return 1 / (1 + np.exp(-logits)), dice.random(n) < 1 / (1 + np.exp(-slope * logits))


@given(scored)
def test_figures_are_those_of_scikit_learn(pairs):
    """Accuracy, area with ties, Brier score, and bins that lose no decision."""
    scores = np.array([score for score, _ in pairs])
    positive = np.array([label for _, label in pairs])
    found = realised(scores, positive)
    assert found.figures.accuracy == pytest.approx(metrics.accuracy_score(positive, scores >= 0.5))
    assert found.figures.brier == pytest.approx(np.mean((scores - positive) ** 2))
    fewest = min(int(positive.sum()), int((~positive).sum()))
    if fewest < performance.AUC_AT_LEAST:
        assert found.figures.auc is None
    else:
        assert found.figures.auc == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert sum(one.n for one in found.calibration) == len(pairs)
    assert all(one.interval.low <= one.observed <= one.interval.high for one in found.calibration)


@given(scored)
def test_the_estimate_is_what_random_labels_average(pairs):
    """CBPE's area is the weighted one: each score once positive with its chance, once not."""
    scores = np.array([score for score, _ in pairs])
    found = performance.estimate(scores, scores >= 0.5)
    assert found.brier == pytest.approx(np.mean(scores * (1 - scores)))
    if found.auc is not None:
        doubled = np.concatenate([scores, scores])
        label = np.repeat([1, 0], scores.size)
        weights = np.concatenate([scores, 1 - scores])
        expected = metrics.roc_auc_score(label, doubled, sample_weight=weights)
        assert found.auc == pytest.approx(expected)


def test_intervals_cover_and_calibrated_scores_pass():
    """Nominal 95 %: of 400 samples the area's and the Brier score's intervals miss 2 to 9 %, and
    Spiegelhalter's test rejects as often; seeded, so the counts are the same each time."""
    scores, positive = sample(0, 400_000)
    truth = realised(scores, positive).figures
    missed = {"auc": 0, "brier": 0, "calibration": 0}
    for seed in range(1, 401):
        found = realised(*sample(seed, 400))
        low, high = found.auc_interval
        missed["auc"] += not low <= truth.auc <= high
        low, high = found.brier_interval
        missed["brier"] += not low <= truth.brier <= high
        missed["calibration"] += found.calibration_p < 0.05
    assert all(8 <= count <= 36 for count in missed.values()), missed


def test_overconfident_scores_are_told():
    """Half the slope at 1,000 labels: calibration is refused; the estimate was too good by as
    much as labels show."""
    scores, positive = sample(1, 1_000, slope=0.3)
    found = realised(scores, positive)
    missed = performance.gap(performance.estimate(scores, scores >= 0.5), found.figures)
    assert found.calibration_p < 1e-3
    assert missed.accuracy > 0.03
    assert missed.brier < 0


def test_classes_that_do_not_overlap_have_no_interval():
    """DeLong's variance would be zero: rather no interval than a wrong one."""
    scores = np.linspace(0, 1, 20)
    found = realised(scores, scores > 0.5)
    assert found.figures.auc == 1.0
    assert found.auc_interval is None


def test_one_label_is_enough_to_say_little():
    """No figure fails; what cannot be said is not."""
    found = realised(np.array([0.2]), np.array([False]))
    assert found.figures == performance.Figures(1.0, None, pytest.approx(0.04))
    assert tuple(found.brier_interval) == (0.0, 1.0)
    wrong = performance.errors(np.array([2.0]), np.array([1.0]))
    assert (wrong.bias, wrong.mean_absolute, wrong.root_mean_square) == (1.0, 1.0, 1.0)
