import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import card_of, category, number

from gateway.explain.background import ROWS_AT_MOST, choose, digest


def card(adverse=None):
    words = {"below": "approve", "at_or_above": "deny", "adverse": adverse, "threshold": 0.5}
    features = [number("a"), category("b", "x", "y"), number("c", used=False)]
    return card_of(b"", features, outcome=words if adverse else None)


@given(
    scores=st.lists(st.sampled_from([0.1, 0.3, 0.49, 0.5, 0.6, 0.9]), min_size=1, max_size=120),
    adverse=st.sampled_from(["approve", "deny"]),
)
def test_the_background_lies_just_beyond_the_cut_off(scores, adverse):
    """Every chosen row has the good outcome and none left out is nearer; at most 50."""
    words = card(adverse).outputs.outcome
    passing = [i for i, score in enumerate(scores) if words.of(score) != adverse]
    if not passing:
        with pytest.raises(ValueError, match=f"all {len(scores)} candidates are {adverse}"):
            choose(card(adverse), np.array(scores))
        return
    expected = sorted(passing, key=lambda i: (abs(scores[i] - 0.5), i))[:ROWS_AT_MOST]
    assert choose(card(adverse), np.array(scores)).tolist() == expected


def test_without_outcome_words_the_first_rows_are_taken():
    """A card without a cut-off has its first 50 candidates for a background."""
    assert choose(card(), np.linspace(0, 1, 70)).tolist() == list(range(50))


def test_the_digest_names_used_values_and_nothing_else():
    """It changes with a used value, a missing one or the order, not with an unused feature."""
    rows = {"a": np.array([1.0, 2]), "b": np.array(["x", "y"], object), "c": np.array([0.0, 0])}
    named = digest(card(), rows)
    assert named == digest(card(), rows | {"c": np.array([5.0, 6])})
    for changed in (
        {"a": np.array([1.0, np.nan])},
        {"b": np.array(["x", None], object)},
        {"b": np.array(["x", ""], object)},
        {"a": np.array([2.0, 1]), "b": np.array(["y", "x"], object)},
    ):
        assert named != digest(card(), rows | changed)
