"""One seed of the matrix: a reference, a few quiet windows, and from there each cell's stream.

Each stream has dice of its own. Labels are of the streams in which nothing changes: only what they
mean does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from gateway.monitor import performance
from gateway.monitor.alerts import Alerts
from gateway.monitor.feed import Feed
from gateway.monitor.judge import judge
from gateway.monitor.panel import Panel, panel_of
from gateway.monitor.reference import Reference
from gateway.monitor.report import WindowReport
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window
from load import mixed
from load.courses import COURSES, KINDS, NOTHING, SHARES, WINDOW, Course, Kind, changed
from load.synthetic import THRESHOLD, settings_of

QUIET = 6
SETTINGS = settings_of(baseline="rolling")
LOOKS = (2, 4)
"""Windows since the change began within which pages are counted, beside all of them."""
PACES = (10, 60)
"""Minutes that a window takes: an alert that comes back within an hour is the same one."""
TURNED = (0.0, *SHARES)
Cell = tuple[Course, Kind, float]


@dataclass(frozen=True)
class Watched:
    """One seed's reference and the state after its quiet windows."""

    seed: int
    reference: Reference
    panel: Panel
    state: SeriesState


class Labelled(NamedTuple):
    """With so many labels turned; `apart`: whether the estimate without labels lies outside the
    accuracy's interval, after each look."""

    accuracy: float
    estimated: float
    apart: tuple[bool, ...]


class Run(NamedTuple):
    """A stream since its change began: the causes that each window opened, the messages that were
    sent at each pace, and what labels say by the share of them that is turned."""

    opened: tuple[tuple[str, ...], ...]
    messages: tuple[int, ...]
    labels: tuple[Labelled, ...]


def of_seed(seed: int) -> dict[tuple[str, str], Run]:
    begun = begin(seed)
    cells = [(course, kind, size) for course in COURSES for kind in KINDS for size in kind.sizes]
    return {
        (course.name, kind.title(size)): run(begun, (course, kind, size), number)
        for number, (course, kind, size) in enumerate(cells)
    }


def begin(seed: int) -> Watched:
    reference, _ = mixed.reference_of(seed + 2_000)
    rules = SETTINGS.drift.sequential
    panel = panel_of(mixed.CARD, reference, rules.shift, rules.run)
    begun = Watched(seed, reference, panel, SeriesState())
    dice = np.random.default_rng([seed, 134])
    for place in range(QUIET):
        decisions = mixed.decisions_of(dice, WINDOW, place * WINDOW, explained=False)
        begun = replace(begun, state=_judged(begun, begun.state, decisions)[1])
    return begun


def run(begun: Watched, cell: Cell, number: int) -> Run:
    """`number`: the cell's, for dice of its own."""
    course, kind, size = cell
    dice = np.random.default_rng([begun.seed, 135, number])
    state, reports, decided = begun.state, [], []
    for place in range(course.windows):
        columns = changed(dice, kind, size, course, place)
        at = (QUIET + place) * WINDOW
        decisions = mixed.decisions_of(dice, WINDOW, at, columns, explained=False)
        report, state = _judged(begun, state, decisions)
        reports.append(report)
        decided += [decision.score for decision in decisions]
    return Run(
        tuple(report.opened for report in reports),
        tuple(_messages(reports, pace) for pace in PACES),
        tuple(_labelled(dice, np.array(decided), course)) if kind is NOTHING else (),
    )


def _judged(
    watched: Watched, state: SeriesState, decisions: list[Decision]
) -> tuple[WindowReport, SeriesState]:
    window = Window("mixed", "v1", "stable")
    for decision in decisions:
        window.add(decision)
    feed = Feed(watched.panel, state.sequence, SETTINGS.drift.sequential.confirm)
    feed.take(window, mixed.CARD, whole=True)
    return judge(window, watched.reference, mixed.CARD, SETTINGS, state, feed.heard())


def _messages(reports: Sequence[WindowReport], minutes: int) -> int:
    alerts, pace = Alerts({}), minutes * 60 * 10**9
    happened = (
        alerts.take_window(replace(report, opened_at=place * pace, closed_at=(place + 1) * pace))
        for place, report in enumerate(reports)
    )
    return sum(one.sent for one in chain.from_iterable(happened))


def _labelled(dice: Any, scores: Any, course: Course) -> Iterator[Labelled]:
    """A calibrated score, and labels of which a share is turned as the course has it."""
    chance = 1 / (1 + np.exp(-3 * (scores - THRESHOLD)))
    truth, upside = dice.random(chance.size) < chance, chance >= 0.5
    share = course.share(dice, np.arange(chance.size))
    for turned in TURNED:
        labels = truth ^ (dice.random(chance.size) < turned * share)
        apart = []
        for n in (WINDOW * windows for windows in (*LOOKS, course.windows)):
            told = performance.realise(chance[:n], labels[:n], upside[:n])
            guess = performance.estimate(chance[:n], upside[:n]).accuracy
            within = told.accuracy_interval
            apart.append(not within.low <= guess <= within.high)
        yield Labelled(told.figures.accuracy, guess, tuple(apart))
