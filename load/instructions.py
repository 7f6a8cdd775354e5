"""Instructions a request of the data path, under callgrind: the same on a noisy machine.

    scripts/benchmark --instructions

One real worker (its own command, as the supervisor would start it) runs under valgrind in front of
the real origin, with a journal on disk; counting is switched on for `requests` requests, one after
the other on one connection, so that each has its own commit. The hash seed is fixed. Where the
compiled form would run, the sources are counted too, by a worker of their own. User-space
instructions only: what the kernel does for a request is not in the figure, and neither is waiting.

A head that a client sends again is known to the worker (`gateway/dataplane/heads.py`), as it is to
every benchmark's client; what a request costs whose head is new each time is counted beside it.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway import FORM
from gateway.compiled import SWITCH, Form
from load import headworks
from load.processes import Running, free_ports
from load.scenario import KEY, SCENARIOS, Scenario, infer_path

ROOT = Path(__file__).parents[1]
WARM = 150
"""Requests before counting: caches are filled, the interpreter has specialised its code."""
NEW_HEAD = "json-200, a new head each time"
COUNTED = ("json-200", NEW_HEAD, "onnx")
TOTAL = re.compile(r"^(?:summary|totals): (\d+)$", re.MULTILINE)
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Count:
    scenario: str
    form: str
    requests: int
    rounds: list[float]
    """Instructions a request, one figure a round."""


def total(text: str) -> int:
    """Instructions in one callgrind dump. ValueError where the file has no total."""
    found = TOTAL.findall(text)
    if not found:
        raise ValueError("the dump has no total of instructions")
    return int(found[-1])


def published(folder: Path, origin: int) -> Path:
    """A state in which the table is in force: the real gateway runs until it is ready."""
    data, admin = free_ports(2)
    models = {"tabular": headworks.proxied(origin), "mortgage": headworks.in_process()}
    path = headworks.write(folder, headworks.document(folder, (data, admin), models, 1))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    gateway = Running("headworks", command, folder / "serve.log", {}, ROOT)
    try:
        gateway.wait_for(data, PATIENCE_S)
        wait_ready(data)
    finally:
        gateway.stop()
    return path


def wait_ready(port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            link.request("GET", "/-/ready")
            if link.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the worker on port {port} is not ready")


def supervisor_of(path: Path) -> Any:
    """A supervisor that is never started: it holds the port, and knows a worker's command."""
    from gateway.check import check
    from gateway.supervisor import Supervisor

    checked = check(path)
    assert checked.settings is not None
    state, keys = Path(checked.settings.state), Path(checked.settings.keys)

    async def make() -> Supervisor:
        return Supervisor(path, {}, checked.settings, state, keys)

    return asyncio.run(make())


def control(pid: int, *words: str) -> None:
    done = subprocess.run(
        ["callgrind_control", *words, str(pid)], capture_output=True, text=True, timeout=60
    )
    if done.returncode or "Error" in done.stdout:
        raise RuntimeError(f"callgrind_control {words}: {(done.stdout + done.stderr).strip()}")


def ask(port: int, scenario: Scenario, *, new_heads: bool = False) -> Callable[[int], None]:
    """A function that sends so many requests, one after the other, and checks each answer."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": scenario.content_type, "authorization": f"Bearer {KEY}",
               "accept": "*/*", "user-agent": "headworks-load"}  # fmt: skip
    path = infer_path("mortgage" if scenario.name == "onnx" else "tabular")

    numbers = itertools.count()

    def send(count: int) -> None:
        for _ in range(count):
            if new_heads:
                headers["x-sent"] = f"{next(numbers):08}"
            link.request("POST", path, scenario.body, headers)
            answer = link.getresponse()
            body = answer.read()
            if answer.status != 200 or scenario.marker not in body:
                raise RuntimeError(f"{answer.status} {body[:200]!r}")

    return send


def count(folder: Path, requests: int, rounds: int, names: tuple[str, ...]) -> list[Count]:
    """Counts for each scenario; `folder` must be new."""
    folder.mkdir(parents=True)
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "load.origin", "--port", str(port), "--processes", "1"]
    origin = Running("origin", command, folder / "origin.log", {}, ROOT)
    try:
        origin.wait_for(port, PATIENCE_S)
        supervisor = supervisor_of(published(folder, port))
        both = (FORM, Form("source")) if FORM.state == "compiled" else (FORM,)
        found: list[Count] = []
        for form in both:
            found += _under_callgrind(folder, supervisor, requests, rounds, names, form)
        return found
    finally:
        origin.stop()


def _under_callgrind(
    folder: Path, supervisor: Any, requests: int, rounds: int, names: tuple[str, ...], form: Form
) -> list[Count]:
    child, data = supervisor.children[0], supervisor.data.getsockname()[1]
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no",
                f"--callgrind-out-file={folder}/out-{form.state}"]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2"}
    if form.state == "source":
        environment[SWITCH] = "no"
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*valgrind, *child.command], pass_fds=child.passed, stdout=log, stderr=log, cwd=ROOT,
            env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        wait_ready(data)
        found = []
        for name in names:
            send = ask(data, SCENARIOS[name.partition(",")[0]], new_heads=name == NEW_HEAD)
            send(WARM)
            figures = []
            for _ in range(rounds):
                before = set(folder.glob("out-*"))
                control(worker.pid, "-i", "on")
                send(requests)
                control(worker.pid, "-d")
                control(worker.pid, "-i", "off")
                (dump,) = set(folder.glob("out-*")) - before
                figures.append(total(dump.read_text()) / requests)
            found.append(Count(name, str(form), requests, figures))
        return found
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()


def report(counts: list[Count]) -> Mapping[str, Any]:
    """As it stands in the results: medians and spread in instructions a request."""
    return {f"{one.scenario}, {one.form}": asdict(one) for one in counts}


def run(cache: Path, requests: int = 300, rounds: int = 3) -> Mapping[str, Any]:
    """Count, print, and keep the figures in the cache folder. {} where valgrind is missing."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions are counted", file=sys.stderr)
        return {}
    folder = cache / "instructions"
    shutil.rmtree(folder, ignore_errors=True)
    counts = count(folder, requests, rounds, COUNTED)
    shutil.rmtree(folder, ignore_errors=True)
    for one in counts:
        each = "  ".join(f"{figure:,.0f}" for figure in one.rounds)
        print(f"{one.scenario:30} {one.form}, {one.requests} at a time: {each} a request")
    (cache / "instructions.json").write_text(json.dumps(report(counts), indent=1))
    return report(counts)


def known(cache: Path, *, count: bool) -> dict[str, Any]:
    """Counted now, or what the last count in this cache folder said; {} where there is none."""
    if count:
        return dict(run(cache))
    kept = cache / "instructions.json"
    return dict(json.loads(kept.read_text())) if kept.exists() else {}
