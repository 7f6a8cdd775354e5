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
from numpy.typing import NDArray

from gateway.modelsettings import DriftSettings
from gateway.monitor import domain, twosample
from gateway.monitor.column import Column
from gateway.monitor.domain import Domain, Floats
from gateway.monitor.proportion import Interval, newcombe

RULES = DriftSettings()
"""What holds where a model's settings say nothing. Distances are 0 to 1 and equal for a feature of
two values, so one floor serves both kinds; the figure is that of evidently's default for large
samples. The floor of the outcome is half of it: it is no proxy of what is decided about people but
the thing itself. A correlation that goes from none to a half between two of twelve features gives
an area of 0.58, so does half a sigma's shift."""

SUPPRESSED = "suppressed"
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

    `q_value`: Benjamini-Hochberg's; `significant` is by the correction that the model's settings
    name. `running`: windows in a row, this one included. `suppressed_by`: the quality
    faults that explain it away.
    """

    state: DriftState
    comparison: Comparison | None = None
    significant: bool = False
    q_value: float | None = None
    running: int = 0
    suppressed_by: tuple[str, ...] = ()


def compare(reference: Column, window: Column, rules: DriftSettings = RULES) -> Comparison:
    """Numbers by the test that is set; categories and integers of few values by their counts."""
    if reference.counts is not None and window.counts is not None:
        return compare_counts(reference.counts, window.counts, rules)
    assert reference.numbers is not None
    assert window.numbers is not None
    then, now = reference.numbers, window.numbers
    distance = statistic = twosample.kolmogorov_smirnov(then, now)
    if rules.test == "cramer_von_mises":
        statistic, p_value = twosample.cramer_von_mises(then, now)
    else:
        p_value = twosample.window_p_value(distance, then.size, now.size)
    edges, counts = reference.tenths
    index = twosample.stability(counts, twosample.between(edges, now), rules.alpha)
    return Comparison(
        test=rules.test,
        n=now.size,
        reference_n=then.size,
        statistic=statistic,
        p_value=p_value,
        effect=distance,
        floor=rules.distance,
        psi=index.psi,
        psi_bound=index.bound,
    )


def compare_rows(reference: Domain, window: Floats, rules: DriftSettings = RULES) -> Comparison:
    """All features together, by whether a classifier tells the rows apart."""
    area, p_value = domain.tell_apart(reference, window)
    return Comparison(
        test="domain_classifier",
        n=len(window),
        reference_n=len(reference.rows),
        statistic=area,
        p_value=p_value,
        effect=max(0.0, area - 0.5),
        floor=rules.area,
    )


def compare_counts(
    then: NDArray[np.int64], now: NDArray[np.int64], rules: DriftSettings = RULES
) -> Comparison:
    """Two rows of counts over the same categories."""
    if np.count_nonzero(then + now) < 2:  # all in one place: nothing can differ
        return Comparison(
            "chi_squared", int(now.sum()), int(then.sum()), 0.0, 1.0, 0.0, rules.distance, psi=0.0
        )
    found = twosample.independence(then, now)
    index = twosample.stability(then, now, rules.alpha)
    return Comparison(
        test=found.test,
        n=int(now.sum()),
        reference_n=int(then.sum()),
        statistic=found.statistic,
        p_value=found.p_value,
        effect=twosample.total_variation(then, now),
        floor=rules.distance,
        psi=index.psi,
        psi_bound=index.bound,
    )


def compare_outcomes(
    adverse: int, n: int, reference_adverse: int, reference_n: int, rules: DriftSettings = RULES
) -> Comparison:
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
        floor=rules.outcome,
        difference=newcombe(adverse, n, reference_adverse, reference_n),
    )


def verdicts(
    comparisons: Mapping[str, Comparison],
    running: Mapping[str, int],
    faults: Mapping[str, tuple[str, ...]],
    rules: DriftSettings = RULES,
) -> dict[str, Drift]:
    """Judge the comparisons of one window, by cause; `running` is that of the windows before.

    A cause with `faults` is shown but neither confirmed nor cleared: its count stays.
    """
    if not comparisons:
        return {}
    p_values = [comparison.p_value for comparison in comparisons.values()]
    judged = {}
    for (cause, comparison), q_value in zip(comparisons.items(), q_values_of(p_values)):
        corrected = comparison.p_value * len(comparisons)
        if rules.correction == "benjamini_hochberg":
            corrected = q_value
        significant = corrected < rules.alpha
        seen = significant and comparison.effect >= comparison.floor
        judged[cause] = Drift(
            state=state_after(running.get(cause, 0) + 1 if seen else 0, rules.running),
            comparison=comparison,
            significant=significant,
            q_value=q_value,
            running=running.get(cause, 0) + 1 if seen else 0,
            suppressed_by=faults.get(cause, ()),
        )
    return judged


def q_values_of(p_values: list[float]) -> list[float]:
    """Benjamini and Hochberg's: the least rate of false discoveries at which each is one."""
    found, least = [1.0] * len(p_values), 1.0
    falling = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    for rank, place in zip(range(len(p_values), 0, -1), falling):
        least = min(least, p_values[place] * (len(p_values) / rank))
        found[place] = least
    return found


def state_after(running: int, wanted: int) -> DriftState:
    if running >= wanted:
        return "drift"
    return "watch" if running else "ok"


def telling_state(found: Drift) -> str:
    """What is told of it: that it is not judged, where something else explains it."""
    return SUPPRESSED if found.suppressed_by else found.state


def running_after(before: Mapping[str, int], judged: Mapping[str, Drift]) -> dict[str, int]:
    """The counts that the next window starts from; what was not judged keeps its own."""
    settled = {cause: d.running for cause, d in judged.items() if not d.suppressed_by}
    merged = {**before, **settled}
    return {cause: count for cause, count in sorted(merged.items()) if count > 0}
