"""How fast a backlog is sealed, in how much memory: python -m load.sealing --help

Journals are written first: mortgage requests of 700 bytes, a tenth of them with one of 500
subjects; with --shadows every second one is a shadow's, compared with the one before it. Then one
sealer takes all of it, checkpoints included, and `headworks ledger verify` recomputes the ledger.
CPU time is the process's, threads included.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.clock import SystemClock
from gateway.exchange import exchange_id
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.seal.sealer import Sealer
from gateway.settings import LedgerSettings
from gateway.table import TableStore, make_document
from gateway.telemetry.metrics import Metrics

AT_ONCE = 512
VERIFIED: dict[str, tuple[str, ...]] = {
    "everything": (), "all but bodies": ("--no-bodies",), "trees and order": ("--trees",),
}  # fmt: skip
REQUEST = orjson.dumps(
    {"inputs": [{"name": f"f{n}", "shape": [1, 1], "datatype": "FP32", "data": [0.25]}
                for n in range(11)]}
)  # fmt: skip
ANSWER = orjson.dumps(
    {"model_name": "mortgage",
     "outputs": [{"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [0.123456]}]}
)  # fmt: skip


def publish(state: Path) -> str:
    """The mortgage models' table, as the demo has it; its revision."""
    checked = check(Path("headworks.yaml"))
    document = make_document(checked, Artifacts(state), author="load", reason="load", now_ns=0)
    return TableStore(state).publish(document, None)


async def write(state: Path, keys: Path, records: int, shadows: bool) -> None:
    revision = publish(state) if shadows else None
    primary = ""
    clock = SystemClock()
    journal = await open_journal(
        JournalFolder(state, keys, "0"), clock, segment_bytes=64 * 1024**2, stall_s=60,
        queue_bytes=64 * 1024**2, on_failure=lambda error: sys.exit(str(error)),
    )  # fmt: skip
    answer = record.Part.of(ANSWER, 1 << 20)
    request = record.Part.of(REQUEST, 1 << 20)
    for start in range(0, records, AT_ONCE):
        waiting = []
        for number in range(start, min(start + AT_ONCE, records)):
            now = clock.steady()
            header = {"format": 1, "kind": "exchange", "id": exchange_id(now), "at": now,
                      "wall": "2026-11-23T12:00:00.000Z", "model": "mortgage", "version": "v1",
                      "status": 200, "operation": "infer", "arm": "stable", "error": None,
                      "caller": "loans-app", "timings": {"total_us": 900}}  # fmt: skip
            if shadows and number % 2:
                header |= {"version": "v3", "arm": "shadow", "primary": primary}
            if shadows:
                header |= {"revision": revision, "rule": "everyone", "protocol": "v2"}
            primary = header["id"]
            subjects = [f"subject-{number % 500}"] if number % 10 == 0 else []
            context = {"subjects": subjects, "groups": [], "request_headers": [],
                       "response_headers": [], "salt": os.urandom(16).hex()}  # fmt: skip
            parts = record.encode_parts(context, request, answer)
            header["commitment"] = record.commitment(parts)
            waiting.append(journal.append(header, parts, durable=False))
        await asyncio.gather(*waiting)
    await journal.close()


def seal(state: Path, keys: Path) -> int:
    settings = LedgerSettings(name="load.example")
    sealer = Sealer(state, keys, SystemClock(), Metrics("governor"), settings)
    sealer.notary.begin(0)
    while sealer.step():
        pass
    leaves = sealer.ledger.number
    sealer.close()
    return leaves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--shadows", action="store_true", help="Every second one is compared.")
    arguments = parser.parse_args()
    records = arguments.records
    with tempfile.TemporaryDirectory(dir=".") as folder:
        state, keys = Path(folder) / "state", Path(folder) / "keys"
        asyncio.run(write(state, keys, records, arguments.shadows))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        leaves = seal(state, keys)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"sealed {leaves} leaves: {1e6 * cpu / records:.1f} µs CPU a record "
            f"({records / cpu:,.0f} a second of one core), {records / wall:,.0f} a second by "
            f"the clock; peak memory {peak // 1024} MiB, before sealing {before // 1024}"
        )
        for what, words in VERIFIED.items():
            began = os.times()
            command = [sys.executable, "-m", "gateway", "ledger", "verify", *words]
            done = subprocess.run([*command, str(state / "ledger")], capture_output=True, text=True)
            ended = os.times()
            spent = ended.children_user + ended.children_system
            spent -= began.children_user + began.children_system
            print(
                f"verified {what}: exit {done.returncode}, {leaves / spent:,.0f} leaves a second "
                f"of CPU; {done.stdout.splitlines()[-1] if done.stdout else done.stderr}"
            )


if __name__ == "__main__":
    main()
