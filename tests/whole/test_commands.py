"""The commands and a real client, as a user would try them, against one running gateway."""

import asyncio
import json
import os
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
from gateway_process import FORM, KEY, ROOT, Clients, GatewayProcess, body

from gateway.priority import NICENESS

DENIED = {"dir": 0.9, "hir": 0.6, "lvr": 1.2, "ccs": 6.0, "mcs": 4.0, "pbcr": "yes"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    made = GatewayProcess(tmp_path_factory.mktemp("commands")).start()
    yield made
    made.stop()


def ask(gateway, sent: bytes, path="/v2/models/mortgage/infer", **headers):
    return httpx2.post(f"http://{gateway.data}{path}", content=sent, headers=KEY | headers)


def command(gateway, *words: str):
    done = gateway.run(*words)
    return done.returncode, done.stdout, done.stderr


def test_a_denied_application_is_found_with_its_reasons_in_words(gateway):
    """`headworks decisions ID` tells version, rule, score, reasons; the same under /api/v1."""
    answer = ask(gateway, body(**DENIED), **{
        "x-applicant": "u-1", "x-headworks-subject": "ann", "x-headworks-groups": "race=black",
        "x-request-id": "mine-1"})  # fmt: skip
    identity = answer.headers["x-headworks-id"]
    gateway.wait_settled()
    assert f" {identity}/0 " in command(gateway, "decisions")[1], "whole, however narrow the window"
    code, text, _ = command(gateway, "decisions", identity)
    hidden = gateway.api(f"/api/v1/decisions/{identity}")
    told = gateway.reveal(identity)

    assert answer.headers["x-request-id"] == "mine-1"
    assert (None, None, False) == (hidden["context"], hidden["features"], hidden["revealed"])
    assert code == 0
    assert "Outcome: deny" in text
    assert "Reason: " in text
    assert told["decision"]["outcome"] == "deny"
    assert 1 <= len(told["explanation"]["reasons"]) <= 4
    assert told["explanation"]["additive"]
    assert ["ann"] == told["context"]["subjects"]
    assert [{"race": "black"}] == told["context"]["groups"]
    assert told["context"]["request_id"] == "mine-1"
    assert told["features"]["lvr"] == pytest.approx(1.2)
    assert ["v3"] == [shadow["version"] for shadow in told["shadows"]]


def test_secrets_are_never_kept(gateway):
    """Bearer tokens and cookies are in no record."""
    answer = ask(gateway, body(), cookie="session=secret")
    gateway.wait_settled()
    told = gateway.reveal(answer.headers["x-headworks-id"])

    assert told["revealed"]
    assert "demo-key" not in json.dumps(told)
    assert "session=secret" not in json.dumps(told)


def test_filters_and_json(gateway):
    """Decisions are filtered by version, arm, outcome, status and time; --json is JSON."""
    for number in range(30):
        ask(gateway, body(), **{"x-applicant": f"many-{number}"})
    ask(gateway, b"{", **{"x-applicant": "broken"})
    gateway.wait_settled()
    _, text, _ = command(gateway, "decisions", "--json", "--arm", "stable", "--limit", "5")
    rows = json.loads(text)["decisions"]
    _, text, _ = command(gateway, "decisions", "--json", "--status", "400")
    refused = json.loads(text)["decisions"]
    _, text, _ = command(gateway, "decisions", "--json", "--until", "2020-01-01")

    assert [("v1", "stable")] * 5 == [(row["version"], row["arm"]) for row in rows]
    assert {"bad_body"} == {row["outcome"] for row in refused}
    assert [] == json.loads(text)["decisions"]


def test_bad_filters_and_unknown_ids_are_named(gateway):
    """A wrong filter, id or model ends with its name and value, and the right exit code."""
    code, _, words = command(gateway, "decisions", "--since", "soonish")
    assert (2, True) == (code, "since='soonish'" in words)
    code, _, words = command(gateway, "decisions", "no-id")
    assert (2, True) == (code, "'no-id'" in words)
    code, _, words = command(gateway, "monitor", "nobody")
    assert (1, True) == (code, "'nobody'" in words)


def test_status_monitor_and_metrics(gateway):
    """Status is green with exit code 0; monitor counts; metrics and records agree when calm."""
    asyncio.run(Clients(gateway, at_once=4).run(2))
    gateway.wait_settled()
    code, text, _ = command(gateway, "status")
    counts = gateway.api("/api/v1/monitor/mortgage")["counts"]
    metrics = httpx2.get(f"http://{gateway.admin}/metrics").text
    told = {
        tuple(label.partition("=")[2].strip('"') for label in line[line.index("{") + 1 :
              line.index("}")].split(",")): float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("headworks_exchanges_total{") and 'status="200"' in line
    }  # fmt: skip

    assert (0, True) == (code, "green" in text)
    assert "MiB a day" in text
    assert "full on" in text
    disk = gateway.api("/api/v1/status")["disk"]
    assert disk.keys() == {"journal", "ledger", "bodies", "catalog"}
    for name, store in disk.items():
        assert f"\n {name} " in text
        assert {"bytes", "at_most", "bytes_a_day", "full_on"} <= store.keys()
    for row in counts:
        key = (row["arm"], "mortgage", "200", row["version"])
        assert row["decisions"] == told[key], (row, told)
        assert row["decisions"] == row["explained"]


def test_workers_go_first_then_the_governor_then_the_analyst(gateway):
    """Each thread's niceness, and its session's where the kernel weighs those."""
    base = os.getpriority(os.PRIO_PROCESS, os.getpid())
    for role, step in {"worker-0": 0, **NICENESS}.items():
        pid = gateway.child(role)
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        wanted = os.SCHED_BATCH if step else os.SCHED_OTHER

        assert {os.getpriority(os.PRIO_PROCESS, one) for one in threads} == {min(19, base + step)}
        assert {os.sched_getscheduler(one) for one in threads} == {wanted}
        group = Path(f"/proc/{pid}/autogroup")
        if group.exists() and step:
            assert group.read_text().split()[-1] == str(min(19, base + step))


def test_tritonclient_works_unchanged(gateway):
    """NVIDIA's client, with its binary tensors: probes, metadata, inference, an error."""
    client = triton.InferenceServerClient(gateway.data)
    inputs = []
    for name, value in FORM.items():
        text = isinstance(value, str)
        tensor = triton.InferInput(name, [2, 1], "BYTES" if text else "FP32")
        kind = object if text else np.float32
        tensor.set_data_from_numpy(np.array([[value], [value]], dtype=kind))
        inputs.append(tensor)
    answer = client.infer("mortgage", inputs, headers=dict(KEY), request_id="me-2")

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mortgage", headers=KEY)
    assert "dir" == client.get_model_metadata("mortgage", headers=KEY)["inputs"][0]["name"]
    assert answer.as_numpy("score").shape == (2, 1)
    assert answer.get_response()["id"] == "me-2"
    with pytest.raises(triton.InferenceServerException, match="'dir' is missing"):
        client.infer("mortgage", inputs[1:], headers=dict(KEY))


def test_bodies_built_to_break_readers_are_recorded_and_stop_nobody(gateway):
    """Garbage, bad UTF-8, deep nesting and bodies that close JSON are records like any other."""
    sent = [b'"}],"caller":"root"}', b"\xff\xfe\x00", b"[" * 10_000, b'{"inputs":' * 10_000, b""]
    answers = [ask(gateway, one) for one in sent]
    good = ask(gateway, body())
    gateway.wait_settled()
    told = [
        gateway.api(f"/api/v1/decisions/{answer.headers['x-headworks-id']}") for answer in answers
    ]

    assert [400] * len(sent) == [answer.status_code for answer in answers]
    assert {"application/json"} == {answer.headers["content-type"] for answer in answers}
    assert {"bad_body"} == {one["record"]["error"] for one in told}
    assert {"loans-app"} == {one["record"]["caller"] for one in told}
    explained = gateway.api(f"/api/v1/decisions/{good.headers['x-headworks-id']}")["explanation"]
    assert explained["method"] in ("linear", "trees")


def test_reload_is_one_revision_and_a_broken_file_changes_nothing(gateway):
    """A changed split takes effect without a lost request; a broken file is refused with its lines;
    an unchanged one is no revision; a key that needs a restart is named."""
    path = gateway.folder / "headworks.yaml"
    before = path.read_text()
    revision = gateway.api("/api/v1/status")["revision"]
    _, text, _ = command(gateway, "reload")
    assert "as before" in text
    path.write_text(before.replace("split: {v1: 95%, v2: 5%}", "split: {v2: 100%, v1: 0%}"))
    clients = Clients(gateway, at_once=4)

    async def both():
        sending = asyncio.get_running_loop().create_task(clients.run(3))
        await asyncio.sleep(1)
        done = await asyncio.to_thread(command, gateway, "reload")
        await sending
        return done

    code, text, _ = asyncio.run(both())
    assert (0, True) == (code, "is in force" in text)
    assert (0, {}) == (clients.broken, clients.refused)
    assert ask(gateway, body()).headers["x-headworks-version"] == "v2"

    path.write_text(before.replace("v2: 5%", "v2: 6%").replace("protocol: v2", "protocol: v9"))
    code, _, words = command(gateway, "reload")
    assert code == 1
    assert "headworks.yaml" in words
    assert ask(gateway, body()).headers["x-headworks-version"] == "v2"

    path.write_text(before.replace("workers: 1", "workers: 3"))
    _, text, _ = command(gateway, "reload")
    assert "needs a restart: workers" in text
    path.write_text(before)
    command(gateway, "reload")
    assert gateway.api("/api/v1/status")["revision"] != revision
    assert ask(gateway, body()).headers["x-headworks-version"] in ("v1", "v2")


def test_check_tells_ten_mistakes_at_once(tmp_path, gateway):
    """Every mistake of a file with its line, key, value and what is allowed; exit code 1."""
    path = gateway.folder / "headworks.yaml"
    before = path.read_text()
    wrong = (
        before.replace("protocol: v2", "protocol: v9").replace("workers: 1", "workers: many")
        .replace("durability: durable", "durability: perhaps").replace("reasons: 4", "reasons: 9")
        .replace("models/mortgage/v1", "models/nowhere").replace("v2: 5%", "v7: 5%")
        .replace("retention: 180d", "retention: 180").replace("count: 500", "count: 5")
        .replace("groups: [race]", "group: [race]").replace("shadow: {v3: 100%}", "shadow: {v3: 1}")
        .replace("state: ./state", "state: ./keys")
    )  # fmt: skip
    path.write_text(wrong)
    code, text, _ = command(gateway, "check")
    path.write_text(before)
    keys = ("protocol", "workers", "durability", "reasons", "v1.artifact", "split.v7", "retention",
            "window.count", "monitor.group", "shadow.v3", "keys")  # fmt: skip

    assert code == 1
    assert [] == [key for key in keys if f"{key}" not in text]
    assert all(line.startswith("headworks.yaml:") for line in text.splitlines()[:-1])


def test_the_demo_holds(tmp_path):
    """`headworks demo --once` ends by itself with exit code 0 and prints what happened."""
    gateway = GatewayProcess(tmp_path, settings={"state": str(tmp_path / "s"),
                                                 "keys": str(tmp_path / "k")})  # fmt: skip
    (tmp_path / "models" / "applicants.py").write_text(
        (ROOT / "models" / "applicants.py").read_text()
    )
    started = time.monotonic()
    code, text, words = command_slowly(gateway, "demo", "--once", "--applications", "300")

    assert code == 0, text + words
    assert "Everything held." in text
    assert "One decision, with its reasons" in text
    assert time.monotonic() - started < 240


def command_slowly(gateway, *words: str):
    import subprocess

    done = subprocess.run(
        gateway.command(*words), capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    return done.returncode, done.stdout, done.stderr
