"""How a shadow's answers differ from those given: the report, and its figures. Pure.

Three shares. *Raw*: exchanges that disagree, of those compared. *Noise*: how often the version that
answered disagrees with its own second answer. *Corrected*: over triples of first answer, second
answer and shadow's answer, (n10 - n01) / n, where n10 counts triples in which the shadow alone
differed from the first answer, n01 those in which the second answer alone did. Copies are lost when
there is much to do, so what is missing is not missing at random: below `COVERAGE` of what was to be
compared the figures are shown and called inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from gateway.monitor.proportion import CONFIDENCE, Interval, normal_quantile, wilson

COVERAGE = 0.95
SEGMENT_AT_LEAST = 30
"""Decisions of a segment before it may stand out: there are many segments, and a few small ones are
always far from the whole."""


@dataclass(frozen=True)
class Share:
    """`count` of `n`, with Wilson's interval; None: there is nothing to count."""

    n: int
    count: int
    share: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Corrected:
    """Over `n` triples; `difference` is (n10 - n01) / n, `interval` Agresti's and Min's."""

    n: int
    n10: int
    n01: int
    difference: float
    interval: Interval


@dataclass(frozen=True)
class Coverage:
    """`eligible`: copies that were drawn; `missing`: those not compared, by reason."""

    eligible: int
    compared: int
    share: float | None
    missing: Mapping[str, int]


@dataclass(frozen=True)
class Segment:
    key: str
    value: str
    stands_out: bool
    disagree: Share


@dataclass(frozen=True)
class Example:
    """One disagreement: both decisions by their ids."""

    reason: str
    direction: str | None
    severity: float
    id: str
    primary: str
    at: str


@dataclass(frozen=True)
class Explained:
    """Means over `n` decisions that both versions explain: share of the four strongest features in
    common, of those with the same sign, rank correlation of strengths."""

    n: int
    top: float
    signs: float
    order: float


@dataclass(frozen=True)
class ShadowReport:
    """`state`: compared, inconclusive (coverage below 95 %) or nothing (none compared).

    `against`: versions that answered, with exchanges. `noise_is`: measured, none (a graph that
    always says the same) or not_measured. `reasons` and `directions` count decisions; `notes` those
    that agree with a remark. `severity` is of what disagrees, `apart` of all scores compared:
    quantiles p50, p95 and most. `latency`, in ms, of pairs that both answered: `given`, `shadow`.
    """

    version: str
    state: str
    against: Mapping[str, int]
    coverage: Coverage
    raw: Share
    decisions: Share
    noise_is: str
    noise: Share
    corrected: Corrected | None
    reasons: Mapping[str, int]
    directions: Mapping[str, int]
    notes: Mapping[str, int]
    severity: Mapping[str, float] | None
    apart: Mapping[str, float] | None
    latency: Mapping[str, Mapping[str, float]] | None
    explained: Explained | None
    segments: Sequence[Segment]
    examples: Sequence[Example]
    words: Sequence[str]


def share_of(count: int, n: int) -> Share:
    return Share(n, count, count / n, wilson(count, n)) if n else Share(0, 0, None, None)


def correct(n: int, n10: int, n01: int) -> Corrected | None:
    """None without triples. The interval adds half an observation to each of the four cells
    (Agresti and Min, Statistics in Medicine 24, 2005, 729-740)."""
    if not n:
        return None
    size = n + 2
    difference = (n10 - n01) / size
    variance = (n10 + n01 + 1) / size - difference**2
    half = normal_quantile(CONFIDENCE) * sqrt(variance / size)
    interval = Interval(max(-1.0, difference - half), min(1.0, difference + half))
    return Corrected(n, n10, n01, (n10 - n01) / n, interval)


def covered(compared: int, missing: Mapping[str, int]) -> Coverage:
    eligible = compared + sum(missing.values())
    return Coverage(eligible, compared, compared / eligible if eligible else None, missing)


def state_of(coverage: Coverage) -> str:
    if not coverage.compared:
        return "nothing"
    assert coverage.share is not None
    return "compared" if coverage.share >= COVERAGE else "inconclusive"


def segment(key: str, value: str, n: int, disagree: int, whole: Share) -> Segment:
    """It stands out where its whole interval lies above that of all."""
    found = share_of(disagree, n)
    above = (
        n >= SEGMENT_AT_LEAST
        and found.interval is not None
        and whole.interval is not None
        and found.interval.low > whole.interval.high
    )
    return Segment(key, value, above, found)


def sentences(report: ShadowReport) -> list[str]:
    """The report for somebody who reads one paragraph."""
    coverage, raw = report.coverage, report.raw
    if report.state == "nothing":
        lost = _listed(coverage.missing)
        return [f"Nothing of `{report.version}` was compared{f': {lost}' if lost else ''}."]
    assert raw.interval is not None
    said = [
        f"`{report.version}` differs from the answers given in {raw.share:.2%} of {raw.n:,} "
        f"exchanges [{raw.interval.low:.2%}, {raw.interval.high:.2%}]."
    ]
    if report.directions:
        said.append(f"Decisions that flip: {_listed(report.directions)}.")
    said.append(_noise(report))
    order = sorted(report.segments, key=lambda one: -(one.disagree.share or 0.0))
    out = [f"`{one.key}` `{one.value}` ({one.disagree.share:.1%} of {one.disagree.n:,})"
           for one in order if one.stands_out]  # fmt: skip
    if out:
        said.append(f"It differs more than elsewhere in {', '.join(out[:5])}.")
    if report.state == "inconclusive":
        said.append(
            f"Inconclusive: {coverage.share:.1%} of {coverage.eligible:,} copies were compared, "
            f"{COVERAGE:.0%} are wanted; missing: {_listed(coverage.missing)}."
        )
    return said


def _noise(report: ShadowReport) -> str:
    if report.noise_is == "none":
        return "The version that answers always says the same: all of it is the shadow's."
    found = report.corrected
    if found is None:
        return "Noise is not measured: `shadow.noise` asks the version that answers twice."
    low, high = found.interval
    return (f"Less the noise of the version that answers: {found.difference:+.2%} of {found.n:,} "
            f"triples [{low:+.2%}, {high:+.2%}].")  # fmt: skip


def _listed(counts: Mapping[str, int]) -> str:
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"`{word}` {count:,}" for word, count in order)
