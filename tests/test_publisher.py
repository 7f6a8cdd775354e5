"""Who may write the table, and what of it is taken; without a gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.revision.publisher import EDIT_BYTES_MAX, Publisher
from gateway.revision.revisions import Revisions, set_rollout
from gateway.split import Rollout
from gateway.table import TableStore

TEXT = """
models:
  mortgage:
    versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}}
    rules: [{name: pilot, when: {method: GET}, split: {v1: 100%}}, {name: all, split: {v1: 100%}}]
"""
EDIT = {
    "reason": "v2 is better",
    "models": {"mortgage": {"rules": [
        {"name": "all", "split": {"v2": "100%"}}, {"name": "pilot", "split": {"v1": "100%"}},
    ]}},
}  # fmt: skip


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    (tmp_path / "headworks.yaml").write_text(TEXT)
    state = tmp_path / "state"
    made = Revisions(TableStore(state), Artifacts(state), lambda: 1)
    made.adopt(check(tmp_path / "headworks.yaml"), author="ana", reason="start")
    return made


@pytest.fixture
def client(revisions: Revisions) -> TestClient:
    return TestClient(Starlette(routes=Publisher(revisions, asyncio.Lock()).routes()))


def put(client: TestClient, revisions: Revisions, sent: Any = EDIT, **headers: str) -> Any:
    told = {"if-match": f'"{revisions.tables.current}"', "x-headworks-person": "ben"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    named = {"content": sent} if isinstance(sent, bytes) else {"json": sent}
    return client.put("/table", headers=told, **named)


def test_a_write_needs_the_role_where_there_are_people(
    client: TestClient, revisions: Revisions
) -> None:
    """403 without `sre`; with it the person is the author, and oddities are told."""
    before = revisions.tables.current
    assert put(client, revisions, x_headworks_roles="reviewer").status_code == 403
    revert = client.post(f"/revisions/{before}/revert", json={"reason": "because"},
                         headers={"x-headworks-roles": ""})  # fmt: skip
    assert revert.status_code == 403
    assert revisions.tables.current == before
    done = put(client, revisions, x_headworks_roles="auditor,sre")
    assert done.status_code == 200
    assert done.headers["etag"] == f'"{done.json()["revision"]}"'
    assert done.json()["warnings"] == [
        "models.mortgage.rules.pilot is never reached: all it matches falls to 'all' before it"
    ]
    assert next(revisions.history())["author"] == "ben"


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"x" * (EDIT_BYTES_MAX + 1), 413, "more than"),
        (b"a: &a [x, x]\nb: [*a, *a, *a]", 422, "body:2: (file): not YAML: aliases are not taken"),
        (b"\xff\xff", 422, "not YAML"),
        ({**EDIT, "reason": "no"}, 422, "reason: 5 to 500 characters"),
        ({**EDIT, "models": {}}, 422, "models"),
        ({**EDIT, "callers": []}, 422, "callers: unknown key"),
        ({"reason": "why not", "models": {"mortgage": {"versions": {}, "rules": []}}}, 422,
         "models.mortgage.versions: unknown key"),
    ],
)  # fmt: skip
def test_what_is_not_taken_changes_nothing(
    client: TestClient, revisions: Revisions, sent: Any, status: int, words: str
) -> None:
    """Too long, aliases, no text, more than rules: each by its own words."""
    before = revisions.tables.current
    answer = put(client, revisions, sent)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert revisions.tables.current == before


def test_an_edit_of_a_rollouts_rule_shows_both(client: TestClient, revisions: Revisions) -> None:
    """409 with what is in force and what was wanted."""
    trees = Rollout("trees", 1, "v1", "v2", 1000, 0, 0, 0)
    revisions.change(
        lambda document: set_rollout(document, "mortgage", "all", trees),
        author="rollout", reason="step", origin="rollout",
    )  # fmt: skip
    answer = put(client, revisions)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (409, "owned")
    assert (told["ours"]["split"], told["theirs"]["split"]) == ({"v1": "100%"}, {"v2": "100%"})
    assert told["ours"]["rollout"]["name"] == "trees"
