"""One closed window in, its report and the series' next state out.

Quality is judged first, then drift with the features at fault held back, then bias on the counts of
many windows. A window under the minimum is counted and shown but moves no drift count and no alarm
of drift or quality: it says `not_enough_data`, never `ok`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.card import Card
from gateway.monitor import attribution, baseline, bias, drift, quality, slices
from gateway.monitor.attribution import AttributionReference, AttributionReport
from gateway.monitor.column import Column
from gateway.monitor.drift import Comparison, Drift
from gateway.monitor.family import FamilyReport, FamilyVerdict, report_of
from gateway.monitor.outcomes import members
from gateway.monitor.quality import Finding
from gateway.monitor.reference import Reference
from gateway.monitor.report import (
    ALARMING,
    BaselineReport,
    FeatureReport,
    OutcomeReport,
    ScoreReport,
    SequenceReport,
    WindowReport,
    summarise,
    worst,
)
from gateway.monitor.sequential import Alarm, SequenceState
from gateway.monitor.slices import SliceReport
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Window, WindowSettings
from gateway.monitor.words import sentences

EXAMPLES = 5
"""Decisions that a report names, for people to look at."""

NONE = np.empty((0, 0))
Findings = Mapping[str, tuple[Finding, ...]]


@dataclass(frozen=True)
class Heard:
    """What the sequential detectors said during a window: their state at its end, the alarms, and
    by cause how near each then was to one."""

    state: SequenceState = SequenceState()
    alarms: tuple[Alarm, ...] = ()
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The judged parts of one window, before they are told."""

    features: tuple[FeatureReport, ...]
    duplicates: Finding | None
    joint: Drift
    score: ScoreReport
    outcome: OutcomeReport | None
    groups: tuple[bias.GroupsOfKey, ...]
    sequences: tuple[SequenceReport, ...]
    family: FamilyReport | None
    baseline: BaselineReport
    attributions: AttributionReport | None
    slices: tuple[SliceReport, ...]

    def states(self) -> dict[str, str]:
        """State by cause; a suppressed drift counts as not judged."""
        found = {
            f"quality/{feature.name}/{finding.kind}": str(finding.state)
            for feature in self.features
            for finding in feature.quality
        }
        found |= {f"feature/{f.name}": telling_state(f.drift) for f in self.features}
        found["joint"] = telling_state(self.joint)
        found["score"] = self.score.state
        if self.outcome is not None:
            found["outcome"] = self.outcome.state
        found |= {f"sequence/{one.cause}": one.state for one in self.sequences}
        found |= {f"baseline/{c}": telling_state(d) for c, d in self.baseline.drifts.items()}
        found |= slices.states(self.slices)
        if self.attributions is not None:
            found |= {
                f"{attribution.PREFIX}{one.name}": telling_state(one.drift)
                for one in self.attributions.features
            }
            found[attribution.RANKING] = telling_state(self.attributions.ranking)
        if self.family is not None:
            found["detector"] = self.family.state
        if self.duplicates is not None:
            found["duplicates"] = self.duplicates.state
        for of_key in self.groups:
            found |= {f"bias/{of_key.key}/{g.value}": str(g.state) for g in of_key.groups}
        return found


def judge(
    window: Window, reference: Reference, card: Card, settings: WindowSettings,
    before: SeriesState, heard: Heard = Heard(), foreign: FamilyVerdict | None = None,
    attributed: AttributionReference | None = None,
) -> tuple[WindowReport, SeriesState]:  # fmt: skip
    """Judge a window that is full or overdue and holds at least one decision."""
    if not len(window):
        raise ValueError(f"{window!r}: nothing to judge")
    enough = len(window) >= settings.minimum
    columns = window.columns(card, reference)
    scores = window.scores()
    suspicions = inspected(columns, reference, settings.drift.alpha) if enough else {}
    findings = settled(suspicions, before.suspected)
    compared = comparisons(window, columns, scores, reference, card, settings) if enough else {}
    moving = window.attributions(len(attributed.features)) if attributed else NONE
    if attributed is not None and min(len(moving), len(attributed.values)) >= settings.minimum:
        compared |= attribution.compare(attributed, moving, settings.drift)
    broken = faults(findings)
    drifts = drift.verdicts(compared, before.running, broken, settings.drift)
    drifts = attribution.explained(explained(drifts))
    if settings.baseline in baseline.SLOTS:
        drifts = shown_only(drifts)
    fell = baseline.counted(window.decisions, card, reference, settings.baseline)
    moved = since_before(fell, reference, settings, before, broken, drifts) if enough else {}
    fresh = counts_of(window, card, settings, before)
    blocks, begun = bias.keep(before.blocks, before.begun, fresh, window.opened_at)
    groups = tuple(
        bias.judge_key(key, blocks, before.pending, fresh)
        for key in bias.with_intersections(
            settings.groups if card.outputs.outcome is not None else ()
        )
    )
    parted, kept, apart = slices.judge(
        slices.add(before.slices, window.decisions, card, reference, settings.slices),
        reference, settings.drift, settings.minimum, before.running,
        slices.everywhere(broken, drifts, moved), broken=bool(broken),
    )  # fmt: skip
    parts = Parts(
        features=feature_reports(card, columns, reference, findings, drifts, settings.minimum),
        duplicates=repeated(window, reference) if enough else None,
        joint=drifts.get("joint", Drift("not_enough_data")),
        score=score_report(scores, reference, drifts, settings.minimum),
        outcome=outcome_report(window, card, reference, drifts),
        groups=groups,
        sequences=sequence_reports(window, heard, broken),
        family=family_report(foreign, before, settings),
        baseline=BaselineReport(settings.baseline, moved),
        attributions=attribution.report(attributed, moving, drifts),
        slices=parted,
    )
    alarms = alarms_after(before.alarms, parts.states(), enough)
    state = SeriesState(
        number=before.number + 1,
        running=running_of(
            drift.running_after(before.running, drifts | baseline.prefixed(moved) | apart),
            parts.family,
        ),
        suspected=suspected_in(suspicions) if enough else before.suspected,
        alarms=alarms,
        pending=bias.pending_after(groups, before.pending, fresh),
        blocks=blocks if fresh else (),
        begun=begun if fresh else (),
        sequence=heard.state,
        slices=kept,
        baseline=before.baseline
        if settings.baseline == "none" or broken
        else baseline.learn(before.baseline, reference, fell, settings.baseline),
    )
    return report(window, reference, card, settings, parts, before, state), state


def inspected(columns: Mapping[str, Column], reference: Reference, alpha: float) -> Findings:
    """The level is shared by all features and kinds."""
    level = alpha / (len(columns) * len(quality.KINDS))
    return {
        name: quality.inspect(reference.columns[name], column, level)
        for name, column in columns.items()
        if name in reference.columns
    }


def settled(findings: Findings, suspected: Iterable[str]) -> Findings:
    before = frozenset(suspected)
    return {
        name: tuple(
            quality.settled(one, suspected=f"quality/{name}/{one.kind}" in before) for one in found
        )
        for name, found in findings.items()
    }


def suspected_in(findings: Findings) -> tuple[str, ...]:
    return tuple(
        f"quality/{name}/{one.kind}"
        for name, found in sorted(findings.items())
        for one in found
        if one.state == "fault"
    )


def faults(findings: Findings) -> dict[str, tuple[str, ...]]:
    """The kinds of fault by the cause of drift that they suppress; any of them explains why rows
    are told apart."""
    kinds = {
        f"feature/{name}": tuple(str(f.kind) for f in found if f.state == "fault")
        for name, found in findings.items()
    }
    every = tuple(sorted({kind for found in kinds.values() for kind in found}))
    kinds |= {f"{attribution.PREFIX}{name}": kinds[f"feature/{name}"] for name in findings}
    kinds |= {"joint": every, attribution.RANKING: every}
    return {cause: found for cause, found in kinds.items() if found}


def explained(drifts: dict[str, Drift]) -> dict[str, Drift]:
    """What single features show is told of them, not of all together once more."""
    shown = tuple(
        cause for cause, found in drifts.items() if cause.startswith("feature/") and found.running
    )
    if "joint" not in drifts or not shown:
        return drifts
    joint = drifts["joint"]
    return drifts | {"joint": replace(joint, suppressed_by=(*joint.suppressed_by, *shown))}


def sequence_reports(
    window: Window, heard: Heard, broken: Mapping[str, tuple[str, ...]]
) -> tuple[SequenceReport, ...]:
    """A fault of the window withdraws what was heard of its feature: cause, not symptom."""
    begun = heard.state.seen - len(window)
    found = []
    for cause, level in heard.levels.items():
        alarms = tuple(alarm for alarm in heard.alarms if alarm.cause == cause)
        state = "watch" if alarms else "ok"
        if any(alarm.confirmed for alarm in alarms):
            state = "drift"
        ids = tuple(window.decisions[alarm.at - begun - 1].id for alarm in alarms)
        suppressed = broken.get(cause, ())
        state = "not_enough_data" if suppressed else state
        found.append(SequenceReport(cause, state, level, alarms, ids, suppressed))
    return tuple(found)


def shown_only(drifts: Mapping[str, Drift]) -> dict[str, Drift]:
    """Of traffic with a cycle an hour is not like a sample of all hours: that is told, and is no
    reason to wake anybody."""
    return {
        cause: replace(found, state="watch", running=min(found.running, 1))
        if found.state == "drift"
        else found
        for cause, found in drifts.items()
    }


def since_before(
    fell: Mapping[tuple[str, int], tuple[int, baseline.Counts]],
    reference: Reference, settings: WindowSettings, before: SeriesState,
    broken: Mapping[str, tuple[str, ...]], drifts: Mapping[str, Drift],
) -> dict[str, Drift]:  # fmt: skip
    """Drift against what production was. What the frozen reference shows since as few windows is
    the same event, told once: as that."""
    if settings.baseline == "none":
        return {}
    compared = baseline.compare(before.baseline, reference, fell, settings.drift, settings.minimum)
    running = {c: before.running.get(f"baseline/{c}", 0) for c in compared}
    found = drift.verdicts(compared, running, broken, settings.drift)
    return {
        cause: replace(one, suppressed_by=(*one.suppressed_by, cause))
        if one.running and cause in drifts and 0 < drifts[cause].running <= one.running
        and settings.baseline == "rolling"
        else one
        for cause, one in found.items()
    }  # fmt: skip


def family_report(
    foreign: FamilyVerdict | None, before: SeriesState, settings: WindowSettings
) -> FamilyReport | None:
    if foreign is None:
        return None
    return report_of(foreign, before.running.get("detector", 0), settings.drift.running)


def running_of(running: Mapping[str, int], family: FamilyReport | None) -> dict[str, int]:
    """With the count of the other family's detector, where there is one."""
    others = {cause: count for cause, count in running.items() if cause != "detector"}
    return others | ({"detector": family.running} if family is not None and family.running else {})


def repeated(window: Window, reference: Reference) -> Finding | None:
    return quality.repeated(window.duplicates(), len(window), reference.duplicates, reference.rows)


def comparisons(
    window: Window,
    columns: Mapping[str, Column],
    scores: Column,
    reference: Reference,
    card: Card,
    settings: WindowSettings,
) -> dict[str, Comparison]:
    """The tests of a window by cause; those with fewer values than the minimum are left out."""
    pairs = {
        f"feature/{name}": (reference.columns[name], column)
        for name, column in columns.items()
        if name in reference.columns
    }
    if reference.scores is not None:
        pairs["score"] = (reference.scores, scores)
    compared = {
        cause: drift.compare(then, now, settings.drift)
        for cause, (then, now) in pairs.items()
        if min(then.comparable, now.comparable) >= settings.minimum
    }
    if min(len(window), reference.rows) >= settings.minimum:
        compared["joint"] = drift.compare_rows(
            reference.domain, window.rows(reference), settings.drift
        )
    outcomes, words = window.outcomes(), card.outputs.outcome
    then = reference.scores
    if words is None or then is None or reference.adverse is None:
        return compared
    if min(len(outcomes), then.comparable) >= settings.minimum:
        compared["outcome"] = drift.compare_outcomes(
            outcomes.count(words.adverse), len(outcomes), reference.adverse, then.comparable,
            settings.drift,
        )  # fmt: skip
    return compared


def counts_of(
    window: Window, card: Card, settings: WindowSettings, before: SeriesState
) -> bias.Block:
    """The window's outcomes by group."""
    words = card.outputs.outcome
    if words is None or not settings.groups:
        return {}
    members = (
        (decision.groups, decision.outcome == words.adverse)
        for decision in window.decisions
        if decision.outcome is not None
    )
    return bias.count_groups(members, bias.with_intersections(settings.groups), before.blocks)


def telling_state(found: Drift) -> str:
    return "not_enough_data" if found.suppressed_by else found.state


def feature_reports(
    card: Card,
    columns: Mapping[str, Column],
    reference: Reference,
    findings: Findings,
    drifts: Mapping[str, Drift],
    minimum: int,
) -> tuple[FeatureReport, ...]:
    reports = []
    for feature in card.features:
        then = reference.columns.get(feature.name)
        unjudged = Drift("no_reference" if then is None else "not_enough_data")
        found = drifts.get(f"feature/{feature.name}", unjudged)
        flaws = findings.get(feature.name, ())
        state = worst([telling_state(found), *(flaw.state for flaw in flaws)])
        reports.append(
            FeatureReport(
                name=feature.name,
                type=feature.type,
                state=state if then is not None else "no_reference",
                quality=flaws,
                drift=found,
                before=None if then is None else summarise(then, minimum),
                after=summarise(columns[feature.name], minimum),
            )
        )
    return tuple(reports)


def score_report(
    scores: Column, reference: Reference, drifts: Mapping[str, Drift], minimum: int
) -> ScoreReport:
    then = reference.scores
    found = drifts.get("score", Drift("no_reference" if then is None else "not_enough_data"))
    before = None if then is None else summarise(then, minimum)
    return ScoreReport(found.state, found, before, summarise(scores, minimum))


def outcome_report(
    window: Window, card: Card, reference: Reference, drifts: Mapping[str, Drift]
) -> OutcomeReport | None:
    words, then = card.outputs.outcome, reference.scores
    if words is None:
        return None
    outcomes = window.outcomes()
    count = outcomes.count(words.adverse)
    found = drifts.get("outcome", Drift("no_reference" if then is None else "not_enough_data"))
    share = None
    if then is not None and reference.adverse is not None and then.comparable:
        share = reference.adverse / then.comparable
    return OutcomeReport(
        adverse=words.adverse,
        state=found.state,
        n=len(outcomes),
        count=count,
        share=count / len(outcomes) if outcomes else None,
        reference_share=share,
        drift=found,
    )


def spread(n: int) -> list[int]:
    """Places of a few of n decisions, evenly apart."""
    return sorted({place * n // EXAMPLES for place in range(EXAMPLES)})


def alarms_after(before: Iterable[str], states: Mapping[str, str], enough: bool) -> tuple[str, ...]:
    """Alarms open after a window: those it raises, and those that it could not judge."""
    raised = {cause for cause, state in states.items() if state in ALARMING}
    unjudged = {"not_enough_data", "insufficient"}
    waiting = {
        cause
        for cause in before
        if states.get(cause) in unjudged or (not enough and not cause.startswith("bias/"))
    }
    return tuple(sorted(raised | waiting))


def report(
    window: Window,
    reference: Reference,
    card: Card,
    settings: WindowSettings,
    parts: Parts,
    before: SeriesState,
    after: SeriesState,
) -> WindowReport:
    first, last, n = window.decisions[0], window.decisions[-1], len(window)
    closed_at, closed_by = window.closed(settings)
    states = parts.states().values()
    told = [state for state in states if n >= settings.minimum or state != "ok"]
    words = card.outputs.outcome
    favourable = None
    if words is not None:
        favourable = words.below if words.adverse == words.at_or_above else words.at_or_above
    return WindowReport(
        id=f"{window.series}/{after.number}",
        reference=reference.digest,
        first_leaf=first.leaf,
        last_leaf=last.leaf,
        first_id=first.id,
        last_id=last.id,
        opened_at=window.opened_at,
        closed_at=closed_at,
        closed_by=closed_by,
        n=n,
        judged=n >= settings.minimum,
        examples=tuple(window.decisions[place].id for place in spread(n)),
        state=worst(told),
        alpha=settings.drift.alpha,
        features=parts.features,
        duplicates=parts.duplicates,
        joint=parts.joint,
        score=parts.score,
        outcome=parts.outcome,
        bias=parts.groups,
        sequences=parts.sequences,
        family=parts.family,
        baseline=parts.baseline,
        attributions=parts.attributions,
        slices=parts.slices,
        members=members(window.decisions, settings.groups),
        opened=tuple(sorted(set(after.alarms) - set(before.alarms))),
        resolved=tuple(sorted(set(before.alarms) - set(after.alarms))),
        words=sentences(
            n,
            settings.minimum,
            parts.features,
            parts.duplicates,
            parts.joint,
            parts.score,
            parts.outcome,
            parts.groups,
            favourable,
            parts.sequences,
            parts.family,
            parts.baseline,
            parts.attributions,
            parts.slices,
        ),
    )
