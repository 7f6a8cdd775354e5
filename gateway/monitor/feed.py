"""A series' decisions on their way through its sequential detectors, one window after the other."""

from __future__ import annotations

from gateway.card import Card
from gateway.monitor.panel import Panel, Row
from gateway.monitor.sequential import Alarm, Heard, SequenceState, advance, levels
from gateway.monitor.window import Decision, Window

STRIDE = 10
"""Decisions that are fed at once: an alarm waits for nine more at most. Counted from the window's
beginning, so that a restart says the same at the same leaf."""


class Feed:
    """`state` is what the detectors knew at the last window's end; the open window is in `now`."""

    def __init__(self, panel: Panel, state: SequenceState, confirm: int) -> None:
        self.panel, self._confirm = panel, confirm
        self._now = state
        self._fed = 0
        self._alarms: tuple[Alarm, ...] = ()

    def take(self, window: Window, card: Card, *, whole: bool) -> list[tuple[Alarm, Decision]]:
        """Feed what a window holds, if that is a stride or the window is `whole`; new alarms."""
        if not whole and len(window) % STRIDE:
            return []
        fresh = window.decisions[self._fed :]
        before = self._now.seen if self._now.panel == self.panel.digest else 0
        rows = [_row(decision, card) for decision in fresh]
        self._now, alarms = advance(self.panel, self._now, rows, self._confirm)
        self._fed = len(window)
        self._alarms += alarms
        return [(alarm, fresh[alarm.at - before - 1]) for alarm in alarms]

    def heard(self) -> Heard:
        """What was said during the window that ends here; the next one begins."""
        told = Heard(self._now, self._alarms, levels(self.panel, self._now))
        self._fed, self._alarms = 0, ()
        return told


def _row(decision: Decision, card: Card) -> Row:
    words = card.outputs.outcome
    adverse = None
    if words is not None and decision.outcome is not None:
        adverse = decision.outcome == words.adverse
    return Row(decision.values, decision.score, adverse)
