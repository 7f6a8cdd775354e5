"""Whether two cores carry a steady stream: python -m load.steady [--rate 1000] [--minutes 10]

Requests arrive as a Poisson process at the mortgage model in the process, each with a shadow of
another version, each explained and monitored, every answer durable before it leaves. Every ten
seconds `/metrics` is read: by how many seconds sealing is behind each journal, and the analyst
behind the ledger. A lag is flat if its median in the last third of the run is no more than in the
first and `ROOM_S`. The generator's CPU is spent on the same cores.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from load import headworks
from load.generator import Order
from load.processes import Running, cpu_by_role, free_ports, resident
from load.results import commit
from load.scenario import KEY, SCENARIOS, infer_path, request_bytes
from load.trial import ROOT

LOOK_S = 10.0
ROOM_S = 2.0
LAG = re.compile(r'^headworks_lag_seconds\{.*?consumer="([^"]+)".*?\} (\S+)$', re.MULTILINE)


def model() -> dict[str, object]:
    made = headworks.in_process()
    rule = {"name": "everyone", "split": {"v1": "100%"}, "shadow": {"v2": "100%"}}
    return {**made, "rules": [rule]}


def lags(admin: int) -> dict[str, float]:
    """Seconds behind by consumer, the worst of each."""
    told: dict[str, float] = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=20) as answer:
        for consumer, value in LAG.findall(answer.read().decode()):
            told[consumer] = max(told.get(consumer, 0.0), float(value))
    return told


def wait_ready(port: int, seconds: float) -> None:
    """Until the worker has its table and its models; what it says then, if never."""
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise RuntimeError(f"the gateway is not ready: {error}") from error
        time.sleep(0.1)


def generate(port: int, rate: float, seconds: float, connections: int) -> subprocess.Popen[bytes]:
    scenario = SCENARIOS["onnx"]
    credential = {"authorization": f"Bearer {KEY}"}
    host = f"127.0.0.1:{port}"
    request = request_bytes(scenario, infer_path("mortgage"), host, credential)
    order = asdict(Order(port, b"", b"", connections, seconds, warm=1.0, rate=rate))
    order |= {"request": request.decode("latin-1"), "marker": scenario.marker.decode()}
    command = [sys.executable, "-m", "load.generator"]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert running.stdin is not None
    running.stdin.write(json.dumps(order).encode())
    running.stdin.close()
    return running


def watch(
    generator: subprocess.Popen[bytes], running: Running, admin: int
) -> Iterator[tuple[float, dict[str, float], dict[str, int]]]:
    """Seconds since the start, lags, and memory by role, until the generator ends."""
    begun = time.monotonic()
    while generator.poll() is None:
        yield time.monotonic() - begun, lags(admin), resident(running.root)
        time.sleep(LOOK_S)


def flat(found: list[float]) -> bool:
    third = max(1, len(found) // 3)
    return statistics.median(found[-third:]) <= statistics.median(found[:third]) + ROOM_S


def measure(folder: Path, rate: float, seconds: float, connections: int, workers: int) -> bool:
    """One run; True if all was answered and every lag stayed flat."""
    data, admin = free_ports(2)
    path = headworks.write(
        folder, headworks.document(folder, (data, admin), {"mortgage": model()}, workers)
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    running = Running("headworks", command, folder / "log", {}, ROOT)
    try:
        running.wait_for(data, 90)
        wait_ready(data, 60)
        generator = generate(data, rate, seconds, connections)
        looks = []
        for at, lag, memory in watch(generator, running, admin):
            looks.append(lag)
            sizes = {role: size >> 20 for role, size in sorted(memory.items())}
            print(f"{at:5.0f} s  behind {lag}  MiB {sizes}", flush=True)
        assert generator.stdout is not None
        told = json.loads(generator.stdout.read())
        spent = cpu_by_role(running.root)
    finally:
        running.stop()
    steady = {name: flat([look.get(name, 0.0) for look in looks]) for name in looks[-1]}
    each = {role: round(cpu / max(1, told["requests"])) for role, cpu in spent.items()}
    done = told["requests"] / told["seconds"]
    print(f"commit {commit()}: {told['requests']} answered ({done:.0f} a second), "
          f"{told['errors']} errors {told['sample']}; CPU µs a request {each}; "
          f"latency {told['latency']}; flat: {steady}")  # fmt: skip
    return not told["errors"] and all(steady.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=1000.0, help="exchanges a second")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        kept = measure(
            Path(folder).resolve(), wanted.rate, wanted.minutes * 60, wanted.connections,
            wanted.workers,
        )  # fmt: skip
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
