"""The rest of the matrix: slow, recurring and hidden changes, those of labels alone, a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gateway.monitor import performance
from gateway.monitor.feed import Feed
from gateway.monitor.judge import judge
from gateway.monitor.panel import Panel, panel_of
from gateway.monitor.report import WindowReport
from gateway.monitor.sequential import Heard
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window
from load import mixed
from load.pages import Table
from load.synthetic import CARD, FEATURES, decisions_of, judged, reference_of, settings_of

Decisions = list[Decision]
WINDOW, WEB = 500, 0.6
QUIET, CHANGED = 12, 8
"""Windows before a change of a part, which is compared with its own past, and after it."""


def _paths() -> dict[str, Callable[[int], float]]:
    """Shift of the mean of x7, in deviations, at a decision since the change began."""
    return {
        "0 to 0.5 sigma over 2,000 decisions": lambda at: 0.5 * min(1.0, at / 2_000),
        "0 to 1 sigma over 2,000 decisions": lambda at: min(1.0, at / 2_000),
        "0 to 0.5 sigma over 10,000 decisions": lambda at: 0.5 * min(1.0, at / 10_000),
        "0.5 sigma in two windows of every six": lambda at: 0.5 * (at // WINDOW % 6 < 2),
        "1 sigma in one window of every six": lambda at: 1.0 * (at // WINDOW % 6 < 1),
    }


def slow(scale: float) -> list[Table]:
    """Changes that come bit by bit, or come and go."""
    repeats, length = max(3, round(20 * scale)), 24
    rows = []
    for name, path in _paths().items():
        firsts, opened, causes = [], [], set()
        shift = np.array([path(at) for at in range(WINDOW * length)]).reshape(length, WINDOW)
        for seed in range(repeats):
            dice = np.random.default_rng([seed, 130])

            def stream(dice: Any = dice, shift: Any = shift) -> Iterator[Decisions]:
                for place in range(length):
                    rows = dice.normal(size=(WINDOW, FEATURES))
                    rows[:, 7] += shift[place]
                    yield decisions_of(rows, place * WINDOW)

            told = [r.opened for r in judged(reference_of(seed), settings_of(), stream())]
            first = next((at for at, causes in enumerate(told, 1) if causes), None)
            firsts.append(length if first is None else first)
            opened.append(sum(len(causes) for causes in told))
            causes |= {cause for one in told for cause in one}
        rows.append([
            name, f"{np.median(firsts) * WINDOW:,.0f}",
            f"{100 * np.mean(np.array(firsts) < length):.0f} %", f"{np.mean(opened):.1f}",
            ", ".join(f"`{cause}`" for cause in sorted(causes)),
        ])  # fmt: skip
    note = (f"Mean of one of twelve features, {repeats} streams of {length} windows of {WINDOW} "
            "each. A window's end says it, so delays are whole windows.")  # fmt: skip
    return [("Slow and recurring changes", note,
             ["change", "median decisions until the first page", "paged", "causes opened a stream",
              "which"], rows)]  # fmt: skip


def labels(scale: float) -> list[Table]:
    """The meaning of the inputs changes and they do not: nothing of inputs may page, the figures of
    performance must move, and the estimate that has no labels cannot see it."""
    repeats = max(3, round(20 * scale))
    rows = []
    for flipped in (0.0, 0.05, 0.1, 0.2):
        pages = seen = 0
        accuracy, estimate = [], []
        for seed in range(repeats):
            dice = np.random.default_rng([seed, 131])
            drawn = [dice.normal(size=(WINDOW, FEATURES)) for _ in range(4)]
            stream = (decisions_of(one, at * WINDOW) for at, one in enumerate(drawn))
            for report in judged(reference_of(seed), settings_of(), stream):
                pages += bool(report.opened)
            score = 1 / (1 + np.exp(-3 * np.concatenate(drawn)[:, :3].sum(axis=1)))
            positive = dice.random(score.size) < score
            positive ^= dice.random(score.size) < flipped
            told = performance.realise(score, positive, score >= 0.5)
            guess = performance.estimate(score, score >= 0.5)
            accuracy.append(told.figures.accuracy)
            estimate.append(guess.accuracy)
            seen += not told.accuracy_interval.low <= guess.accuracy <= told.accuracy_interval.high
        rows.append([
            f"{100 * flipped:g} % of the labels turned", f"{pages} of {4 * repeats}",
            f"{np.mean(accuracy):.3f}", f"{np.mean(estimate):.3f}",
            f"{100 * seen / repeats:.0f} %",
        ])  # fmt: skip
    note = (f"{repeats} streams of four windows of {WINDOW}, all labelled; a calibrated score. The "
            "last column: the estimate without labels lies outside the interval of the accuracy "
            "with them.")  # fmt: skip
    return [("Labels alone", note,
             ["change", "windows that page on inputs", "accuracy", "estimated without labels",
              "told apart"], rows)]  # fmt: skip


def restarts(scale: float) -> list[Table]:
    """A stream broken off in the middle of windows and taken up from what was kept."""
    streams, length = max(2, round(10 * scale)), 6
    different = total = breaks = 0
    for seed in range(streams):
        dice = np.random.default_rng([seed, 132])
        reference = reference_of(seed)
        panel = panel_of(CARD, reference, 0.25, 50_000)
        drawn = dice.normal(size=(length * WINDOW, FEATURES))
        drawn[2 * WINDOW :, 7] += 0.3
        decisions = decisions_of(drawn)
        stops = sorted(dice.choice(len(decisions), 10, replace=False).tolist())
        breaks += len(stops)
        whole, broken = (_folded(reference, panel, decisions, at) for at in ((), stops))
        total += len(whole)
        different += sum(a.to_json() != b.to_json() for a, b in zip(whole, broken, strict=True))
    rows = [[f"{breaks}", f"{total}", f"{different}", "0"]]
    note = (f"{streams} streams of {length} windows with a shift in them, each broken off at ten "
            "decisions drawn by dice and taken up from the last closed window's state as JSON and "
            "the open window's decisions, as the analyst does.")  # fmt: skip
    return [("Restart in the middle of a window", note,
             ["restarts", "windows", "reports that differ in anything", "target"],
             rows)]  # fmt: skip


def _folded(
    reference: Any, panel: Panel, decisions: Decisions, stops: Sequence[int]
) -> list[WindowReport]:
    settings = settings_of(baseline="rolling")
    state, window = SeriesState(), Window("synthetic", "v1", "stable")
    feed = Feed(panel, state.sequence, 500)
    found = []
    for place, decision in enumerate(decisions):
        if place in stops:
            state = SeriesState.from_json(state.to_json())
            former, window = window.decisions, Window("synthetic", "v1", "stable")
            feed = Feed(panel, state.sequence, 500)
            for one in former:
                window.add(one)
                feed.take(window, CARD, whole=False)
        window.add(decision)
        full = len(window) == WINDOW
        feed.take(window, CARD, whole=full)
        if full:
            heard: Heard = feed.heard()
            report, state = judge(window, reference, CARD, settings, state, heard)
            found.append(report)
            window = Window("synthetic", "v1", "stable")
    return found


def parts(scale: float) -> list[Table]:
    """What moves the score, and a part of the traffic: pages of attributions and of slices."""
    repeats = max(3, round(12 * scale))
    cases: dict[str, Callable[[Any, mixed.Drawn], np.typing.NDArray[np.float64]]] = {
        "nothing": lambda dice, columns: mixed.attributions_of(columns),
        "attributions: the first three features change places": _turned,
        "attributions: the ranking is turned round": _reversed,
    }
    rows = [_row(name, repeats, "attribution", attribute=case) for name, case in cases.items()]
    for size in (0.25, 0.5, 1.0):
        rows.append(_row(f"slice: one region of five (20 %) by {size:g} sigma in one feature",
                         repeats, "slice", shift=size))  # fmt: skip
    rows.append(_row("slice: the same region loses 30 % of one feature's values", repeats, "slice",
                     lost=0.3))  # fmt: skip
    note = (f"{repeats} streams each: {QUIET} windows of {WINDOW} as the reference is, then "
            f"{CHANGED} with the change. Mixed traffic, everything on by default. What all the "
            "traffic shows is told as that and not of its part.")  # fmt: skip
    return [("Attributions and slices", note,
             ["change", "paged for the part within 2 windows", "4", f"{CHANGED}",
              "for anything within 4", "for anything before the change"], rows)]  # fmt: skip


def _turned(dice: Any, columns: mixed.Drawn) -> np.typing.NDArray[np.float64]:
    told = mixed.attributions_of(columns)
    told[:, :3] *= np.array([0.5 / 1.0, 1.0 / 0.9, 0.9 / 0.8]) * 0.8
    return told


def _reversed(dice: Any, columns: mixed.Drawn) -> np.typing.NDArray[np.float64]:
    """As of another artifact: each feature with the weight of the one opposite."""
    return np.asarray(mixed.attributions_of(columns) / mixed.WEIGHTS * mixed.WEIGHTS[::-1])


def _row(
    name: str, repeats: int, family: str, attribute: Any = None, shift: float = 0.0,
    lost: float = 0.0,
) -> list[str]:  # fmt: skip
    firsts, early, soon = [], 0, 0
    for seed in range(repeats):
        reference, attributed = mixed.reference_of(seed % 6)
        dice = np.random.default_rng([seed, 133])

        def stream(dice: Any = dice) -> Iterator[Decisions]:
            for number in range(QUIET + CHANGED):
                changed = number >= QUIET
                yield mixed.decisions_of(
                    dice, WINDOW, number * WINDOW,
                    attribute=attribute if changed else None,
                    region=("south", shift, lost) if changed else None,
                )  # fmt: skip

        told = [r.opened for r in
                judged(reference, mixed.all_on(), stream(), mixed.CARD, attributed)]  # fmt: skip
        early += any(told[:QUIET])
        soon += any(told[QUIET : QUIET + 4])
        after = [any(cause.startswith(family) for cause in one) for one in told[QUIET:]]
        firsts.append(after.index(True) + 1 if any(after) else 99)
    shares = (f"{100 * np.mean(np.array(firsts) <= k):.0f} %" for k in (2, 4, CHANGED))
    return [name, *shares, f"{100 * soon / repeats:.0f} %", f"{early} of {repeats}"]
