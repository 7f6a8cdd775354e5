"""A rule whose split does not grow while an alert is not over: file, API, and what goes anyway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.artifacts import Artifacts
from gateway.check import Checked, check
from gateway.revision.freeze import sentences
from gateway.revision.publisher import Publisher, file_problems
from gateway.revision.revisions import Frozen, Owned, Revisions
from gateway.routing.trace import Described, trace
from gateway.table import TableStore

TEXT = """
models:
  mortgage:
    versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}, v3: {upstream: 'http://c'}}
    rules:
      - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v1: 90%, v2: 10%}}
      - {name: all, split: {v1: 90%, v2: 10%}, freeze_on: [quality/, feature/lvr]}
"""
ALL = "split: {v1: 90%, v2: 10%}, freeze_on: [quality/, feature/lvr]"
ALERT = {"mortgage/v1:quality/lvr/stuck": {"model": "mortgage", "version": "v1", "state": "open",
         "cause": "quality/lvr/stuck", "severity": "critical"}}  # fmt: skip
OTHERS = {
    "mortgage/v1:score": {**ALERT["mortgage/v1:quality/lvr/stuck"], "cause": "score"},
    "loans/v1:quality/x/stuck": {**ALERT["mortgage/v1:quality/lvr/stuck"], "model": "loans"},
}
WIDER = [
    "split: {v1: 80%, v2: 20%}, freeze_on: [quality/, feature/lvr]",
    "split: {v1: 90%, v2: 5%, v3: 5%}, freeze_on: [quality/, feature/lvr]",
    "split: {v2: 100%}, freeze_on: [quality/, feature/lvr]",
    "split: {v1: 80%, v2: 20%}",
]
NARROWER = [
    "split: {v1: 95%, v2: 5%}, freeze_on: [quality/, feature/lvr]",
    "split: {v1: 100%}, freeze_on: [quality/, feature/lvr]",
    "split: {v1: 90%, v2: 10%}",
    "split: {v1: 90%, v2: 10%}, shadow: {v3: 100%}, freeze_on: [quality/, feature/lvr]",
]


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder, self.alerts = folder, {}
        self.revisions = Revisions(
            TableStore(folder / "state"), Artifacts(folder / "state"), lambda: 1
        )
        self.revisions.alerts = lambda: self.alerts
        self.adopt(TEXT)

    def adopt(self, text: str) -> Checked:
        (self.folder / "headworks.yaml").write_text(text)
        checked = check(self.folder / "headworks.yaml")
        assert checked.problems == []
        self.revisions.adopt(checked, author="ana", reason="reload")
        return checked


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("wider", WIDER)
def test_a_file_that_widens_is_refused_while_the_alert_is_open(place: Place, wider: str) -> None:
    """The refusal names rule and alert, in the line of the file; when it is over, it goes."""
    place.alerts = OTHERS | ALERT
    before = place.revisions.tables.current
    with pytest.raises(Frozen, match="'all' of model 'mortgage' is frozen by alert "
                                     "mortgage/v1:quality/lvr/stuck") as caught:  # fmt: skip
        place.adopt(TEXT.replace(ALL, wider))
    assert place.revisions.tables.current == before
    (problem,) = file_problems(check(place.folder / "headworks.yaml"), caught.value)
    assert ("mortgage/v1:quality/lvr/stuck" in str(problem), problem.line) == (True, 7)
    place.alerts = OTHERS
    place.adopt(TEXT.replace(ALL, wider))
    assert place.revisions.tables.current != before


@pytest.mark.parametrize("narrower", NARROWER)
def test_what_does_not_widen_goes(place: Place, narrower: str) -> None:
    """Narrower, a shadow, and taking `freeze_on` out, which the next edit may use."""
    place.alerts = ALERT
    place.adopt(TEXT.replace(ALL, narrower))


def test_what_takes_back_freezes_too(place: Place) -> None:
    """`rollback_on` forbids the same: no edit brings back the share that an alert took."""
    place.adopt(TEXT.replace("freeze_on", "rollback_on"))
    place.alerts = ALERT
    with pytest.raises(Frozen):
        place.adopt(TEXT.replace(ALL, WIDER[0]).replace("freeze_on", "rollback_on"))


def test_other_rules_and_reverts_are_not_held_up(place: Place) -> None:
    """The rule without `freeze_on` widens; a revert brings back whatever was."""
    first = place.revisions.tables.current
    assert first is not None
    place.adopt(TEXT.replace(ALL, NARROWER[1]))
    place.alerts = ALERT
    place.revisions.revert(first, author="ana", reason="back to where we were")
    place.adopt(TEXT.replace("pilot}}, split: {v1: 90%, v2: 10%}", "pilot}}, split: {v2: 100%}"))


def test_an_edit_is_refused_with_both_shown(place: Place) -> None:
    """409 `frozen`, as of a rule that a rollout has."""
    place.alerts = ALERT
    client = TestClient(Starlette(routes=Publisher(place.revisions, asyncio.Lock()).routes()))
    rules: list[dict[str, Any]] = [
        {"name": "all", "split": {"v1": "50%", "v2": "50%"}, "freeze_on": ["quality/"]}
    ]
    answer = client.put(
        "/table", json={"reason": "v2 is better", "models": {"mortgage": {"rules": rules}}},
        headers={"if-match": f'"{place.revisions.tables.current}"'},
    )  # fmt: skip
    told = answer.json()
    assert (answer.status_code, told["code"]) == (409, "frozen")
    assert "mortgage/v1:quality/lvr/stuck" in told["error"]
    assert (told["ours"]["split"]["v2"], told["theirs"]["split"]["v2"]) == ("10%", "50%")
    assert issubclass(Frozen, Owned)


def test_it_is_shown(place: Place) -> None:
    """By the trace of a request, and in the governor's sentences."""
    _, document = place.revisions.current()
    assert sentences(document, OTHERS) == []
    assert sentences(document, ALERT) == [
        "rule all of model mortgage is frozen by alert mortgage/v1:quality/lvr/stuck"
    ]
    current = place.revisions.tables.current
    assert current is not None
    table = place.revisions.tables.load(current)
    told = trace(table, Described("POST", "/v2/models/mortgage/infer"))
    assert (told["rule"], told["freeze_on"]) == ("all", ["quality/", "feature/lvr"])
