"""The table edited at a real gateway: writers who meet, refusals, reverts, restarts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import yaml
from gateway_process import KEY, GatewayProcess, body

RULES = """
      - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v2: 100%}}
      - {name: everyone, split: {v1: 95%, v2: 5%}, shadow: {v3: 100%}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory):
    made = GatewayProcess(tmp_path_factory.mktemp("routing")).start()
    made.wait_settled()
    yield made
    made.stop()


def url(gateway: GatewayProcess, path: str) -> str:
    return f"http://{gateway.admin}/api/v1{path}"


def edit(gateway: GatewayProcess, revision: str | None, change: Any, reason: str = "a test"):
    """Send the table back as it was shown, with one change."""
    table = gateway.api("/api/v1/table")
    rules = table["models"]["mortgage"]["rules"]
    change(rules)
    headers = {"if-match": f'"{revision or table["revision"]}"'}
    sent = {"reason": reason, "models": {"mortgage": {"rules": rules}}}
    return httpx2.put(url(gateway, "/table"), json=sent, headers=headers, timeout=30)


def weigh(share: int) -> Any:
    def change(rules: list[dict[str, Any]]) -> None:
        rules[-1]["split"] = {"v1": f"{100 - share}%", "v2": f"{share}%"}

    return change


@pytest.mark.long
def test_two_writers_under_load(gateway: GatewayProcess) -> None:
    """Each edit is of the revision it was made for or a 412 with the difference; no request fails,
    and every record names a revision that was in force."""
    rounds = 6
    meet = threading.Barrier(2)
    done = threading.Event()
    statuses: list[tuple[int, int]] = []
    made: list[str] = [gateway.api("/api/v1/table")["revision"]]
    failed: list[Any] = []
    answered: list[str] = []

    def write(number: int) -> None:
        for turn in range(rounds):
            table = gateway.api("/api/v1/table")
            meet.wait(60)
            answer = edit(gateway, table["revision"], weigh(10 + 2 * turn + number))
            statuses.append((turn, answer.status_code))
            if answer.status_code == 200:
                made.append(answer.json()["revision"])
            elif answer.status_code == 412:
                assert answer.json()["code"] == "conflict"
            meet.wait(60)

    def ask() -> None:
        with httpx2.Client(base_url=f"http://{gateway.data}", timeout=30) as client:
            while not done.is_set():
                answer = client.post("/v2/models/mortgage/infer", content=body(), headers=KEY)
                if answer.status_code == 200:
                    answered.append(answer.headers["x-headworks-id"])
                else:
                    failed.append(answer.text)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in askers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in askers:
        thread.join()
    assert failed == []
    assert sorted(statuses) == [(turn, status) for turn in range(rounds) for status in (200, 412)]
    assert len(answered) > 20
    gateway.wait_settled()
    shown = gateway.api("/api/v1/decisions", limit=1000)["decisions"]
    assert len(shown) >= min(1000, len(answered))
    revisions = gateway.api("/api/v1/revisions", limit=1000)["revisions"]
    known = {told["revision"] for told in revisions}
    assert set(made) <= known
    for decision in shown[:40]:
        record = gateway.api(f"/api/v1/decisions/{decision['id']}")["record"]
        assert record["revision"] in known


def test_a_write_without_or_with_another_revision_changes_nothing(gateway: GatewayProcess) -> None:
    """428 without If-Match; 412 with an old one, and what was changed since."""
    before = httpx2.get(url(gateway, "/table"), timeout=30)
    assert before.headers["etag"] == f'"{before.json()["revision"]}"'
    first = before.json()["revision"]
    assert edit(gateway, first, weigh(33)).status_code == 200
    answer = edit(gateway, first, weigh(44))
    told = answer.json()
    assert (answer.status_code, told["code"]) == (412, "conflict")
    assert {change["key"] for change in told["difference"]} == {
        "models.mortgage.rules.everyone.split.v1", "models.mortgage.rules.everyone.split.v2",
    }  # fmt: skip
    assert answer.headers["etag"] == f'"{told["revision"]}"'
    bare = httpx2.put(url(gateway, "/table"), content=b"{}", timeout=30)
    assert (bare.status_code, bare.json()["code"]) == (428, "if_match_wanted")


def test_rules_are_put_by_command(gateway: GatewayProcess) -> None:
    """For the revision that they were made for; else what changed is shown, problems have lines."""
    rules = gateway.folder / "rules.yaml"
    rules.write_text("reason: by command\nmodels:\n  mortgage:\n    rules:" + RULES)
    revision = gateway.api("/api/v1/table")["revision"]
    done = gateway.run("route", "put", str(rules), "--made-for", revision)
    assert done.returncode == 0, done.stdout + done.stderr
    assert edit(gateway, None, weigh(21)).status_code == 200
    late = gateway.run("route", "put", str(rules), "--made-for", revision)
    assert late.returncode == 1
    assert "models.mortgage.rules.pilot: nothing -> name pilot" in late.stdout
    assert "% -> 21%" in late.stdout
    rules.write_text(rules.read_text().replace("split: {v2", "spilt: {v2"))
    current = gateway.api("/api/v1/table")["revision"]
    wrong = gateway.run("route", "put", str(rules), "--made-for", current)
    assert "line 5: models.mortgage.rules.0.spilt: unknown key; split is meant?" in wrong.stdout


def test_a_wrong_edit_says_line_and_key(gateway: GatewayProcess) -> None:
    """Of the YAML that was sent; the last good table stays in force."""
    revision = gateway.api("/api/v1/table")["revision"]
    text = "reason: a test\nmodels:\n  mortgage:\n    rules:" + RULES.replace("v2: 100%", "v7: 5%")
    answer = httpx2.put(
        url(gateway, "/table"), content=text.encode(), headers={"if-match": revision}, timeout=30
    )
    assert answer.status_code == 422
    assert {(one["line"], one["key"]) for one in answer.json()["problems"]} == {
        (5, "models.mortgage.rules.0.split"), (5, "models.mortgage.rules.0.split.v7"),
    }  # fmt: skip
    assert gateway.api("/api/v1/table")["revision"] == revision


@pytest.mark.long
def test_an_edit_outlives_a_restart_and_meets_the_file(gateway: GatewayProcess) -> None:
    """The unchanged file does not undo it; a file that changes the same rule is refused, with its
    line and both; an exported file is taken."""
    assert edit(gateway, None, weigh(12)).status_code == 200
    revision = gateway.api("/api/v1/table")["revision"]
    gateway.stop()
    gateway.start().wait_settled()
    assert gateway.api("/api/v1/table")["revision"] == revision
    path: Path = gateway.folder / "headworks.yaml"
    text = path.read_text()
    path.write_text(text.replace("v1: 95%, v2: 5%", "v1: 70%, v2: 30%"))
    told = gateway.run("reload")
    assert told.returncode == 1
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "v1: 95%" in one)
    assert f"headworks.yaml:{line}: models.mortgage.rules.everyone" in told.stderr
    assert '"v2":"30%"' in told.stderr
    assert '"v2":"12%"' in told.stderr
    status = gateway.api("/api/v1/status")
    assert status["state"] == "yellow"
    assert any("the file is not in force" in words for words in status["words"])
    path.write_text(text)
    exported = gateway.run("route", "export")
    assert exported.returncode == 0, exported.stderr
    assert "12%" in exported.stdout
    path.write_text(exported.stdout)
    done = gateway.run("reload")
    assert done.returncode == 0, done.stderr
    assert gateway.api("/api/v1/status")["governor"]["refused"] == []
    assert gateway.api("/api/v1/table")["models"]["mortgage"]["rules"][-1]["split"]["v2"] == "12%"


def test_recorded_requests_against_a_draft(gateway: GatewayProcess) -> None:
    """Which would change version; that they were read is a leaf. Traces by command, live and of a
    draft."""
    with httpx2.Client(base_url=f"http://{gateway.data}", timeout=30) as client:
        for number in range(20):
            headers = KEY | {"x-applicant": f"unit-{number}"}
            client.post("/v2/models/mortgage/infer", content=body(), headers=headers)
    gateway.wait_settled()
    current = gateway.api("/api/v1/table")["models"]["mortgage"]["rules"][-1]
    draft = gateway.folder / "draft.yaml"
    tree = yaml.safe_load((gateway.folder / "headworks.yaml").read_text())
    tree["models"]["mortgage"]["rules"][-1]["split"] = {"v3": "100%"}
    draft.write_text(yaml.safe_dump(tree, sort_keys=False))
    told = gateway.run("route", "try", "--draft", str(draft), "--last", "20", "--json")
    assert told.returncode == 0, told.stderr
    document = orjson.loads(told.stdout)
    assert (document["tried"], document["change"]) == (20, 20), (document, current)
    assert {change["to"]["version"] for change in document["changes"]} == {"v3"}
    assert document["reading"] > 0
    said = ["POST", "/v2/models/mortgage/infer", "--caller", "loans-app", "-H", "x-applicant: ann"]
    live = orjson.loads(gateway.run("route", "trace", *said, "--json").stdout)
    assert live["rule"] == current["name"]
    tried = gateway.run("route", "trace", *said, "--draft", str(draft), "--json")
    assert orjson.loads(tried.stdout)["version"] == "v3"


def comes(gateway: GatewayProcess, version: str) -> bool:
    """Whether a unit with bucket 747,159 gets this version, within 20 s."""
    headers = KEY | {"x-applicant": "user-42"}
    address = f"http://{gateway.data}/v2/models/mortgage/infer"
    until = time.monotonic() + 20
    while time.monotonic() < until:
        reply = httpx2.post(address, content=body(), headers=headers, timeout=30)
        assert reply.status_code == 200
        if reply.headers["x-headworks-version"] == version:
            return True
        time.sleep(0.05)
    return False


def test_a_revert_is_one_command_also_without_the_governor(gateway: GatewayProcess) -> None:
    """By the API, and offline while the governor is stopped; workers serve it, it is a leaf."""
    before = gateway.api("/api/v1/table")["revision"]
    assert edit(gateway, None, weigh(77)).status_code == 200
    told = gateway.run("route", "revert", before[:12], "--reason", "it was worse")
    assert told.returncode == 0, told.stderr
    assert gateway.api("/api/v1/table")["models"]["mortgage"]["rules"][-1]["split"]["v2"] != "77%"
    assert edit(gateway, None, weigh(78)).status_code == 200
    assert comes(gateway, "v2")
    governor = gateway.child("governor")
    os.kill(governor, 19)
    try:
        told = gateway.run("route", "revert", before, "--offline", "--reason", "no governor")
        assert told.returncode == 0, told.stderr
        revision = gateway.api("/api/v1/table")["revision"]
        assert comes(gateway, "v1")
    finally:
        os.kill(governor, 18)
    gateway.wait_settled()
    history = gateway.api("/api/v1/revisions", limit=2)["revisions"]
    assert (history[0]["revision"], history[0]["origin"]) == (revision, "revert")
    assert history[0]["reason"] == "no governor"
