"""Sequential detectors: a CUSUM for each feature, the score and the outcome, fed value by value.

A window's test waits for its window; this finds a shift some hundred decisions after it began, and
small ones that no single window would. What data quality objects to (missing, wrong type, outside
the card's range, a category it does not name) is not fed: a broken feed is a fault, not a shift.

One alarm restarts its detector and is a `watch`; a second one on the same side within `confirm`
decisions is a `drift`. All state is integers, so a restart continues to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gateway.monitor.panel import ONE, Panel, Row
from gateway.monitor.places import Integers

Side = Literal["up", "down"]
SIDES: tuple[Side, Side] = ("up", "down")
NEVER = -1


@dataclass(frozen=True)
class SequenceState:
    """What a series' detectors remember: upward ones first, then downward, as the panel has them.

    `seen`: decisions so far. `statistics`, and the numbers of the decisions at which each last was
    zero (`begun`) and last alarmed (`alarmed`, -1: never). `panel`: digest of the panel.
    """

    panel: str = ""
    seen: int = 0
    statistics: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()
    alarmed: tuple[int, ...] = ()

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SequenceState:
        """Read what `asdict` gave; raises KeyError or TypeError for anything else."""
        lists = {name: tuple(data[name]) for name in ("statistics", "begun", "alarmed")}
        return SequenceState(panel=data["panel"], seen=int(data["seen"]), **lists)


@dataclass(frozen=True)
class Alarm:
    """One alarm at decision `at` of the series (its first is 1). `size`: estimated shift in
    deviations since `begun`; `confirmed`: the second on this side within reach."""

    cause: str
    aspect: str
    side: Side
    at: int
    begun: int
    size: float
    confirmed: bool


@dataclass(frozen=True)
class Heard:
    """What the sequential detectors said during a window: their state at its end, the alarms, and
    by cause how near each then was to one."""

    state: SequenceState = SequenceState()
    alarms: tuple[Alarm, ...] = ()
    levels: Mapping[str, float] = field(default_factory=dict)


NOTHING_HEARD = Heard()


def begin(panel: Panel) -> SequenceState:
    """Detectors that have seen nothing."""
    zeros = (0,) * (2 * len(panel.tracks))
    return SequenceState(panel.digest, 0, zeros, zeros, (NEVER,) * len(zeros))


def advance(
    panel: Panel, before: SequenceState, rows: Sequence[Row], confirm: int
) -> tuple[SequenceState, tuple[Alarm, ...]]:
    """Feed decisions in order; state and alarms are the same however a stream is cut."""
    state = before if before.panel == panel.digest else begin(panel)
    if not rows or not panel.tracks:
        return state, ()
    return advance_by(panel, state, panel.bins(rows), confirm)


def advance_by(
    panel: Panel, state: SequenceState, bins: Integers, confirm: int
) -> tuple[SequenceState, tuple[Alarm, ...]]:
    """As `advance`, by where the decisions' values fall."""
    steps = panel.steps(bins)
    limits = panel.thresholds.reshape(-1)
    statistics, begun, alarmed = (
        np.array(one, dtype=np.int64) for one in (state.statistics, state.begun, state.alarmed)
    )
    alarms: list[Alarm] = []
    seen = state.seen
    while len(steps):
        path = _reflected(statistics, steps)
        crossed = path >= limits
        rows_crossed = crossed.any(axis=1)
        upto = int(rows_crossed.argmax()) + 1 if rows_crossed.any() else len(steps)
        begun = _last_zero(begun, path[:upto], seen)
        statistics, seen = path[upto - 1].copy(), seen + upto
        for place in np.flatnonzero(crossed[upto - 1]).tolist():
            alarms.append(_alarm(panel, place, statistics, begun, alarmed, seen, confirm))
            statistics[place], begun[place], alarmed[place] = 0, seen, seen
        steps = steps[upto:]
    after = SequenceState(
        panel.digest, seen, tuple(statistics.tolist()), tuple(begun.tolist()),
        tuple(alarmed.tolist()),
    )  # fmt: skip
    return after, tuple(alarms)


def _reflected(start: Integers, steps: Integers) -> Integers:
    """max(0, S + step) row by row: sums, less the lowest that they would have had below zero."""
    sums = np.cumsum(steps, axis=0)
    lowest = np.minimum.accumulate(np.minimum(sums, -start), axis=0)
    return np.asarray(sums - lowest, dtype=np.int64)


def _last_zero(begun: Integers, path: Integers, seen: int) -> Integers:
    """Number of the decision at which each statistic last was zero."""
    numbers = np.arange(seen + 1, seen + 1 + len(path))[:, None]
    return np.asarray(np.maximum(begun, np.where(path == 0, numbers, 0).max(axis=0)))


def _alarm(
    panel: Panel, place: int, statistics: Integers, begun: Integers, alarmed: Integers,
    seen: int, confirm: int,
) -> Alarm:  # fmt: skip
    side, track = divmod(place, len(panel.tracks))
    length = seen - int(begun[place])
    last = int(alarmed[place])
    return Alarm(
        cause=panel.tracks[track].cause,
        aspect=panel.tracks[track].aspect,
        side=SIDES[side],
        at=seen,
        begun=int(begun[place]),
        size=float(statistics[place]) / ONE / length + panel.slack,
        confirmed=last != NEVER and seen - last <= confirm,
    )


def levels(panel: Panel, state: SequenceState) -> dict[str, float]:
    """By cause, how near to an alarm its nearest detector is: 0 to 1."""
    found: dict[str, float] = {}
    if state.panel != panel.digest:
        return found
    shares = np.array(state.statistics) / panel.thresholds.reshape(-1)
    for place, share in enumerate(shares.tolist()):
        cause = panel.tracks[place % len(panel.tracks)].cause
        found[cause] = max(found.get(cause, 0.0), share)
    return found
