"""What is said of a decision made again: equal, within, different and where."""

import numpy as np
import pytest
from oracle import card_of, one_tensor

from gateway.explain.reproduction import compare, compare_explanations

DENY = {"below": "approve", "at_or_above": "deny", "adverse": "deny", "threshold": 0.5}
CARD = card_of(b"", one_tensor(2), outcome=DENY)


@pytest.mark.parametrize(
    ("again", "outcome", "result"),
    [
        ([0.25, 0.75], "deny", "equal"),
        ([0.25, 0.75 + 1e-7], "deny", "within"),
        ([0.25, 0.75 + 1e-5], "deny", "different"),
        ([0.25, np.nan], "deny", "different"),
        ([0.25, 0.75], "approve", "different"),
    ],
)
def test_an_answer_is_held_against_its_record(again, outcome, result):
    """Bits, then 1e-6 with the same outcome; an outcome that the score contradicts differs."""
    told = compare(CARD, np.array([0.25, 0.75]), ["approve", outcome], np.array(again))
    assert told["result"] == result
    assert [row["row"] for row in told["where"]] == ([] if result == "equal" else [1])


def test_an_outcome_that_flips_within_rounding_is_different():
    """A score that crosses the threshold is another decision, however small the step."""
    told = compare(CARD, np.array([0.5]), ["deny"], np.array([0.5 - 1e-9]))
    assert told["result"] == "different"
    assert told["where"][0]["outcome_again"] == "approve"


def test_other_numbers_of_rows_differ():
    """Two scores where three were recorded are no reproduction."""
    told = compare(CARD, np.array([0.1, 0.2, 0.3]), ["approve"] * 3, np.array([0.1, 0.2]))
    assert (told["result"], told["rows"], told["rows_again"]) == ("different", 3, 2)


RECORDED = {"method": "trees", "base": 0.5, "rows": [{"values": [0.25, -1.0], "additive": True}]}


@pytest.mark.parametrize(
    ("changed", "result", "where"),
    [
        ({}, "equal", []),
        ({"budget": 7}, "equal", []),
        ({"base": 0.5 + 1e-9}, "within", ["base"]),
        ({"rows": [{"values": [0.25, -1.1], "additive": True}]}, "different",
         ["rows[0].values[1]"]),
        ({"rows": [{"values": [0.25], "additive": True}]}, "different", ["rows[0].values"]),
        ({"rows": [{"values": [0.25, -1.0], "additive": False}]}, "different",
         ["rows[0].additive"]),
        ({"method": "linear"}, "different", ["method"]),
    ],
)  # fmt: skip
def test_an_explanation_is_held_against_its_record(changed, result, where):
    """Each word and number of the record; what only a later format says is no difference."""
    told = compare_explanations(RECORDED, RECORDED | changed)
    assert (told["result"], told["where"]) == (result, where)
