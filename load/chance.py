"""How often monitoring is wrong where nothing changed: pages by chance, and runs between alarms."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from scipy import stats

from gateway.monitor import proportion
from gateway.monitor.panel import Panel, panel_of
from gateway.monitor.report import WindowReport
from gateway.monitor.runlength import Law, expected_run
from gateway.monitor.sequential import advance_by, begin
from load import mixed
from load.pages import Table
from load.synthetic import CARD, FEATURES, THRESHOLD, judged, reference_of, scores_of

FAMILIES = ("quality", "feature", "joint", "score", "outcome", "baseline", "sequence",
            "attribution", "slice", "bias")  # fmt: skip
WINDOWS = 300
BLOCK = 1_000
LATTICE = 400
THUMBS = ("a test of one feature at 0.05", "PSI over 0.1 in any feature",
          "PSI over 0.25 in any feature", "PSI over its bound at 0.01 in any feature")  # fmt: skip


def pages(scale: float, processes: int, minutes: float) -> list[Table]:
    """No drift: whole windows of mixed traffic, everything that may page; as many references as
    are begun in `minutes`, and all of them finished."""
    windows = WINDOWS if scale >= 0.1 else 20
    return [
        _pages(apart, windows, max(2, round(references * scale)), processes, minutes * share)
        for apart, references, share in ((False, 110, 0.8), (True, 10, 0.2))
    ]


def _pages(apart: bool, windows: int, references: int, processes: int, minutes: float) -> Table:
    told: Counter[str] = Counter()
    single: list[float] = []
    until = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(processes) as pool:
        for first in range(0, references, processes):
            if first >= 2 and time.monotonic() > until:
                break
            seeds = range(first, min(first + processes, references))
            for one in pool.map(_watched, seeds, [windows] * len(seeds), [apart] * len(seeds)):
                told.update(one)
                single.append(one["significant"] / windows * 1e4)
            print(f"{len(single)} references, {told['page']} pages", file=sys.stderr, flush=True)
    total = len(single) * windows
    low, high = np.percentile(single, [5, 95])
    rows = [
        ["anything of the window's tests significant, level 0.01",
         *rate(told["significant"], total), "50 to 150"],
        [f"... over {len(single)} references, 5th to 95th", "", f"{low:.0f} to {high:.0f}", "", ""],
        ["the same cause significant in two windows running, no floor",
         *rate(told["ungated"], total), ""],
        *[[f"page: {name}", *rate(told[f"page {name}"], total), ""] for name in FAMILIES
          if apart or name != "slice"],
        ["page: any", *rate(told["page"], total), "1"],
        *[[f"thumb: {name}", *rate(told[name], total), ""] for name in THUMBS],
        ["dummy: an alarm in each hundredth window by dice", *rate(told["dummy"], total), ""],
    ]  # fmt: skip
    note = (f"{total:,} windows of 500 without drift, {len(single)} references of 5,000: twelve "
            "features of all types, missing and unknown values among them, two keys of groups, "
            "attributions, everything by default.")  # fmt: skip
    title = "False alarms, slices judged as well" if apart else "False alarms"
    return title, note, ["rule", "windows with it", "per 10,000", "95 % (exact)", "target"], rows


def rate(count: int, total: int) -> list[str]:
    low = proportion.at_least(count, total, 0.025 if count else 0.05) * 1e4
    high = proportion.at_most(count, total, 0.025 if count else 0.05) * 1e4
    between = f"{_figure(low)} to {_figure(high)}" if count else f"at most {high:.2g}"
    return [f"{count:,}", _figure(count * 1e4 / total), between]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _watched(seed: int, windows: int, apart: bool) -> Counter[str]:
    """One reference: windows that said each thing."""
    reference, attributed = mixed.reference_of(seed)
    dice = np.random.default_rng([seed, 102])
    dummy = np.random.default_rng([seed, 103])
    stream = (mixed.decisions_of(dice, 500, 500 * number) for number in range(windows))
    found: Counter[str] = Counter()
    former: set[str] = set()
    settings = mixed.all_on(**({} if apart else {"slices": ()}))
    for report in judged(reference, settings, stream, mixed.CARD, attributed):
        told = significant(report)
        found["significant"] += bool(told)
        found["ungated"] += bool(told & former)
        former = told
        opened = {cause.split("/")[0] for cause in report.opened}
        found["page"] += bool(opened)
        found.update(f"page {name}" for name in opened)
        found.update(thumbs(report))
        found["dummy"] += dummy.random() < 0.01
    return found


def significant(report: WindowReport) -> set[str]:
    """The causes that a window's tests against the frozen reference show, at the level set."""
    drifts = {f.name: f.drift for f in report.features}
    drifts |= {"score": report.score.drift, "joint": report.joint}
    if report.outcome is not None:
        drifts["outcome"] = report.outcome.drift
    if report.attributions is not None:
        drifts |= {f"of {f.name}": f.drift for f in report.attributions.features}
        drifts["ranking"] = report.attributions.ranking
    return {name for name, one in drifts.items() if one.significant}


def thumbs(report: WindowReport) -> list[str]:
    """The public rules of thumb that would have alarmed."""
    features = [f.drift.comparison for f in report.features if f.drift.comparison]
    said = (
        any(c.p_value < 0.05 for c in features),
        any((c.psi or 0) > 0.1 for c in features),
        any((c.psi or 0) > 0.25 for c in features),
        any((c.psi or 0) > (c.psi_bound or 1) for c in features),
    )
    return [name for name, alarm in zip(THUMBS, said) if alarm]


def runs(scale: float, processes: int) -> list[Table]:
    """The measured run between alarms against the wanted one, by reference size."""
    calculated, counted = [], []
    for size, wanted in ((5_000, 10_000), (5_000, 50_000), (2_000, 20_000)):
        references = max(4, round(200 * scale))
        asked = ([n] * references for n in (size, wanted))
        with ProcessPoolExecutor(processes) as pool:
            rates = list(pool.map(_hazard, range(references), *asked))
        calculated.append([f"{size:,}", f"{wanted:,}", f"{references}", *_off(rates, wanted)])
        print(calculated[-1], file=sys.stderr, flush=True)
    for size, wanted, length in ((5_000, 10_000, 100_000), (5_000, 50_000, 250_000)):
        references = max(4, round(200 * scale))
        asked = ([n] * references for n in (size, wanted, length if scale >= 0.1 else 20_000))
        with ProcessPoolExecutor(processes) as pool:
            found = list(pool.map(_run, range(references), *asked))
        fed, alarms, confirmed = (sum(one[place] for one in found) for place in range(3))
        off = _off([one[1] / one[0] for one in found], wanted)
        counted.append([f"{size:,}", f"{wanted:,}", f"{references}", f"{fed:,}", f"{alarms:,}",
                        *off, f"{confirmed * 5e6 / fed:.2f}"])  # fmt: skip
        print(counted[-1], file=sys.stderr, flush=True)
    told = ("All detectors of a series together (12 features, score, outcome: 27 detectors with "
            "two sides each), independent features, references drawn anew. Target: the interval "
            "within 10 % of the wanted run")  # fmt: skip
    columns = ["reference rows", "wanted", "references"]
    measured = ["run", "off (95 % over references)"]
    return [
        ("Run between alarms by chance, calculated",
         f"{told}. Each detector's run on the stream's true law, seen through its reference, by "
         "the Markov chain on a lattice of 400: no noise but that of references.",
         [*columns, *measured], calculated),
        ("Run between alarms by chance, counted", f"{told}.",
         [*columns, "decisions", "alarms", *measured, "confirmed per 10,000 windows of 500"],
         counted),
    ]  # fmt: skip


def _off(rates: list[float], wanted: int) -> list[str]:
    """The run, and how far off; references are drawn anew, so their own spread holds all."""
    mean = float(np.mean(rates))
    half = float(stats.t.ppf(0.975, len(rates) - 1) * np.std(rates, ddof=1) / len(rates) ** 0.5)
    off, low, high = (100 * (1 / (rate * wanted) - 1) for rate in (mean, mean + half, mean - half))
    return [f"{1 / mean:,.0f}", f"{off:+.1f} % ({low:+.1f} to {high:+.1f})"]


def _hazard(seed: int, size: int, wanted: int) -> float:
    """Alarms a decision."""
    panel = panel_of(CARD, reference_of(seed, size), 0.25, wanted)
    told = 0.0
    for track, at in zip(panel.tracks, panel.source.tolist()):
        edges = panel.places[at].edges
        cuts = [0.0, *stats.norm.cdf([THRESHOLD] if edges is None else edges), 1.0]
        shares = np.diff(cuts)
        for sign, threshold in ((1, track.up), (-1, track.down)):
            values = sign * np.array(track.scores)
            order = np.argsort(values)
            law = Law(tuple(values[order].tolist()), tuple(shares[order].tolist()))
            told += 1 / expected_run(law, panel.slack, threshold, LATTICE)
    return told


def _run(seed: int, size: int, wanted: int, length: int) -> tuple[int, int, int]:
    """Decisions, alarms, and how many of them were confirmed."""
    panel = panel_of(CARD, reference_of(seed, size), 0.25, wanted)
    dice = np.random.default_rng([seed, 3])
    state, alarms, confirmed = begin(panel), 0, 0
    for _ in range(length // BLOCK):
        bins = bins_of(panel, dice.normal(size=(BLOCK, FEATURES)))
        state, told = advance_by(panel, state, bins, 500)
        alarms += len(told)
        confirmed += sum(alarm.confirmed for alarm in told)
    return length // BLOCK * BLOCK, alarms, confirmed


def bins_of(panel: Panel, rows: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.int64]:
    """Where plain normal rows fall, without a decision made of each."""
    scores = scores_of(rows)
    columns = []
    for place, at in zip(panel.places, panel.features):
        if place.edges is None:
            columns.append((scores >= THRESHOLD).astype(np.int64))
        else:
            values = scores if at < 0 else rows[:, at]
            columns.append(np.searchsorted(place.edges, values, side="left"))
    return np.stack(columns, axis=1)
