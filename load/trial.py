"""One trial: one contender under one load, and what it cost.

A contender is a way of being asked: a peer, the origin itself (`direct`), or one model of the
gateway. CPU is read from /proc before and after, for its whole process tree. What the gateway does
after the answers (sealing, explaining, the catalog) belongs to the requests that caused it, so its
trial ends when that work is done; the workers' share is read when the load ends.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx2

from load import wrk
from load.figures import Latency
from load.generator import Order
from load.processes import Running, cpu_by_role, paused, resident, tree
from load.scenario import CHUNKS, Scenario, request_bytes

ROOT = Path(__file__).parents[1]
QUIET_SHARE = 0.15
"""Of a core: below it, for two looks, what is left of a role's work is its idle polling."""
LOOK_S, LOOKS = 0.25, 2
COMMITS = ("headworks_journal_commits_total", "headworks_journal_commit_seconds_total")


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    title: str
    server: Running
    port: int
    paths: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    settles: bool = False
    pauses: tuple[str, ...] = ()
    """Roles that stand still while the load lasts."""
    metrics: str = ""
    """Where the gateway tells its counters."""

    def request(self, scenario: Scenario) -> bytes:
        host = f"127.0.0.1:{self.port}"
        return request_bytes(scenario, self.paths[scenario.name], host, self.headers)


@dataclass(frozen=True, slots=True)
class Plan:
    """One cell of one round. `rate` 0: as fast as it goes."""

    scenario: str
    concurrency: int
    seconds: float
    round: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one trial told. CPU in microseconds a request by role, memory in bytes by role."""

    contender: str
    scenario: str
    concurrency: int
    round: int
    rate: float
    requests: int
    errors: int
    seconds: float
    cpu: dict[str, float]
    memory: dict[str, int]
    latency: Latency | None
    first_event: Latency | None
    origin_busy: float
    settled_s: float = 0.0
    note: str = ""
    commits: int = 0
    commit_s: float = 0.0
    """The journal's commits in this time, and how long they lasted together."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_all(self) -> float:
        """CPU microseconds a request, all roles."""
        return sum(self.cpu.values())

    @property
    def cpu_path(self) -> float:
        """Of those who answer: the workers of the gateway, a peer's whole tree."""
        return self.cpu.get("worker", self.cpu.get("main", 0.0))


def sample_of(document: dict[str, object]) -> Sample:
    """From JSON, as `dataclasses.asdict` made it."""
    fields = dict(document)
    for name in ("latency", "first_event"):
        value = fields[name]
        fields[name] = Latency(**value) if isinstance(value, dict) else None
    return Sample(**fields)  # type: ignore[arg-type]


def committed_by(url: str) -> list[float]:
    """How many commits the workers' journals have made, and the seconds those lasted."""
    if not url:
        return [0.0, 0.0]
    text = httpx2.get(url, timeout=10).text
    return [
        sum(float(each) for each in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))
        for name in COMMITS
    ]


class Bench:
    """The tools of a run: where it writes, who the origin is, whether wrk is there."""

    def __init__(self, folder: Path, origin: Running, wrk_path: str | None) -> None:
        self.folder, self.origin, self.wrk_path = folder, origin, wrk_path
        self.patience_s = 30.0

    def preflight(self, contender: Contender, scenario: Scenario) -> str:
        """ "" if one request is answered as it should be, else what came instead."""
        headers = {"content-type": scenario.content_type, **dict(scenario.headers),
                   **contender.headers}  # fmt: skip
        link = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=20)
        try:
            link.request("POST", contender.paths[scenario.name], scenario.body, headers)
            answer = link.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error!r}"
        finally:
            link.close()
        if answer.status != 200 or scenario.marker not in body:
            return f"{answer.status} {body[:200].decode('utf-8', 'replace')!r}"
        found = body.count(b"data: ")
        if scenario.stream and not CHUNKS <= found <= CHUNKS + 2:
            return f"{found} events came instead of {CHUNKS + 1}"
        return ""

    def run(self, contender: Contender, scenario: Scenario, plan: Plan) -> Sample:
        root = contender.server.root
        committed = committed_by(contender.metrics)
        origin_before = {p.number: p.cpu for p in tree(self.origin.root)}
        before, begun = cpu_by_role(root), time.monotonic()
        with paused(root, contender.pauses):
            if self.wrk_path and not plan.rate and not scenario.stream:
                outcome, first = self._wrk(contender, scenario, plan), None
            else:
                outcome, first = self._own(contender, scenario, plan)
            wall = time.monotonic() - begun
            after = cpu_by_role(root)
        busy = max(
            (p.cpu - origin_before.get(p.number, 0.0) for p in tree(self.origin.root)), default=0.0
        )
        abandoned = outcome.errors and not outcome.requests
        settled = self._settle(root) if contender.settles or abandoned else 0.0
        late = cpu_by_role(root) if contender.settles else after
        committed = [a - b for a, b in zip(committed_by(contender.metrics), committed)]
        late["worker" if "worker" in after else "main"] = after.get("worker", after.get("main", 0))
        count = max(1, outcome.requests)
        cpu = {role: (late[role] - before.get(role, 0.0)) / count for role in late}
        note = outcome.sample
        if settled >= self.patience_s:
            note = f"{note} backlog left after {settled:.0f} s".strip()
        return Sample(
            contender.name, scenario.name, plan.concurrency, plan.round, plan.rate,
            outcome.requests, outcome.errors, outcome.seconds, cpu, resident(root),
            outcome.latency if outcome.requests else None, first, busy / 1e6 / wall, settled, note,
            round(committed[0]), committed[1],
        )  # fmt: skip

    def _wrk(self, contender: Contender, scenario: Scenario, plan: Plan) -> wrk.Outcome:
        folder = self.folder / "wrk" / contender.name
        folder.mkdir(parents=True, exist_ok=True)
        script = wrk.write_script(folder, scenario, contender.headers)
        url = f"http://127.0.0.1:{contender.port}{contender.paths[scenario.name]}"
        seconds = max(1, round(plan.seconds))
        command = [self.wrk_path or "wrk", "-t1", f"-c{plan.concurrency}", f"-d{seconds}s",
                   "--timeout", "10s", "-s", str(script), url]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=plan.seconds + 60, cwd=folder
        )
        return wrk.parse(done.stdout + done.stderr)

    def _own(
        self, contender: Contender, scenario: Scenario, plan: Plan
    ) -> tuple[wrk.Outcome, Latency | None]:
        order = asdict(
            Order(contender.port, b"", b"", plan.concurrency, plan.seconds,
                  rate=plan.rate, seed=plan.round + 1)
        )  # fmt: skip
        order["request"] = contender.request(scenario).decode("latin-1")
        order["marker"] = scenario.marker.decode()
        command = [sys.executable, "-m", "load.generator"]
        done = subprocess.run(
            command, input=json.dumps(order), capture_output=True, text=True, cwd=ROOT,
            timeout=plan.seconds + 60,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the generator failed: {done.stderr.strip()[-300:]}")
        told = json.loads(done.stdout)
        spread = told["latency"] and Latency(**told["latency"])
        first = told["first_event"] and Latency(**told["first_event"])
        outcome = wrk.Outcome(
            told["requests"], told["errors"], told["seconds"], spread, told["sample"]
        )
        return outcome, first if scenario.stream else None

    def _settle(self, root: int) -> float:
        """Wait until no role works any more; the seconds that took."""
        begun, before, quiet = time.monotonic(), cpu_by_role(root), 0
        while (spent := time.monotonic() - begun) < self.patience_s:
            if quiet == LOOKS:
                return spent
            time.sleep(LOOK_S)
            now = cpu_by_role(root)
            idle = all(now[role] - before.get(role, 0) < QUIET_SHARE * LOOK_S * 1e6 for role in now)
            quiet = quiet + 1 if idle else 0
            before = now
        return self.patience_s
