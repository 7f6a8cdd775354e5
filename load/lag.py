"""How long after a window's last decision its verdict is told: python -m load.lag [--rate 100]

A live gateway with the mortgage model and a shadow, explained and monitored as by default, begun
anew with half of the requests: windows that were open then are filled again from the ledger. All
requests are one, which no reference is like. Four times a second
the API is asked for the newest window of each series and for the alerts: the lag is from
`closed_at` (the last decision's own time) to the answer that first shows it, so up to a quarter of
a second of it is the asking's. The generator's CPU is spent on the same cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from load import headworks
from load.processes import Running, free_ports
from load.results import commit
from load.steady import generate, model, wait_ready
from load.trial import ROOT

ASK_S, AFTER_S = 0.25, 30.0
TARGET_S = 5.0
STARTS = 2


def asked(admin: int, path: str, part: str) -> list[dict[str, Any]] | None:
    """None while the analyst is not there yet."""
    url = f"http://127.0.0.1:{admin}/api/v1/{path}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: list[dict[str, Any]] = orjson.loads(answer.read())[part]
            return found
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return None


def wait_analyst(admin: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while asked(admin, "alerts", "alerts") is None:
        if time.monotonic() > until:
            raise RuntimeError("the analyst is not there")
        time.sleep(ASK_S)


def watch(generator: subprocess.Popen[bytes], admin: int) -> tuple[list[float], ...]:
    """Lags of windows and of alerts, in seconds, until long after the generator has ended: what is
    late counts too, and so do a start's first windows."""
    windows: dict[str, tuple[int, float]] = {}
    alerts: dict[str, tuple[int, float]] = {}
    newest, begun = time.monotonic(), time.time_ns()
    while generator.poll() is None or time.monotonic() - newest < AFTER_S:
        before = len(windows)
        series = asked(admin, "monitor/mortgage", "series") or []
        at = time.time_ns()
        for latest in (one["latest"] for one in series):
            windows.setdefault(latest["id"], (latest["closed_at"], float(at)))
        for one in asked(admin, "alerts", "alerts") or ():
            told = (one["opened_at"], float(time.time_ns()))
            alerts.setdefault(f"{one['id']} {one['number']}", told)
        if len(windows) > before or generator.poll() is None:
            newest = time.monotonic()
        time.sleep(ASK_S)
    return tuple(
        [(seen - closed) / 1e9 for closed, seen in some.values() if closed > begun]
        for some in (windows, alerts)
    )


def measure(folder: Path, rate: float, seconds: float, count: int) -> tuple[list[float], ...]:
    data, admin = free_ports(2)
    made = model()
    monitored = {**made["monitor"], "window": {"count": count}}  # type: ignore[dict-item]
    models = {"mortgage": {**made, "monitor": monitored}}
    path = headworks.write(folder, headworks.document(folder, (data, admin), models, 1))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    lags: tuple[list[float], ...] = ([], [])
    for start in range(STARTS):
        running = Running("headworks", command, folder / f"log{start}", {}, ROOT)
        try:
            running.wait_for(data, 300)
            wait_ready(data, 300)
            wait_analyst(admin, 300)
            told = watch(generate(data, rate, seconds / STARTS, 16), admin)
        finally:
            running.stop()
        lags = tuple(one + more for one, more in zip(lags, told))
    return lags


def said(name: str, lags: list[float]) -> str:
    if not lags:
        return f"{name}: none"
    p50, p99 = np.percentile(lags, [50, 99])
    return f"{len(lags)} {name}: p50 {p50:.2f} s, p99 {p99:.2f} s, longest {max(lags):.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="exchanges a second")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--count", type=int, default=500, help="decisions of a window")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        windows, alerts = measure(Path(folder).resolve(), wanted.rate, wanted.seconds, wanted.count)
    print(f"commit {commit()}, load {os.getloadavg()[0]:.0f}: {said('windows', windows)}; "
          f"{said('alerts', alerts)}; target: p99 at most {TARGET_S:g} s")  # fmt: skip


if __name__ == "__main__":
    main()
