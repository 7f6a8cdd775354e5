"""CPU per record of the journal's writer, with and without receipts: python load/journal.py

In batches of one and of 32 (so many wait for one commit), on the disk that is given; CPU time of
the whole process, threads included, and the time that a commit takes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clock import SystemClock
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.receipt import ReceiptKey
from gateway.journal.writer import open_journal

RECORDS = 16_000
HEADER = {
    "kind": "exchange",
    "model": "mortgage",
    "version": "v1",
    "status": 200,
    "note": "x" * 600,
}


async def measure(folder: Path, batch: int, receipts: bool, durable: bool) -> str:
    journal = await open_journal(
        JournalFolder(folder / "state", folder / "keys", "0"),
        SystemClock(),
        segment_bytes=64 << 20,
        stall_s=10.0,
        queue_bytes=64 << 20,
        on_failure=lambda error: sys.exit(str(error)),
        receipt_key=ReceiptKey(Ed25519PrivateKey.generate()),
    )
    context = {"salt": os.urandom(16).hex(), "request_headers": [["accept", "*/*"]] * 6}
    body = record.Part.of(os.urandom(700), 1 << 20)
    parts = record.encode_parts(context, body, body)
    records = RECORDS if batch > 1 else RECORDS // 8
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, records, batch):
        waiting = [
            journal.append(
                {**HEADER, "id": f"{start + n}", "at": start, "commitment": "ab" * 32},
                parts,
                durable=durable,
                receipt=receipts,
            )
            for n in range(batch)
        ]
        for receipt in await asyncio.gather(*waiting):
            if receipt is not None:
                receipt.encode()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    numbers = journal.statistics
    commit_us = numbers.commit_ns / numbers.commits / 1000
    await journal.close()
    return (
        f"batch {batch:3} receipts {receipts!s:5} durable {durable!s:5}: "
        f"{cpu / records * 1e6:6.1f} us CPU, {records / wall:8.0f} records/s, "
        f"commit {commit_us:6.0f} us"
    )


def main() -> None:
    where = sys.argv[1] if len(sys.argv) > 1 else None
    for batch in (1, 32):
        for durable in (True, False):
            for receipts in (False, True):
                with tempfile.TemporaryDirectory(dir=where) as folder:
                    work = measure(Path(folder), batch, receipts, durable)
                    print(uvloop.run(work))


if __name__ == "__main__":
    main()
