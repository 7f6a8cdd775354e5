"""What one record says to a rollout, of whatever protocol."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.rollout.observation import observe, observe_pair
from gateway.split import Rollout

ROLLOUT = Rollout("r", 1, "v1", "v2", 100_000, 0, 0, 0)


def leaf(protocol: str, operation: str, **more: Any) -> dict[str, Any]:
    record = {
        "id": "x", "at": 1, "model": "m", "version": "v1", "arm": "stable", "status": 200,
        "error": None, "operation": operation, "protocol": protocol, "unit": "exchange",
        "timings": {"total_us": 5},
    }  # fmt: skip
    return {"kind": "exchange", "record": record | more}


@pytest.mark.parametrize(
    ("protocol", "operation", "inferred"),
    [("v2", "infer", True), ("openai", "chat", True), ("openai", "embeddings", True),
     ("openai", "models", False), ("grpc", "infer", True), ("v2", "metadata", False)],
)  # fmt: skip
def test_what_may_be_copied_is_an_inference(protocol: str, operation: str, inferred: bool) -> None:
    """Coverage of shadows counts what a dialect calls an inference, not v2's word for it."""
    seen = observe(leaf(protocol, operation), {"bucket": 1}, ROLLOUT, None, ())
    assert seen is not None
    assert seen.inferred == inferred


def test_a_client_that_left_is_time_and_no_failure() -> None:
    """Else the slowest answers of a slow canary would be missing."""
    left = leaf("v2", "infer", status=499, timings={"total_us": 900_000})
    seen = observe(left, {"bucket": 1}, ROLLOUT, None, ())
    assert seen is not None
    assert (False, False, 900_000) == (seen.failed, seen.refused, seen.total_us)


def test_what_the_primary_favoured_is_told_by_its_shadow() -> None:
    """Of a shadow's own outcomes, less what it alone favours, with what it alone does not."""
    card = SimpleNamespace(outputs=SimpleNamespace(outcome=SimpleNamespace(adverse="deny")))
    shadow = leaf("v2", "infer", version="v2", arm="shadow", primary="p")
    said = {"agree": False, "kind": "decision", "rows": 4, "directions": {"approve>deny": 2}}
    shadow["comparison"] = said | {"turned": [0, 1]}
    shadow["decisions"] = [{"outcome": word} for word in ("deny", "deny", "approve", "approve")]
    context = {"groups": [{"race": "black"}]}
    pair = observe_pair(shadow, context, "v2", card, ("race",))  # type: ignore[arg-type]
    assert pair is not None
    assert (0, 2, 4, ("race=black",)) == (pair.gained, pair.lost, pair.favourable, pair.groups)


@pytest.mark.parametrize(
    ("told", "outcomes"),
    [
        ({"rows": 2, "turned": [1]}, ((False, False), (False, True))),
        ({"rows": 2, "turned": []}, ((False, False), (True, True))),
        ({"rows": 2, "directions": {"deny>approve": 1}}, ()),  # of a release that did not say which
        ({"rows": 3, "turned": []}, ()),
        ({"rows": 2, "turned": [], "kind": "json"}, ()),
    ],
)
def test_who_decided_what_of_a_pair(told, outcomes) -> None:
    """By row, for labels that come later: the shadow's outcome, and the primary's by who turned."""
    card = SimpleNamespace(outputs=SimpleNamespace(outcome=SimpleNamespace(adverse="deny")))
    shadow = leaf("v2", "infer", version="v2", arm="shadow", primary="p")
    shadow["comparison"] = {"agree": False, "kind": "decision"} | told
    shadow["decisions"] = [{"outcome": "deny"}, {"outcome": "approve"}]
    pair = observe_pair(shadow, {}, "v2", card, ())  # type: ignore[arg-type]
    assert pair is not None
    assert (pair.primary, pair.outcomes) == ("p", outcomes)


def test_a_triple_is_read_from_the_leaf_that_completes_it() -> None:
    """Of the shadow's own leaf with its pair, of the second answer's leaf without one."""
    said = {"agree": False, "kind": "text", "rows": 1, "severity": 1.0, "reason": "text"}
    shadow = leaf("openai", "chat", version="v2", arm="shadow", primary="p")
    shadow["comparison"] = said | {"triples": {"v2": [1, 0]}}
    pair = observe_pair(shadow, {}, "v2", None, ())
    assert pair is not None
    assert (pair.agree, pair.triple, pair.rows) == (False, (1, 0), 1)
    again = leaf("openai", "chat", arm="shadow", primary="p", noise=True)
    again["comparison"] = said | {"noise": True, "triples": {"v2": [0, 1]}}
    pair = observe_pair(again, {}, "v2", None, ())
    assert pair is not None
    assert (pair.triple, pair.rows) == ((0, 1), 0)
    again["comparison"] = {"not_compared": "truncated", "noise": True}
    assert observe_pair(again, {}, "v2", None, ()) is None
