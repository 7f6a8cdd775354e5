"""Benchmarks of verdicts: how often monitoring is wrong, and how late, on seeded streams.

    python -m load.monitoring [PART ...] [--scale 1.0] [--alibi FOLDER]

Each part prints a table of docs/monitoring-verdicts.md. A dummy detector that ignores the data
stands beside ours wherever a rule can win by luck. Streams are normal, twelve features, one
reference of 5,000 rows each, unless a part says otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.detectors.environment import Family
from gateway.detectors.foreign import Foreign, Specification
from gateway.modelsettings import DriftSettings
from gateway.monitor import bias, drift, proportion, quality
from gateway.monitor.column import Column
from gateway.monitor.panel import panel_of
from gateway.monitor.sequential import advance, begin
from gateway.monitor.twosample import binned, stability
from gateway.monitor.window import Decision
from load.synthetic import (
    CARD,
    FEATURES,
    HOUR_NS,
    REFERENCE_ROWS,
    changes,
    decisions_of,
    judged,
    panel_rows,
    reference_of,
    settings_of,
)

Table = tuple[str, list[str], list[list[str]]]
"""Title and note, columns, rows."""


# -- false alarms --------------------------------------------------------------------------------


def false_alarms(scale: float) -> list[Table]:
    """No drift: single windows (calibration), pages, and the rules of thumb and a dummy beside."""
    references, windows = max(4, int(20 * scale)), max(20, int(250 * scale))
    single: list[float] = []
    counts = {"page: window rule": 0, "page: baseline": 0, "page: sequential": 0}
    thumbs = {
        "plain KS at 0.05 in any feature": 0,
        "PSI over 0.1 in any feature": 0,
        "PSI over 0.25 in any feature": 0,
        "PSI over its bound at 0.01, any feature": 0,
    }
    ungated = 0
    total = references * windows
    for seed in range(references):
        reference = reference_of(seed)
        dice = np.random.default_rng([seed, 2])
        stream = (decisions_of(dice.normal(size=(500, FEATURES))) for _ in range(windows))
        hits, former = 0, set()
        for report in judged(reference, settings_of(baseline="rolling"), stream):
            drifts = {f.name: f.drift for f in report.features}
            drifts |= {"score": report.score.drift, "joint": report.joint}
            told = {n for n, d in drifts.items() if d.significant}
            hits += bool(told)
            ungated += bool(told & former)
            former = told
            counts["page: window rule"] += any(
                c.split("/")[0] in ("feature", "score", "outcome", "joint") for c in report.opened
            )
            counts["page: baseline"] += any(c.startswith("baseline/") for c in report.opened)
            counts["page: sequential"] += any(c.startswith("sequence/") for c in report.opened)
            features = [f.drift.comparison for f in report.features if f.drift.comparison]
            thumbs["plain KS at 0.05 in any feature"] += any(c.p_value < 0.05 for c in features)
            thumbs["PSI over 0.1 in any feature"] += any((c.psi or 0) > 0.1 for c in features)
            thumbs["PSI over 0.25 in any feature"] += any((c.psi or 0) > 0.25 for c in features)
            thumbs["PSI over its bound at 0.01, any feature"] += any(
                (c.psi or 0) > (c.psi_bound or 1) for c in features
            )
        single.append(hits / windows * 10_000)
    rate = float(np.mean(single))
    low, high = np.percentile(single, [5, 95])
    each = 10_000 / total
    rows = [
        ["anything significant in a window, level 0.01", f"{rate:.0f}", "50 to 150"],
        [f"... over {references} references, 5th to 95th", f"{low:.0f} to {high:.0f}", ""],
        [
            "the same cause significant in two windows running, no floor",
            f"{ungated * each:.1f}",
            "",
        ],
        *[[name, f"{count * each:.2f}", "1 together"] for name, count in counts.items()],
        *[[f"thumb: {name}", f"{count * each:.0f}", ""] for name, count in thumbs.items()],
        ["dummy: an alarm each hundredth window", "100", ""],
    ]
    note = f"{total} windows of 500 without drift, {references} references; per 10,000 windows."
    return [(f"False alarms|{note}", ["rule", "per 10,000 windows", "target"], rows)]


# -- sequential detectors ------------------------------------------------------------------------


def runs(scale: float) -> list[Table]:
    """The measured run between alarms against the wanted one, by reference size."""
    rows = []
    for reference_rows, wanted in ((2_000, 20_000), (5_000, 10_000), (5_000, 50_000)):
        references = max(4, int(60 * scale))
        length = int(max(20_000, wanted * 6 * scale))
        alarms, confirmed, each = 0, 0, []
        for seed in range(references):
            panel = panel_of(CARD, reference_of(seed, reference_rows), 0.25, wanted)
            dice = np.random.default_rng([seed, 3])
            state, found = begin(panel), 0
            for _ in range(length // 5_000):
                stream = panel_rows(dice.normal(size=(5_000, FEATURES)))
                state, told = advance(panel, state, stream, 500)
                found += len(told)
                confirmed += sum(alarm.confirmed for alarm in told)
            alarms += found
            each.append(found)
        total = references * length
        error = 100 * np.std(each, ddof=1) / np.mean(each) / np.sqrt(references)
        rows.append([
            f"{reference_rows:,}", f"{wanted:,}", f"{total / max(1, alarms):,.0f}",
            f"{100 * (total / max(1, alarms) / wanted - 1):+.0f} % (+- {error:.0f})",
            f"{alarms:,}", f"{confirmed * 5e6 / total:.2f}",
        ])  # fmt: skip
    return [(
        "Run between alarms by chance|All detectors of a series together (12 features, score, "
        "outcome: 27 detectors with two sides each), independent features; target: within 10 %.",
        ["reference rows", "wanted", "measured", "off (standard error)", "alarms",
         "confirmed per 10,000 windows of 500"],
        rows,
    )]  # fmt: skip


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
        f"Delay|A shift of one of twelve features, {repeats} streams each, a reference of 5,000; "
        "6,000 stands for not found. An alarm waits for nine decisions more at most, not counted.",
        ["run wanted", "shift", "mean delay of the alarm", "90 %", "target",
         "median delay of its confirmation (page)"],
        rows,
    )]  # fmt: skip


# -- power of the window rule --------------------------------------------------------------------


def power(scale: float) -> list[Table]:
    """Windows until a page, by the window rule and by the sequential detectors, and a dummy."""
    repeats = max(5, int(60 * scale))
    rows = []
    for name, change in changes().items():
        by_window, by_sequence = [], []
        for seed in range(repeats):
            dice = np.random.default_rng([seed, 5])
            stream = (decisions_of(change(dice, 500)) for _ in range(4))
            window = sequence = 99
            for number, report in enumerate(
                judged(reference_of(seed % 20), settings_of(), stream), 1
            ):
                opened = [c for c in report.opened if not c.startswith("sequence/")]
                window = min(window, number) if opened else window
                heard = any(c.startswith("sequence/") for c in report.opened)
                sequence = min(sequence, number) if heard else sequence
            by_window.append(window)
            by_sequence.append(sequence)
        rows.append([
            name, *(f"{100 * np.mean(np.array(by_window) <= k):.0f} %" for k in (2, 4)),
            *(f"{100 * np.mean(np.array(by_sequence) <= k):.0f} %" for k in (2, 4)),
            "1 %, 3 %",
        ])  # fmt: skip
    return [(
        f"Paged within two and within four windows of 500|{repeats} streams each. The dummy pages "
        "each hundredth window, whatever happens.",
        ["change", "window rule, 2", "4", "sequential, 2", "4", "dummy, 2, 4"],
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
        index = stability(*binned(then, now), 0.01)
        rows.append([
            f"{shift:g} sigma", f"{found.p_value:.1g}", f"{found.effect:.4f}", f"{index.psi:.5f}",
            "yes" if found.p_value < 0.01 and found.effect >= found.floor else "no",
        ])  # fmt: skip
    return [(f"The floor of the effect|{n:,} against {n:,} values.",
             ["shift", "p", "distance", "PSI", "counts as drift"], rows)]  # fmt: skip


# -- season, missing values ----------------------------------------------------------------------


def seasons(scale: float) -> list[Table]:
    """A weekly and daily cycle, no drift: alerts against each baseline."""
    weeks = max(3, int(8 * scale))
    rows = []
    for kind in ("none", "rolling", "day", "week"):
        alerts = total = 0
        for seed in range(2):
            dice = np.random.default_rng([seed, 7])

            def stream(dice: Any = dice) -> Iterator[list[Decision]]:
                for hour in range(weeks * 168):
                    drawn = dice.normal(size=(500, FEATURES))
                    weekend = 0.5 * (hour // 24 % 7 >= 5)
                    drawn[:, :4] += 0.7 * np.sin(hour * np.pi / 12) + weekend
                    yield decisions_of(drawn, hour * HOUR_NS, HOUR_NS // 501)

            for report in judged(reference_of(seed), settings_of(baseline=kind), stream()):
                total += 1
                alerts += len(report.opened)
            rows.append([kind, f"{alerts * 10_000 / total:.0f}", f"{total}"])
    note = ("Four of twelve features swing by 0.7 sigma over the day and by 0.5 at weekends; "
            "windows of an hour; alerts opened per 10,000 windows.")  # fmt: skip
    return [(f"A season without drift|{note}",
             ["`monitor.baseline`", "alerts per 10,000 windows", "windows"], rows)]  # fmt: skip


def missing(scale: float) -> list[Table]:
    """A missing rate that rises from 1 % to 3 %, and an unseen category at 0.5 %: what the first
    window says, and the second."""
    repeats = max(50, int(1000 * scale))
    dice = np.random.default_rng(8)
    rows = []
    count = 1000
    level = 0.01 / (FEATURES * len(quality.KINDS))
    cases = (("missing", 0.01, 0.03), ("missing", 0.01, 0.05), ("missing", 0.01, 0.01),
             ("missing", 0.1, 0.1), ("unseen", 0.0, 0.005), ("unseen", 0.0, 0.0))  # fmt: skip
    for name, before, now in cases:
        first = second = watch = 0
        for _ in range(repeats):
            then = int(dice.binomial(REFERENCE_ROWS, before))
            one, other = (
                quality.excess("missing", int(dice.binomial(count, now)), count, then,
                               REFERENCE_ROWS, level)
                for _ in range(2)
            )  # fmt: skip
            begun = quality.settled(one, suspected=False).state
            after = quality.settled(other, suspected=one.state == "fault").state
            first += begun == "fault"
            watch += begun == "watch"
            second += "fault" in (begun, after)
        rows.append([name, f"{100 * before:g} %", f"{100 * now:g} %",
                     *(f"{100 * n / repeats:.1f} %" for n in (first, watch, second))])  # fmt: skip
    note = f"Windows of 1,000, level 0.01 / (12 features, 5 kinds), {repeats} times."
    return [(f"Data quality|{note}",
             ["kind", "reference", "now", "first window: fault", "watch", "fault by the second"],
             rows)]  # fmt: skip


# -- bias ----------------------------------------------------------------------------------------


def coverage(scale: float) -> list[Table]:
    """Coverage of the 95 % intervals, and the states of the four-fifths rule."""
    repeats = max(500, int(10_000 * scale))
    dice = np.random.default_rng(9)
    rows = []
    cases = ((100, 400, 0.5, 0.8), (300, 1000, 0.3, 0.8), (300, 1000, 0.9, 0.8),
             (1000, 1000, 0.7, 1.0), (855, 855, 0.3, 0.8))  # fmt: skip
    for n, other, share, ratio in cases:
        difference = inside = 0
        for _ in range(repeats):
            a, b = int(dice.binomial(n, share * ratio)), int(dice.binomial(other, share))
            if min(a, b, n - a, other - b) == 0:
                continue
            gap = proportion.newcombe(a, n, b, other)
            of = proportion.katz(a, n, b, other)
            difference += gap.low <= share * ratio - share <= gap.high
            inside += of.low <= ratio <= of.high
        rows.append([f"{n} of {share * ratio:.2f}, {other} of {share:g}", f"{ratio:g}",
                     *(f"{100 * k / repeats:.1f} %" for k in (difference, inside))])  # fmt: skip
    states = []
    for ratio in (1.0, 0.9, 0.8, 0.7, 0.6):
        told = {"insufficient": 0, "ok": 0, "watch": 0, "breach": 0}
        plain = 0
        for _ in range(repeats // 5):
            a, b = int(dice.binomial(1000, 0.5 * ratio)), int(dice.binomial(1000, 0.5))
            own, theirs = (a, 1000 - a), (b, 1000 - b)
            if not (bias.is_sufficient(*own) and bias.is_sufficient(*theirs)):
                told["insufficient"] += 1
                continue
            later, others = int(dice.binomial(1000, 0.5 * ratio)), int(dice.binomial(1000, 0.5))
            since = (later, 1000 - later, others, 1000 - others)
            told[bias.state_of(bias.compare_groups("b", own, theirs), a / 1000, since)] += 1
            plain += a / b < 0.8
        n = repeats // 5
        shares = [told["ok"], told["watch"], told["breach"], plain]
        states.append([f"{ratio:g}", *(f"{100 * share / n:.1f} %" for share in shares)])
    return [
        (f"Intervals of two groups|{repeats} draws; nominal 95 %, target 93 to 97 %.",
         ["groups: size and rate", "true ratio", "difference (Newcombe)", "ratio (Katz)"], rows),
        ("States of the four-fifths rule|Two groups of 1,000, the higher rate 0.5, and as many new "
         "decisions that may confirm a `breach`. The last column is the point ratio below 0.8, "
         "which knows no doubt.",
         ["true ratio", "ok", "watch", "breach", "point value says below 0.8"], states),
    ]  # fmt: skip


# -- beside alibi-detect -------------------------------------------------------------------------


def beside(scale: float, folder: Path | None) -> list[Table]:
    """The same windows judged by alibi-detect's detectors."""
    if folder is None:
        return []
    foreign = Foreign(Family(str(folder / "bin" / "python"), ""))
    repeats = max(5, int(60 * scale))
    names = ("KSDrift", "CVMDrift", "TabularDrift", "ClassifierDrift")
    rows = []
    for change, make in changes().items():
        told = dict.fromkeys(names, 0)
        ours = seen = 0
        many = 4 * repeats if change == "nothing" else repeats
        for seed in range(many):
            reference = reference_of(seed % 5)
            dice = np.random.default_rng([seed, 10])
            drawn = make(dice, 500)
            report = next(judged(reference, settings_of(drift=DriftSettings(
                sequential=DriftSettings().sequential.model_copy(update={"run": 0})
            )), iter([decisions_of(drawn)])))  # fmt: skip
            drifts = [f.drift for f in report.features] + [report.joint]
            ours += any(d.significant for d in drifts)
            seen += any(d.running for d in drifts)
            then = np.stack([reference.values[f"x{i}"] for i in range(FEATURES)], axis=1)
            for name in names:
                asked = Specification(f"{name} {seed % 5}", name, 0.01, then)
                told[name] += foreign.judge(asked, drawn, seed)["is_drift"]
        rows.append([change, f"{100 * ours / many:.1f} %", f"{100 * seen / many:.1f} %",
                     *(f"{100 * told[name] / many:.1f} %" for name in names)])  # fmt: skip
    foreign.close()
    note = f"One window of 500, level 0.01, {repeats} streams each, four times as many of nothing."
    columns = ["change", "ours, significant", "ours, over the floor too", *names]
    return [(f"Beside alibi-detect 0.11.4|{note}", columns, rows)]


# -- speed ---------------------------------------------------------------------------------------


def speed(scale: float) -> list[Table]:
    """Rows a second through windows, detectors, baseline and verdicts, on one thread."""
    reference = reference_of(0)
    dice = np.random.default_rng(11)
    windows = max(10, int(60 * scale))
    streams = [decisions_of(dice.normal(size=(500, FEATURES))) for _ in range(windows)]
    rows = []
    for name, changed in (("all", {"baseline": "rolling"}), ("without baseline", {})):
        best = 0.0
        for _ in range(3):
            made = judged(reference, settings_of(**changed), iter(streams))
            next(made)  # thresholds are made with the first
            started = time.process_time()
            for _ in made:
                pass
            best = max(best, (windows - 1) * 500 / (time.process_time() - started))
        rows.append([name, f"{best:,.0f}"])
    return [("Speed|Decisions a second of processor time, 12 features, windows of 500; best of "
             "three; the analyst reads and explains besides. Target: 20,000.",
             ["what", "decisions a second"], rows)]  # fmt: skip


PARTS: dict[str, Callable[[float], list[Table]]] = {
    "false_alarms": false_alarms, "runs": runs, "delays": delays, "power": power,
    "floors": floors, "seasons": seasons, "missing": missing, "coverage": coverage, "speed": speed,
}  # fmt: skip


def rendered(table: Table) -> str:
    (title, _, note), columns, rows = table[0].partition("|"), table[1], table[2]
    lines = [f"## {title}", note, "", "| " + " | ".join(columns) + " |"]
    lines += ["|" + "---|" * len(columns), *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[*PARTS, "beside"])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--alibi", type=Path)
    asked = parser.parse_args()
    for part in asked.parts or [*PARTS, "beside"]:
        made = beside(asked.scale, asked.alibi) if part == "beside" else PARTS[part](asked.scale)
        print("\n".join(rendered(table) for table in made), flush=True)


if __name__ == "__main__":
    main()
