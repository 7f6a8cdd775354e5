"""How soon a rollback reaches every worker: python -m load.rollback [--rounds N]

A real gateway with two workers on loopback, and a candidate whose every answer is a 500. Each round
starts a rollout at 50 %, sends traffic through connections to both workers until it was taken back,
and reads from the ledger alone what happened: when the block ended that proved it, when the
governor decided, and when each worker took its first exchange by a table without the candidate.
Half of the rounds are decided by a hard limit, half by the evidence of a guard.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from gateway.ledger.log import LedgerReader
from load import headworks, processes
from load.answering import listening, read_message
from load.figures import percentile
from load.scenario import KEY, SCENARIOS, infer_path, small_answer

WORKERS = 2
CONNECTIONS = 16
ASKED_OF_ONE = 10
"""Requests of a connection."""
PAUSE_S = 0.02
"""Between two requests of a connection: both workers are asked every few milliseconds."""
AFTER_S = 1.5
"""Of traffic after the rollback."""
PATIENCE_S = 90.0
FILE = """\
rollout: bad
model: tabular
rule: everyone
from: v1
to: v2
evidence: {block: 1s, warmup: 0s, min_requests: 10}
guards: [errors]
limits: LIMITS
steps: [{weight: 50%, min: 10m}, {weight: 100%, bake: 10m}]
holdout: 10%
"""
WAYS = {"limit": "[{metric: bad_ratio, above: 20%, for: 2 blocks, min_requests: 5}]", "guard": "[]"}


@dataclass(frozen=True, slots=True)
class Round:
    """In seconds after the end of the block that proved it. `canary`: the last exchange that came
    to the candidate; `exposed`: the last one of any worker by a table that has it; `exchange`: the
    last worker's first one by a table without it, which waits until somebody asks that worker."""

    way: str
    decided: float
    canary: float
    exposed: float
    exchange: float


def measured(way: str, leaves: Iterable[Mapping[str, Any]]) -> Round | None:
    """Of one attempt's leaves, in any order; None: it was not taken back, or not all workers were
    asked before and after it."""
    moves = [one["record"] for one in leaves if one["kind"] == "rollout"
             and one["record"].get("move") == "roll_back"]  # fmt: skip
    if not moves:
        return None
    move = moves[-1]
    ended = max(one["record"]["block"]["ended"] for one in leaves if one["kind"] == "evidence"
                and one["record"]["block"]["number"] <= move["block"])  # fmt: skip
    exchanges = [(one["source"], one["record"]) for one in leaves if one["kind"] == "exchange"]
    exposed = {record["revision"] for _, record in exchanges if record["arm"] == "canary"}
    before = [one for one in exchanges if one[1]["revision"] in exposed]
    workers = {source for source, _ in before}
    if len(workers) < WORKERS:
        return None
    reached = []
    for worker in workers:
        last = max(record["at"] for source, record in before if source == worker)
        later = [record["at"] for source, record in exchanges if source == worker
                 and record["revision"] not in exposed and record["at"] > last]  # fmt: skip
        if not later:
            return None
        reached.append(min(later))
    canary = max(record["at"] for _, record in before if record["arm"] == "canary")
    stale = max(record["at"] for _, record in before)
    since = [(at - ended) / 1e9 for at in (move["at"], canary, stale, max(reached))]
    return Round(way, *since)


class Traffic:
    """A few connections that ask without end, each time as somebody else."""

    def __init__(self, port: int) -> None:
        self.port, self.units, self.stop = port, 0, False

    async def run(self) -> None:
        await asyncio.gather(*(self._line() for _ in range(CONNECTIONS)))

    async def _line(self) -> None:
        """Connection after connection: whichever worker takes one, both get some."""
        while not self.stop:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in range(ASKED_OF_ONE):
                writer.write(self._request())
                await read_message(reader)
                await asyncio.sleep(PAUSE_S)
            writer.close()

    def _request(self) -> bytes:
        self.units += 1
        body = SCENARIOS["json-200"].body
        return (
            b"POST %s HTTP/1.1\r\nhost: load\r\nauthorization: Bearer %s\r\nx-unit: %d\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (infer_path("tabular").encode(), KEY.encode(), self.units, len(body), body)
        )


async def one_round(way: str, ports: tuple[int, int], state: Path) -> Round | None:
    """Start, ask until it was taken back and a while longer, and read the ledger."""
    admin = f"http://127.0.0.1:{ports[1]}/api/v1/rollouts"
    before = max((number for number, _ in _leaves(state, 0)), default=-1) + 1
    traffic = Traffic(ports[0])
    running = asyncio.create_task(traffic.run())
    async with httpx2.AsyncClient(timeout=30) as client:
        file = FILE.replace("LIMITS", WAYS[way])
        done = await client.post(admin, json={"file": file, "name": "bad.yaml"})
        done.raise_for_status()
        until = time.monotonic() + PATIENCE_S
        phase = "running"
        while phase != "rolled_back" and time.monotonic() < until:
            await asyncio.sleep(0.2)
            phase = (await client.get(f"{admin}/bad")).json()["phase"]
        await asyncio.sleep(AFTER_S)
        traffic.stop = True
        await running
        await asyncio.sleep(AFTER_S)
    return measured(way, [orjson.loads(text) for _, text in _leaves(state, before)])


def _leaves(state: Path, start: int) -> list[tuple[int, bytes]]:
    reader = LedgerReader(state, start)
    found = list(reader.read(1 << 40))
    reader.close()
    return found


async def measure(rounds: int, folder: Path) -> list[Round]:
    kinds = (b"200 OK", small_answer(), 0.0), (b"500 Broken", b"{}", 0.0)
    upstreams = [f"http://127.0.0.1:{await listening(kind)}" for kind in kinds]
    data, admin = processes.free_ports(2)
    model = {
        "unit": ["header:x-unit"],
        "versions": {name: {"upstream": url} for name, url in zip(("v1", "v2"), upstreams)},
        "rules": [{"name": "everyone", "split": {"v1": "100%"}}],
    }
    made = headworks.document(folder, (data, admin), {"tabular": model}, WORKERS)
    path = headworks.write(folder, made)
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    gateway = processes.Running("headworks", command, folder / "log", {}, headworks.ROOT)
    found = []
    try:
        await asyncio.to_thread(gateway.wait_until_ready, f"http://127.0.0.1:{data}/-/ready", 60)
        for number in range(rounds):
            way = list(WAYS)[number % len(WAYS)]
            told = await one_round(way, (data, admin), folder / "state")
            print(json.dumps(asdict(told)) if told else f"round {number}: nothing", flush=True)
            found += [told] if told else []
    finally:
        await asyncio.to_thread(gateway.stop)
    return found


def lines(rounds: list[Round]) -> list[str]:
    """A table's rows: by way, what came when, in milliseconds."""
    told = ["| decided by | rounds | ms after the end of the block | median | p95 | most |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    names = {"decided": "the governor decided", "canary": "last exchange of the candidate came",
             "exposed": "last exchange by a table with it came",
             "exchange": "every worker had taken an exchange without it"}  # fmt: skip
    for way in WAYS:
        own = [one for one in rounds if one.way == way]
        for key, words in names.items() if own else ():
            ordered = sorted(getattr(one, key) * 1000 for one in own)
            figures = [percentile(ordered, share) for share in (0.5, 0.95, 1.0)]
            told.append(f"| {way} | {len(own)} | {words} | "
                        f"{' | '.join(f'{one:.0f}' for one in figures)} |")  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = asyncio.run(measure(told.rounds, Path(folder)))
    print("\n".join(lines(rounds)))


if __name__ == "__main__":
    main()
