"""What a window's report says of each cause, with the evidence that an alert carries. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from gateway.monitor.alert import Severity, Sighting
from gateway.monitor.attribution import PREFIX, RANKING
from gateway.monitor.drift import Drift, telling_state
from gateway.monitor.quality import Finding
from gateway.monitor.readability import Readability
from gateway.monitor.report import (
    ALARMING,
    FeatureReport,
    ScoreReport,
    SequenceReport,
    WindowReport,
    plain,
)
from gateway.monitor.sequential import Alarm

CRITICAL_EFFECT = 2.0
"""Drift is critical from this many times its floor on."""
CRITICAL_SHARE = 0.05
"""A quality fault is critical from this share of the values on."""
CRITICAL_SIZE = 0.5
"""A shift found by sequence is critical from this many standard deviations on: the size at which a
window's distance is twice its floor."""
SCHEMA = "quality/schema"
"""The one cause that no window can speak of."""
SPEAKING = frozenset({"ok", "watch", *ALARMING})


def sightings(report: WindowReport) -> list[Sighting]:
    """One for each cause of which the window says something, in order of cause."""
    model, version, arm, _ = report.id.split("/")
    told = [*_of_features(report), *_of_scores(report), *_of_groups(report),
            *_of_sequences(report), *_of_family(report),
            *_of_baseline(report), *_of_attributions(report), *_of_slices(report)]  # fmt: skip
    about = {"window": report.id, "decisions": list(report.examples)}
    found = []
    for cause, state, severity, evidence in sorted(told, key=lambda one: one[0]):
        raised = _raised(state, not cause.startswith(("quality/", "bias/", "duplicates")))
        found.append(
            Sighting(
                model=model,
                version=version,
                arm=arm,
                cause=cause,
                window=report.id,
                at=report.closed_at,
                raised=raised,
                severity=severity,
                first_seen=report.opened_at if state != "ok" and state in SPEAKING else None,
                evidence=plain({**about, **evidence()}) if raised else {},
            )
        )
    return found


def _raised(state: str, of_drift: bool) -> bool | None:
    """A first sign of drift neither raises an alert nor calms one."""
    if state not in SPEAKING or (of_drift and state == "watch"):
        return None
    return state in ALARMING


Told = tuple[str, str, Severity, Callable[[], dict[str, Any]]]
"""The evidence is made where the cause is raised: most are not."""


def _of_features(report: WindowReport) -> Iterator[Told]:
    for feature in report.features:
        state = telling_state(feature.drift)
        cause = f"feature/{feature.name}"
        shown = partial(_shown, feature, feature.drift)
        yield cause, state, _severity(feature.drift), shown
        for found in feature.quality:
            grave: Severity = "critical" if _is_grave(found) else "warning"
            cause = f"quality/{feature.name}/{found.kind}"
            yield cause, found.state, grave, partial(_shown, feature, finding=found)


def _of_scores(report: WindowReport) -> Iterator[Told]:
    score, outcome = report.score, report.outcome
    if report.duplicates is not None:
        told = partial(_named, "finding", report.duplicates)
        yield "duplicates", report.duplicates.state, "warning", told
    for found in score.quality:
        grave: Severity = "critical" if _is_grave(found) else "warning"
        yield f"quality/score/{found.kind}", found.state, grave, partial(_of_answers, found)
    yield (
        "joint",
        telling_state(report.joint),
        _severity(report.joint),
        partial(_drift, report.joint),
    )
    yield (
        "score",
        telling_state(score.drift),
        _severity(score.drift),
        partial(_shown, score, score.drift),
    )
    if outcome is not None:
        shares = {"share": outcome.share, "reference_share": outcome.reference_share}
        shown = partial(_drift, outcome.drift, shares)
        yield "outcome", outcome.state, _severity(outcome.drift), shown


def _of_groups(report: WindowReport) -> Iterator[Told]:
    for found in report.bias:
        for group in found.groups:
            told = partial(_named, "group", group)
            yield f"bias/{found.key}/{group.value}", str(group.state), "critical", told


def _of_sequences(report: WindowReport) -> Iterator[Told]:
    for one in report.sequences:
        grave = max((alarm.size for alarm in one.alarms), default=0.0) >= CRITICAL_SIZE
        told = partial(_alarms, one)
        yield f"sequence/{one.cause}", one.state, "critical" if grave else "warning", told


def _of_family(report: WindowReport) -> Iterator[Told]:
    if report.family is not None:
        told = partial(_named, "detector", report.family)
        yield "detector", report.family.state, "warning", told


def _of_baseline(report: WindowReport) -> Iterator[Told]:
    for cause, found in report.baseline.drifts.items():
        state = telling_state(found)
        yield f"baseline/{cause}", state, _severity(found), partial(_drift, found)


def _of_attributions(report: WindowReport) -> Iterator[Told]:
    found = report.attributions
    if found is None:
        return
    for one in found.features:
        state = telling_state(one.drift)
        told: dict[str, Any] = {"before": one.before, "after": one.after}
        yield f"{PREFIX}{one.name}", state, _severity(one.drift), partial(_drift, one.drift, told)
    state = telling_state(found.ranking)
    told = {
        "before": [one.name for one in sorted(found.features, key=lambda one: -one.before)],
        "after": [one.name for one in sorted(found.features, key=lambda one: -one.after)],
    }
    yield RANKING, state, _severity(found.ranking), partial(_drift, found.ranking, told)


def _of_slices(report: WindowReport) -> Iterator[Told]:
    """The decisions named are of the whole window: which of them were of the slice is not told."""
    for one in report.slices:
        for cause in one.waiting:
            yield f"{one.prefix}{cause}", "not_enough_data", "warning", dict
        for cause, found in one.drifts.items():
            state = telling_state(found)
            told = {"slice": {one.key: one.value, "n": one.n}}
            yield f"{one.prefix}{cause}", state, _severity(found), partial(_drift, found, told)


def heard(series: str, window: int, alarm: Alarm, identity: str, at: int) -> Sighting:
    """What a confirmed alarm says at once, before its window closes. `at` in ns."""
    model, version, arm = series.split("/")
    name = f"{series}/{window}"
    told = {"window": name, "decisions": [identity], "alarms": [asdict(alarm)]}
    return Sighting(
        model=model,
        version=version,
        arm=arm,
        cause=f"sequence/{alarm.cause}",
        window=name,
        at=at,
        raised=True,
        severity="critical" if alarm.size >= CRITICAL_SIZE else "warning",
        first_seen=at,
        evidence=plain(told),
    )


def unread(
    series: str, window: int, found: Readability, identity: str, at: int, *, raised: bool
) -> Sighting:
    """What is said of exchanges that are in no window, for lack of what the card names."""
    model, version, arm = series.split("/")
    name = f"{series}/{window}"
    told = {"window": name, "decisions": [identity], "exchanges": asdict(found)}
    return Sighting(
        model=model,
        version=version,
        arm=arm,
        cause=SCHEMA,
        window=name,
        at=at,
        raised=raised,
        severity="critical",
        first_seen=at if raised else None,
        evidence=told,
    )


def _severity(found: Drift) -> Severity:
    compared = found.comparison
    grave = compared is not None and compared.effect >= CRITICAL_EFFECT * compared.floor
    return "critical" if grave else "warning"


def _is_grave(found: Finding) -> bool:
    if found.kind in ("stuck", "rounded"):
        return found.kind == "stuck"
    return found.share - found.reference_share >= CRITICAL_SHARE


def _of_answers(found: Finding) -> dict[str, Any]:
    """With a few of the decisions that it is about, where there are some."""
    told: dict[str, Any] = {"decisions": list(found.ids)} if found.ids else {}
    return told | {"finding": asdict(found)}


def _drift(found: Drift, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {**(more or {}), "drift": asdict(found)}


def _named(name: str, found: Any) -> dict[str, Any]:
    return {name: asdict(found)}


def _alarms(found: SequenceReport) -> dict[str, Any]:
    return {"level": found.level, "alarms": [asdict(alarm) for alarm in found.alarms]}


def _shown(
    found: FeatureReport | ScoreReport, moved: Drift | None = None, finding: Finding | None = None
) -> dict[str, Any]:
    """What its values were and are, and what of that is told."""
    before = None if found.before is None else asdict(found.before)
    shown: dict[str, Any] = {"before": before, "after": asdict(found.after)}
    if moved is not None:
        shown |= _drift(moved)
    return shown if finding is None else shown | {"finding": asdict(finding)}
