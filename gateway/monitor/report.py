"""What is said about one window: the record that goes to the ledger and on to pages and alerts.

A leaf holds no personal data, so a report has counts, shares and quantiles of many values, names
that the card gives, and never a value that a caller sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from gateway.monitor.attribution import AttributionReport
from gateway.monitor.bias import GroupsOfKey
from gateway.monitor.column import QUANTILES, Column
from gateway.monitor.drift import Drift
from gateway.monitor.family import FamilyReport
from gateway.monitor.outcomes import Members
from gateway.monitor.quality import Finding
from gateway.monitor.sequential import Alarm
from gateway.monitor.slices import SliceReport

DIGITS = 6
"""Significant digits of every fraction in a report."""

UNNAMED = "(other)"
"""Stands for all values that the card, or the reference's integers, do not name."""

SEVERITY = ("ok", "watch", "drift", "fault", "breach")
"""States that say something, best first. `not_enough_data`, `no_reference`, `insufficient`, and
`suppressed` by what explains it, say nothing: they neither worsen a window nor make it `ok`."""

ALARMING = frozenset({"drift", "fault", "breach"})


@dataclass(frozen=True)
class Summary:
    """One column for display; the statistics are None when there are too few values to hide in."""

    n: int
    missing: int
    wrong_type: int
    out_of_range: int
    unseen: int
    mean: float | None
    sd: float | None
    quantiles: Mapping[str, float] | None
    shares: Mapping[str, float] | None


@dataclass(frozen=True)
class FeatureReport:
    """`before` is the reference (None: it has no such column), `after` the window."""

    name: str
    type: str
    state: str
    quality: tuple[Finding, ...]
    drift: Drift
    before: Summary | None
    after: Summary


@dataclass(frozen=True)
class ScoreReport:
    """`state` is that of the drift; `quality`: what is wrong with the answers."""

    state: str
    drift: Drift
    quality: tuple[Finding, ...]
    before: Summary | None
    after: Summary


@dataclass(frozen=True)
class OutcomeReport:
    """`adverse`: the word; `share` of `n` decisions got it, `reference_share` of the reference."""

    adverse: str
    state: str
    n: int
    count: int
    share: float | None
    reference_share: float | None
    drift: Drift


@dataclass(frozen=True)
class SequenceReport:
    """What the detectors of one cause said during a window. `level`: 0 to 1, how near the nearest
    was to an alarm at its end; `ids`: the decisions at which it alarmed."""

    cause: str
    state: str
    level: float
    alarms: tuple[Alarm, ...]
    ids: tuple[str, ...]
    suppressed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaselineReport:
    """Against what production was: `kind` of that reference, and the drift by cause."""

    kind: str
    drifts: Mapping[str, Drift]


@dataclass(frozen=True)
class WindowReport:
    """`id`: `<model>/<version>/<arm>/<number>`; times in ns since 1970; `closed_by` count,
    time or, of one that another artifact ended or that made room, cut.

    `first_leaf` and `last_leaf` may hold rows of other windows too: `first_id` and `last_id` name
    the decisions. `joint`: all features together. `judged`: it holds enough to be compared;
    `examples`: decisions spread over it. `opened`, `resolved`: causes whose alarm begins or ends.
    `verdicts`: by cause, the states that are not `ok`. `artifact`: digest of what answered; `anew`:
    another than in the windows before.
    """

    id: str
    artifact: str
    anew: bool
    reference: str
    first_leaf: int
    last_leaf: int
    first_id: str
    last_id: str
    opened_at: int
    closed_at: int
    closed_by: str
    n: int
    judged: bool
    examples: tuple[str, ...]
    state: str
    verdicts: Mapping[str, str]
    alpha: float
    features: tuple[FeatureReport, ...]
    duplicates: Finding | None
    joint: Drift
    score: ScoreReport
    outcome: OutcomeReport | None
    bias: tuple[GroupsOfKey, ...]
    sequences: tuple[SequenceReport, ...]
    family: FamilyReport | None
    baseline: BaselineReport
    attributions: AttributionReport | None
    slices: tuple[SliceReport, ...]
    members: tuple[Members, ...]
    opened: tuple[str, ...]
    resolved: tuple[str, ...]
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values; fractions rounded to `DIGITS` significant digits."""
        return {name: plain(value) for name, value in asdict(self).items()}


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
    return value


def worst(states: Iterable[str]) -> str:
    """The gravest state that says something, or `not_enough_data` if none does."""
    telling = [state for state in states if state in SEVERITY]
    return max(telling, key=SEVERITY.index, default="not_enough_data")


def summarise(column: Column, at_least: int) -> Summary:
    """Statistics are left out below `at_least` values: a median of one is that one's value."""
    hidden = column.comparable < at_least
    figures = None if hidden else column.figures
    return Summary(
        n=column.n,
        missing=column.missing,
        wrong_type=column.wrong_type,
        out_of_range=column.out_of_range,
        unseen=column.unseen,
        mean=figures and figures.mean,
        sd=figures and figures.sd,
        quantiles=figures
        and {f"p{percent}": value for percent, value in zip(QUANTILES, figures.quantiles)},
        shares=None if hidden else shares(column),
    )


def shares(column: Column) -> dict[str, float] | None:
    if column.counts is None or column.levels is None:
        return None
    named = [*(str(level) for level in column.levels), UNNAMED]
    return dict(zip(named, (column.counts / column.counts.sum()).tolist()))
