"""How others judge a canary by its errors, on the same streams: by block, runs x blocks at once.

Each says from which block on a run is rolled back (-1: never). What is counted is all exchanges, as
their tools do. Written from their documents and the studies of them, not from their code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Counts = NDArray[np.int64]
First = NDArray[np.int64]
MINUTE = 6
"""Blocks."""


def first(failed: NDArray[np.bool_], every: int = 1) -> First:
    """Block after which a row first has failed; columns are `every` blocks long."""
    at = failed.argmax(axis=1)
    return np.where(failed.any(axis=1), (at + 1) * every - 1, -1)


def by_minute(counts: Counts) -> Counts:
    whole = counts.shape[1] // MINUTE * MINUTE
    return counts[:, :whole].reshape(counts.shape[0], -1, MINUTE).sum(axis=2)


def threshold(bad: Counts, total: Counts, largest: float, failures: int) -> First:
    """Argo Rollouts, Flagger: a share per minute over `largest` fails; more than `failures` end it.

    No data is no failure here, which is the kinder reading.
    """
    x, n = by_minute(bad), by_minute(total)
    failed = (n > 0) & (x > largest * n)
    return first(failed.cumsum(axis=1) > failures, MINUTE)


def mann_whitney(
    bad: tuple[Counts, Counts], total: tuple[Counts, Counts], *, every: int = 10,
    tolerance: float = 0.25, confidence: float = 0.98,
) -> First:  # fmt: skip
    """Kayenta: shares per minute of canary and control, judged again every ten minutes.

    Fails when the lower end of the Hodges-Lehmann interval clears the tolerance, a quarter of the
    control's mean.
    """
    points = [by_minute(x) / np.maximum(by_minute(n), 1) for x, n in zip(bad, total)]
    filled = (by_minute(total[0]) > 0) & (by_minute(total[1]) > 0)
    looks = range(every, points[0].shape[1] + 1, every)
    z = stats.norm.ppf((1 + confidence) / 2)
    failed = np.zeros((points[0].shape[0], len(looks)), dtype=bool)
    for run in range(points[0].shape[0]):
        for place, look in enumerate(looks):
            use = filled[run, :look]
            canary, control = points[0][run, :look][use], points[1][run, :look][use]
            m = canary.size
            if m < every:
                continue
            gaps = np.sort((canary[:, None] - control[None, :]).ravel())
            place_low = int(m * m / 2 - z * np.sqrt(m * m * (2 * m + 1) / 12))
            failed[run, place] = gaps[max(0, place_low)] > tolerance * control.mean()
    return first(failed, every * MINUTE)


def z_scores(bad: tuple[Counts, Counts], total: tuple[Counts, Counts]) -> NDArray[np.float64]:
    """Of the difference of two shares, pooled, over all blocks so far."""
    x_c, x_b = (one.cumsum(axis=1) for one in bad)
    n_c, n_b = (np.maximum(one.cumsum(axis=1), 1) for one in total)
    pooled = (x_c + x_b) / (n_c + n_b)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / n_c + 1 / n_b))
    return np.asarray((x_c / n_c - x_b / n_b) / np.maximum(deviation, 1e-12))


def peeked(
    bad: tuple[Counts, Counts], total: tuple[Counts, Counts], level: float, least: int = 200
) -> First:
    """A z-test looked at after every block, from `least` exchanges an arm on."""
    enough = np.minimum(total[0].cumsum(axis=1), total[1].cumsum(axis=1)) >= least
    return first((z_scores(bad, total) > stats.norm.isf(level)) & enough)


def once(bad: tuple[Counts, Counts], total: tuple[Counts, Counts], level: float) -> First:
    """The same test once, at the end: what it is meant for. It can find nothing before."""
    failed = z_scores(bad, total)[:, -1:] > stats.norm.isf(level)
    return np.where(failed[:, 0], total[0].shape[1] - 1, -1)
