"""Candidates with one fault each, and healthy ones, through a real gateway and a whole rollout."""

from __future__ import annotations

import asyncio
import random
import shutil
import time

import httpx2
import pytest
from candidates import FAULTS, Server
from gateway_process import KEY, body

FILE = """\
rollout: trial
model: mortgage
rule: everyone
from: steady
to: candidate
evidence: {block: 1s, warmup: 0s, min_requests: 50}
guards: GUARDS
limits: [{metric: bad_ratio, above: 20%, for: 2 blocks, min_requests: 5}]
steps:
  - {shadow: 100%, min: 6s, max: 10m, require: [flips]}
  - {weight: 40%, min: 20s, max: 10m, require: JUDGED}
  - {weight: 100%, bake: 6s}
holdout: 20%
"""
ERRORS, SPEED = "[errors]", "[{name: latency_p95, worse_than: x1.5}]"
ALL = "[errors, {name: latency_p95, worse_than: x1.5}, {name: flips, max: 10%, on_fail: rollback}]"
BY_RACE = "[{name: fairness, by: race, min_per_group: 50, on_fail: rollback}]"
FLIPS = "worse by the evidence: flips", "would be decided otherwise by candidate"
STOPPED = {
    "scaled": (ALL, "[latency_p95]", *FLIPS),
    "slice": (ALL, "[latency_p95]", *FLIPS),
    "other_order": (ALL, "[latency_p95]", *FLIPS),
    "biased": (BY_RACE, "[fairness]", "worse by the evidence: fairness",
               "the disadvantage of race=black"),
    "slower": (SPEED, "[latency_p95]", "worse by the evidence: latency_p95",
               "p95 latency of candidate is"),
    "bursts": (ERRORS, "[errors]", "of the canary's answers failed", ""),
}  # fmt: skip


@pytest.fixture
def served(make_gateway):
    """A gateway whose stable version is well; `served(name)` has a candidate of that kind."""
    made = []

    def make(name: str):
        made.extend(Server(FAULTS[one]) for one in ("well", name))
        steady, candidate = (one.url for one in made[-2:])
        text = f"""\
listen: {{data: 127.0.0.1:8080, admin: 127.0.0.1:9901}}
workers: 1
state: ./state
keys: ./keys
callers:
  - name: loans-app
    key_sha256: "c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c"
    may: [context]
models:
  mortgage:
    unit: [header:x-applicant, exchange]
    versions:
      steady: {{upstream: '{steady}', artifact: models/mortgage/steady}}
      candidate: {{upstream: '{candidate}', artifact: models/mortgage/candidate}}
    rules: [{{name: everyone, split: {{steady: 100%}}}}]
    monitor: {{groups: [race]}}
"""
        gateway = make_gateway(edit=lambda _: text)
        models = gateway.folder / "models" / "mortgage"
        for version in ("steady", "candidate"):
            shutil.copytree(models / "v1", models / version)
            card = models / version / "card.yaml"
            card.write_text(card.read_text().replace("version: v1\n", f"version: {version}\n"))
        return gateway.start()

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


def applicant(number: int) -> tuple[bytes, dict[str, str]]:
    """A quarter has a condominium, a third is of a group that borrows more of the value."""
    rng = random.Random(number)
    black = rng.random() < 0.33
    form = {"dir": rng.random(), "hir": rng.random(), "condominium": float(rng.random() < 0.25),
            "lvr": rng.uniform(0.85, 1.0) if black else rng.uniform(0.5, 0.95)}  # fmt: skip
    group = f"race={'black' if black else 'white'}"
    return body(**form), KEY | {"x-applicant": f"unit-{number}", "x-headworks-groups": group}


SIX = """\
rollout: trial
model: mortgage
rule: everyone
from: steady
to: candidate
steps: [shadow 2m, 5% 2m, 50% 2m, 100% 2m]
"""


async def paced(gateway, enough, seconds: float, rate: int = 100) -> None:
    """`rate` applicants a second, each of them once: what is late is not made up for."""
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    until, number, under_way = time.monotonic() + seconds, 0, set()
    async with httpx2.AsyncClient(timeout=30) as client:
        while time.monotonic() < until and not await asyncio.to_thread(enough):
            for _ in range(2 * rate):
                number += 1
                sent, heads = applicant(number)
                asked = asyncio.create_task(client.post(url, content=sent, headers=heads))
                under_way.add(asked)
                asked.add_done_callback(under_way.discard)
                await asyncio.sleep(1 / rate)
        await asyncio.gather(*under_way)


async def traffic(gateway, enough, seconds: float) -> None:
    until, number = time.monotonic() + seconds, 0
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    async with httpx2.AsyncClient(timeout=30) as client:
        while time.monotonic() < until and not await asyncio.to_thread(enough):
            for _ in range(4):
                asked = [applicant(number + more) for more in range(16)]
                number += len(asked)
                await asyncio.gather(
                    *(client.post(url, content=sent, headers=heads) for sent, heads in asked)
                )


def outcome(gateway, guards: str, judged: str) -> tuple[str, str, list[str]]:
    """Phase in the end, the last move's reason, and what each guard says in words. `judged`: the
    guards that have to find it safe before everybody gets it. Only flips need a shadow."""
    path = gateway.folder / "trial.yaml"
    lines = FILE.replace("GUARDS", guards).replace("JUDGED", judged).splitlines(keepends=True)
    path.write_text("".join(one for one in lines if "flips" in guards or "{shadow" not in one))
    done = gateway.run("rollout", "start", str(path))
    assert done.returncode == 0, done.stderr

    def told():
        return gateway.api("/api/v1/rollouts/trial")

    ends = ("rolled_back", "promoted", "aborted")
    asyncio.run(traffic(gateway, lambda: told()["phase"] in ends, 400))
    found = told()
    events = gateway.api("/api/v1/rollouts/trial/history")["events"]
    words = [one["words"] for one in found["guards"]]
    return found["phase"], [one["why"] for one in events if "why" in one][-1], words


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STOPPED)
def test_each_fault_is_stopped_with_its_reason(served, name):
    """And everybody is back with the version that answered before; the ledger gives the same."""
    guards, judged, why, words = STOPPED[name]
    gateway = served(name)
    phase, reason, said = outcome(gateway, guards, judged)
    assert (phase, why in reason) == ("rolled_back", True), (phase, reason, said)
    assert any(words in one for one in said), said
    rule = gateway.api("/api/v1/models")["models"][0]["rules"][0]
    assert rule["stable"] == "steady"
    assert gateway.run("rollout", "verify", "trial").returncode == 0


def six_lines(gateway, ends: tuple[str, ...], seconds: float) -> dict:
    """Started from six lines, and how it stands when its phase is one of these."""
    path = gateway.folder / "trial.yaml"
    path.write_text(SIX)
    done = gateway.run("rollout", "start", str(path))
    assert done.returncode == 0, done.stderr

    def told() -> dict:
        return gateway.api("/api/v1/rollouts/trial")

    asyncio.run(paced(gateway, lambda: told()["phase"] in ends, seconds))
    return told()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_six_lines_bring_a_healthy_candidate_to_everybody(served):
    """Blocks, warm-up, guards and limits as they come, a hundred applicants a second: promoted by
    the evidence alone, which verifies."""
    gateway = served("jittery")
    found = six_lines(gateway, ("promoted", "held", "rolled_back", "aborted"), 1300)
    assert found["phase"] == "promoted", (found["why"], found["guards"])
    assert {one["verdict"] for one in found["guards"]} == {"safe"}
    assert gateway.run("rollout", "verify", "trial").returncode == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_six_lines_stop_labels_in_another_order_in_shadow(served):
    """Neither errors nor latency tell it: held while nobody is answered by it, and why in words."""
    gateway = served("other_order")
    found = six_lines(gateway, ("promoted", "held", "rolled_back", "aborted"), 400)
    assert (found["phase"], found["weight_ppm"]) == ("held", 0), found["why"]
    assert found["why"] == "held (worse): worse by the evidence: disagreement"
    assert found["counts"]["canary"]["exchanges"] == 0
    (words,) = (one["words"] for one in found["guards"] if one["guard"] == "disagreement")
    assert "would be answered otherwise by candidate; 2 % is allowed" in words
    assert gateway.run("rollout", "verify", "trial").returncode == 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["well", "jittery"])
def test_healthy_candidates_come_to_everybody(served, name):
    """Under all of the guards that stop the others."""
    gateway = served(name)
    phase, reason, said = outcome(gateway, ALL.replace("]", ", " + BY_RACE[1:], 1), "[latency_p95]")
    assert phase == "promoted", (phase, reason, said)
    assert gateway.run("rollout", "verify", "trial").returncode == 0
