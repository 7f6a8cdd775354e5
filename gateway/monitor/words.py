"""A report in sentences for someone who knows no statistics.

Every sentence says what is different, now and then, and how long it has been seen. What is fine is
said once, for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.monitor.attribution import AttributionOfFeature, AttributionReport
from gateway.monitor.bias import RATIO, Group, GroupsOfKey
from gateway.monitor.drift import Drift
from gateway.monitor.family import FamilyReport
from gateway.monitor.quality import Finding
from gateway.monitor.report import (
    BaselineReport,
    FeatureReport,
    OutcomeReport,
    ScoreReport,
    SequenceReport,
    Summary,
)
from gateway.monitor.slices import SliceReport

SAME_MEDIAN = 0.1
"""Medians closer than this many standard deviations of the reference are told as a spread."""

TOP = 3
"""Features that a changed ranking is told with."""

FINDINGS = {
    "missing": "is missing in",
    "wrong_type": "has a value of the wrong type in",
    "out_of_range": "is outside the range its card names in",
    "unseen": "has a category that its card does not name in",
}


def sentences(
    n: int,
    minimum: int,
    features: Sequence[FeatureReport],
    duplicates: Finding | None,
    joint: Drift,
    score: ScoreReport,
    outcome: OutcomeReport | None,
    bias: Sequence[GroupsOfKey],
    favourable: str | None,
    sequences: Sequence[SequenceReport] = (),
    family: FamilyReport | None = None,
    baseline: BaselineReport | None = None,
    attributions: AttributionReport | None = None,
    slices: Sequence[SliceReport] = (),
    *,
    compared: bool = True,
) -> tuple[str, ...]:
    """`compared`: whether there was anything that a window of this size could be held against."""
    told = [sentence for feature in features for sentence in about_feature(feature)]
    if duplicates is not None:
        told.append(
            f"{percent(duplicates.share)} of the decisions repeat the inputs of an earlier one; "
            f"{percent(duplicates.reference_share)} of the reference do."
        )
    if joint.state in ("watch", "drift") and not joint.suppressed_by and joint.comparison:
        told.append(
            "All features taken together look different than in the reference: of two decisions, "
            f"one of each, a classifier picks the newer in {percent(joint.comparison.effect + 0.5)}"
            f" of the cases, by chance it would be 50 %; {seen(joint)}."
        )
    told.extend(about_answers(finding) for finding in score.quality)
    if score.before is not None and not score.drift.suppressed_by:
        told.extend(about_drift("The score", score.drift, score.before, score.after))
    if outcome is not None:
        told.extend(about_outcome(outcome))
    told.extend(about_sequence(one) for one in sequences if one.state in ("watch", "drift"))
    if family is not None and (family.verdict.why or family.state in ("watch", "drift")):
        told.append(about_family(family))
    told.extend(about_baseline(baseline))
    told.extend(about_attributions(attributions))
    told.extend(sentence for one in slices for sentence in about_slice(one))
    for found in bias:
        told.extend(about_group(found.key, group, favourable or "yes") for group in telling(found))
    if n < minimum:
        few = f"Only {n} decisions: at least {minimum} are needed to compare with the reference."
        return (few, *told)
    if not compared:
        told.append(f"There is nothing yet that these {n} decisions could be compared with.")
    return tuple(told) or (f"Nothing stands out in {n} decisions.",)


def about_feature(feature: FeatureReport) -> Iterator[str]:
    name = f"`{feature.name}`"
    for finding in feature.quality:
        yield about_quality(name, finding)
    if feature.before is not None and not feature.drift.suppressed_by:
        yield from about_drift(name, feature.drift, feature.before, feature.after)
    elif feature.drift.suppressed_by and feature.drift.running:
        yield f"{name} also looks different as a whole, which the fault above may explain."


def about_quality(name: str, finding: Finding) -> str:
    if finding.kind == "stuck":
        varies = percent(1 - finding.reference_share)
        return f"{name} has one and the same value in all {finding.n} decisions; " + (
            f"in the reference {varies} of the values differ from the most frequent one."
        )
    if finding.level is not None:
        return (
            f"{name} is `{finding.level}`, which the reference never shows, in "
            f"{percent(finding.share)} of the decisions ({finding.count} of {finding.n})."
        )
    return (
        f"{name} {FINDINGS[finding.kind]} {percent(finding.share)} of the decisions "
        f"({finding.count} of {finding.n}); in the reference {percent(finding.reference_share)}."
    )


ANSWERS = {
    "missing": "have no score where the card declares one",
    "wrong_type": "have something that is no number in place of the score",
    "out_of_range": "have a score outside the range of what it is",
}


def about_answers(finding: Finding) -> str:
    if finding.kind == "rounded":
        return (
            f"The score comes in steps of {finding.level}: so do {finding.count} of its "
            f"{finding.n} different values, of those it is compared with "
            f"{percent(finding.reference_share)}."
        )
    if finding.kind == "stuck":
        return f"The score is one and the same in all {finding.n} decisions."
    return (
        f"{percent(finding.share)} of the answers ({finding.count} of {finding.n}) "
        f"{ANSWERS[finding.kind]}."
    )


def about_artifact(artifact: str) -> str:
    return (
        f"The first window of artifact {artifact[:12] or '(none)'}: another one bore the version's "
        "name before, and what was learned of its traffic is forgotten."
    )


def about_drift(name: str, drift: Drift, before: Summary, after: Summary) -> Iterator[str]:
    if drift.state not in ("watch", "drift"):
        return
    if before.shares is not None and after.shares is not None:
        told = changed_share(before.shares, after.shares)
    elif before.quantiles is not None and after.quantiles is not None:
        told = changed_numbers(before, after)
    else:
        told = "is distributed differently than in the reference"
    yield f"{name} {told}; {seen(drift)}."


def changed_share(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    level = max(before, key=lambda name: abs(after[name] - before[name]))
    more = "more" if after[level] > before[level] else "less"
    return (
        f"is `{level}` {more} often than in the reference: "
        f"{percent(after[level])} now, {percent(before[level])} then"
    )


def changed_numbers(before: Summary, after: Summary) -> str:
    assert before.quantiles is not None
    assert after.quantiles is not None
    then, now = before.quantiles, after.quantiles
    if abs(now["p50"] - then["p50"]) <= SAME_MEDIAN * (before.sd or 0.0):
        return (
            "is spread differently than in the reference: nine in ten between "
            f"{now['p5']:.3g} and {now['p95']:.3g} now, {then['p5']:.3g} and {then['p95']:.3g} then"
        )
    side = "higher" if now["p50"] > then["p50"] else "lower"
    return f"is {side} than in the reference: median {now['p50']:.3g} now, {then['p50']:.3g} then"


def about_sequence(found: SequenceReport) -> str:
    alarm = max(found.alarms, key=lambda one: (one.confirmed, one.aspect != "spread", one.at))
    what = (
        f"`{found.cause.removeprefix('feature/')}`" if "/" in found.cause else f"The {found.cause}"
    )
    part = {"place": "", "spread": " in spread"}.get(
        alarm.aspect, f" in its share of `{alarm.aspect}`"
    )
    weight = "for the second time running" if alarm.confirmed else "which chance alone may do"
    return (
        f"{what} has moved {alarm.side}{part}: by about {alarm.size:.2g} standard deviations "
        f"over {alarm.at - alarm.begun} decisions, {weight}."
    )


def about_family(found: FamilyReport) -> str:
    said = found.verdict
    of = f" of window {said.window}" if said.window else ""
    if said.why is not None:
        return f"`{said.detector}` said nothing{of}: {said.why}."
    count = "for the first time" if found.running == 1 else f"in {found.running} windows running"
    level = said.threshold
    told = [name for name, p in zip(said.features, said.p_values) if level is None or p < level]
    where = f" in {', '.join(f'`{name}`' for name in told)}" if told else ""
    return f"`{said.detector}` sees drift{where}{of}, {count}."


BEFORE = {
    "rolling": "in the windows before",
    "day": "at this hour of the days before",
    "week": "at this hour of the weeks before",
}


def about_baseline(found: BaselineReport | None) -> Iterator[str]:
    for cause, drift in found.drifts.items() if found is not None else ():
        if drift.state in ("watch", "drift") and not drift.suppressed_by and drift.comparison:
            what = f"`{cause.removeprefix('feature/')}`" if "/" in cause else f"The {cause}"
            yield (
                f"{what} is distributed differently than {BEFORE[found.kind if found else '']}: "
                f"by {percent(drift.comparison.effect)} at most; {seen(drift)}."
            )


def about_attributions(found: AttributionReport | None) -> Iterator[str]:
    if found is None:
        return
    for one in found.features:
        if one.drift.state in ("watch", "drift") and not one.drift.suppressed_by:
            yield (
                f"What `{one.name}` adds to the score is distributed differently than in the "
                f"reference: {one.after:.3g} on average now, {one.before:.3g} then, whatever its "
                f"sign; {seen(one.drift)}."
            )
    ranking = found.ranking
    if ranking.state in ("watch", "drift") and not ranking.suppressed_by and ranking.comparison:
        then = sorted(found.features, key=lambda one: -one.before)[:TOP]
        now = sorted(found.features, key=lambda one: -one.after)[:TOP]
        yield (
            f"What moves the score most is now {named(now)}, in the reference {named(then)}: "
            f"{percent(ranking.comparison.effect)} of the pairs of features have changed places; "
            f"{seen(ranking)}."
        )


def about_slice(found: SliceReport) -> Iterator[str]:
    for cause, drift in found.drifts.items():
        if drift.state not in ("watch", "drift") or drift.suppressed_by or not drift.comparison:
            continue
        kind, _, feature = cause.rpartition("/")
        what = f"`{feature}`" if kind == "feature" else f"the {cause}"
        moved = "is distributed differently than in its windows before"
        if kind == "quality":
            what, moved = f"`{feature}`", "is missing or unreadable in another share than before"
        yield (
            f"Where {found.key} is `{found.value}` ({found.n} decisions), {what} {moved}: by "
            f"{percent(drift.comparison.effect)}; {seen(drift)}."
        )


def named(features: Sequence[AttributionOfFeature]) -> str:
    return ", ".join(f"`{one.name}`" for one in features)


def about_outcome(outcome: OutcomeReport) -> Iterator[str]:
    if outcome.state not in ("watch", "drift") or outcome.share is None:
        return
    yield (
        f"`{outcome.adverse}` was the outcome of {percent(outcome.share)} of the decisions; "
        f"of the reference it would be {percent(outcome.reference_share or 0.0)}; "
        f"{seen(outcome.drift)}."
    )


def telling(found: GroupsOfKey) -> list[Group]:
    return [group for group in found.groups if group.state in ("watch", "breach")]


def about_group(key: str, group: Group, favourable: str) -> str:
    assert group.rivalry is not None
    rivalry = group.rivalry
    highest = group.rate / rivalry.ratio
    low, high = rivalry.ratio_interval
    if group.state == "breach":
        weight = f"all of it below {RATIO}, and still so with new decisions"
    elif group.breach_pending:
        weight = f"all of it below {RATIO}; new decisions must confirm it"
    else:
        weight = f"so whether it is below {RATIO} is not settled"
    if high >= RATIO and (group.breach_pending or group.state == "breach"):
        return about_adverse(key, group)
    return (
        f"{key} `{group.value}` gets `{favourable}` in {percent(group.rate)} of {group.n} "
        f"decisions, `{rivalry.against}` in {percent(highest)}: {rivalry.ratio:.2f} times as "
        f"often. Chance alone leaves {low:.2f} to {high:.2f} open, {weight}."
    )


def about_adverse(key: str, group: Group) -> str:
    """Where nearly all get the favourable outcome, those who do not."""
    assert group.rivalry is not None
    rivalry = group.rivalry
    low, high = rivalry.adverse_ratio_interval
    weight = (
        "and still so with new" if group.state == "breach" else "which must be confirmed by new"
    )
    return (
        f"{key} `{group.value}` gets the adverse outcome in {percent(1 - group.rate)} of "
        f"{group.n} decisions: {rivalry.adverse_ratio:.2f} times as often as `{rivalry.against}`. "
        f"Chance alone leaves {low:.2f} to {high:.2f} open, all of it above {1 / RATIO}, {weight} "
        "decisions."
    )


def seen(drift: Drift) -> str:
    if drift.running <= 1:
        return "seen in this window for the first time"
    count = "two" if drift.running == 2 else str(drift.running)
    return f"seen in {count} windows running"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"
