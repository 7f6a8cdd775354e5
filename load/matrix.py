"""The matrix of changes: each kind and size, in each course, and what of it is paged."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from load.cells import LOOKS, PACES, QUIET, TURNED, Run, of_seed
from load.courses import COURSES, KINDS, NOTHING, WINDOW, Course, Kind
from load.pages import Table

SEEDS = 50
FAMILIES = ("quality", "feature", "joint", "sequence", "baseline")
Found = Mapping[tuple[str, str], Sequence[Run]]
"""By course and by kind and size."""


def matrix(scale: float, processes: int, minutes: float) -> list[Table]:
    """As many seeds as are begun in `minutes`, and all of them finished."""
    found: dict[tuple[str, str], list[Run]] = {}
    until, done = time.monotonic() + 60 * minutes, 0
    wanted = max(2, round(SEEDS * scale))
    # As the analyst's own process: small matrices, and threads that wait for one another cost more.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        while done < wanted and (done < 2 or time.monotonic() < until):
            for runs in pool.map(of_seed, range(done, min(done + processes, wanted))):
                done += 1
                for cell, run in runs.items():
                    found.setdefault(cell, []).append(run)
            print(f"{done} of {wanted} seeds", file=sys.stderr, flush=True)
    return [*(pages_of(course, found, done) for course in COURSES), labels_of(found, done)]


def pages_of(course: Course, found: Found, seeds: int) -> Table:
    recurring = "recurring" in course.name
    rows = [
        _row(kind, kind.title(size), found[course.name, kind.title(size)], recurring)
        for kind in KINDS for size in kind.sizes
    ]  # fmt: skip
    rows.append(_dummy(course, seeds, len(rows[0])))
    note = (f"{seeds} streams each: {QUIET} quiet windows of {WINDOW}, then {course.windows} since "
            "the change began. Columns of families: streams with a page of that family for what "
            "changed, in all windows; `elsewhere`: with a page for what did not.")  # fmt: skip
    columns = ["change", *(f"paged within {k}" for k in (*LOOKS, course.windows)),
               "median decisions to the first page", *FAMILIES, "elsewhere"]  # fmt: skip
    if recurring:
        columns += ["causes opened a stream",
                    *(f"messages sent, a window in {pace} minutes" for pace in PACES)]  # fmt: skip
    return f"Changes, {course.name}", note, columns, rows


def _row(kind: Kind, title: str, runs: Sequence[Run], recurring: bool) -> list[str]:
    told = [[[c for c in one if kind.is_told_by(c)] for one in run.opened] for run in runs]
    families = [{c.split("/")[0] for one in causes for c in one} for causes in told]
    elsewhere = [any(not kind.is_told_by(c) for one in run.opened for c in one) for run in runs]
    row = [
        title, *_delay(np.array([_first(causes) for causes in told]), len(told[0])),
        *(_percent([family in one for one in families]) for family in FAMILIES),
        _percent(elsewhere) if kind.touched else "",
    ]  # fmt: skip
    if recurring:
        row.append(f"{np.mean([sum(map(len, run.opened)) for run in runs]):.1f}")
        row += [f"{np.mean(each):.1f}" for each in zip(*(run.messages for run in runs))]
    return row


def _first(causes: Sequence[Sequence[str]]) -> float:
    """The first window, counted from one, that told any."""
    return next((place for place, one in enumerate(causes, 1) if one), np.inf)


def _delay(firsts: Any, windows: int) -> list[str]:
    middle = float(np.median(firsts))
    shares = [_percent(firsts <= k) for k in (*LOOKS, windows)]
    return [*shares, f"{middle * WINDOW:,.0f}" if np.isfinite(middle) else "not found"]


def _dummy(course: Course, seeds: int, width: int) -> list[str]:
    rolled = np.random.default_rng(136).random((seeds, course.windows)) < 0.01
    firsts = np.where(rolled.any(axis=1), rolled.argmax(axis=1) + 1.0, np.inf)
    row = ["dummy: an alarm in each hundredth window by dice", *_delay(firsts, course.windows)]
    return row + [""] * (width - len(row))


def _percent(true: Any) -> str:
    return f"{100 * np.mean(true):.0f} %"


def labels_of(found: Found, seeds: int) -> Table:
    rows = []
    for course in COURSES:
        runs = found[course.name, NOTHING.title(0.0)]
        pages = sum(bool(one) for run in runs for one in run.opened)
        for place, turned in enumerate(TURNED):
            each = [run.labels[place] for run in runs]
            rows.append([
                course.name.split(":")[0], f"{100 * turned:.0f} %",
                f"{pages} of {seeds * course.windows}",
                f"{np.mean([one.accuracy for one in each]):.3f}",
                f"{np.mean([one.estimated for one in each]):.3f}",
                *(_percent(look) for look in zip(*(one.apart for one in each))),
            ])  # fmt: skip
    note = (f"The {seeds} streams of nothing of each course, all labelled, a calibrated score; the "
            "labels turn as the course has it, the inputs stay. Told apart: the estimate without "
            "labels lies outside the 95 % interval of the accuracy with them, by all decisions "
            "since the change began.")  # fmt: skip
    return ("Labels alone", note,
            ["course", "labels turned", "windows that page on inputs", "accuracy, all windows",
             "estimated without labels", "told apart by 2 windows", "4", "all"], rows)  # fmt: skip
