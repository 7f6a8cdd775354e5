"""Whether memory stays flat over many requests: python -m load.memory [--requests 2000000]

One real gateway, v2 JSON 200 B at 32 connections, in stretches of half a minute; after each the
proportional set size of every role is read. The first quarter of the requests fills caches and
pools; from there on a worker is flat if no reading leaves the band of 5 % around their median.
`--workers 2` beside `--workers 1` says what a second core brings, where there is one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from load import headworks
from load.processes import Running, free_ports
from load.results import commit
from load.scenario import KEY, SCENARIOS
from load.steady import wait_ready
from load.trial import ROOT, Bench, Contender, Plan, Sample

BAND = 0.05
WARM_SHARE = 0.25


def deviation(sizes: Sequence[int]) -> float:
    """The farthest reading from the median of those behind the first quarter, as a share of it."""
    kept = sizes[int(len(sizes) * WARM_SHARE) :]
    middle = statistics.median(kept)
    return max(abs(size - middle) for size in kept) / middle


def measure(folder: Path, requests: int, stretch_s: float, workers: int) -> bool:
    """True if all was answered and the workers stayed in the band."""
    port, data, admin = free_ports(3)
    command = [sys.executable, "-m", "load.origin", "--port", str(port)]
    origin = Running("origin", command, folder / "origin.log", {}, ROOT)
    made = headworks.document(folder, (data, admin), {"tabular": headworks.proxied(port)}, workers)
    serve = [sys.executable, "-m", "gateway", "serve", "--config",
             str(headworks.write(folder, made))]  # fmt: skip
    gateway = Running("headworks", serve, folder / "log", {}, ROOT)
    try:
        origin.wait_for(port, 60)
        gateway.wait_for(data, 90)
        wait_ready(data, 60)
        paths = headworks.paths(made["models"], "headworks")
        asked = Contender("headworks", "", gateway, data, paths, {"authorization": f"Bearer {KEY}"})
        bench = Bench(folder, origin, shutil.which("wrk"))
        told: list[Sample] = []
        while sum(one.requests for one in told) < requests:
            told.append(bench.run(asked, SCENARIOS["json-200"], Plan("json-200", 32, stretch_s)))
            sizes = {role: size >> 20 for role, size in sorted(told[-1].memory.items())}
            print(f"{sum(one.requests for one in told):10,} answered, "
                  f"{told[-1].per_second:.0f} a second, MiB {sizes}", flush=True)  # fmt: skip
    finally:
        gateway.stop()
        origin.stop()
    off = deviation([one.memory["worker"] for one in told])
    errors = sum(one.errors for one in told)
    rate = statistics.median(one.per_second for one in told)
    print(f"commit {commit()}: {workers} workers, {rate:.0f} a second (median), {errors} errors; "
          f"workers' memory within {off:.1%} of its median")  # fmt: skip
    return not errors and off <= BAND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2_000_000)
    parser.add_argument("--stretch", type=float, default=30.0, help="seconds between readings")
    parser.add_argument("--workers", type=int, default=1)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        kept = measure(Path(folder).resolve(), wanted.requests, wanted.stretch, wanted.workers)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
