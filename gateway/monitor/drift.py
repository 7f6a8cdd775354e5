"""Drift: has the distribution of a feature, the score or the outcome left the reference?

Three things must hold before anybody is woken. The difference is significant after Bonferroni over
all comparisons of the window; its size is above a floor, since with enough traffic everything is
significant; and the same cause shows it in two windows running. The first time is a `watch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from gateway.monitor import domain, twosample
from gateway.monitor.column import Column
from gateway.monitor.domain import Floats
from gateway.monitor.proportion import Interval, newcombe

ALPHA = 0.01
"""Chance that a window without drift shows anything significant at all, over all comparisons."""

DISTANCE_FLOOR = 0.1
"""Least Kolmogorov-Smirnov distance or total variation that counts (a 0.25 sigma shift is 0.1).
Both are 0 to 1, and equal for a feature of two values, so one floor serves both. The figure is
that of evidently's default for large samples (distance >= 0.1), which the KS floor follows."""

OUTCOME_FLOOR = 0.05
"""Least change of the adverse share that counts. Half the other floor: it is no proxy of what is
decided about people but the thing itself, and 500 decisions can show no less."""

RUNNING = 2
"""Windows in a row that make a `drift`."""

AREA_FLOOR = 0.05
"""Least area under the curve beyond a half by which rows must be told apart. A correlation that
goes from none to a half between two of twelve features gives 0.08, so does half a sigma's shift."""

DriftState = Literal["ok", "watch", "drift", "not_enough_data", "no_reference"]


@dataclass(frozen=True)
class Comparison:
    """One test before any correction; `n` values of the window against `reference_n`."""

    test: str
    n: int
    reference_n: int
    statistic: float | None
    p_value: float
    effect: float
    floor: float
    psi: float | None = None
    psi_bound: float | None = None
    difference: Interval | None = None


@dataclass(frozen=True)
class Drift:
    """A comparison judged among the others of its window.

    `q_value`: Benjamini-Hochberg, for reading; `significant` is Bonferroni. `running`: windows in
    a row, this one included. `suppressed_by`: the quality faults that explain it away.
    """

    state: DriftState
    comparison: Comparison | None = None
    significant: bool = False
    q_value: float | None = None
    running: int = 0
    suppressed_by: tuple[str, ...] = ()


def compare(reference: Column, window: Column) -> Comparison:
    """Numbers by Kolmogorov-Smirnov; categories and integers of few values by their counts."""
    if reference.counts is not None and window.counts is not None:
        return compare_counts(reference, window)
    assert reference.numbers is not None
    assert window.numbers is not None
    then, now = reference.numbers, window.numbers
    distance = twosample.kolmogorov_smirnov(then, now)
    index = twosample.stability(*twosample.binned(then, now), ALPHA)
    return Comparison(
        test="kolmogorov_smirnov",
        n=now.size,
        reference_n=then.size,
        statistic=distance,
        p_value=twosample.kolmogorov_smirnov_p_value(distance, then.size, now.size),
        effect=distance,
        floor=DISTANCE_FLOOR,
        psi=index.psi,
        psi_bound=index.bound,
    )


def compare_rows(reference: Floats, window: Floats) -> Comparison:
    """All features together, by whether a classifier tells the rows apart."""
    area, p_value = domain.tell_apart(reference, window)
    return Comparison(
        test="domain_classifier",
        n=len(window),
        reference_n=len(reference),
        statistic=area,
        p_value=p_value,
        effect=max(0.0, area - 0.5),
        floor=AREA_FLOOR,
    )


def compare_counts(reference: Column, window: Column) -> Comparison:
    then, now = reference.counts, window.counts
    assert then is not None
    assert now is not None
    found = twosample.independence(then, now)
    index = twosample.stability(then, now, ALPHA)
    return Comparison(
        test=found.test,
        n=int(now.sum()),
        reference_n=int(then.sum()),
        statistic=found.statistic,
        p_value=found.p_value,
        effect=twosample.total_variation(then, now),
        floor=DISTANCE_FLOOR,
        psi=index.psi,
        psi_bound=index.bound,
    )


def compare_outcomes(adverse: int, n: int, reference_adverse: int, reference_n: int) -> Comparison:
    """Adverse share now against the share that the reference's scores would have had."""
    then = np.array([reference_adverse, reference_n - reference_adverse], dtype=np.int64)
    now = np.array([adverse, n - adverse], dtype=np.int64)
    found = twosample.independence(then, now)
    return Comparison(
        test=found.test,
        n=n,
        reference_n=reference_n,
        statistic=found.statistic,
        p_value=found.p_value,
        effect=abs(adverse / n - reference_adverse / reference_n),
        floor=OUTCOME_FLOOR,
        difference=newcombe(adverse, n, reference_adverse, reference_n),
    )


def verdicts(
    comparisons: Mapping[str, Comparison],
    running: Mapping[str, int],
    faults: Mapping[str, tuple[str, ...]],
) -> dict[str, Drift]:
    """Judge the comparisons of one window, by cause; `running` is that of the windows before.

    A cause with `faults` is shown but neither confirmed nor cleared: its count stays.
    """
    if not comparisons:
        return {}
    level = ALPHA / len(comparisons)
    p_values = [comparison.p_value for comparison in comparisons.values()]
    q_values = stats.false_discovery_control(p_values, method="bh")
    judged = {}
    for (cause, comparison), q_value in zip(comparisons.items(), q_values):
        significant = comparison.p_value < level
        seen = significant and comparison.effect >= comparison.floor
        judged[cause] = Drift(
            state=state_after(running.get(cause, 0) + 1 if seen else 0),
            comparison=comparison,
            significant=significant,
            q_value=float(q_value),
            running=running.get(cause, 0) + 1 if seen else 0,
            suppressed_by=faults.get(cause, ()),
        )
    return judged


def state_after(running: int) -> DriftState:
    if running >= RUNNING:
        return "drift"
    return "watch" if running else "ok"


def running_after(before: Mapping[str, int], judged: Mapping[str, Drift]) -> dict[str, int]:
    """The counts that the next window starts from; what was not judged keeps its own."""
    settled = {cause: d.running for cause, d in judged.items() if not d.suppressed_by}
    merged = {**before, **settled}
    return {cause: count for cause, count in sorted(merged.items()) if count > 0}
