"""Alerts: one object for a model's version and a cause, however many windows and arms show it.

A cause is raised by a window in which its state is alarming (the tests ask for two windows running
before that). What follows is decided here, by the ledger's time alone:

    (none) --raised--> open --person--> acknowledged --two calm windows--> resolved
                         ^                                                     |
                         +-- raised within the cool-down: the same, quietly ---+

A window that could not judge the cause neither raises nor calms it. Muting keeps the state moving
and holds back what would be sent, until it expires; what is still raised then is sent. A severity
that grows is told again, and whoever acknowledged the lesser one has not seen the greater.

Whoever was told last that it is over does not believe so for ever: what came back quietly is
resolved quietly, and if it is raised when the cool-down after the told end is over, that is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

CALM_WINDOWS = 2
"""Windows in a row without the cause, of each arm that raised it: then it is over."""
COOL_DOWN_NS = 3600 * 10**9
"""A cause that comes back sooner is the same alert: it flaps, and nobody is woken again."""
SILENT_NS = 24 * 3600 * 10**9
"""An alert that no window spoke of for this long is over: its arm has no more traffic."""

Severity = Literal["warning", "critical"]
State = Literal["open", "acknowledged", "resolved"]
Event = Literal["opened", "reopened", "escalated", "reminded", "resolved", "acknowledged", "muted"]


@dataclass(frozen=True)
class Sighting:
    """What one window says of a cause; `raised` None: it could not judge it. `at` in ns."""

    model: str
    version: str
    arm: str
    cause: str
    window: str
    at: int
    raised: bool | None
    severity: Severity = "warning"
    first_seen: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Alert:
    """`number` counts a cause's alerts. Times in ns. `raising`: arms in whose last judged window
    it was raised; `calm`: windows in a row since then, by each arm that raised it and no longer
    does. A former release counted them for all arms together."""

    model: str
    version: str
    cause: str
    number: int
    state: State
    severity: Severity
    first_seen: int
    opened_at: int
    updated_at: int
    windows: int
    raising: tuple[str, ...]
    evidence: Mapping[str, Any]
    calm: Mapping[str, int] = field(default_factory=dict)
    resolved_at: int | None = None
    acknowledged_by: str | None = None
    muted_until: int | None = None
    muted_by: str | None = None
    reason: str | None = None
    over_since: int | None = None
    """When people were told that it is over, where it has come back without their being told."""

    @property
    def key(self) -> str:
        return f"{self.model}/{self.version}:{self.cause}"

    def is_muted(self, at: int) -> bool:
        return self.muted_until is not None and at < self.muted_until

    def to_json(self) -> dict[str, Any]:
        """Its own fields; evidence is never changed once it is given."""
        return {"id": self.key, **{one.name: getattr(self, one.name) for one in fields(self)}}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Alert:
        """Read what `to_json` wrote; TypeError for anything else."""
        kept = {name: value for name, value in told.items() if name != "id"}
        calm = told.get("calm", {})
        return Alert(**kept | {"raising": tuple(told["raising"]),
                               "calm": calm if isinstance(calm, Mapping) else {}})  # fmt: skip


Step = tuple[Alert | None, Event | None]


def see(alert: Alert | None, seen: Sighting) -> Step:
    """The alert after a window, and what happened to it."""
    if seen.raised:
        return _raise(alert, seen)
    if alert is None or alert.state == "resolved" or seen.raised is None:
        return alert, None
    if seen.arm not in alert.raising and seen.arm not in alert.calm:
        return alert, None
    raising = tuple(arm for arm in alert.raising if arm != seen.arm)
    calm = {**alert.calm, seen.arm: alert.calm.get(seen.arm, 0) + 1}
    after = replace(alert, raising=raising, calm=calm, updated_at=seen.at)
    over = not raising and min(calm.values()) >= CALM_WINDOWS
    return _resolve(after, seen.at) if over else (after, None)


def _raise(alert: Alert | None, seen: Sighting) -> Step:
    if alert is None or (alert.resolved_at is not None and _is_new(alert, seen.at)):
        return _open(alert, seen), "opened"
    again: Event | None = None
    after = replace(
        alert,
        updated_at=seen.at,
        windows=alert.windows + (seen.window != alert.evidence.get("window")),
        calm={arm: count for arm, count in alert.calm.items() if arm != seen.arm},
        evidence=seen.evidence,
        raising=tuple(sorted({*alert.raising, seen.arm})),
    )
    if alert.state == "resolved":
        after = replace(after, state="open", resolved_at=None, acknowledged_by=None,
                        over_since=_told_over(alert))  # fmt: skip
        again = "reopened"
    if alert.severity == "warning" and seen.severity == "critical":
        after = replace(after, state="open", severity="critical", acknowledged_by=None)
        again = "escalated"
    if _is_to_be_reminded(alert, after, seen.at) and again != "escalated":
        again = "reminded"
    if not alert.is_muted(seen.at):
        after = replace(after, muted_until=None, muted_by=None)
        if again in ("escalated", "reminded"):
            after = replace(after, over_since=None)
    return after, again


def _is_to_be_reminded(before: Alert, after: Alert, at: int) -> bool:
    """Of what is raised: whether a muting ended and its end was not told since, or an end that was
    told is longer ago than the cool-down."""
    if before.is_muted(at):
        return False
    if after.over_since is None:
        return before.muted_until is not None
    return after.state != "acknowledged" and at - after.over_since > COOL_DOWN_NS


def _told_over(alert: Alert) -> int | None:
    """When the end of what is over was told; None: it was muted."""
    assert alert.resolved_at is not None
    if alert.over_since is not None:
        return alert.over_since
    return None if alert.is_muted(alert.resolved_at) else alert.resolved_at


def _is_new(alert: Alert, at: int) -> bool:
    assert alert.resolved_at is not None
    return at - alert.resolved_at > COOL_DOWN_NS


def _open(before: Alert | None, seen: Sighting) -> Alert:
    muted = before if before is not None and before.is_muted(seen.at) else None
    return Alert(
        model=seen.model,
        version=seen.version,
        cause=seen.cause,
        number=before.number + 1 if before is not None else 1,
        state="open",
        severity=seen.severity,
        first_seen=seen.first_seen if seen.first_seen is not None else seen.at,
        opened_at=seen.at,
        updated_at=seen.at,
        windows=1,
        raising=(seen.arm,),
        evidence=seen.evidence,
        muted_until=muted.muted_until if muted else None,
        muted_by=muted.muted_by if muted else None,
        reason=muted.reason if muted else None,
    )


def _resolve(alert: Alert, at: int) -> tuple[Alert, Event]:
    return replace(alert, state="resolved", resolved_at=at, raising=(), calm={}), "resolved"


def fall_silent(alert: Alert, at: int) -> Step:
    """Resolved, where no window has spoken of it for long."""
    if alert.state == "resolved" or at - alert.updated_at <= SILENT_NS:
        return alert, None
    return _resolve(alert, at)


def is_over(alert: Alert, at: int) -> bool:
    """Whether nothing depends on it any more: it may be forgotten but for its number."""
    return alert.resolved_at is not None and _is_new(alert, at) and not alert.is_muted(at)


def acknowledge(alert: Alert, by: str) -> Step:
    if alert.state != "open":
        return alert, None
    return replace(alert, state="acknowledged", acknowledged_by=by), "acknowledged"


def mute(alert: Alert, by: str, until: int, reason: str) -> Step:
    """`until` in the past ends an earlier muting."""
    return replace(alert, muted_until=until, muted_by=by, reason=reason), "muted"


def is_sent(event: Event, alert: Alert, at: int) -> bool:
    """Whether somebody is told: not of what flaps, not of what people did, not while muted, not of
    the end of what came back quietly."""
    quiet = alert.is_muted(at) or (event == "resolved" and alert.over_since is not None)
    return event in ("opened", "escalated", "reminded", "resolved") and not quiet
