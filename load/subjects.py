"""What keys by subject cost: µs a record, by how many subjects there are.

    .venv/bin/python -m load.subjects [--records 100000] [--folder /var/tmp]

Commits come each 512 records, as the sealer's. `keys` is `keys_for`, `secret` and the keys' commit,
`bodies` all the rest: compression, encryption, digest, index, files and their fdatasyncs. `erase`
is one subject's erasure afterwards, in milliseconds, with as many subjects and records as stated.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from gateway.ledger.bodies import Bodies
from gateway.ledger.erasure import Erasure
from gateway.ledger.subjects import Subjects

COMMIT = 512


def measure(folder: Path, count: int, records: int) -> str:
    """One line: `count` known subjects in random order; 0: each record has a new one; -1: none."""
    dice = random.Random(count)
    subjects = Subjects(folder / "state", folder / "keys")
    bodies = Bodies(folder / "state", subjects, {})
    names = [f"applicant-{number:09d}" for number in range(max(count, 0))]
    for start in range(0, len(names), COMMIT):
        for name in names[start : start + COMMIT]:
            subjects.keys_for([name])
        subjects.commit()
    parts = [os.urandom(150) + b'{"name":"income","datatype":"FP64"}' * 6 for _ in range(64)]
    keys_ns = bodies_ns = 0
    for start in range(0, records, COMMIT):
        several: list[list[str]] = []
        for number in range(start, min(start + COMMIT, records)):
            known = [dice.choice(names)] if names else [f"new-{number}"]
            several.append(known if count >= 0 else [])
        began = time.perf_counter_ns()
        numbers = [subjects.keys_for(named) for named in several]
        for each in numbers:
            subjects.secret(each)
        subjects.commit()
        between = time.perf_counter_ns()
        for place, each in enumerate(numbers):
            bodies.append("mortgage", "2026-11-23", f"id-{start + place}", each, parts[place % 64])
        bodies.commit()
        keys_ns += between - began
        bodies_ns += time.perf_counter_ns() - between
    began = time.perf_counter_ns()
    done = Erasure(folder / "state", folder / "keys", subjects).carry_out(1, numbers[-1])
    erase_ms = (time.perf_counter_ns() - began) / 1e6
    bodies.close()
    subjects.close()
    what = {0: "new each", -1: "none"}.get(count, str(count))
    return (f"{what:>10} {keys_ns / records / 1e3:8.1f} {bodies_ns / records / 1e3:8.1f} "
            f"{erase_ms:9.1f} ({done.blobs} bodies)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    asked = parser.parse_args()
    print("  subjects  keys µs  bodies µs  erase ms")
    for count in (1, 500, 50_000, 200_000, 0, -1):
        folder = Path(tempfile.mkdtemp(dir=asked.folder))
        try:
            print(measure(folder, count, asked.records), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
