"""Pages by chance are rarer than whole windows can be judged in a benchmark: here by array.

A window's test wakes nobody unless its distance passes the floor in two windows running, so
distances are computed for many windows at once, and only two running ones over the floor are put
to the monitor's own test. Data quality and the sequential detectors are the monitor's own.
`chance.py` judges fewer windows as a whole: the domain classifier, the rolling baseline,
attributions, slices and groups are there.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gateway.monitor import drift, flaws, quality
from gateway.monitor.column import Column, single
from gateway.monitor.panel import Panel, panel_of
from gateway.monitor.reference import Reference, score_column
from gateway.monitor.sequential import Alarm, SequenceState, advance_by, begin
from load import mixed
from load.chance import rate
from load.pages import Table
from load.synthetic import THRESHOLD

COUNT, BLOCK, STRIDE = 500, 50, 1_000
COMPARISONS = len(mixed.NAMES) + 3
"""Of a window without attributions: with them there are twice as many, and each has less level."""
COUNTED = 4 * len(mixed.NAMES) - len(mixed.LEVELS)
LEVEL = flaws.level_of(mixed.CARD, drift.RULES.alpha) * COUNTED / len(mixed.NAMES)
"""As `flaws.level_of_counts` has it: of this traffic fewer kinds are ever seen than features."""
CAUSES = ("feature, score or outcome", "quality", "sequence")
Columns = dict[str, NDArray[Any]]
Alarms = NDArray[np.bool_]


def rare(scale: float, processes: int) -> list[Table]:
    references, blocks = max(2, round(30 * scale)), 22 if scale >= 0.1 else 2
    told: Counter[str] = Counter()
    with ProcessPoolExecutor(processes) as pool:
        for found in pool.map(watched, range(references), [blocks] * references):
            told.update(found)
    total = references * blocks * BLOCK
    rows = [[f"page: {name}", *rate(told[name], total), ""] for name in CAUSES]
    rows += [["page: any of these", *rate(told["any"], total), "1"],
             ["first signs (`watch`): a distance over its floor",
              *rate(told["over the floor"], total), ""],
             ["first signs: an alarm of a detector", *rate(told["alarm"], total), ""],
             ["first signs: a fault of data", *rate(told["fault"], total), ""],
             ["dummy: an alarm in each hundredth window by dice", *rate(told["dummy"], total),
              ""]]  # fmt: skip
    note = (f"{total:,} windows of {COUNT} without drift, {references} references of 5,000, mixed "
            "traffic as above; features, score, outcome, data quality and sequential detectors, by "
            "array (`load/rare.py`).")  # fmt: skip
    columns = ["rule", "windows with it", "per 10,000", "95 % (exact)", "target"]
    return [("Pages by chance, many windows", note, columns, rows)]


def watched(seed: int, blocks: int) -> Counter[str]:
    """One reference's windows that said each thing."""
    reference, _ = mixed.reference_of(seed + 1000)
    panel = panel_of(
        mixed.CARD, reference, drift.RULES.sequential.shift, drift.RULES.sequential.run
    )
    dice = np.random.default_rng([seed, 120])
    state = begin(panel)
    told: Counter[str] = Counter()
    carried: dict[str, tuple[bool, Any]] = {}
    for _ in range(blocks):
        columns = mixed.drawn(dice, COUNT * BLOCK)
        pages = {CAUSES[0]: _of_tests(reference, columns, carried, told),
                 CAUSES[1]: _of_quality(reference, columns, carried, told)}  # fmt: skip
        state, pages[CAUSES[2]] = _of_sequences(panel, state, columns, told)
        for name, found in pages.items():
            told[name] += int(found.sum())
        told["any"] += int(np.logical_or.reduce(list(pages.values())).sum())
        told["dummy"] += int((dice.random(BLOCK) < 0.01).sum())
    return told


def _of_tests(
    reference: Reference, columns: Columns, carried: dict[str, Any], told: Counter[str]
) -> Alarms:
    """Windows with a cause over its floor and significant, as was the one before."""
    found = np.zeros(BLOCK, dtype=bool)
    scores = mixed.scores_of(columns)
    causes: list[tuple[str, Column, NDArray[Any]]] = [
        (name, reference.columns[name], columns[name]) for name in mixed.NAMES
    ]
    assert reference.scores is not None
    for name, then, values in [*causes, ("score", reference.scores, scores)]:
        windows = values.reshape(BLOCK, COUNT)
        size = distances(then, values)
        over = size >= drift.RULES.distance
        found |= _twice(name, over, carried, told,
                        lambda at, n=name, t=then, w=windows: _significant(n, t, w[at])
                        )  # fmt: skip
    assert reference.adverse is not None
    adverse = (scores >= THRESHOLD).reshape(BLOCK, COUNT).sum(axis=1)
    gap = np.abs(adverse / COUNT - reference.adverse / reference.rows)
    found |= _twice("outcome", gap >= drift.RULES.outcome, carried, told, lambda at: (
        drift.compare_outcomes(int(adverse[at]), COUNT, reference.adverse or 0, reference.rows)
        .p_value * COMPARISONS < drift.RULES.alpha))  # fmt: skip
    return found


def _twice(
    name: str, over: Alarms, carried: dict[str, Any], told: Counter[str], significant: Any
) -> Alarms:
    seen = over.copy()
    for at in np.flatnonzero(over).tolist():
        seen[at] = significant(at)
    told["over the floor"] += int(over.sum())
    before = np.concatenate([[carried.get(name, False)], seen[:-1]])
    carried[name] = bool(seen[-1])
    return np.asarray(seen & before)


def _significant(name: str, then: Column, values: NDArray[Any]) -> bool:
    if name == "score":
        now = score_column(values)
    else:
        feature = next(one for one in mixed.CARD.features if one.name == name)
        now = Column.of_window(feature, [None if v != v else v for v in values.tolist()], then)
    return drift.compare(then, now).p_value * COMPARISONS < drift.RULES.alpha


def distances(then: Column, values: NDArray[Any]) -> NDArray[np.float64]:
    """Of each window, what `drift.compare` calls its effect."""
    if then.counts is not None:
        levels = np.array(then.levels, dtype=values.dtype)
        shares = np.stack([(values == one).reshape(-1, COUNT).sum(axis=1) for one in levels])
        rest = COUNT - shares.sum(axis=0) - (values != values).reshape(-1, COUNT).sum(axis=1)
        now = np.concatenate([shares, rest[None, :]])
        gaps = then.counts[:, None] / then.counts.sum() - now / now.sum(axis=0)
        return np.asarray(np.abs(gaps).sum(axis=0) / 2)
    assert then.numbers is not None
    numbers = single(np.asarray(values, dtype=np.float64))
    found = np.empty(len(numbers) // COUNT)
    for at, window in enumerate(numbers.reshape(-1, COUNT)):
        now = np.sort(window[~np.isnan(window)])
        below = np.searchsorted(then.numbers, now, side="left") / then.numbers.size
        upto = np.searchsorted(then.numbers, now, side="right") / then.numbers.size
        steps = np.arange(now.size + 1) / now.size
        found[at] = max(np.max(steps[1:] - upto), np.max(below - steps[:-1]))
    return found


def _of_quality(
    reference: Reference, columns: Columns, carried: dict[str, Any], told: Counter[str]
) -> Alarms:
    found = np.zeros(BLOCK, dtype=bool)
    for feature in mixed.CARD.features:
        then, values = reference.columns[feature.name], columns[feature.name]
        gone = (values != values).reshape(BLOCK, COUNT).sum(axis=1)
        odd = np.zeros(BLOCK, dtype=np.int64)
        if feature.type == "category":
            named = np.isin(values.astype(str), feature.categories or ())
            odd = (~named).reshape(BLOCK, COUNT).sum(axis=1)
        elif feature.range is not None:
            low, high = feature.range
            odd = ((values < low) | (values > high)).reshape(BLOCK, COUNT).sum(axis=1)
        of_odd = then.unseen if feature.type == "category" else then.out_of_range
        for kind, counts, n, before, m in (
            ("missing", gone, np.full(BLOCK, COUNT), then.missing, then.n),
            ("odd", odd, COUNT - gone, of_odd, then.present),
        ):
            chance = stats.hypergeom.sf(counts - 1, n + m, counts + before, n)
            fault = (chance < LEVEL) & (counts / n - before / m >= quality.EXCESS_FLOOR)
            told["fault"] += int(fault.sum())
            name = f"{kind} {feature.name}"
            last = np.concatenate([[carried.get(name, False)], fault[:-1]])
            carried[name] = bool(fault[-1])
            found |= fault & (last | (chance < quality.CERTAIN))
    return found


def _of_sequences(
    panel: Panel, state: SequenceState, columns: Columns, told: Counter[str]
) -> tuple[SequenceState, Alarms]:
    scores = mixed.scores_of(columns)
    bins = []
    for place in panel.places:
        name = place.cause.removeprefix("feature/")
        if place.cause == "outcome":
            bins.append((scores >= THRESHOLD).astype(np.int64))
        elif place.edges is None:
            fell = np.full(len(scores), -1, dtype=np.int64)
            for at, level in enumerate(place.levels):
                fell[columns[name] == level] = at
            bins.append(fell)
        else:
            values = single(scores if place.cause == "score" else columns[name])
            fell = np.searchsorted(place.edges, values, side="left")
            bins.append(np.where(np.isnan(values), -1, fell))
    begun, fed = state.seen, np.stack(bins, axis=1)
    alarms: list[Alarm] = []
    for first in range(0, len(fed), STRIDE):  # a piece fits a cache
        state, more = advance_by(
            panel, state, fed[first : first + STRIDE], drift.RULES.sequential.confirm
        )
        alarms += more
    found = np.zeros(BLOCK, dtype=bool)
    told["alarm"] += len({(one.at - begun - 1) // COUNT for one in alarms})
    for one in alarms:
        found[(one.at - begun - 1) // COUNT] |= one.confirmed
    return state, found
