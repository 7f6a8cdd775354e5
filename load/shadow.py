"""What a sick shadow does to answers: the primary's latency. python -m load.shadow [--rounds N]

One gateway on loopback with a model for each kind of shadow: none, well, a black hole, one that
takes two seconds, one that answers 10 MiB. Each is asked alone at a fixed rate (Poisson arrivals),
in rounds whose order turns, so that what else the machine does falls on all of them. What counts
is the ratio of a p99 to that of the same round without a shadow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2

from load import headworks, processes
from load.answering import apart, listening
from load.generator import Order
from load.scenario import KEY, SCENARIOS, infer_path, request_bytes, small_answer

WARM_S, SECONDS, RATE, CONNECTIONS = 2.0, 10.0, 50.0, 16
HOUR = 3600.0
WELL = b"200 OK", small_answer(), 0.0
SHADOWS = {"none": None, "well": WELL, "black-hole": (b"200 OK", b"{}", HOUR),
           "slow": (b"200 OK", small_answer(), 2.0),
           "huge": (b"200 OK", b" " * (10 << 20), 0.0)}  # fmt: skip
"""By model: what its shadow answers, after how many seconds."""


def models(primary: int, shadows: dict[str, int]) -> dict[str, Any]:
    """Each with the same server that answers and one of its own in shadow; by their ports."""
    found = {}
    for name in SHADOWS:
        versions = {"v1": {"upstream": f"http://127.0.0.1:{primary}"}}
        rule: dict[str, Any] = {"name": "everyone", "split": {"v1": "100%"}}
        if name in shadows:
            versions["v2"] = {"upstream": f"http://127.0.0.1:{shadows[name]}"}
            rule["shadow"] = {"v2": "100%"}
        found[name] = {"versions": versions, "rules": [rule]}
    return found


async def asked(port: int, model: str, seed: int) -> dict[str, Any]:
    """One model's latencies under load; RuntimeError if an answer was wrong or missing."""
    scenario = SCENARIOS["json-200"]
    credential = {"authorization": f"Bearer {KEY}"}
    request = request_bytes(scenario, infer_path(model), f"127.0.0.1:{port}", credential)
    order = asdict(
        Order(port, b"", b"", CONNECTIONS, SECONDS, warm=WARM_S, rate=RATE, seed=seed)
    ) | {"request": request.decode("latin-1"), "marker": scenario.marker.decode()}
    generator = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "load.generator", cwd=headworks.ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told: dict[str, Any] = json.loads((await generator.communicate(json.dumps(order).encode()))[0])
    if told["errors"]:
        raise RuntimeError(f"{model}: {told['errors']} answers missing: {told['sample']}")
    return told


async def measure(rounds: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    kinds = {name: kind for name, kind in SHADOWS.items() if kind is not None}
    servers, ports = apart(list(kinds.values()))
    data, admin = processes.free_ports(2)
    served = models(await listening(WELL), dict(zip(kinds, ports)))
    made = headworks.document(folder, (data, admin), served, 1)
    path = headworks.write(folder, made)
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    gateway = processes.Running("headworks", command, folder / "log", {}, headworks.ROOT)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SHADOWS}
    try:
        await asyncio.to_thread(gateway.wait_until_ready, f"http://127.0.0.1:{data}/-/ready", 60)
        names = list(SHADOWS)
        for number in range(rounds):
            for place in range(len(names)):
                name = names[(number + place) % len(names)]
                found[name].append(await asked(data, name, number))
        async with httpx2.AsyncClient(timeout=30) as client:
            told = (await client.get(f"http://127.0.0.1:{admin}/metrics")).text
        dropped = [
            line for line in told.splitlines() if line.startswith("headworks_shadow_dropped")
        ]
        print("\n".join(dropped))
    finally:
        await asyncio.to_thread(gateway.stop)
        servers.terminate()
    return found


def lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A table's rows: medians over rounds, latencies in milliseconds."""
    told = ["| shadow | answers | p50 | p99 | p99 to that without a shadow (least, most) |",
            "|---|---|---|---|---|"]  # fmt: skip
    for name, rounds in found.items():
        p50, p99 = ([one["latency"][which] for one in rounds] for which in ("p50", "p99"))
        ratios = [mine / bare["latency"]["p99"] for mine, bare in zip(p99, found["none"])]
        told.append(
            f"| {name} | {sum(one['requests'] for one in rounds):,} "
            f"| {statistics.median(p50) / 1000:.2f} | {statistics.median(p99) / 1000:.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) |"
        )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(rounds, Path(folder)))
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
