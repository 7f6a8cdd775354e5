"""A model's page: slices, two versions on the same requests, and what became of the decisions."""

import httpx2
import orjson
from gateway_process import KEY

from gateway.console.pages import Pages
from gateway.monitor.pairs import PairedGroup, PairReport, paired_of


def told(world):
    return {
        "series": [], "counts": [], "agreement": [], "pairs": [], "model": "mortgage",
        "twin": "/api/v1/monitor/mortgage",
        "performance": world.get("/api/v1/monitor/mortgage/performance").json(),
    }  # fmt: skip


def drawn(document) -> str:
    """The page of a document, by the template that is served."""
    return bytes(Pages(None, None)._page("model.html", 200, document).body).decode()


def test_slices_and_labels_are_drawn(world, browser):
    """Labels of thirty decisions: coverage, accuracy beside what the scores promise, by group;
    the slices of the newest window; no complaint of the browser."""
    decisions = world.get("/api/v1/decisions?arm=stable&version=v1&limit=30").json()["decisions"]
    lines = [
        # With its row: another test may have sent a batch to this gateway before.
        orjson.dumps({"id": one["id"], "label": place % 2, "source": "bureau",
                      "observed_at": "2026-11-23T10:00:00Z"})
        for place, one in enumerate(decisions)
    ]  # fmt: skip
    url = f"http://{world.gateway.data}/-/feedback?model=mortgage"
    answer = httpx2.post(url, content=b"\n".join(lines), headers=KEY, timeout=30)
    assert answer.status_code == 202, answer.text
    world.gateway.wait_settled()
    performed = world.get("/api/v1/monitor/mortgage/performance").json()
    series = world.get("/api/v1/monitor/mortgage").json()["series"]

    browser.open(world.address + "/models/mortgage")
    browser.wait_for("document.getElementById('labels') !== null")
    shown = browser.text("#labels")
    assert f"{performed['labels']['labels']} labels" in shown
    for cohort in performed["cohorts"]:
        assert f"{cohort['version']} as {cohort['arm']}" in shown
    (stable,) = [one for one in performed["cohorts"]
                 if (one["version"], one["arm"]) == ("v1", "stable")]  # fmt: skip
    assert stable["realised"]["n"] == len(decisions)
    assert f"{100 * stable['realised']['figures']['accuracy']:.3g} %" in shown
    assert f"{100 * stable['estimated']['accuracy']:.3g} %" in shown
    assert "off by" in shown
    assert "race" in shown
    sliced = [one for one in series if one["latest"]["slices"]]
    assert sliced
    for one in sliced:
        drawn_slices = browser.text(f"#{one['version']}-{one['arm']}")
        for part in one["latest"]["slices"]:
            assert f"{part['key']} {part['value']}" in drawn_slices
    assert browser.problems == []


def test_two_versions_are_drawn_beside_each_other(world):
    """Each group with its counts, interval and state; what a value says is text."""
    groups = (
        PairedGroup("race", "<b>black</b>", "breach", False, paired_of((300, 60, 10, 130))),
        PairedGroup("race", "white", "watch", True, paired_of((300, 20, 18, 130))),
    )
    report = PairReport("mortgage", "v3", "v1", 2, 1_795_000_000 * 10**9, 500, groups, 7)
    text = drawn(told(world) | {"pairs": [report.to_json()]})
    assert "v3 beside v1" in text
    assert "&lt;b&gt;black&lt;/b&gt;" in text
    assert "<b>black" not in text
    assert "−10 %" in text
    assert 'class="state bad">breach' in text
    assert "new decisions must confirm a breach" in text
    assert "7 groups more" in text
