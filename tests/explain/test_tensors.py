from types import SimpleNamespace

import numpy as np
import pytest
from oracle import card_of, category, number, one_tensor

from gateway.explain.tensors import feeds


def entry(name, kind):
    return SimpleNamespace(name=name, type=f"tensor({kind})")


def test_each_tensor_gets_its_columns_in_the_sessions_type():
    """Features of one tensor stand in the order of their columns; a missing category is ""."""
    features = [number("late", tensor="X", column=1), number("early", tensor="X", column=0)]
    card = card_of(b"", [*features, category("town", "n", "s"), number("flag")])
    rows = {
        "late": np.array([1.0, np.nan]),
        "early": np.array([3.0, 4.0]),
        "town": np.array(["n", None], object),
        "flag": np.array([0.0, 1.0]),
    }
    fed = feeds(card, [entry("X", "float"), entry("town", "string"), entry("flag", "bool")], rows)
    np.testing.assert_array_equal(fed["X"], np.float32([[3, 1], [4, np.nan]]))
    assert fed["X"].dtype == np.float32
    assert fed["town"].tolist() == [["n"], [""]]
    assert fed["flag"].tolist() == [[False], [True]]
    assert feeds(card, [entry("flag", "int64")], rows)["flag"].dtype == np.int64


@pytest.mark.parametrize(
    ("features", "session_input", "message"),
    [
        ([number("a")], entry("b", "float"), "input b: no feature of the card"),
        ([number("a", tensor="X", column=1)], entry("X", "float"), "columns are not 0 to 0"),
        ([number("a")], entry("a", "complex64"), "is not supported"),
        ([number("a")], entry("a", "string"), "a number in a tensor of strings"),
        ([category("a", "x")], entry("a", "float"), "a category in a tensor of numbers"),
        ([number("a")], entry("a", "int64"), "a missing value in int64"),
        (one_tensor(1), entry("X", "float"), "feature f0: no values"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(features, session_input, message):
    """A card, a session and rows that do not fit are refused with what is wrong."""
    values = np.array(["x"], object) if features[0]["type"] == "category" else np.array([np.nan])
    with pytest.raises(ValueError, match=message):
        feeds(card_of(b"", features), [session_input], {"a": values})
