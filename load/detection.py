"""How late monitoring sees what did change: alarms, pages, and what must stay quiet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.monitor import drift
from gateway.monitor.column import Column
from gateway.monitor.panel import panel_of
from gateway.monitor.sequential import advance, begin
from gateway.monitor.twosample import between, deciles, stability
from gateway.monitor.window import Decision
from load.chance import significant
from load.pages import Table
from load.synthetic import (
    CARD,
    FEATURES,
    HOUR_NS,
    changes,
    decisions_of,
    judged,
    panel_rows,
    reference_of,
    settings_of,
)

TARGETS = {"mean of one by 0.25 sigma": "85 %", "mean of one by 0.5 sigma": "99 %",
           "mean of one by 1 sigma": "99 %"}  # fmt: skip
"""Of significance in two windows running, within 1,000 decisions."""


def delays(scale: float) -> list[Table]:
    """Decisions from the change to the first alarm of the changed feature, and to the second."""
    repeats = max(10, int(200 * scale))
    rows = []
    for wanted in (10_000, 50_000):
        for shift, target in ((0.1, ""), (0.25, "500"), (0.5, "155"), (1.0, "55")):
            first, second = [], []
            for seed in range(repeats):
                panel = panel_of(CARD, reference_of(seed % 40), 0.25, wanted)
                dice = np.random.default_rng([seed, 4])
                before, _ = advance(panel, begin(panel), panel_rows(
                    dice.normal(size=(1_000, FEATURES))), 500)  # fmt: skip
                moved = dice.normal(size=(6_000, FEATURES))
                moved[:, 7] += shift
                _, told = advance(panel, before, panel_rows(moved), 500)
                hits = [a.at - 1_000 for a in told if a.cause == "feature/x7" and a.side == "up"]
                sure = [a.at - 1_000 for a in told
                        if a.cause == "feature/x7" and a.side == "up" and a.confirmed]  # fmt: skip
                first.append(hits[0] if hits else 6_000)
                second.append(sure[0] if sure else 6_000)
            rows.append([
                f"{wanted:,}", f"{shift:g} sigma", f"{np.mean(first):.0f}",
                f"{np.percentile(first, 90):.0f}", target, f"{np.median(second):.0f}",
            ])  # fmt: skip
    return [(
        "Delay",
        f"A shift of one of twelve features, {repeats} streams each, a reference of 5,000; "
        "6,000 stands for not found. An alarm waits for nine decisions more at most, not counted.",
        ["run wanted", "shift", "mean delay of the alarm", "90 %", "target",
         "median delay of its confirmation (page)"],
        rows,
    )]  # fmt: skip


def power(scale: float) -> list[Table]:
    """Windows until a page, by the window rule and by the sequential detectors, and a dummy."""
    repeats = max(5, int(200 * scale))
    rows = []
    for name, change in changes().items():
        by_window, by_sequence, twice = [], [], 0
        for seed in range(repeats):
            dice = np.random.default_rng([seed, 5])
            stream = (decisions_of(change(dice, 500)) for _ in range(4))
            window = sequence = 99
            told = list(judged(reference_of(seed % 20), settings_of(), stream))
            twice += bool(significant(told[0]) & significant(told[1]))
            for number, report in enumerate(told, 1):
                opened = [c for c in report.opened if not c.startswith("sequence/")]
                window = min(window, number) if opened else window
                heard = any(c.startswith("sequence/") for c in report.opened)
                sequence = min(sequence, number) if heard else sequence
            by_window.append(window)
            by_sequence.append(sequence)
        rows.append([
            name, f"{100 * twice / repeats:.1f} %", TARGETS.get(name, ""),
            *(f"{100 * np.mean(np.array(by_window) <= k):.0f} %" for k in (2, 4)),
            *(f"{100 * np.mean(np.array(by_sequence) <= k):.0f} %" for k in (2, 4)),
            "1 %, 3 %",
        ])  # fmt: skip
    return [(
        "Paged within two and within four windows of 500",
        f"{repeats} streams each. Significant twice: the same cause in both of two windows, "
        "whatever its size, which pages nobody. The dummy pages each hundredth window, whatever "
        "happens.",
        ["change", "significant twice in 2", "target", "window rule, 2", "4", "sequential, 2", "4",
         "dummy, 2, 4"],
        rows,
    )]  # fmt: skip


def floors(scale: float) -> list[Table]:
    """Large samples: significance without size wakes nobody."""
    n = int(1_000_000 * min(1.0, max(scale, 0.1)))
    dice = np.random.default_rng(6)
    rows = []
    for shift in (0.0, 0.01, 0.05, 0.25):
        then = np.sort(dice.normal(size=n))
        now = np.sort(dice.normal(shift, size=n))
        column = Column(n, 0, 0, 0, 0, 1, then, None, None)
        found = drift.compare(column, replace(column, numbers=now))
        edges = deciles(then)
        index = stability(between(edges, then), between(edges, now), 0.01)
        rows.append([
            f"{shift:g} sigma", f"{found.p_value:.1g}", f"{found.effect:.4f}", f"{index.psi:.5f}",
            "yes" if found.p_value < 0.01 and found.effect >= found.floor else "no",
        ])  # fmt: skip
    return [("The floor of the effect", f"{n:,} against {n:,} values.",
             ["shift", "p", "distance", "PSI", "counts as drift"], rows)]  # fmt: skip


def seasons(scale: float) -> list[Table]:
    """Traffic with a cycle and no drift: alerts against each baseline."""
    weeks = max(3, int(8 * scale))
    cases = [("day and week", 0.5, kind) for kind in ("none", "rolling", "day", "week")]
    cases += [("day", 0.0, kind) for kind in ("day", "week")]
    rows = []
    for name, weekend, kind in cases:
        alerts = total = 0
        for seed in range(2):
            stream = _cycle(np.random.default_rng([seed, 7]), weeks * 168, weekend)
            for report in judged(reference_of(seed), settings_of(baseline=kind), stream):
                total += 1
                alerts += len(report.opened)
        rows.append([name, kind, f"{alerts * 10_000 / total:.0f}", f"{total}"])
    note = ("Four of twelve features swing by 0.7 sigma over the day and, where the cycle is of "
            "the week too, by 0.5 at weekends; windows of an hour; alerts opened per 10,000 "
            "windows. Target: of traffic with a cycle, with a baseline of that cycle, no more "
            "than twice what there is without one.")  # fmt: skip
    return [("A season without drift", note,
             ["cycle of", "`monitor.baseline`", "alerts per 10,000 windows", "windows"],
             rows)]  # fmt: skip


def _cycle(dice: Any, hours: int, weekend: float) -> Iterator[list[Decision]]:
    for hour in range(hours):
        drawn = dice.normal(size=(500, FEATURES))
        shift = weekend * (hour // 24 % 7 >= 5)
        drawn[:, :4] += 0.7 * np.sin(hour * np.pi / 12) + shift
        yield decisions_of(drawn, hour * HOUR_NS, HOUR_NS // 501)
