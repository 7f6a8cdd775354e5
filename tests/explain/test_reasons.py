from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import card_of, number

from gateway.attribution.reasons import reasons
from gateway.explain.attribution import Attributions
from gateway.explain.worker import Asked, describe

NAMES = ("a", "b", "c", "d", "e", "f")


def card(adverse="deny"):
    texts = {"code": "HIGH-A", "text": "The value of a is too high."}
    features = [number("a", reason=texts), *(number(name) for name in NAMES[1:])]
    words = {"below": "approve", "at_or_above": "deny", "adverse": adverse, "threshold": 0.5}
    return card_of(b"", features, outcome=words)


@given(
    pushes=st.lists(
        st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, np.nan]), min_size=6, max_size=6
    ),
    at_most=st.integers(0, 4),
    adverse=st.sampled_from(["approve", "deny"]),
)
def test_reasons_are_the_strongest_pushes_to_the_adverse_side(pushes, at_most, adverse):
    """Only the right sign, the strongest first, ties in card order, never more than asked for."""
    found = reasons(card(adverse), NAMES, np.array(pushes), adverse, at_most)
    sign = 1 if adverse == "deny" else -1
    ranked = sorted((-sign * push, i) for i, push in enumerate(pushes) if sign * push > 0)
    assert [reason.feature for reason in found] == [NAMES[i] for _, i in ranked[:at_most]]


def test_only_the_adverse_outcome_has_reasons():
    """An approval is not explained by reasons, nor is a card without outcome words."""
    pushes = np.ones(6)
    assert reasons(card(), NAMES, pushes, "approve", 4) == ()
    assert reasons(card_of(b"", [number("a")]), ("a",), np.ones(1), "deny", 4) == ()


def test_the_text_is_the_cards_or_else_the_meaning():
    """A feature without a reviewed reason is told by its meaning, with an empty code."""
    first, second = reasons(card(), NAMES, np.array([2.0, 1, 0, 0, 0, 0]), "deny", 4)
    assert (first.code, first.text) == ("HIGH-A", "The value of a is too high.")
    assert (second.code, second.text, second.attribution) == ("", "meaning of b", 1.0)


def test_more_than_four_are_not_asked_for():
    """Comment 1: more than four reasons are not likely to help."""
    with pytest.raises(ValueError, match="at most 4, asked for 5"):
        reasons(card(), NAMES, np.ones(6), "deny", 5)


def test_of_a_value_that_was_not_sent_the_cards_sentence_is_not_told():
    """`too high` of a value that nobody knows would be untrue: the code stays, the text says that
    it is missing; in a batch each row by its own values."""
    values = np.array([[2.0, 1, 0, 0, 0, 0]] * 4)
    found = Attributions("linear", "margin", NAMES, 0.0, values, values.sum(axis=1), np.zeros(4),
                         None, "", 1, None, 0)  # fmt: skip
    version = SimpleNamespace(card=card())
    model = SimpleNamespace(explain={"reasons": 4})
    rows = dict.fromkeys(NAMES, [0.0] * 3) | {"a": [None, 3.0, float("nan")]}
    told = describe(found, 1, Asked(model, version, rows, [0.9] * 3, ["deny"] * 3))["rows"]
    texts = [[reason["text"] for reason in row["reasons"]] for row in told]
    missing, card_text = "meaning of a (a) is missing.", "The value of a is too high."
    assert texts == [[text, "meaning of b"] for text in (missing, card_text, missing)]
    assert [[reason["code"] for reason in row["reasons"]] for row in told] == [["HIGH-A", ""]] * 3
