"""Answers of upstreams' explainers: what is about the request stays, other people's rows go."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.protocol.explainer import told

OTHERS = [[39, 7, 1, 1], [28, 4, 0, 2]]
ALIBI: dict[str, Any] = {
    "meta": {"name": "AnchorTabular", "type": ["blackbox"], "explanations": ["local"],
             "params": {"seed": 1, "train_data": OTHERS}, "version": "0.9.6"},
    "data": {"anchor": ["Age <= 28.00"], "precision": 0.96, "coverage": 0.1,
             "raw": {"feature": [0], "examples": [{"covered_true": OTHERS}], "instance": [1, 2]},
             "covered": OTHERS, "shap_values": [{"hidden": OTHERS}]},
}  # fmt: skip
KEPT = {"anchor": ["Age <= 28.00"], "precision": 0.96, "coverage": 0.1}
TEXT = orjson.dumps(ALIBI).decode()


@pytest.mark.parametrize(
    "answer",
    [
        ALIBI,
        {"explanations": ALIBI},
        {"explanations": [ALIBI]},
        {"outputs": [{"name": "explanation", "datatype": "BYTES", "shape": [1, 1],
                      "data": [TEXT]}]},
    ],
)  # fmt: skip
def test_rows_of_others_are_left_out(answer: Any) -> None:
    """Bare, under `explanations`, or as text in a v2 output: name and what is about the request."""
    said = told(orjson.dumps(answer))
    assert said["explanations"] == [{"name": "AnchorTabular", "version": "0.9.6", "data": KEPT}]
    assert said["redacted"] == 3
    assert "39" not in str(said)


@pytest.mark.parametrize("body", [b"\xff", b"", orjson.dumps({"a": OTHERS}), b"[[[[[[[1]]]]]]]",
                                  orjson.dumps({"shap_values": "x" * 300})])  # fmt: skip
def test_whatever_is_answered_nothing_unknown_is_kept(body: bytes) -> None:
    """Unreadable, unknown, too deep, a long text: no error, and nothing of it."""
    said = told(body)
    assert "39" not in str(said)
    assert "xxx" not in str(said)


def test_what_is_too_long_is_not_kept() -> None:
    """An explanation of thousands of numbers leaves its digest only."""
    assert told(orjson.dumps({"data": {"shap_values": [0.123456789] * 5000}})) == {
        "why": "too_long"
    }
