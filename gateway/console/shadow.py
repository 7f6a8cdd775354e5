"""How a model's shadows compare with the answers given: one document for API, command and page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from gateway.artifacts import Artifacts, draws
from gateway.catalog import comparisons
from gateway.catalog.comparisons import Compared, Noise
from gateway.comparison.outcome import NOTES
from gateway.monitor.disagreement import (
    Example,
    Explained,
    Segment,
    ShadowReport,
    Share,
    correct,
    covered,
    segment,
    sentences,
    share_of,
    state_of,
)
from gateway.monitor.report import plain
from gateway.table import Model, Version


def reported(
    cursor: Any, model: Model, artifacts: Artifacts, pending: Mapping[str, Any], since: int
) -> dict[str, Any]:
    """`pending`: segments that no leaf has said yet, as the analyst's state has them."""
    steady = {name for name, version in model.versions.items() if _is_steady(version, artifacts)}
    found = comparisons.compared(cursor, model.name, since)
    noise = comparisons.noise(cursor, model.name, since)
    _add_pending(found, pending.get(model.name, {}), since)
    reports = [report_of(version, one, steady, noise) for version, one in found.items()]
    return {"model": model.name, "shadows": [plain(asdict(one)) for one in reports]}


def _add_pending(found: dict[str, Compared], told: Mapping[str, Any], since: int) -> None:
    if told.get("since", 0) < since:
        return
    for version, key, value, n, disagree in told.get("counts", ()):
        if version in found:
            known = found[version].segments.get((key, value), (0, 0))
            found[version].segments[key, value] = (known[0] + n, known[1] + disagree)
    for version, n, *sums in told.get("likeness", ()):
        if version in found:
            count, *before = found[version].likeness
            top, signs, ranks = (a + b for a, b in zip(before, sums))
            found[version].likeness = (count + n, top, signs, ranks)


def _is_steady(version: Version, artifacts: Artifacts) -> bool:
    """In the process, with a graph that always says the same."""
    if version.endpoints or version.artifact is None:
        return False
    return not draws(artifacts.path(version.artifact) / "model.onnx")


def report_of(
    version: str, one: Compared, steady: set[str], noise: Mapping[str, Noise]
) -> ShadowReport:
    """`steady`: versions without noise of their own."""
    coverage = covered(one.n, dict(sorted(one.missing.items())))
    raw = share_of(one.disagree, one.n)
    decisions = share_of(one.decisions[1], one.decisions[0])
    reasons = one.words["reason"]
    own = [noise[name] for name in one.against if name in noise]
    report = ShadowReport(
        version=version,
        state=state_of(coverage),
        against=one.against,
        coverage=coverage,
        raw=raw,
        decisions=decisions,
        noise_is=_noise_is(one, steady, bool(own)),
        noise=share_of(sum(n.disagree for n in own), sum(n.n for n in own)),
        corrected=correct(*one.triples),
        reasons={word: n for word, n in reasons.items() if word not in NOTES},
        directions=_flips(one),
        notes={word: n for word, n in reasons.items() if word in NOTES},
        severity=one.severity,
        apart=one.apart,
        latency=one.latency,
        explained=_explained(one),
        segments=_segments(one, decisions),
        examples=[Example(**example) for example in one.examples],
        words=(),
    )
    return replace(report, words=sentences(report))


def _noise_is(one: Compared, steady: set[str], measured: bool) -> str:
    if measured:
        return "measured"
    return "none" if one.against and one.against.keys() <= steady else "not_measured"


def _flips(one: Compared) -> dict[str, int]:
    return dict(sorted(one.words["direction"].items(), key=lambda item: -item[1]))


def _explained(one: Compared) -> Explained | None:
    n, top, signs, ranks = one.likeness
    return Explained(n, top / n, signs / n, ranks / n) if n else None


def _segments(one: Compared, whole: Share) -> list[Segment]:
    """Of what has one value alone there is nothing to compare."""
    values = Counter(key for key, _ in one.segments)
    made = [
        segment(key, value, *counts, whole)
        for (key, value), counts in one.segments.items()
        if values[key] > 1
    ]
    return sorted(made, key=lambda s: (s.key, -(s.disagree.share or 0.0), s.value))
