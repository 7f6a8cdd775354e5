"""Benchmarks of verdicts: how often monitoring is wrong, and how late, on seeded streams.

    python -m load.monitoring [PART ...] [--scale 1.0] [--alibi FOLDER] [--oracles FOLDER]

Each part prints a table of docs/monitoring-verdicts.md. A dummy detector that ignores the data
stands beside ours wherever a rule can win by luck. Streams are normal, twelve features, one
reference of 5,000 rows each, unless a part says otherwise.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from load import (
    agreement,
    beside,
    chance,
    detection,
    intervals,
    matrix,
    mixed,
    parts,
    rare,
    restart,
)
from load.pages import Table, rendered, write
from load.results import commit
from load.synthetic import (
    CARD,
    FEATURES,
    decisions_of,
    judged,
    reference_of,
    settings_of,
)
from load.trial import ROOT

PAGE = ROOT / "docs" / "monitoring-verdicts.md"


def speed(scale: float) -> list[Table]:
    """Rows a second through windows, detectors, baseline and verdicts, on one thread."""
    windows = max(6, int(20 * scale))
    dice = np.random.default_rng(11)
    plain = [decisions_of(dice.normal(size=(500, FEATURES))) for _ in range(windows)]
    rich = [mixed.decisions_of(dice, 500, 500 * at) for at in range(windows)]
    reference, attributed = mixed.reference_of(0)
    by_numbers: list[Any] = [reference_of(0), plain, CARD, None]
    by_all: list[Any] = [reference, rich, mixed.CARD, attributed]
    no_slices = mixed.all_on(slices=())
    cases = {
        "twelve numbers, no baseline": (settings_of(), *by_numbers),
        "twelve numbers, rolling baseline": (settings_of(baseline="rolling"), *by_numbers),
        "all types, baseline, two keys of groups": (no_slices, *by_all[:3], None),
        "... and attributions": (no_slices, *by_all),
        "... and the slices of both keys (seven)": (mixed.all_on(), *by_all),
    }
    rows = []
    for name, (settings, then, stream, card, moves) in cases.items():
        each = []
        for _ in range(3):
            made = judged(then, settings, iter(stream), card, moves, as_they_come=True)
            next(made)  # thresholds are made with the first
            for _ in range(windows - 1):
                started = time.process_time()
                next(made)
                each.append(500 / (time.process_time() - started))
        rows.append([name, f"{np.median(each):,.0f}", f"{max(each):,.0f}"])
    note = ("Decisions a second of processor time, 12 features, windows of 500, one thread; the "
            "analyst reads and explains besides. Target: 20,000. Other work on the same cores "
            f"makes processor time longer; load was {os.getloadavg()[0]:.0f} on two.")  # fmt: skip
    return [("Speed", note, ["what", "median window", "best window"], rows)]


PARTS: dict[str, Callable[[argparse.Namespace], list[Table]]] = {
    "pages": lambda asked: chance.pages(asked.scale, asked.processes, asked.minutes),
    "rare": lambda asked: rare.rare(asked.scale, asked.processes),
    "runs": lambda asked: chance.runs(asked.scale, asked.processes),
    "delays": lambda asked: detection.delays(asked.scale),
    "power": lambda asked: detection.power(asked.scale),
    "matrix": lambda asked: matrix.matrix(asked.scale, asked.processes, asked.minutes),
    "restarts": lambda asked: restart.restarts(asked.scale),
    "parts": lambda asked: parts.parts(asked.scale),
    "floors": lambda asked: detection.floors(asked.scale),
    "seasons": lambda asked: detection.seasons(asked.scale),
    "missing": lambda asked: intervals.missing(asked.scale),
    "coverage": lambda asked: intervals.coverage(asked.scale),
    "fairlearn": lambda asked: agreement.fairlearn(asked.scale, asked.oracles),
    "shap": lambda asked: agreement.shap(asked.scale, asked.oracles),
    "speed": lambda asked: speed(asked.scale),
    "beside": lambda asked: beside.beside(asked.scale, asked.alibi),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of draws")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=240.0, help="at most, of `pages`, `matrix`"
    )
    parser.add_argument("--alibi", type=Path, help="folder of alibi-detect's interpreter")
    parser.add_argument("--oracles", type=Path, help="environment of fairlearn and shap; made")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    asked = parser.parse_args()
    source = commit()
    for part in asked.parts or PARTS:
        begun, spent = time.monotonic(), cpu_seconds()
        tables = PARTS[part](asked)
        took = f"{time.monotonic() - begun:,.0f} s, {cpu_seconds() - spent:,.0f} s of processor"
        scale = "" if asked.scale == 1.0 else f" --scale {asked.scale:g}"
        where = " --alibi FOLDER" if part == "beside" else ""
        made = f"`python -m load.monitoring {part}{scale}{where}`, commit {source}: {took}."
        print("\n".join(rendered(table) for table in tables) + made, flush=True)
        if asked.write:
            write(PAGE, part, tables, made)


def cpu_seconds() -> float:
    """Of this process and of those it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == "__main__":
    main()
