"""Rollouts at a real gateway: by command, through kill -9 of the governor, and back again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx2
import orjson
import pytest
from gateway_process import KEY, GatewayProcess, body

FILE = """\
rollout: trees
model: mortgage
rule: everyone
from: v1
to: v2
evidence: {block: 1s, warmup: 0s, min_requests: 10}
guards: [{name: latency, metric: latency, stat: p95, worse_than: x20}]
limits: [{metric: bad_ratio, above: 20%}]
steps:
  - {weight: 20%, min: 2s}
  - {weight: 50%, min: 2s, require: []}
  - {weight: 100%, bake: 2s}
holdout: 10%
"""


def edit(text: str) -> str:
    return text.replace("{v1: 95%, v2: 5%}, shadow: {v3: 100%}", "{v1: 100%}")


@pytest.fixture
def gateway(make_gateway) -> GatewayProcess:
    return make_gateway(edit=edit)


def write(gateway: GatewayProcess, text: str) -> str:
    path = gateway.folder / "trees.yaml"
    path.write_text(text)
    return str(path)


def told(gateway: GatewayProcess) -> dict:
    return gateway.api("/api/v1/rollouts/trees")


async def traffic(gateway: GatewayProcess, enough, seconds: float = 60) -> None:
    """One unit a request, until `enough` says so."""
    until, number = time.monotonic() + seconds, 0
    async with httpx2.AsyncClient(base_url=f"http://{gateway.data}", timeout=30) as client:
        while time.monotonic() < until and not await asyncio.to_thread(enough):
            sent = []
            for _ in range(12):
                number += 1
                headers = KEY | {"x-applicant": f"unit-{time.monotonic_ns()}-{number}"}
                path = "/v2/models/mortgage/infer"
                sent.append(client.post(path, content=body(), headers=headers))
            await asyncio.gather(*sent)
            await asyncio.sleep(0.1)


@pytest.mark.long
def test_a_version_comes_to_everybody_though_the_governor_is_killed(gateway):
    """Started by command; the governor is killed -9 in each step; the ledger agrees in the end."""
    gateway.start()
    done = gateway.run("rollout", "start", write(gateway, FILE), "--json")
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["phase"] == "running"
    killed = set()

    def enough() -> bool:
        found = told(gateway)
        if found.get("step", 0) in (1, 2) and found["step"] not in killed:
            killed.add(found["step"])
            os.kill(gateway.child("governor"), signal.SIGKILL)
        return found.get("phase") == "promoted"

    asyncio.run(traffic(gateway, enough))
    assert told(gateway)["phase"] == "promoted"
    assert killed == {1, 2}
    models = gateway.api("/api/v1/models")["models"][0]["rules"]
    assert next(rule for rule in models if rule["name"] == "everyone")["stable"] == "v2"
    verified = orjson.loads(gateway.run("rollout", "verify", "trees", "--json").stdout)
    assert verified["problems"] == []
    assert verified["blocks"] == verified["counts"] > 4
    assert gateway.run("rollout", "status", "trees").returncode == 0
    for page, words in [("/rollouts", "trees"), ("/rollouts/trees", "that it is no worse")]:
        answer = httpx2.get(f"http://{gateway.admin}{page}", timeout=30)
        assert (answer.status_code, words in answer.text) == (200, True), answer.text[:500]


def test_an_abort_reaches_the_worker_in_a_second(gateway):
    """With the governor stopped dead too: the command goes by the state itself, and the returning
    governor records it."""
    gateway.start()
    slow = FILE.replace("min: 2s}", "min: 10m}").replace("{weight: 20%", "{weight: 50%")
    slow = slow.replace("  - {weight: 50%, min: 2s, require: []}\n", "")
    for offline in (False, True):
        done = gateway.run("rollout", "start", write(gateway, slow))
        assert done.returncode == 0, done.stderr
        asyncio.run(traffic(gateway, lambda: False, 1.0))
        governor = gateway.child("governor")
        if offline:
            os.kill(governor, signal.SIGSTOP)
            config = gateway.folder / "headworks.yaml"
            written = config.read_text()
            config.write_text(written + "nonsense: true\n")
        more = ["--offline"] if offline else []
        done = gateway.run("rollout", "abort", "trees", "--reason", "a drill", *more)
        assert done.returncode == 0, done.stderr
        time.sleep(1.0)
        arms = set()
        with httpx2.Client(headers=KEY, timeout=30) as client:
            for number in range(40):
                url = f"http://{gateway.data}/v2/models/mortgage/infer"
                headers = {"x-applicant": f"after-{offline}-{number}"}
                answer = client.post(url, content=body(), headers=headers)
                arms.add((answer.headers["x-headworks-version"], answer.headers["x-headworks-arm"]))
        assert arms == {("v1", "stable")}
        if offline:
            os.kill(governor, signal.SIGCONT)
            config.write_text(written)
        for _ in range(100):
            if (found := told(gateway))["phase"] == "aborted":
                break
            time.sleep(0.1)
        assert (found["phase"], found["attempt"]) == ("aborted", 2 if offline else 1)
    assert gateway.run("rollout", "status", "trees").returncode == 1


def test_what_is_wrong_with_a_file_is_told_with_its_line(gateway):
    """Nothing is started; the exit code says so; an unknown rollout is named."""
    gateway.start()
    wrong = FILE.replace("weight: 50%", "wait: 50%").replace("to: v2", "to: v9")
    done = gateway.run("rollout", "start", write(gateway, wrong))
    assert (done.returncode, "trees.yaml:11: steps.1.wait: unknown key" in done.stderr) == (1, True)
    assert gateway.run("rollout", "status", "bushes").returncode == 1
    assert gateway.api("/api/v1/rollouts") == {"rollouts": []}


@pytest.mark.long
def test_a_version_that_is_not_ready_is_refused(make_gateway):
    """Its health checks fail: nothing is started, and the reason is told."""

    def dead(text: str) -> str:
        served = "v3: {upstream: 'http://127.0.0.1:9', artifact: models/mortgage/v3}"
        text = edit(text).replace("v3: {artifact: models/mortgage/v3}", served)
        return text + "    health: {interval: 100ms, timeout: 100ms, down: 1}\n"

    gateway = make_gateway(edit=dead).start()
    time.sleep(2.0)
    done = gateway.run("rollout", "start", write(gateway, FILE.replace("to: v2", "to: v3")))
    assert (done.returncode, "no endpoint is available" in done.stderr) == (1, True), done.stderr
