"""Two answers compared by type: when they agree, how severe it is if not, for which reason."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.card import Card
from gateway.comparison.answer import Answer, compare, compare_row
from gateway.comparison.attribution import compare_attributions
from gateway.comparison.document import VALUES_AT_MOST, Documents, TooLarge
from gateway.comparison.number import distance, same
from gateway.comparison.outcome import NOTES, Comparison, Row, not_compared
from gateway.comparison.ranking import overlap, rank_biased_overlap, ranked
from gateway.comparison.text import token_f1
from gateway.journal.record import Part
from gateway.modelsettings import CompareSettings
from gateway.protocol.dialects import DIALECTS
from gateway.protocol.reader import Reader

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def rules(**changed: Any) -> dict[str, Any]:
    return CompareSettings.model_validate(changed).model_dump()


def card(threshold: float | None = 0.5, kind: str = "probability") -> Card:
    outcome = {"below": "approve", "at_or_above": "deny", "adverse": "deny", "threshold": threshold}
    return Card.model_validate(
        {
            "format": 1, "model": "m", "version": "v1", "summary": "", "training": {
                "data": {}, "code_commit": "", "configuration": {}, "seed": 0}, "metrics": {},
            "artifact": {"sha256": "0" * 64},
            "features": [{"name": "age", "type": "number", "meaning": "", "range": [0, 99]}],
            "outputs": {"score": {"tensor": "score", "meaning": "", "kind": kind},
                        "outcome": outcome if threshold is not None else None},
        }
    )  # fmt: skip


def answer(
    scores: tuple[float, ...] = (), *, body: Any = None, protocol: str = "v2", status: int = 200,
    error: str | None = None, unreadable: str | None = None, of: Card | None = None,
    operation: str = "infer", keep: int = 1 << 20, headers: Any = (),
) -> Answer:  # fmt: skip
    of = of or (card() if scores else None)
    words = of.outputs.outcome if of else None
    decided = [{"score": s, "outcome": words.of(s) if words else None} for s in scores]
    part = None if body is None else Part.of(
        body if isinstance(body, bytes) else orjson.dumps(body), keep)  # fmt: skip
    return Answer(status, error, operation, of, Reader(DIALECTS[protocol], {}), decided, unreadable,
                  lambda: None if part is None else (part, headers))  # fmt: skip


def told(primary: Answer, shadow: Answer, **changed: Any) -> dict[str, Any]:
    return compare(primary, shadow, rules(**changed)).to_json()


@given(NUMBERS, NUMBERS)
def test_numbers_are_symmetric_and_bounded(one: float, other: float) -> None:
    """Both ways the same answer, a distance from 0 to 1, and NaN is as good as NaN."""
    assert same(one, other, 1e-6, 0.01) == same(other, one, 1e-6, 0.01)
    assert 0 <= distance(one, other) == distance(other, one) <= 1
    assert same(one, one, 0, 0)
    assert distance(one, one) == 0


def test_tolerance_is_absolute_plus_relative() -> None:
    """|a - b| <= atol + rtol * max(|a|, |b|), at its edge and beyond."""
    assert same(100.0, 101.0, 0.0, 0.01)
    assert not same(100.0, 101.02, 0.0, 0.01)
    assert same(0.0, 1e-6, 1e-6, 0.0)
    assert not same(math.inf, 1e308, 1.0, 1.0)
    assert same(math.inf, math.inf, 0.0, 0.0)


def test_a_flip_is_told_apart_from_jitter() -> None:
    """Outcomes that differ disagree, with their direction; scores alone do not."""
    flip = told(answer((0.45,)), answer((0.7,)))
    assert flip == {"agree": False, "kind": "decision", "rows": 1, "severity": 0.25,
                    "reason": "flip", "direction": "approve>deny"}  # fmt: skip
    jitter = told(answer((0.1,)), answer((0.3,)))
    assert (jitter["agree"], jitter["reason"], jitter["severity"]) == (True, "jitter", 0.2)
    assert "reason" not in told(answer((0.3,)), answer((0.3001,)))


def test_each_score_is_judged_by_its_own_card() -> None:
    """The same score under another threshold is another outcome."""
    other = answer((0.45,), of=card(0.4))
    assert told(answer((0.45,)), other)["direction"] == "approve>deny"


def test_a_near_tie_agrees_only_where_both_are_near() -> None:
    """Within the margin of the thresholds a flip is a tie, and counted as one."""
    near = told(answer((0.499,)), answer((0.501,)), near_tie=0.01)
    assert (near["agree"], near["reason"]) == (True, "near_tie")
    assert not told(answer((0.499,)), answer((0.6,)), near_tie=0.01)["agree"]
    assert not told(answer((0.499,)), answer((0.501,)))["agree"]


def test_rows_are_compared_one_by_one() -> None:
    """Of a batch the leaf has counts by reason, the differing rows, and the worst as the whole."""
    found = told(answer((0.1, 0.45, 0.6, 0.9)), answer((0.1, 0.7, 0.1, 0.95)))
    assert found == {
        "agree": False, "kind": "decision", "rows": 4, "severity": 0.5, "reason": "flip",
        "direction": "deny>approve", "disagree": 2, "reasons": {"flip": 2, "jitter": 1},
        "directions": {"approve>deny": 1, "deny>approve": 1},
        "differing": [[1, 0.25, "flip"], [2, 0.5, "flip"]], "turned": [1, 2],
    }  # fmt: skip
    assert told(answer((0.1, 0.2)), answer((0.1,)))["reason"] == "rows"


def test_a_leaf_stays_short_whatever_the_batch() -> None:
    """65,536 differing rows are counted whole and listed in part."""
    many = Comparison("decision", [Row(False, 0.5, "flip", "approve>deny")] * 65_536)
    assert many.to_json()["disagree"] == 65_536
    assert len(orjson.dumps(many.to_json())) < 2500


def test_quantities_are_compared_with_tolerance() -> None:
    """Without an outcome a number agrees or not; severity is the relative distance."""
    amounts = card(None, "quantity")
    found = told(answer((100.0,), of=amounts), answer((300.0,), of=amounts))
    assert (found["kind"], found["reason"], found["severity"]) == ("number", "number", 0.5)
    assert told(answer((100.0,), of=amounts), answer((100.5,), of=amounts))["agree"]


@pytest.mark.parametrize(
    ("primary", "shadow", "agree", "reason"),
    [
        (answer((0.1,)), answer(status=500), False, "shadow_failed"),
        (answer((0.1,)), answer(status=504, error="upstream_timeout"), False, "shadow_failed"),
        (answer(status=422), answer((0.1,)), False, "primary_failed"),
        (answer(status=400), answer(status=422), True, "both_failed"),
        (answer(status=400), answer(status=503), False, "both_failed"),
        (answer((0.1,)), answer(unreadable="not JSON"), False, "unreadable"),
    ],
)
def test_failing_comes_first(primary: Answer, shadow: Answer, agree: bool, reason: str) -> None:
    """An error on one side is a disagreement with its own reason; two alike agree."""
    found = told(primary, shadow)
    assert (found["agree"], found["reason"]) == (agree, reason)


@pytest.mark.parametrize(
    ("primary", "shadow", "why"),
    [
        (answer(unreadable="no score"), answer((0.1,)), "primary_unreadable"),
        (answer((0.1,)), answer(unreadable="truncated"), "truncated"),
        (answer(protocol="raw"), answer(protocol="raw", body={}), "body_missing"),
        (answer(protocol="raw", body={"a": 1}, keep=2), answer(protocol="raw", body={}),
         "truncated"),
        (answer(protocol="raw", body=b"{"), answer(protocol="raw", body={}), "primary_unreadable"),
        (answer(protocol="raw", body=[0] * (VALUES_AT_MOST + 1)),
         answer(protocol="raw", body=[0] * (VALUES_AT_MOST + 1)), "too_large"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_says_why(primary: Answer, shadow: Answer, why: str) -> None:
    """It neither agrees nor disagrees."""
    assert told(primary, shadow) == not_compared(why).to_json() == {"not_compared": why}


def test_json_ignores_and_reorders_as_declared() -> None:
    """Ignored pointers and unordered lists do not differ; everything else does."""
    one = {"id": "a", "items": [{"k": 1, "t": 5}, {"k": 2, "t": 6}], "x": [1, 2]}
    other = {"id": "b", "items": [{"k": 2, "t": 7}, {"k": 1, "t": 8}], "x": [1, 2]}
    declared = {"ignore": ["/id", "/items/*/t"], "unordered": ["/items"]}
    assert compare_row("json", one, other, rules(**declared)).agree
    assert not compare_row("json", one, other, rules(ignore=["/id"])).agree
    assert not compare_row("json", one, other | {"x": [2, 1]}, rules(**declared)).agree


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"a": 1.0}, {"a": 2.0}, "number"), ({"a": "x"}, {"a": "y"}, "value"),
        ({"a": 1}, {"a": "1"}, "type"), ({"a": 1, "b": 2}, {"a": 1}, "missing"),
        ({"a": 1}, {"a": 1, "b": 2}, "extra"), ([1], [1, 2], "extra"),
        ({"a": True}, {"a": 1}, "type"),
    ],
)  # fmt: skip
def test_json_says_how_values_differ(one: Any, other: Any, reason: str) -> None:
    """A word for the first difference; severe as the share of values that differ."""
    row = compare_row("json", one, other, rules())
    assert (row.agree, row.reason) == (False, reason)
    assert 0 < row.severity <= 1


@given(JSON)
def test_a_document_agrees_with_itself(document: Any) -> None:
    """Whatever is in it."""
    assert [] == list(Documents(rules()).differences(document, document))


def test_documents_are_bounded() -> None:
    """Too many values are refused, not waited for."""
    with pytest.raises(TooLarge):
        list(Documents(rules()).differences([0] * (VALUES_AT_MOST + 1), [0] * (VALUES_AT_MOST + 1)))


def test_rankings_agree_by_their_top() -> None:
    """Enough of the first ranks in common; scores are ranked by their size."""
    assert ranked([0.1, 0.9, 0.5]) == [1, 2, 0]
    assert ranked(["a", "a"]) is None
    assert overlap("abcd", "abdc", 2) == 1.0
    assert overlap("abcd", "wxyz", 4) == 0.0
    settings = rules(kind="ranking", top=4, overlap="75%")
    assert compare_row("ranking", list("abcd"), list("abce"), settings).reason == "jitter"
    assert compare_row("ranking", list("abcd"), list("abef"), settings).reason == "ranking"
    assert compare_row("ranking", {"ids": [1, 2]}, {"ids": [1, 2]}, settings).agree
    assert compare_row("ranking", {"ids": [1, 2]}, {"ids": "none"}, settings).reason == "type"


def test_rank_biased_overlap_by_hand() -> None:
    """Two ranks, the second alike: RBO extrapolated is p/2 + (1-p)*0 + ... by its definition."""
    p = 0.9
    agreement = [0 / 1, 2 / 2]
    by_hand = (1 - p) / p * sum(a * p ** (d + 1) for d, a in enumerate(agreement)) + 1.0 * p**2
    assert rank_biased_overlap("ab", "ba", p) == pytest.approx(by_hand)


@given(st.permutations(range(8)))
def test_rank_biased_overlap_is_bounded_and_symmetric(order: list[int]) -> None:
    """1 for the same order only, the same both ways, never outside 0 to 1."""
    straight = list(range(8))
    found = rank_biased_overlap(straight, order)
    assert found == pytest.approx(rank_biased_overlap(order, straight))
    assert 0 <= found <= 1 + 1e-12
    assert (found == pytest.approx(1)) == (order == straight)


def test_texts_agree_after_normalising_or_nearly() -> None:
    """Case, width and white space mean nothing; then shared words decide."""
    settings = rules(kind="text", text="80%")
    assert compare_row("text", "Ｙes,\n it IS", "yes, it is", settings) == Row(True)
    long = "the loan is refused since the debt is high in relation to the income"
    assert compare_row("text", long, long.replace("high", "large"), settings).reason == "jitter"
    assert compare_row("text", long, "the loan is granted", settings).reason == "text"
    assert token_f1("a b c d", "a b x y") == 0.5
    assert compare_row("text", "approve", "approved", settings).agree
    assert not compare_row("text", "approve", "deny", settings).agree


def test_texts_that_are_json_are_compared_as_json() -> None:
    """Structured output differs by its values, not by its spaces and keys' order."""
    settings = rules(kind="text")
    one, other = '{"a": 1, "b": [2]}', '{"b":[2],"a":1}'
    assert compare_row("text", {"text": one}, {"text": other}, settings).agree
    assert compare_row("text", {"text": one}, {"text": '{"a": 5}'}, settings).reason in (
        "number", "missing",
    )  # fmt: skip


def chat(text: str, tools: list[Any] | None = None) -> dict[str, Any]:
    return {"id": "x", "created": 1, "choices": [
        {"index": 0, "message": {"content": text, "tool_calls": tools or []}}]}  # fmt: skip


def stream(*pieces: str) -> bytes:
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    return b"".join(b"data: " + orjson.dumps(e) + b"\n\n" for e in events) + b"data: [DONE]\n\n"


def test_chat_answers_are_compared_by_their_text() -> None:
    """Ids and times mean nothing; a stream and a whole answer of the same text agree."""
    one = answer(body=chat("It is so."), protocol="openai", operation="chat")
    other = answer(body=chat("it is so."), protocol="openai", operation="chat")
    assert told(one, other) == {"agree": True, "kind": "text", "rows": 1, "severity": 0.0}
    streamed = answer(
        body=stream("It ", "is so."), protocol="openai", operation="chat",
        headers=[["content-type", "text/event-stream"]],
    )  # fmt: skip
    assert told(one, streamed)["agree"]


def test_what_tools_are_called_with_has_to_be_the_same() -> None:
    """As JSON: another amount is another act, whatever the text says."""

    def called(text: str) -> Answer:
        tools = [{"id": "x", "function": {"name": "pay", "arguments": text}}]
        return answer(body=chat("ok", tools), protocol="openai", operation="chat")

    assert told(called('{"to": "a", "sum": 5}'), called('{"sum":5, "to":"a"}'))["agree"]
    found = told(called('{"to": "a", "sum": 5}'), called('{"to": "a", "sum": 500}'))
    assert (found["agree"], found["reason"]) == (False, "tools")


def tensor(name: str, shape: list[int], data: list[Any], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def test_tensors_without_a_card_are_compared_row_by_row() -> None:
    """Every output, with tolerance; a row a row of the batch."""
    one = answer(body={"outputs": [tensor("y", [2, 2], [1, 2, 3, 4])]})
    other = answer(body={"outputs": [tensor("y", [2, 2], [1, 2, 3, 9])]})
    found = told(one, other)
    assert (found["rows"], found["disagree"], found["differing"]) == (2, 1, [[1, 0.5, "number"]])
    named = answer(body={"outputs": [tensor("y", [1], ["cat"], "BYTES")]})
    assert told(named, named)["agree"]


@pytest.mark.parametrize(
    ("protocol", "one", "other"),
    [
        ("v1", {"predictions": [1.0, 2.0]}, {"predictions": [1.0, 2.5]}),
        ("mlflow", {"predictions": [{"a": 1}]}, {"predictions": [{"a": 2}]}),
        ("raw", {"deep": {"a": "x"}}, {"deep": {"a": "y"}}),
    ],
)
def test_other_protocols_are_compared_as_json(protocol: str, one: Any, other: Any) -> None:
    """Predictions row by row, anything else as one value."""
    assert told(answer(body=one, protocol=protocol), answer(body=one, protocol=protocol))["agree"]
    found = told(answer(body=one, protocol=protocol), answer(body=other, protocol=protocol))
    assert (found["agree"], found["kind"]) == (False, "json")


@given(st.binary(max_size=200), st.sampled_from(sorted(DIALECTS)))
def test_no_body_stops_a_comparison(body: bytes, protocol: str) -> None:
    """Whatever two versions answer, it comes to a comparison."""
    one = answer(body=body, protocol=protocol, operation="chat")
    assert set(told(one, one)) & {"agree", "not_compared"}


def test_attributions_are_compared_by_top_sign_and_order() -> None:
    """Shares of the strongest features, of their directions, and Spearman's correlation."""
    one = {"a": 3.0, "b": -2.0, "c": 1.0, "d": 0.5, "e": 0.1, "f": 0.0}
    other = {"a": 3.0, "b": 2.0, "c": 0.2, "d": 0.5, "e": 1.0, "f": 0.0}
    found = compare_attributions(one, other)
    assert found is not None
    assert found.top == 0.75
    assert found.signs == pytest.approx(2 / 3)
    names = sorted(one)
    by_scipy = stats.spearmanr([abs(one[n]) for n in names], [abs(other[n]) for n in names])
    assert found.order == pytest.approx(by_scipy.statistic)
    assert compare_attributions(one, {}) is None


def test_notes_are_agreements() -> None:
    """A reason that is only a note never counts as disagreement."""
    assert told(answer((0.1,)), answer((0.3,)))["reason"] in NOTES
