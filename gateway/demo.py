"""The demo: serve the mortgage models, send applications through them, say what happened.

Live traffic is drawn from a generator fitted to real people (`models/applicants.py`), one unit
each, marked `synthetic` in unit, subject, groups and headers. The real held-out people go once, in
shadow: the stable version answers, both candidates are compared with it. Two rollouts
(`examples/rollouts/`) judge what is seen: v3 is stopped by the real people's paired answers before
it answers anybody, v2 comes from shadow to everybody on the generated ones.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import orjson
from rich.console import Console
from rich.progress import Progress

from gateway.adminclient import AdminClient, Refused, Unreachable
from gateway.check import Checked
from gateway.report import overview, rollouts
from gateway.rollout.recomputation import recompute

MODEL = "mortgage"
KEY = "demo-key"
AT_ONCE = 8
PATIENCE_S = 120.0
COPIED = 0.98
"""Of all answers, how many have to have a shadow: on a busy machine copies are dropped first."""
PAUSE_S = 0.05
"""Between two applications of one sender: a rollout looks at seconds, not at requests."""
UNWATCHED = 1500
"""Applications that are sent where no rollout waits for them."""
V2, V3 = "mortgage-v2", "mortgage-v3"
OVER = ("promoted", "rolled_back", "aborted")
TEXT = ("pbcr", "dmi", "self", "single")


@dataclass(frozen=True, slots=True)
class Application:
    unit: str
    race: str
    population: str
    form: dict[str, Any]

    def headers(self) -> dict[str, str]:
        return {
            "authorization": f"Bearer {KEY}",
            "content-type": "application/json",
            "x-applicant": self.unit,
            "x-population": self.population,
            "x-headworks-subject": self.unit,
            "x-headworks-groups": f"race={self.race},population={self.population}",
        }

    def body(self) -> bytes:
        inputs = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES" if name in TEXT else "FP32",
             "data": [value]}
            for name, value in self.form.items()
        ]  # fmt: skip
        return orjson.dumps({"inputs": inputs})


def synthetic(folder: Path, count: int, seed: int, run: str) -> list[Application]:
    """Applicants drawn from the fitted generator; `run` keeps the units of two demos apart."""
    spec = importlib.util.spec_from_file_location("applicants", folder / "models/applicants.py")
    assert spec is not None
    assert spec.loader is not None
    applicants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(applicants)
    parameters = json.loads((folder / "models/mortgage/applicants.json").read_text())
    drawn = applicants.draw(parameters, count, np.random.default_rng(seed))
    race = drawn.pop("race")
    return [
        Application(
            f"synthetic-{run}-{number}",
            race[number],
            "synthetic",
            {name: values[number] for name, values in drawn.items()},
        )
        for number in range(count)
    ]


def held_out(folder: Path) -> list[Application]:
    """The real people that no version was trained on."""
    found = []
    with (folder / "models/mortgage/held_out.csv").open() as file:
        for row in csv.DictReader(file):
            race, number = row.pop("race"), row.pop("row")
            row.pop("deny")
            form = {name: value if name in TEXT else float(value) for name, value in row.items()}
            form["dmi"] = "no"  # known only late in the process: a live request carries no
            found.append(Application(f"held-out-{number}", race, "held-out", form))
    return found


@dataclass(slots=True)
class Sent:
    ids: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    arms: dict[str, int] = field(default_factory=dict)
    populations: dict[str, int] = field(default_factory=dict)


class Demo:
    def __init__(self, checked: Checked, serve_arguments: list[str], count: int, seed: int) -> None:
        assert checked.settings is not None
        self.checked, self.folder = checked, checked.path.parent
        self.settings = checked.settings
        self.count, self.seed = count, seed
        self.admin = AdminClient(self.settings.listen.of("admin").address)
        self.data = self.settings.listen.of("data").address
        self.console = Console()
        self.rollouts: dict[str, dict[str, Any]] = {}
        self._looked_at = 0.0
        self._arguments = ["--config", str(checked.path), *serve_arguments]

    def run(self, once: bool) -> int:
        """0: everything held."""
        command = [sys.executable, "-m", "gateway", "serve", *self._arguments]
        log = (self.folder / "demo.log").open("ab")
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            failures = self._tell(server)
            if not once and server.poll() is None:
                self.console.print("It stays up until Ctrl-C.")
                server.wait()
        except KeyboardInterrupt:
            failures = []
        finally:
            server.terminate()
            server.wait(60)
        for words in failures:
            self.console.print(f"[bold red]did not hold:[/] {words}")
        if not failures and once:
            self.console.print("[green]Everything held.[/]")
        return 1 if failures else 0

    def _tell(self, server: subprocess.Popen[bytes]) -> list[str]:
        """Send, wait, print; what did not hold."""
        if not self._wait_ready(server):
            return [f"headworks serve did not become ready; see {self.folder / 'demo.log'}"]
        run = f"{self.seed}-{int(time.monotonic() * 1000) % 10**9}"
        applications = synthetic(self.folder, self.count, self.seed, run)
        sent = Sent()
        if not self.admin.get("/api/v1/decisions", rule="held-out", limit=1)["decisions"]:
            stopped = self._start(V3)
            pause_s = PAUSE_S * 3 if stopped else 0.0
            asyncio.run(self._send(held_out(self.folder), sent, pause_s=pause_s))
            if stopped:
                self._wait_over(V3)
        if self._start(V2):
            asyncio.run(self._send(applications, sent, lambda: self._is_over(V2), PAUSE_S))
        else:
            asyncio.run(self._send(applications[:UNWATCHED], sent))
        waited = self._wait_explained(sent)
        self._print(sent)
        return [*sent.failures[:5], *waited, *self._check(sent), *self._check_rollouts()]

    def _start(self, name: str) -> bool:
        """Start a rollout, if its file is there and it was not started by an earlier demo."""
        file = self.folder / "examples" / "rollouts" / f"{name}.yaml"
        known = [one["rollout"] for one in self.admin.get("/api/v1/rollouts")["rollouts"]]
        if not file.exists() or name in known:
            return False
        told = {"file": file.read_text(), "name": file.name}
        self.rollouts[name] = self.admin.post("/api/v1/rollouts", told)
        self.console.print(f"rollout {name}: started", highlight=False)
        return True

    def _is_over(self, name: str) -> bool:
        """Looked at once a second; says each step on the way."""
        if time.monotonic() - self._looked_at < 1.0:
            return self.rollouts[name]["phase"] in OVER
        self._looked_at = time.monotonic()
        before, now = self.rollouts[name], self.admin.get(f"/api/v1/rollouts/{name}")
        self.rollouts[name] = now
        if (before["phase"], before["step"]) != (now["phase"], now["step"]):
            what = now["why"] if now["phase"] in (*OVER, "held") else now["exposure"]
            words = f"rollout {name}: {now['phase'].replace('_', ' ')}: {what}"
            self.console.print(words, highlight=False)
        return now["phase"] in OVER

    def _wait_over(self, name: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and not self._is_over(name):
            time.sleep(0.2)

    def _wait_ready(self, server: subprocess.Popen[bytes]) -> bool:
        until = time.monotonic() + PATIENCE_S
        url = f"http://{self.data}/-/ready"
        while time.monotonic() < until and server.poll() is None:
            try:
                if httpx2.get(url).status_code == 200:
                    self.admin.get("/api/v1/models")
                    return True
            except (httpx2.HTTPError, Unreachable, Refused):
                pass
            time.sleep(0.1)
        return False

    async def _send(
        self, applications: list[Application], sent: Sent,
        enough: Callable[[], bool] = lambda: False, pause_s: float = 0.0,
    ) -> None:  # fmt: skip
        waiting = iter(applications)
        base = f"http://{self.data}"
        with Progress(console=self.console) as progress:
            task = progress.add_task("applications", total=len(applications))
            async with httpx2.AsyncClient(base_url=base, timeout=30) as client:

                async def work() -> None:
                    for application in waiting:
                        if await asyncio.to_thread(enough):
                            return
                        await self._apply(client, application, sent)
                        progress.advance(task)
                        await asyncio.sleep(pause_s)

                await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def _apply(
        self, client: httpx2.AsyncClient, application: Application, sent: Sent
    ) -> None:
        path = f"/v2/models/{MODEL}/infer"
        try:
            answer = await client.post(
                path, content=application.body(), headers=application.headers()
            )
        except httpx2.HTTPError as error:
            sent.failures.append(f"{application.unit}: {error}")
            return
        if answer.status_code != 200:
            sent.failures.append(f"{application.unit}: {answer.status_code} {answer.text[:200]}")
            return
        sent.ids.append(answer.headers["x-headworks-id"])
        arm = f"{answer.headers['x-headworks-version']} {answer.headers['x-headworks-arm']}"
        sent.arms[arm] = sent.arms.get(arm, 0) + 1
        kind = application.population
        sent.populations[kind] = sent.populations.get(kind, 0) + 1

    def _wait_explained(self, sent: Sent) -> list[str]:
        """Until the catalog has every answer with its explanation, shadows too."""
        until = time.monotonic() + PATIENCE_S
        with self.console.status("sealing, explaining, monitoring"):
            while time.monotonic() < until:
                status = self.admin.get("/api/v1/status")
                analyst, document = status["analyst"], self._monitored()
                waiting = sum(row["waiting_for_explanation"] for row in document["counts"])
                if (
                    analyst
                    and analyst["behind"] == 0
                    and waiting == 0
                    and self._all_in(document, sent)
                ):
                    return []
                time.sleep(0.2)
        return [f"not everything is explained after {PATIENCE_S:g} s"]

    def _all_in(self, document: dict[str, Any], sent: Sent) -> bool:
        live: int = sum(row["decisions"] for row in document["counts"] if row["arm"] != "shadow")
        return live >= len(sent.ids)

    def _monitored(self) -> dict[str, Any]:
        document: dict[str, Any] = self.admin.get(f"/api/v1/monitor/{MODEL}")
        return document

    def _print(self, sent: Sent) -> None:
        document = self._monitored()
        say = self.console.print
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(sent.populations.items()))
        say(f"\n[bold]{len(sent.ids)} applications answered[/] ({kinds} people): " + ", ".join(
            f"{arm} {count}" for arm, count in sorted(sent.arms.items())))  # fmt: skip
        overview.monitor(self.console, document)
        denied = self.admin.get(
            "/api/v1/decisions", model=MODEL, outcome="deny", arm="stable", limit=1
        )
        if denied["decisions"]:
            say("\n[bold]One decision, with its reasons[/]")
            overview.decision(
                self.console, self.admin.get(f"/api/v1/decisions/{denied['decisions'][0]['id']}")
            )
        for name in self.rollouts:
            say("")
            rollouts.rollout(self.console, self.admin.get(f"/api/v1/rollouts/{name}"))
        say("")
        overview.status(self.console, self.admin.get("/api/v1/status"))
        say(f"console: http://{self.settings.listen.of('admin').address}/")

    def _check_rollouts(self) -> list[str]:
        """v2 has to have come to everybody, v3 to nobody, and the ledger to say the same again."""
        wrong = []
        state, keys = (self.checked.resolve(str(getattr(self.settings, name)))
                       for name in ("state", "keys"))  # fmt: skip
        for name in self.rollouts:
            found = self.admin.get(f"/api/v1/rollouts/{name}")
            wanted = "promoted" if name == V2 else "rolled_back"
            if found["phase"] != wanted:
                wrong.append(f"rollout {name} is {found['phase']}, not {wanted}: {found['why']}")
            wrong += recompute(state, keys, name).problems
        return wrong

    def _check(self, sent: Sent) -> list[str]:
        """What must hold after the demo, each said in words where it does not."""
        wrong = []
        document = self._monitored()
        for row in document["counts"]:
            if lacking := row["decisions"] - row["explained"]:
                wrong.append(f"{row['version']} {row['arm']}: {lacking} have no explanation")
        shadows = sum(row["decisions"] for row in document["agreement"] if row["shadow"] == "v3")
        live = sum(row["decisions"] for row in document["counts"] if row["arm"] != "shadow")
        if shadows < live * COPIED:
            wrong.append(f"{live - shadows} answers have no shadow of v3")
        for identity in sent.ids[:: max(1, len(sent.ids) // 50)]:
            found = self.admin.get(f"/api/v1/decisions/{identity}")
            if not found["explanation"].get("additive"):
                wrong.append(f"{identity}: the explanation does not add up")
            if found["decision"]["outcome"] == "deny" and not found["explanation"]["reasons"]:
                wrong.append(f"{identity}: denied without a reason")
        if len(sent.ids) >= 500 and not document["series"]:
            wrong.append("no monitoring window has closed")
        state = self.admin.get("/api/v1/status")
        if state["state"] != "green":
            wrong.append(f"status is {state['state']}: {'; '.join(state['words'])}")
        return wrong
