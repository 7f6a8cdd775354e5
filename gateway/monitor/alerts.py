"""The alerts there are: a fold over windows and over what people said, as leaves have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from gateway.monitor.alert import (
    Alert,
    Event,
    Sighting,
    acknowledge,
    fall_silent,
    is_over,
    is_sent,
    mute,
    see,
)
from gateway.monitor.report import WindowReport
from gateway.monitor.sightings import SCHEMA, sightings

ALERTS_MAX = 10_000
OF_PAIRS = "bias/pair/"
BY_LABELS = ("bias/opportunity/", "bias/odds/", "bias/calibration/")
ACKNOWLEDGED, MUTED = "alert_acknowledged", "alert_muted"
"""Kinds of the leaves that the API writes for people."""


class Happening(NamedTuple):
    alert: Alert
    event: Event
    sent: bool
    at: int

    def to_json(self) -> dict[str, Any]:
        return {"event": self.event, "sent": self.sent, "at": self.at,
                "alert": self.alert.to_json()}  # fmt: skip


class Alerts:
    def __init__(self, told: dict[str, Any]) -> None:
        """`told`: what `to_json` gave at the last commit, or {}."""
        self._alerts = {key: Alert.from_json(one) for key, one in told.get("alerts", {}).items()}
        self._seen: dict[str, int] = dict(told.get("seen", {}))
        self.dropped = 0

    def take_window(self, report: WindowReport) -> list[Happening]:
        """What a window changes; a judged one that no longer names a cause calms it."""
        told = sightings(report)
        named = {SCHEMA, *(one.cause for one in told)}
        model, version, arm, _ = report.id.split("/")
        at = report.closed_at
        for alert in list(self._alerts.values()):
            if alert.cause.startswith((OF_PAIRS, *BY_LABELS)):  # windows say nothing of these
                continue
            if (alert.model, alert.version) == (model, version) and alert.cause not in named:
                raised = False if report.judged else None
                told.append(Sighting(model, version, arm, alert.cause, report.id, at, raised))
        happened = [found for one in told if (found := self._see(one)) is not None]
        for key, alert in sorted(self._alerts.items()):
            after, event = fall_silent(alert, at)
            if event is not None and after is not None:
                happened.append(self._keep(after, event, at))
            elif is_over(alert, at) and len(self._alerts) > ALERTS_MAX // 2:
                del self._alerts[key]
        return happened

    def take_sighting(self, seen: Sighting) -> list[Happening]:
        """What is seen before its window closes."""
        happened = self._see(seen)
        return [] if happened is None else [happened]

    def _see(self, seen: Sighting) -> Happening | None:
        key = f"{seen.model}/{seen.version}:{seen.cause}"
        place = f"{seen.arm}:{key}"
        if seen.first_seen is not None:
            self._seen.setdefault(place, seen.first_seen)
        elif seen.raised is not None:
            self._seen.pop(place, None)
        alert = self._alerts.get(key)
        if alert is None and seen.raised and len(self._alerts) >= ALERTS_MAX:
            self.dropped += 1
            return None
        first = replace(seen, first_seen=self._seen.get(place))
        after, event = see(alert, first)
        if after is None:
            return None
        self._alerts[key] = after
        return self._keep(after, event, seen.at) if event is not None else None

    def _keep(self, alert: Alert, event: Event, at: int) -> Happening:
        self._alerts[alert.key] = alert
        return Happening(alert, event, is_sent(event, alert, at), at)

    def take_word(self, kind: str, record: dict[str, Any]) -> Happening | None:
        """What a person said; nothing where there is no such alert, or it is over."""
        if kind not in (ACKNOWLEDGED, MUTED):
            return None
        alert = self._alerts.get(record["alert"])
        if alert is None:
            return None
        by, at = str(record["by"]), int(record["at"])
        if kind == ACKNOWLEDGED:
            after, event = acknowledge(alert, by)
        else:
            after, event = mute(alert, by, int(record["until"]), str(record["reason"]))
        if after is None or event is None:
            return None
        return self._keep(after, event, at)

    def to_json(self) -> dict[str, Any]:
        """What a restart needs; nothing personal."""
        told = {key: alert.to_json() for key, alert in self._alerts.items()}
        return {"alerts": told, "seen": self._seen}
