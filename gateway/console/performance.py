"""How a model's versions did, by cohort of prediction time: one document for API and command."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import orjson

from gateway.card import Card
from gateway.catalog import labels
from gateway.monitor.outcomes import KeyOutcomes, day_of, judge_outcomes
from gateway.monitor.performance import (
    CohortReport,
    PairedAccuracy,
    errors,
    estimate,
    gap,
    is_right,
    paired_accuracy,
    read_labels,
    realise,
    upside_of,
)
from gateway.monitor.report import plain
from gateway.table import Model, TableStore

SINCE_DAYS = 90


def performed(cursor: Any, tables: TableStore, model: Model, since: int) -> dict[str, Any]:
    """Cohorts of decisions from `since` (ns) on, newest first, and how their labels were told.

    A cohort is measured by the card that was in force with it: what is called positive may have
    changed since, or the version may be gone.
    """
    cohorts = []
    cards = {name: version.card for name, version in model.versions.items()}
    revisions = labels.revisions(cursor, model.name, since)
    load = cache(tables.load)
    for cohort in labels.cohorts(cursor, model.name, since):
        told, every = cohort.told, cohort.decisions
        report = CohortReport(cohort.version, cohort.arm, cohort.day, every, told, told / every)
        revision = revisions[cohort.version, cohort.arm, cohort.day]
        card = load(revision).models[model.name].versions[cohort.version].card
        cards.setdefault(cohort.version, card)
        if card is not None:
            report = measured(report, card, *labels.members(cursor, model.name, cohort))
        cohorts.append(plain(asdict(report)))
    return {
        "model": model.name,
        "labels": labels.tallies(cursor, model.name, words_of(cards)),
        "unmatched": labels.unmatched(cursor),
        "cohorts": cohorts,
        "groups": [plain(asdict(one)) for one in by_group(cursor, model.name, since)],
        "pairs": [plain(asdict(one)) for one in paired(cursor, model, since)],
    }


def words_of(cards: Mapping[str, Card | None]) -> dict[str, labels.Words]:
    """Of the versions that decide between two sides: what labels may call these."""
    found = {}
    for name, card in cards.items():
        if card is None or card.outputs.score.kind == "quantity":
            continue
        words = card.outputs.outcome
        sides = (True, False) if words is None else (words.at_or_above, words.below)
        found[name] = (orjson.dumps(sides[0]).decode(), orjson.dumps(sides[1]).decode())
    return found


def paired(cursor: Any, model: Model, since: int) -> list[PairedAccuracy]:
    """Which of two versions was right on the same requests, by what each of them said then."""
    counts: dict[tuple[str, str], Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for version, against, said, given, label, n in labels.pairs(cursor, model.name, since):
        cards = [known.card if (known := model.versions.get(name)) is not None else None
                 for name in (version, against)]  # fmt: skip
        if cards[0] is None or cards[1] is None:  # a version that is gone, or has none
            continue
        right = is_right(cards[0], said, label), is_right(cards[1], given, label)
        if right[0] is not None and right[1] is not None:
            counts[version, against][right[0], right[1]] += n
    return [
        paired_accuracy(*names, of[True, True], of[False, True], of[True, False], of[False, False])
        for names, of in sorted(counts.items())
    ]


def by_group(cursor: Any, model: str, since: int) -> list[KeyOutcomes]:
    """Coverage and rates by group, of the days from `since` (ns) on, in all of them together."""
    day = day_of(since)
    seen: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for version, arm, key, value, n in labels.window_members(cursor, model, day):
        seen[version, arm, key][value] = n
    cases: dict[tuple[str, str, str], dict[tuple[str, int, int], tuple[int, float]]]
    newer: dict[tuple[str, str, str], dict[tuple[str, int, int], tuple[int, float]]]
    cases, newer = defaultdict(dict), defaultdict(dict)
    for version, arm, key, value, *case, n, score, late, its in labels.labelled(cursor, model, day):
        cases[version, arm, key][value, case[0], case[1]] = (n, score)
        newer[version, arm, key][value, case[0], case[1]] = (late, its)
    return [
        judge_outcomes(*place, seen[place], cases[place], newer[place])
        for place in sorted({*seen, *cases})
    ]


def measured(
    report: CohortReport, card: Card, scores: Any, outcomes: list[str | None], values: list[Any]
) -> CohortReport:
    """The figures that scores and labels allow, by the card of the version."""
    read, unusable = read_labels(card, values)
    known = ~np.isnan(read)
    report = replace(report, unusable=unusable)
    if card.outputs.score.kind == "quantity":
        return replace(report, errors=errors(scores[known], read[known])) if known.any() else report
    upside = upside_of(card, scores, outcomes)
    if scores.size:
        report = replace(report, estimated=estimate(scores, upside))
    if not known.any():
        return report
    found = realise(scores[known], read[known] > 0, upside[known])
    there = gap(estimate(scores[known], upside[known]), found.figures)
    return replace(report, realised=found, estimate_error=there)
