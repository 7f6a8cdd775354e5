"""What an exchange and its shadow's cost the analyst: OPENBLAS_NUM_THREADS=1 python -m load.folding

Rows of the mortgage reference are asked of a gateway whose analyst is held, so that a backlog is
sealed. Then one analyst takes it: explanations, windows, comparisons, catalog. Its outputs are
sealed and it takes those too, as it does all day. CPU time is the process's, threads included, by
the request; what is made once (explainers, references) is taken out with a first part. `--keep`
leaves the backlog in a folder, which a later run with the same folder takes as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet

from gateway.analyst import Analyst
from gateway.app import YOUNG
from gateway.clock import SystemClock
from gateway.ledger.log import LedgerReader, read_committed
from gateway.seal.sealer import Sealer
from gateway.settings import LedgerSettings
from gateway.telemetry.metrics import Metrics
from load import headworks
from load.processes import Running, free_ports, role, tree
from load.scenario import KEY, SCENARIOS, infer_path, request_bytes
from load.steady import model, wait_ready
from load.trial import ROOT

CONNECTIONS = 32
FIRST = 2000
"""Requests that pay for what is made once."""


def bodies(requests: int) -> list[bytes]:
    """One row each, in turn; what is missing there is not asked."""
    path = ROOT / "models" / "mortgage" / "reference.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    told = json.loads(SCENARIOS["onnx"].body)["inputs"]
    made = []
    for row in rows:
        if all(row[one["name"]] is not None for one in told):
            inputs = [one | {"data": [row[one["name"]]]} for one in told]
            made.append(json.dumps({"inputs": inputs}, separators=(",", ":")).encode())
    return [made[place % len(made)] for place in range(requests)]


async def ask(port: int, waiting: list[bytes]) -> None:
    """All of them, by `CONNECTIONS` at once."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while waiting:
            scenario = SCENARIOS["onnx"]
            asked = type(scenario)(
                "row", "", scenario.path, waiting.pop(), scenario.marker, scenario.content_type
            )
            credential = {"authorization": f"Bearer {KEY}"}
            writer.write(request_bytes(asked, infer_path("mortgage"), "127.0.0.1", credential))
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise RuntimeError(head.decode("latin-1"))
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def write_backlog(folder: Path, requests: int) -> None:
    data, admin = free_ports(2)
    path = headworks.write(
        folder, headworks.document(folder, (data, admin), {"mortgage": model()}, 1)
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    running = Running("headworks", command, folder / "log", {}, ROOT)
    try:
        running.wait_for(data, 90)
        wait_ready(data, 60)
        analyst = next(one.number for one in tree(running.root) if role(one.number) == "analyst")
        os.kill(analyst, signal.SIGSTOP)
        asyncio.run(ask(data, bodies(requests)))
        sealed = -1
        while (now := read_committed(folder / "state" / "ledger")) > sealed:
            sealed = now
            time.sleep(3)
        os.kill(analyst, signal.SIGKILL)
    finally:
        running.stop()


async def fold(analyst: Analyst, upto: int) -> float:
    """Until the analyst has reached a leaf; seconds of CPU."""
    analyst.stopping.clear()
    spent = time.process_time()
    folding = asyncio.ensure_future(analyst.fold())
    while analyst.catalog.reached < upto - 1:
        if folding.done():
            raise RuntimeError("the analyst has stopped")
        await asyncio.sleep(0.02)
    analyst.stopping.set()
    await folding
    return time.process_time() - spent


def seal(folder: Path) -> float:
    state, keys = folder / "state", folder / "keys"
    sealer = Sealer(state, keys, SystemClock(), Metrics("sealer"), LedgerSettings())
    begun = time.process_time()
    sealer.notary.begin(0)
    while sealer.step():
        pass
    spent = time.process_time() - begun
    sealer.close()
    return spent


def exchanges(state: Path) -> list[int]:
    """Leaves that are an exchange."""
    reader = LedgerReader(state)
    return [number for number, text in reader.read(1 << 60) if b'"kind":"exchange"' in text]


async def measure(folder: Path) -> None:
    state = folder / "state"
    places = exchanges(state)
    requests = len(places) / 2
    analyst = Analyst(state, folder / "keys", SystemClock())
    await analyst.start()
    await fold(analyst, places[2 * FIRST])
    spent = await fold(analyst, read_committed(state / "ledger"))
    each = 1e6 / (requests - FIRST)
    print(f"{len(places)} exchanges; one and its shadow's: {spent * each:.0f} µs of CPU")
    await analyst.journal.close()
    sealing = seal(folder)
    print(f"their explanations sealed: {sealing * 1e6 / requests:.0f} µs of CPU")
    spent = await fold(analyst, read_committed(state / "ledger"))
    print(f"their explanations taken: {spent * 1e6 / requests:.0f} µs of CPU")
    analyst.windows.close()
    analyst.catalog.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--keep", type=Path)
    wanted = parser.parse_args()
    gc.set_threshold(YOUNG, 20, 50)  # as each process of the gateway
    with tempfile.TemporaryDirectory(dir=".") as made:
        folder = Path(made).resolve() / "backlog"
        if wanted.keep is not None and wanted.keep.exists():
            shutil.copytree(wanted.keep, folder)
        else:
            write_backlog(folder, wanted.requests)
            if wanted.keep is not None:
                shutil.copytree(folder, wanted.keep, ignore=shutil.ignore_patterns("*.sock"))
        asyncio.run(measure(folder))


if __name__ == "__main__":
    main()
