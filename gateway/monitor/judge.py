"""One closed window in, its report and the series' next state out.

Quality is judged first, then drift with the features at fault held back, then bias on the counts of
many windows. A window under the minimum is counted and shown but moves no drift count and no alarm
of drift or quality: it says `not_enough_data`, never `ok`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from gateway.card import Card
from gateway.monitor import attribution, baseline, bias, drift, slices
from gateway.monitor.attribution import AttributionReference
from gateway.monitor.column import Column
from gateway.monitor.drift import Comparison, Drift
from gateway.monitor.family import FamilyReport, FamilyVerdict, report_of
from gateway.monitor.flaws import Flaws, judged
from gateway.monitor.outcomes import members
from gateway.monitor.parts import (
    Parts,
    feature_reports,
    outcome_report,
    score_report,
    sequence_reports,
)
from gateway.monitor.reference import Reference
from gateway.monitor.report import (
    ALARMING,
    BaselineReport,
    WindowReport,
    worst,
)
from gateway.monitor.sequential import NOTHING_HEARD, Heard
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Window, WindowSettings
from gateway.monitor.words import about_artifact, sentences

EXAMPLES = 5
"""Decisions that a report names, for people to look at."""

NONE = np.empty((0, 0))


def judge(
    window: Window, reference: Reference, card: Card, settings: WindowSettings,
    before: SeriesState, heard: Heard = NOTHING_HEARD, foreign: FamilyVerdict | None = None,
    attributed: AttributionReference | None = None,
) -> tuple[WindowReport, SeriesState]:  # fmt: skip
    """Judge a window that is full or overdue and holds at least one decision."""
    if not len(window):
        raise ValueError(f"{window!r}: nothing to judge")
    enough = len(window) >= settings.minimum
    columns = window.columns(card, reference)
    scores = window.scores(card)
    found = Flaws(suspected=before.suspected, steps=before.steps)
    if enough:
        found = judged(window, columns, scores, card, reference, settings.drift.alpha, found)
    compared = comparisons(window, columns, scores, reference, card, settings) if enough else {}
    moving = window.attributions(len(attributed.features)) if attributed else NONE
    if attributed is not None and min(len(moving), len(attributed.values)) >= settings.minimum:
        compared |= attribution.compare(attributed, moving, settings.drift)
    broken = found.broken
    drifts = drift.verdicts(compared, before.running, broken, settings.drift)
    drifts = attribution.explained(explained(drifts))
    if settings.baseline in baseline.SLOTS:
        drifts = shown_only(drifts)
    placed = baseline.Placed.of(window.decisions, card, reference)
    fell = baseline.counted(placed, settings.baseline)
    moved = since_before(fell, reference, settings, before, broken, drifts) if enough else {}
    fresh = counts_of(window, card, settings, before)
    blocks, begun = bias.keep(before.blocks, before.begun, fresh, window.opened_at)
    keys = bias.with_intersections(settings.groups if card.outputs.outcome is not None else ())
    groups = tuple(bias.judge_key(key, blocks, before.pending, fresh) for key in keys)
    parted, kept, apart = slices.judge(
        slices.add(before.slices, placed, reference, settings.slices),
        reference, settings.drift, settings.minimum, before.running,
        slices.everywhere(broken, drifts, moved), broken=not found.is_learned_from,
    )  # fmt: skip
    parts = Parts(
        features=feature_reports(card, columns, reference, found, drifts, settings.minimum),
        duplicates=found.repeats,
        joint=drifts.get("joint", Drift("not_enough_data")),
        score=score_report(scores, reference, found, drifts, settings.minimum),
        outcome=outcome_report(window, card, reference, drifts),
        groups=groups,
        sequences=sequence_reports(window, heard, broken, card, reference, settings.drift),
        family=family_report(foreign, before, settings),
        baseline=BaselineReport(settings.baseline, moved),
        attributions=attribution.report(attributed, moving, drifts),
        slices=parted,
    )
    alarms = alarms_after(before.alarms, parts.states(), enough)
    state = SeriesState(
        number=before.number + 1,
        running=running_of(before.running, drifts | baseline.prefixed(moved) | apart, parts.family),
        suspected=found.suspected,
        alarms=alarms,
        pending=bias.pending_after(groups, before.pending, fresh),
        blocks=blocks if fresh else (),
        begun=begun if fresh else (),
        sequence=heard.state,
        slices=kept,
        artifact=before.artifact,
        steps=found.steps,
        baseline=before.baseline
        if settings.baseline == "none" or not found.is_learned_from
        else baseline.learn(before.baseline, reference, fell, settings.baseline),
    )
    return report(window, reference, card, settings, parts, before, state), state


def explained(drifts: dict[str, Drift]) -> dict[str, Drift]:
    """What single features show is told of them, not of all together once more."""
    shown = tuple(
        cause for cause, found in drifts.items() if cause.startswith("feature/") and found.running
    )
    if "joint" not in drifts or not shown:
        return drifts
    joint = drifts["joint"]
    return drifts | {"joint": replace(joint, suppressed_by=(*joint.suppressed_by, *shown))}


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


def running_of(
    before: Mapping[str, int], judged: Mapping[str, Drift], family: FamilyReport | None
) -> dict[str, int]:
    """With the count of the other family's detector, where there is one."""
    running = drift.running_after(before, judged)
    others = {cause: count for cause, count in running.items() if cause != "detector"}
    return others | ({"detector": family.running} if family is not None and family.running else {})


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


def spread(n: int) -> list[int]:
    """Places of a few of n decisions, evenly apart."""
    return sorted({place * n // EXAMPLES for place in range(EXAMPLES)})


def alarms_after(before: Iterable[str], states: Mapping[str, str], enough: bool) -> tuple[str, ...]:
    """Alarms open after a window: those it raises, and those that it could not judge."""
    raised = {cause for cause, state in states.items() if state in ALARMING}
    unjudged = {"not_enough_data", "insufficient", drift.SUPPRESSED}
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
    states = parts.states()
    told = [state for state in states.values() if n >= settings.minimum or state != "ok"]
    state = worst(told)
    words = card.outputs.outcome
    favourable = words.favourable if words is not None else None
    return WindowReport(
        id=f"{window.series}/{after.number}",
        artifact=after.artifact,
        anew=before.anew,
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
        state=state,
        verdicts={cause: state for cause, state in sorted(states.items()) if state != "ok"},
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
        members=members([d for d in window.decisions if d.flaw is None], settings.groups),
        opened=tuple(sorted(set(after.alarms) - set(before.alarms))),
        resolved=tuple(sorted(set(before.alarms) - set(after.alarms))),
        words=(
            *((about_artifact(after.artifact),) if before.anew else ()),
            *sentences(
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
                compared=state != "not_enough_data",
            ),
        ),
    )
