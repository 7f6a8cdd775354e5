"""Comparisons counted by group and input: a fold, told in leaves, that goes on over restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from gateway.card import Card
from gateway.monitor.reference import Reference
from gateway.monitor.segments import (
    AT_MOST_NS,
    EXCHANGES,
    OTHER,
    VALUES_AT_MOST,
    Segments,
    by_features,
    by_groups,
)

CARD = Card.model_validate(
    {
        "format": 1, "model": "m", "version": "v1", "summary": "", "training": {
            "data": {}, "code_commit": "", "configuration": {}, "seed": 0}, "metrics": {},
        "artifact": {"sha256": "0" * 64},
        "features": [
            {"name": "age", "type": "number", "meaning": "", "range": [0, 99]},
            {"name": "job", "type": "category", "meaning": "", "categories": ["a", "b"]},
        ],
        "outputs": {"score": {"tensor": "score", "meaning": ""}},
    }
)  # fmt: skip


def leaf(at: int = 0, **more: Any) -> dict[str, Any]:
    comparison = {"agree": True, "kind": "decision", "rows": 1, "severity": 0.0} | more
    record = {"id": f"id-{at}", "model": "m", "version": "v3", "at": at, "primary": "p"}
    return {"kind": "exchange", "record": record, "comparison": comparison}


def test_groups_are_counted_with_their_disagreements() -> None:
    """What is not compared, and noise, counts nowhere."""
    segments = Segments({})
    for number in range(10):
        segments.take(
            leaf(number, agree=number > 2), [{"race": "black" if number < 5 else "other"}]
        )
    segments.take(leaf(11, noise=True), [{"race": "black"}])
    missing = leaf(12)
    missing["comparison"] = {"not_compared": "truncated"}
    segments.take(missing, [{"race": "black"}])
    (told,) = segments.to_json().values()
    assert told["counts"] == [["v3", "race", "black", 5, 3], ["v3", "race", "other", 5, 0]]


def test_counts_are_told_after_so_many_or_so_long() -> None:
    """Then they begin anew; two models are told apart."""
    segments = Segments({})
    for number in range(EXCHANGES - 1):
        segments.take(leaf(number), [{"race": "x"}])
    assert list(segments.due(EXCHANGES)) == []
    segments.take(leaf(EXCHANGES), [{"race": "x"}])
    ((model, told),) = segments.due(EXCHANGES)
    assert (model, told["counts"]) == ("m", [["v3", "race", "x", EXCHANGES, 0]])
    assert segments.to_json() == {}
    segments.take(leaf(5), [{"race": "x"}])
    assert list(segments.due(5 + AT_MOST_NS)) == []
    assert len(list(segments.due(6 + AT_MOST_NS))) == 1


def test_what_is_not_told_yet_goes_on_over_a_restart() -> None:
    """The state is plain JSON, and the same leaves behind it give the same counts."""
    whole, before = Segments({}), Segments({})
    for number in range(20):
        whole.take(leaf(number, agree=False), [{"race": "x"}])
    for number in range(12):
        before.take(leaf(number, agree=False), [{"race": "x"}])
    after = Segments(orjson.loads(orjson.dumps(before.to_json())))
    for number in range(12, 20):
        after.take(leaf(number, agree=False), [{"race": "x"}])
    assert after.to_json() == whole.to_json()


def test_values_are_bounded() -> None:
    """Whatever callers make up, the rest counts together."""
    segments = Segments({})
    for number in range(3 * VALUES_AT_MOST):
        segments.take(leaf(number), [{"race": f"made up {number}"}])
    (told,) = segments.to_json().values()
    assert len(told["counts"]) <= VALUES_AT_MOST + 1
    assert sum(n for *_, n, _ in told["counts"]) == 3 * VALUES_AT_MOST
    assert [n for _, _, value, n, _ in told["counts"] if value == OTHER] == [2 * VALUES_AT_MOST]


def test_explanations_meet_their_primary() -> None:
    """Means over decisions that both explain in the same space; a primary may be gone."""
    segments = Segments({})
    mine = {"space": "margin", "features": ["a", "b"], "rows": [{"values": [2.0, -1.0]}]}
    theirs = mine | {"rows": [{"values": [1.0, 3.0]}]}
    given = {"id": "p", "model": "m", "version": "v1", "at": 0}
    shadow = {"id": "s", "model": "m", "version": "v3", "at": 0, "primary": "p"}
    segments.explained(given, mine)
    segments.explained(shadow, theirs)
    segments.explained(shadow | {"primary": "gone"}, theirs)
    segments.explained(shadow, theirs | {"space": "other"})
    (told,) = segments.to_json().values()
    assert told["likeness"] == [["v3", 1, 1.0, 0.5, -1.0]]


def test_rows_of_a_batch_count_one_by_one() -> None:
    """Each with its own group; all of them where all differ; none where the leaf lists too few."""
    groups = [{"race": "black"}, {"race": "other"}]
    rows = [by_groups(("race",), groups, row) for row in range(2)]
    assert rows == [{"race": "black"}, {"race": "other"}]
    assert by_groups(("race",), groups[:1], 1) == {"race": "black"}
    assert by_groups(("race",), []) == {"race": "unknown"}
    batch = {"rows": 2, "agree": False}
    segments = Segments({})
    segments.take(leaf(1, **batch | {"disagree": 1, "differing": [[1, 0.5, "flip"]]}), rows)
    segments.take(leaf(2, **batch | {"disagree": 2, "differing": []}), rows)
    segments.take(leaf(3, **batch | {"disagree": 1, "differing": []}), rows)
    (told,) = segments.to_json().values()
    assert told["counts"] == [["v3", "race", "black", 2, 1], ["v3", "race", "other", 2, 2]]


def test_inputs_fall_into_quarters_and_categories() -> None:
    """By the reference's quartiles; what the card does not name is never told by its value."""
    columns = {"age": np.arange(101.0), "job": np.array(["a"] * 101, dtype=object)}
    reference = Reference.of(CARD, columns, None, "digest")

    def place(age: float | None, job: str | None) -> dict[str, str]:
        return by_features(CARD, reference, {"age": [age], "job": [job]})

    assert place(25.0, "a") == {"age": "at most 25", "job": "a"}
    assert place(26.0, "b") == {"age": "25 to 50", "job": "b"}
    assert place(80.0, "what a caller sent") == {"age": "over 75", "job": OTHER}
    assert place(None, None) == {"age": "missing", "job": "missing"}
    assert by_features(CARD, None, {"age": [1.0], "job": ["a"]}) == {}
    two = {"age": [1.0, 99.0], "job": ["a", "b"]}
    assert by_features(CARD, reference, two, 1) == {"age": "over 75", "job": "b"}
