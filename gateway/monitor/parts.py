"""The judged parts of one window, before they are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.card import Card
from gateway.modelsettings import DriftSettings
from gateway.monitor import attribution, bias, slices
from gateway.monitor.attribution import AttributionReport
from gateway.monitor.column import Column
from gateway.monitor.drift import SUPPRESSED, Drift, telling_state
from gateway.monitor.family import FamilyReport
from gateway.monitor.flaws import Flaws, level_of, stuck_lately
from gateway.monitor.quality import Finding
from gateway.monitor.reference import Reference
from gateway.monitor.report import (
    BaselineReport,
    FeatureReport,
    OutcomeReport,
    ScoreReport,
    SequenceReport,
    summarise,
    worst,
)
from gateway.monitor.sequential import Heard
from gateway.monitor.slices import SliceReport
from gateway.monitor.window import Window


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
        found |= {f"quality/score/{one.kind}": str(one.state) for one in self.score.quality}
        found |= {f"feature/{f.name}": telling_state(f.drift) for f in self.features}
        found["joint"] = telling_state(self.joint)
        found["score"] = telling_state(self.score.drift)
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


def feature_reports(
    card: Card,
    columns: Mapping[str, Column],
    reference: Reference,
    flaws: Flaws,
    drifts: Mapping[str, Drift],
    minimum: int,
) -> tuple[FeatureReport, ...]:
    reports = []
    for feature in card.features:
        then = reference.columns.get(feature.name)
        unjudged = Drift("no_reference" if then is None else "not_enough_data")
        found = drifts.get(f"feature/{feature.name}", unjudged)
        faults = flaws.features.get(feature.name, ())
        state = worst([telling_state(found), *(fault.state for fault in faults)])
        reports.append(
            FeatureReport(
                name=feature.name,
                type=feature.type,
                state=state if then is not None else "no_reference",
                quality=faults,
                drift=found,
                before=None if then is None else summarise(then, minimum),
                after=summarise(columns[feature.name], minimum),
            )
        )
    return tuple(reports)


def score_report(
    scores: Column, reference: Reference, flaws: Flaws, drifts: Mapping[str, Drift],
    minimum: int,
) -> ScoreReport:  # fmt: skip
    then = reference.scores
    found = drifts.get("score", Drift("no_reference" if then is None else "not_enough_data"))
    before = None if then is None else summarise(then, minimum)
    faults = flaws.answers.get("score", ())
    return ScoreReport(telling_state(found), found, faults, before, summarise(scores, minimum))


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


def sequence_reports(
    window: Window, heard: Heard, broken: Mapping[str, tuple[str, ...]], card: Card,
    reference: Reference, rules: DriftSettings,
) -> tuple[SequenceReport, ...]:  # fmt: skip
    """A fault of the window withdraws what was heard of its feature: cause, not symptom. So does a
    feature that has got stuck in the midst of it, which is a fault of the next one."""
    begun = heard.state.seen - len(window)
    found = []
    for cause, level in heard.levels.items():
        alarms = tuple(alarm for alarm in heard.alarms if alarm.cause == cause)
        state = "watch" if alarms else "ok"
        if any(alarm.confirmed for alarm in alarms):
            state = "drift"
        ids = tuple(window.decisions[alarm.at - begun - 1].id for alarm in alarms)
        suppressed = broken.get(cause, ())
        if alarms and stuck_lately(window, cause, card, reference, level_of(card, rules.alpha)):
            suppressed = tuple(dict.fromkeys((*suppressed, "stuck")))
        state = SUPPRESSED if suppressed else state
        found.append(SequenceReport(cause, state, level, alarms, ids, suppressed))
    return tuple(found)
