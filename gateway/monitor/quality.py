"""Data quality comes before drift: a broken feed is the cause, a moved distribution its symptom.

A finding is a `fault` when its share is surely larger than what the reference shows: by Fisher's
exact test, one-sided, in two windows running, or in one where chance is out of the question. It
suppresses the drift alarm of its feature. What the reference never showed, too rare for a fault, is
a `watch`, and so is what was seen once.

Most of a window's tests can show nothing: where neither reference nor window has a value of a wrong
type, there is no alarm to be had. What both have together does not depend on how it is spread over
them, which is all that Fisher's test looks at; so tests without any need no share of the risk
(Tarone, Biometrics 46, 1990), and the others keep it together, however they depend on one another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from scipy import stats

from gateway.monitor import proportion
from gateway.monitor.column import Column

Kind = Literal["missing", "wrong_type", "out_of_range", "unseen", "stuck", "rounded", "duplicates"]
KINDS: tuple[Kind, ...] = ("missing", "wrong_type", "out_of_range", "unseen", "stuck")
"""What each feature is looked at for: so many tests are made of it in each window."""
QualityState = Literal["ok", "watch", "fault"]

REFERENCE_ALPHA = 0.05
"""Risk that the reference's own share is above the bound that stands for it."""

CERTAIN = 1e-6
"""Below this chance one window is enough."""

EXCESS_FLOOR = 0.002
"""Shares that rose by less than 2 in 1,000 are no fault, however sure the rise is."""

STUCK_FLOOR = 0.05
"""A feature that varies in fewer of the reference's rows than this is not a fault when constant:
a flag that is nearly always `no` may be `no` for a while."""

DUPLICATES_FLOOR = 0.2
"""Repeated rows are told from this rise on: retries that double the traffic make it 0.5."""


@dataclass(frozen=True)
class Finding:
    """`count` of `n` values; `at_least` and `reference_at_most` say how far either share
    may be from what was counted (one-sided, exact).

    For `stuck` all four speak of the most frequent value, for `rounded` of the distinct ones that
    are multiples of a step. `chance`: p-value of the test.
    """

    kind: Kind
    state: QualityState
    count: int
    n: int
    share: float
    at_least: float
    reference_share: float
    reference_at_most: float
    chance: float = 1.0
    ids: tuple[str, ...] = ()
    """A few of the decisions whose answers it is about."""
    level: str | None = None
    """Of `unseen`: the category that the card names and the reference does not show; of `rounded`:
    the step in which scores come."""


class Counted(NamedTuple):
    """Two shares to be compared: `now` of `n` in the window, `then` of `m` in the reference."""

    kind: Kind
    now: int
    n: int
    then: int
    m: int


def counted(reference: Column, window: Column) -> list[Counted]:
    """What of a feature is told by counts alone."""
    n, m, present, then = window.n, reference.n, window.present, reference.present
    return [
        Counted("missing", window.missing, n, reference.missing, m),
        Counted("wrong_type", window.wrong_type, n, reference.wrong_type, m),
        Counted("out_of_range", window.out_of_range, present, reference.out_of_range, then),
        Counted("unseen", window.unseen, present, reference.unseen, then),
    ]


def inspect(
    reference: Column, window: Column, alpha: float, of_counts: float
) -> tuple[Finding, ...]:
    """What is not `ok` with a feature: what is `counted` at risk `of_counts` each, what else at
    `alpha`."""
    findings = [excess(*one, of_counts) for one in counted(reference, window) if one.now > 0]
    findings += absent(reference, window, alpha)
    findings += stuck(reference, window, alpha)
    least: dict[Kind, Finding] = {}
    for finding in sorted(findings, key=lambda one: one.chance):
        if finding.state != "ok":
            least.setdefault(finding.kind, finding)
    return tuple(least[kind] for kind in KINDS if kind in least)


def excess(
    kind: Kind, count: int, n: int, reference_count: int, reference_n: int, alpha: float
) -> Finding:
    """Compare two shares of which only the window's being larger is bad."""
    share = count / n
    reference_share = reference_count / reference_n if reference_n else 0.0
    low = proportion.at_least(count, n, alpha)
    high = proportion.at_most(reference_count, reference_n, REFERENCE_ALPHA)
    state: QualityState = "ok"
    # The chance of so many in the window, had the same number been spread over both.
    together = count + reference_count
    chance = float(stats.hypergeom.sf(count - 1, n + reference_n, together, n)) if count else 1.0
    if chance < alpha and share - reference_share >= EXCESS_FLOOR:
        state = "fault"
    elif count > 0 and reference_count == 0:
        state = "watch"
    return Finding(kind, state, count, n, share, low, reference_share, high, chance)


def settled(found: Finding, *, suspected: bool) -> Finding:
    """A fault that one window shows, and that may be chance, waits for the next. `suspected`: the
    window before showed it too."""
    if found.state == "fault" and found.chance >= CERTAIN and not suspected:
        return replace(found, state="watch")
    return found


def has_levels(column: Column) -> bool:
    """Whether it is one of categories that the card names."""
    return column.numbers is None and bool(column.levels)


def absent(reference: Column, window: Column, alpha: float) -> list[Finding]:
    """Categories that the card names and the reference never shows, each for itself: all of those
    together a sample may lack by chance. Any that the card names may be one, so all share."""
    if not has_levels(window) or reference.counts is None or window.counts is None:
        return []
    told = window.levels or ()
    n, m, level = window.present, reference.present, alpha / len(told)
    found = [
        replace(excess("unseen", count, n, 0, m, level), level=str(name))
        for name, count, then in zip(told, window.counts.tolist(), reference.counts.tolist())
        if count and not then
    ]
    return [one for one in found if one.state == "fault"]


def stuck(reference: Column, window: Column, alpha: float) -> list[Finding]:
    """One finding when the window holds a single value where the reference varies."""
    if not 0 < window.present == window.most_frequent or reference.present == 0:
        return []
    found = excess(
        "stuck",
        window.most_frequent,
        window.present,
        reference.most_frequent,
        reference.present,
        alpha,
    )
    if found.state == "fault" and found.reference_share > 1 - STUCK_FLOOR:
        return [replace(found, state="watch")]
    return [found]


def repeated(count: int, n: int, reference_count: int, reference_n: int) -> Finding | None:
    """A fault when many rows of a window repeat one another.

    The reference's share is a fair bound: repeats grow with the size of a sample, and the
    reference is the larger one.
    """
    found = excess("duplicates", count, n, reference_count, reference_n, REFERENCE_ALPHA)
    if found.at_least <= found.reference_at_most:
        return None
    if found.share - found.reference_share < DUPLICATES_FLOOR:
        return None
    return replace(found, state="fault")
