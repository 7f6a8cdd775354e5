"""What programs get from the admin port."""

import httpx2
import orjson
import pytest
from conftest import DENIED, WINDOW
from gateway_process import body

from gateway.console.decision import _predictions, words
from gateway.journal.record import Part
from gateway.ledger.log import LedgerReader


def test_a_denied_application_is_told_whole(world):
    """Outcome, words, at most four reasons towards denial, and attributions that add up."""
    found = world.get(f"/api/v1/decisions/{world.denied}").json()
    explanation = found["explanation"]
    assert found["id"] == f"{world.denied}/0"
    assert found["decision"]["outcome"] == "deny"
    assert any("Outcome: deny" in sentence for sentence in found["words"])
    assert 1 <= len(explanation["reasons"]) <= 4
    assert all(reason["attribution"] > 0 for reason in explanation["reasons"])
    total = explanation["base"] + sum(explanation["attributions"].values())
    assert total == pytest.approx(explanation["prediction"], abs=1e-5)
    assert (None, None) == (found["features"], found["context"])


def test_what_would_have_changed_it_holds_when_it_is_sent(world):
    """Each change told of a denied application leads, sent as a form, to the outcome told; the
    leaf in clear says how many were found and nothing of where they lead."""
    explanation = world.get(f"/api/v1/decisions/{world.denied}").json()["explanation"]
    assert explanation["counterfactuals"]
    for told in explanation["counterfactuals"]:
        assert set(told["changes"]) <= {"dir", "hir", "lvr"}
        again = world.send(body(**DENIED | told["changes"]), x_applicant="again")
        world.gateway.wait_settled()
        found = world.get(f"/api/v1/decisions/{again}").json()
        assert found["decision"]["outcome"] == told["outcome"] == "approve"
        assert f"the outcome would be {told['outcome']}" in told["text"]
    state = world.gateway.folder / "state"
    leaves = [leaf for _, leaf in LedgerReader(state, 0).read(10**6)]
    (leaf,) = [leaf for leaf in leaves if b'"changes_found":[' in leaf and
               orjson.loads(leaf)["record"]["exchange"] == world.denied]  # fmt: skip
    assert orjson.loads(leaf)["record"]["changes_found"] == [len(explanation["counterfactuals"])]
    assert b'"counterfactuals"' not in leaf


def test_what_was_sent_is_shown_behind_a_leaf(world):
    """Revealing needs a purpose; who read what and why is in the ledger before it is shown."""
    path = f"{world.address}/api/v1/decisions/{world.denied}"
    refused = httpx2.post(f"{path}/reveal", json={"purpose": 5}, timeout=30)
    leaves = world.get("/api/v1/status").json()["governor"]["leaves"]
    shown = httpx2.post(f"{path}/0/reveal", json={"purpose": "complaint 7"}, timeout=30).json()
    state = world.gateway.folder / "state"
    told = [orjson.loads(leaf) for _, leaf in LedgerReader(state, leaves).read(99)]

    assert (400, True) == (refused.status_code, "purpose" in refused.json()["error"])
    assert shown["features"]["lvr"] == pytest.approx(1.2)
    (said,) = shown["predictions"]
    assert said["score"] == pytest.approx(shown["decision"]["score"])
    assert [("complaint 7", f"{world.denied}/0", "local")] == [
        (leaf["record"]["purpose"], leaf["record"]["decision"], leaf["record"]["by"])
        for leaf in told if leaf["kind"] == "reveal"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "answer", "rows"),
    [({"protocol": "v1", "operation": "infer"}, b'{"predictions": [[0.2, 0.8], [1, 0]]}',
      [[0.2, 0.8], [1, 0]]),
     ({"protocol": "v2", "operation": "infer"},
      b'{"outputs": [{"name": "y", "shape": [2], "datatype": "INT64", "data": [3, 4]}]}',
      [{"y": 3}, {"y": 4}]),
     ({"protocol": "mlflow", "operation": "infer"}, b'{"predictions": "\xff"}', None),
     ({"protocol": "v2", "operation": "metadata"}, b'{"name": "m"}', None)])  # fmt: skip
def test_what_a_version_without_a_card_said_is_read(record, answer, rows):
    """One value a row in any protocol; nothing where it was no inference or cannot be read."""
    leaf = {"record": {"status": 200, **record}}
    told = {"response_headers": [["content-type", "application/json"]]}
    assert _predictions(leaf, None, Part.of(answer, 999), told, 0) == rows


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [(504, "upstream_timeout", "The gateway refused it: upstream_timeout."),
     (200, "upstream_reset", "The answer was cut short: upstream_reset.")])  # fmt: skip
def test_a_stream_that_began_well_is_told_as_cut(status, error, said):
    """Its caller had a 200 and a part of it: nothing was refused. Who left is told too."""
    record = {"wall": "then", "caller": "app", "model": "chat", "status": status, "error": error,
              "client": {"left": "client_gone", "policy": "drain", "sent": 532}}  # fmt: skip
    document = {"record": record, "decision": None, "withheld": False, "trace": None,
                "shadows": [], "comparison": None}  # fmt: skip
    assert words(document, None)[1:] == [
        said,
        "The client left (client_gone) with 532 bytes of it.",
    ]


def record_version(world) -> str:
    return world.get(f"/api/v1/decisions/{world.denied}").json()["record"]["version"]


def test_shadows_stand_beside_their_primary(world):
    """The shadow's answer is named by the primary's page and names the primary."""
    (shadow,) = world.get(f"/api/v1/decisions/{world.denied}").json()["shadows"]
    record = world.get(f"/api/v1/decisions/{shadow['id']}").json()["record"]
    assert (shadow["version"], shadow["agree"], shadow["noise"]) == ("v3", True, False)
    told = world.get(f"/api/v1/decisions/{shadow['id']}").json()
    assert told["comparison"]["of"]["version"] == record_version(world)
    assert any("agrees with the answer that version" in words for words in told["words"])
    assert (record["arm"], record["primary"]) == ("shadow", world.denied)


def test_a_shadow_is_compared_with_the_answers_given(world):
    """All of v3's copies, by its flips, segments and examples, each of which leads to both
    decisions; v3 denies more."""
    (report,) = world.get("/api/v1/shadow/mortgage").json()["shadows"]
    assert (report["version"], report["state"], report["noise_is"]) == ("v3", "compared", "none")
    coverage, raw = report["coverage"], report["raw"]
    assert coverage["eligible"] == coverage["compared"] == raw["n"] >= WINDOW
    assert sum(report["reasons"].values()) == raw["count"] == report["directions"]["approve>deny"]
    assert raw["interval"][0] <= raw["share"] <= raw["interval"][1]
    races = {one["value"]: one["disagree"]["n"] for one in report["segments"]
             if one["key"] == "race"}  # fmt: skip
    assert races["other"] >= WINDOW
    assert sum(races.values()) == raw["n"]
    for example in report["examples"]:
        given = world.get(f"/api/v1/decisions/{example['primary']}").json()["decision"]
        shadow = world.get(f"/api/v1/decisions/{example['id']}").json()["decision"]
        assert (given["outcome"], shadow["outcome"]) == ("approve", "deny")
        words = world.get(f"/api/v1/decisions/{example['id']}").json()["words"]
        assert any("(flip) from approve to deny" in one for one in words)
        assert abs(given["score"] - shadow["score"]) == pytest.approx(example["severity"], abs=1e-4)
    assert report["explained"]["n"] > 0
    for times in report["latency"].values():
        assert 0 < times["p50"] <= times["p95"] <= times["most"]


def test_filters_hold_together(world):
    """All rows fit all filters, newest first, and no more than asked for."""
    rows = world.get("/api/v1/decisions?version=v3&arm=shadow&since=1h&limit=5").json()["decisions"]
    assert len(rows) == 5
    assert {(row["version"], row["arm"]) for row in rows} == {("v3", "shadow")}
    assert [row["leaf"] for row in rows] == sorted((row["leaf"] for row in rows), reverse=True)


def test_refused_requests_are_found_by_status(world):
    """An exchange without a decision is a row when its status is asked for."""
    rows = world.get("/api/v1/decisions?status=400").json()["decisions"]
    assert [row["id"] for row in rows] == [f"{world.refused}/0"]


@pytest.mark.parametrize(
    ("path", "status", "code", "named"),
    [
        ("/api/v1/decisions?status=abc", 400, "bad_parameter", ("status", "abc")),
        ("/api/v1/decisions?since=tuesday", 400, "bad_parameter", ("since", "tuesday")),
        ("/api/v1/decisions?colour=red", 400, "bad_parameter", ("colour",)),
        ("/api/v1/decisions/nonsense", 400, "bad_parameter", ("nonsense",)),
        ("/api/v1/decisions/00000000-0000-7000-8000-000000000000", 404, "unknown_decision",
         ("00000000-0000-7000-8000-000000000000",)),
        ("/api/v1/monitor/nobody", 404, "unknown_model", ("nobody", "mortgage")),
        ("/api/v1/shadow/nobody", 404, "unknown_model", ("nobody", "mortgage")),
    ],
)  # fmt: skip
def test_errors_have_one_shape(world, path, status, code, named):
    """Status, a code for programs, and words that name the parameter and its value."""
    answer = world.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "code"}
    assert answer.json()["code"] == code
    assert all(word in answer.json()["error"] for word in named)


def test_a_row_that_is_not_there_is_unknown(world):
    """An exchange of one row has no row 1 and no row -1."""
    assert world.get(f"/api/v1/decisions/{world.denied}/1").status_code == 404
    assert world.get(f"/api/v1/decisions/{world.denied}/-1").status_code in (400, 404)
