"""What is wrong with the data of one window, by feature, and which drift that explains. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from gateway.card import Card
from gateway.monitor import answers, attribution, quality
from gateway.monitor.answers import Steps, steps_of
from gateway.monitor.column import Column
from gateway.monitor.quality import Finding
from gateway.monitor.reference import Reference
from gateway.monitor.window import Window

RUN_AT_LEAST = 5
"""Equal values in a row that may make a feature one that has got stuck."""
HARMLESS = frozenset({"rounded"})
"""Faults with which a window may still be learned from: what was rounded says what traffic is."""

ROWS = "quality/rows/duplicates"
"""What is remembered of a window whose rows repeat one another: never is one window enough."""

Findings = Mapping[str, tuple[Finding, ...]]


@dataclass(frozen=True)
class Flaws:
    """What a window showed: of its features and its answers, by name; `broken`: the kinds of fault
    by the cause of drift that they suppress; `suspected`: faults that the next one may confirm;
    `steps`: in which scores came until then; `repeats`: of rows that repeat one another."""

    features: Findings = field(default_factory=dict)
    answers: Findings = field(default_factory=dict)
    broken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    suspected: tuple[str, ...] = ()
    steps: Steps = Steps()
    repeats: Finding | None = None

    @property
    def is_learned_from(self) -> bool:
        """Whether the window may stand for what production was."""
        return all(HARMLESS.issuperset(kinds) for kinds in self.broken.values())


def judged(
    window: Window, columns: Mapping[str, Column], scores: Column, card: Card, reference: Reference,
    alpha: float, before: Flaws,
) -> Flaws:  # fmt: skip
    """Of a window with enough decisions; `before`: what the last ones suspected, their steps."""
    level = level_of(card, alpha)
    seen = inspected(columns, reference, level)
    told = answers.inspect(window, scores, card, reference, level, before.steps)
    steps = before.steps
    if reference.scores is None and not any(one.kind == "rounded" for one in told):
        steps = steps.with_more(steps_of(scores))
    answered = {"score": told}
    of_features, of_answers = settled(seen, before.suspected), settled(answered, before.suspected)
    broken = faults(of_features) | faults_of_answers(of_answers)
    again = repeated(window, reference)
    repeats = again and replace(again, state="fault" if ROWS in before.suspected else "watch")
    suspected = suspected_in(seen, answered, {"rows": (again,) if again else ()})
    return Flaws(of_features, of_answers, broken, suspected, steps, repeats)


def level_of(card: Card, alpha: float) -> float:
    """The level is shared by all features, the score, and all kinds."""
    return alpha / ((len(card.features) + 1) * len(quality.KINDS))


def inspected(columns: Mapping[str, Column], reference: Reference, level: float) -> Findings:
    """`level`: the share of each feature and kind; what is told by counts shares theirs anew."""
    pairs = {
        name: (reference.columns[name], column)
        for name, column in columns.items()
        if name in reference.columns
    }
    of_counts = level_of_counts(pairs.values(), level)
    return {name: quality.inspect(*pair, level, of_counts) for name, pair in pairs.items()}


def level_of_counts(pairs: Collection[tuple[Column, Column]], level: float) -> float:
    """What is counted shares anew what it has together, among what was seen at all; one kind of
    each category is kept for what the reference lacks of it.

    In as many parts as there are features, at least: a page is two windows running, and a single
    test at 1 % would make more of those by chance than there may be pages.
    """
    tests = [test for pair in pairs for test in quality.counted(*pair)]
    kept = sum(quality.has_levels(window) for _, window in pairs)
    seen = sum(test.now + test.then > 0 for test in tests)
    return level * (len(tests) - kept) / max(1, len(pairs), seen)


def stuck_lately(
    window: Window, cause: str, card: Card, reference: Reference, level: float
) -> bool:
    """Whether the newest values of an open window are all the same one, where the reference varies:
    what a sequence shows of them is that, and no drift."""
    then, run = _newest_run(window, cause, card, reference)
    if then is None or run < RUN_AT_LEAST:
        return False
    found = quality.excess("stuck", run, run, then.most_frequent, then.present, level)
    return found.state == "fault"


def rests_on_one_value(
    window: Window, cause: str, length: int, card: Card, reference: Reference
) -> bool:
    """Whether an alarm over its last `length` decisions, as far as the open window holds them, saw
    one value only, where the reference varies. There may be too few to call it stuck, and they may
    have begun in the window before: the window's end will know."""
    then, run = _newest_run(window, cause, card, reference)
    return then is not None and run >= max(RUN_AT_LEAST, min(length, len(window)))


def _newest_run(
    window: Window, cause: str, card: Card, reference: Reference
) -> tuple[Column | None, int]:
    """How many of the newest values are one and the same; None where the reference does not vary,
    or there is none."""
    then, values = _newest(window, cause, card, reference)
    if then is None or not then.present:
        return None, 0
    if then.most_frequent > (1 - quality.STUCK_FLOOR) * then.present:
        return None, 0
    newest = next(values, None)
    return then, 1 + sum(1 for _ in takewhile(lambda value: value == newest, values))


def _newest(
    window: Window, cause: str, card: Card, reference: Reference
) -> tuple[Column | None, Iterator[object]]:
    """A cause's column of the reference, and its values in the window, the newest first."""
    decisions = reversed(window.decisions)
    if cause == "score":
        return reference.scores, (one.score for one in decisions)
    name = cause.removeprefix("feature/")
    place = next((at for at, one in enumerate(card.features) if one.name == name), None)
    if place is None or name == cause:
        return None, iter(())
    return reference.columns.get(name), (one.values[place] for one in decisions)


def settled(findings: Findings, suspected: Iterable[str]) -> Findings:
    before = frozenset(suspected)
    return {
        name: tuple(
            quality.settled(one, suspected=f"quality/{name}/{one.kind}" in before) for one in found
        )
        for name, found in findings.items()
    }


def suspected_in(*findings: Findings) -> tuple[str, ...]:
    return tuple(
        f"quality/{name}/{one.kind}"
        for some in findings
        for name, found in sorted(some.items())
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


def faults_of_answers(findings: Findings) -> dict[str, tuple[str, ...]]:
    """As `faults`: they explain what the score shows, and nothing of the features."""
    kinds = tuple(str(one.kind) for one in findings.get("score", ()) if one.state == "fault")
    return {"score": kinds} if kinds else {}


def repeated(window: Window, reference: Reference) -> Finding | None:
    return quality.repeated(window.duplicates(), len(window), reference.duplicates, reference.rows)
