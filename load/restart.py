"""A stream broken off in the middle of windows and taken up again says what it would have said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.monitor.feed import Feed
from gateway.monitor.judge import judge
from gateway.monitor.panel import Panel, panel_of
from gateway.monitor.report import WindowReport
from gateway.monitor.sequential import Heard
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window
from load.pages import Table
from load.synthetic import CARD, FEATURES, decisions_of, reference_of, settings_of

WINDOW = 500


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
    reference: Any, panel: Panel, decisions: list[Decision], stops: Sequence[int]
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
