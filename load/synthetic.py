"""Seeded streams of decisions for the benchmarks of verdicts: twelve normal features, changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card
from gateway.monitor.attribution import AttributionReference
from gateway.monitor.baseline import SLOTS
from gateway.monitor.feed import Feed
from gateway.monitor.judge import judge
from gateway.monitor.panel import Row, panel_of
from gateway.monitor.reference import Reference
from gateway.monitor.report import WindowReport
from gateway.monitor.sequential import Heard
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window, WindowSettings

FEATURES = 12
REFERENCE_ROWS = 5_000
THRESHOLD = 1.0
HOUR_NS = 3600 * 10**9
Floats = NDArray[np.float64]

CARD = Card.model_validate({
    "format": 1, "model": "synthetic", "version": "v1", "summary": "Twelve normal features.",
    "artifact": {"sha256": "0" * 64},
    "features": [
        {"name": f"x{i}", "type": "number", "meaning": "normal", "range": [-12, 12]}
        for i in range(FEATURES)
    ],
    "outputs": {
        "score": {"tensor": "p", "kind": "quantity", "meaning": "a sum"},
        "outcome": {"below": "approve", "at_or_above": "deny", "adverse": "deny",
                    "threshold": THRESHOLD},
    },
    "training": {"data": {}, "code_commit": "0", "configuration": {}, "seed": 1}, "metrics": {},
})  # fmt: skip


def scores_of(rows: Floats) -> Floats:
    return np.asarray(rows[:, :3].sum(axis=1) / np.sqrt(3))


def reference_of(seed: int, rows: int = REFERENCE_ROWS) -> Reference:
    drawn = np.random.default_rng([seed, 1]).normal(size=(rows, FEATURES))
    columns = {f"x{i}": drawn[:, i] for i in range(FEATURES)}
    return Reference.of(CARD, columns, scores_of(drawn), f"{seed:064d}")


def decisions_of(rows: Floats, at: int = 0, step: int = 1) -> list[Decision]:
    found = []
    for place, (values, score) in enumerate(zip(rows.tolist(), scores_of(rows).tolist())):
        outcome = "deny" if score >= THRESHOLD else "approve"
        when = at + place * step
        found.append(Decision(when, when, f"{when}/0", score, outcome, tuple(values), {}))
    return found


def panel_rows(rows: Floats) -> list[Row]:
    scores = scores_of(rows).tolist()
    return [Row(tuple(v), s, s >= THRESHOLD) for v, s in zip(rows.tolist(), scores)]


def judged(
    reference: Reference, settings: WindowSettings, windows: Iterator[list[Decision]],
    card: Card = CARD, attributed: AttributionReference | None = None, *,
    as_they_come: bool = False,
) -> Iterator[WindowReport]:  # fmt: skip
    """Reports of one series, sequential detectors included. `as_they_come`: these are fed a few
    decisions at a time, as the analyst does, which says the same and costs more."""
    rules = settings.drift.sequential
    on = rules.run and settings.baseline not in SLOTS
    panel = panel_of(card, reference, rules.shift, rules.run) if on else None
    state = SeriesState()
    feed = Feed(panel, state.sequence, rules.confirm) if panel else None
    for decisions in windows:
        window = Window("synthetic", "v1", "stable")
        for decision in decisions:
            window.add(decision)
            if feed is not None and as_they_come:
                feed.take(window, card, whole=False)
        if feed is not None:
            feed.take(window, card, whole=True)
        heard = feed.heard() if feed is not None else Heard()
        report, state = judge(
            window, reference, card, settings, state, heard, attributed=attributed
        )
        yield report


def settings_of(count: int = 500, **changes: Any) -> WindowSettings:
    return WindowSettings(count=count, at_most_ns=10**18, minimum=100, **changes)


Change = Callable[[Any, int], Floats]


def changes() -> dict[str, Change]:
    def normal(dice: Any, n: int) -> Floats:
        return np.asarray(dice.normal(size=(n, FEATURES)))

    def moved(size: float) -> Change:
        def made(dice: Any, n: int) -> Floats:
            rows = normal(dice, n)
            rows[:, 7] += size
            return rows

        return made  # fmt: skip

    def widened(dice: Any, n: int) -> Floats:
        rows = normal(dice, n)
        rows[:, 7] *= 1.5
        return rows

    def correlated(dice: Any, n: int) -> Floats:
        rows = normal(dice, n)
        rows[:, 8] = 0.6 * rows[:, 7] + 0.8 * rows[:, 8]
        return rows

    def rounded(dice: Any, n: int) -> Floats:
        rows = normal(dice, n)
        rows[:, 7] = rows[:, 7].round(0)
        return rows

    shifts = {f"mean of one by {s:g} sigma": moved(s) for s in (0.1, 0.25, 0.5, 1.0)}
    return {
        "nothing": normal,
        **shifts,
        "spread of one by 1.5": widened,
        "correlation of two, 0 to 0.6": correlated,
        "one rounded to integers": rounded,
    }
