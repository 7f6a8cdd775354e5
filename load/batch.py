"""The judge of `gateway/rollout`, written a second time: over many runs at once, with scipy.

Only the guards of the benchmark. Two hundred times as fast, and an oracle: the tests hold its
e-values against the judge's, run by run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gateway.rollout import comparison, measure
from gateway.rollout.block import PairCounts
from gateway.rollout.comparison import Rules
from gateway.rollout.eprocess import FRACTIONS, STAKES, STEADY
from gateway.rollout.guard import Plan
from gateway.rollout.histogram import GROWTH
from gateway.rollout.question import Arms, EachGroup, Share
from load.streams import Arm, Case, steps

Array = NDArray[Any]
LOG_2 = math.log(2)


def half_normal(s: Array, v: Array, rho: float) -> Array:
    z = s / np.sqrt(v + rho)
    return np.asarray(LOG_2 + 0.5 * np.log(rho / (v + rho)) + z * z / 2 + special.log_ndtr(z))


def sign(k: Array, n: Array) -> Array:
    tail = np.log(special.betainc(n - k + 1, k + 1, 0.5))
    return np.asarray((n + 1) * LOG_2 + special.betaln(1 + k, 1 + n - k) + tail)


@dataclass
class Bets:
    """`eprocess.Paired` of many runs."""

    sums: Array  # s, v, up, moved, far_up, far

    def add(self, full: Array, d: Array, far: Array) -> None:
        up, moved = d > 0, d != 0
        for row, one in enumerate((d, d * d, up, moved, far & up, far & moved)):
            self.sums[row] += np.where(full, one, 0)

    def log_worse(self, rho: float) -> Array:
        s, v, up, moved, far_up, far = self.sums
        parts = (half_normal(s, v, rho), sign(up, moved), sign(far_up, far))
        return np.asarray(special.logsumexp(parts, axis=0) - math.log(3))


class Compared:
    """`comparison.Comparison` of many runs, by windows; who fills these says when one is full."""

    def __init__(self, runs: int, rules: Rules) -> None:
        self.rules = rules
        self.noise, self.noise_windows, self.scale = np.zeros(runs), np.zeros(runs), np.zeros(runs)
        self.paired, self.recent = Bets(np.zeros((6, runs))), Bets(np.zeros((6, runs)))
        self.begun, self.banked = np.ones(runs), np.full(runs, -np.inf)
        self.recent_windows, self.step = np.zeros(runs), -1
        self.quiet = np.full(runs, comparison.QUIET)
        self.units = np.zeros((2, runs))

    def begin_again(self, step: int) -> None:
        due = (self.recent_windows > 0) & (
            (self.recent_windows >= comparison.RECENT_WINDOWS) | (step != self.step)
        )
        self.step = step
        won = -np.log(self.begun * (self.begun + 1)) + self.recent.log_worse(self.rules.rho_worse)
        self.banked = np.where(due, np.logaddexp(self.banked, won), self.banked)
        self.begun += due
        self.recent.sums[:, due] = 0
        self.recent_windows[due] = 0

    def window(
        self, full: Array, difference: Array, sizes: tuple[Array, Array], evidence: bool,
        nominal: Array | None = None,
    ) -> None:  # fmt: skip
        times = np.sqrt(np.minimum(*sizes))
        new = full & (self.scale == 0)
        self.noise += np.where(new, (difference * times) ** 2, 0)
        self.noise_windows += new
        if not evidence:
            return
        margin = self.rules.margin
        spread = np.sqrt(self.noise / np.maximum(self.noise_windows, 1))
        scale = np.maximum(
            np.maximum(margin * times / 20, 1e-9), spread if nominal is None else nominal
        )
        self.scale = np.where(new, scale, self.scale)
        w = times / np.where(full, self.scale, 1)
        bound = np.maximum(comparison.FAR, 3 * margin * w)
        d = np.clip(difference * w, -bound, bound) - margin * w
        far = full & (np.abs(difference * w) >= bound)
        counted = far & (self.quiet >= comparison.QUIET)
        self.paired.add(full, d, counted)
        self.recent.add(full, d, counted)
        self.recent_windows += full
        self.quiet = np.where(far, -1, self.quiet)
        self.units += np.where(full, np.stack(sizes), 0)

    def log_worse(self) -> Array:
        rho = self.rules.rho_worse
        recent = -np.log(self.begun * (self.begun + 1)) + self.recent.log_worse(rho)
        by_step = np.logaddexp(np.logaddexp(self.banked, recent), -np.log(self.begun + 1))
        return np.logaddexp(self.paired.log_worse(rho), by_step) - LOG_2

    def log_safe(self) -> Array:
        s, v, up, moved, *_ = self.paired.sums
        sizes = half_normal(-s, v, self.rules.rho_safe)
        if not self.rules.safe_by_signs:
            return sizes
        return np.asarray(np.logaddexp(sizes, sign(moved - up, moved)) - LOG_2)


@dataclass
class Said:
    """When each run first said which word, 0 for never (blocks count from 1); e-values by block."""

    level: tuple[float, float]
    least: int
    runs: int
    tops: Array = field(init=False)
    first: dict[str, Array] = field(init=False)
    logs: list[tuple[Array, Array]] = field(default_factory=list)
    safe: list[tuple[int, Array]] = field(default_factory=list)
    """By block of evidence, its place and which runs are safe after it."""

    def __post_init__(self) -> None:
        self.tops = np.zeros((2, self.runs))
        self.first = {word: np.zeros(self.runs, int) for word in ("worse", "safe")}

    def take(
        self, place: int, worse: Array, safe: Array, units: Array, safe_top: Array | None = None
    ) -> None:
        self.logs.append((worse, safe))
        self.tops = np.maximum(self.tops, (worse, safe))
        enough = units >= self.least
        beta = -math.log(self.level[1])
        is_worse = enough & (self.tops[0] >= -math.log(self.level[0]))
        top = self.tops[1] if safe_top is None else safe_top
        is_safe = enough & ~is_worse & (top >= beta) & (safe >= 0) & (worse < beta)
        self.safe.append((place, is_safe))
        for word, now in (("worse", is_worse), ("safe", is_safe)):
            at = self.first[word]
            self.first[word] = np.where((at == 0) & now, place, at)


def stacked(sides: Sequence[tuple[Arm, Arm]], name: str) -> tuple[Array, Array]:
    """runs x blocks of one count, canary and control."""
    return (np.stack([getattr(one[0], name) for one in sides]),
            np.stack([getattr(one[1], name) for one in sides]))  # fmt: skip


def judged(
    plan: Plan, case: Case, sides: Sequence[tuple[Arm, Arm]], shadows: Sequence[list[PairCounts]]
) -> dict[str, Said]:
    """What each guard said of each run."""
    told = {}
    warm = plan.settings.evidence.warmup / 10
    begin = case.shadow_blocks + warm
    for guard, alpha, asked in zip(plan.settings.guards, plan.alphas, plan.questions):
        said = Said((alpha, plan.settings.evidence.beta), plan.settings.evidence.min_requests,
                    len(sides))  # fmt: skip
        if isinstance(asked, Share):
            _pairs(asked, shadows, said, warm)
        elif isinstance(asked, EachGroup):
            said.least = asked.min_per_group
            _groups(asked, case, sides, said, begin)
        elif isinstance(asked, Arms) and isinstance(asked.rules.measure, measure.Rate):
            _errors(asked.rules, case, sides, said, begin)
        else:
            assert isinstance(asked, Arms)
            _latency(asked.rules, case, sides, said, begin)
        told[guard.name] = said
    return told


def _errors(
    rules: Rules, case: Case, sides: Sequence[tuple[Arm, Arm]], said: Said, begin: float
) -> None:
    runs = len(sides)
    compared = Compared(runs, rules)
    units, bad = stacked(sides, "units"), stacked(sides, "bad_units")
    past, window, late = np.zeros((4, runs)), np.zeros((4, runs)), np.zeros((4, runs))
    blocks = np.zeros(runs)
    stakes, steady = np.zeros((runs, len(STAKES))), np.zeros((runs, len(STEADY)))
    for place, step in enumerate(steps(case)):
        evidence = place >= begin
        counts = np.stack([units[0][:, place], bad[0][:, place], units[1][:, place],
                           bad[1][:, place]]).astype(float)  # fmt: skip
        if place == begin:
            window[:], blocks[:] = 0, 0
        if evidence:
            compared.begin_again(step)
            expected = (past[3] + 0.5) / (past[2] + comparison.PRIOR_UNITS)
            stakes += _difference(counts, rules.margin, expected)
            late += counts
            steady += _steady(late, rules.burst_margin)
        past += counts
        window += counts
        blocks += 1
        n_c, x_c, n_b, x_b = window
        full = (n_c > 0) & (n_b > 0)
        if rules.margin:
            sized = np.minimum(n_c, n_b) * rules.margin >= measure.MARGIN_EVENTS
            full &= sized | (x_c + x_b >= measure.EVENTS) | (blocks >= measure.BLOCKS_MAX)
        rate = (past[1] + past[3] + 0.5) / (past[0] + past[2] + 1)
        gap = x_c / np.maximum(n_c, 1) - x_b / np.maximum(n_b, 1)
        compared.window(full, gap, (n_c, n_b), evidence, np.sqrt(2 * rate * (1 - rate)))
        window[:, full] = 0
        blocks[full] = 0
        if evidence:
            compared.quiet += 1
            safe = compared.log_safe()
            for logs in (stakes, steady):
                mean = special.logsumexp(logs, axis=1) - math.log(logs.shape[1])
                safe = np.minimum(safe, mean)
            said.take(place + 1, compared.log_worse(), safe, compared.units.min(axis=0))


def _difference(counts: Array, margin: float, expected: Array) -> Array:
    n_c, x_c, n_b, x_b = (one[:, None] for one in counts)
    a, p = STAKES[None, :], expected[:, None]
    room = n_b * (1 - a * (margin + p)) - n_c * a * p
    b = np.where(room > 0, n_c * a / np.maximum(room, 1e-12), 1e6)
    b = np.where(n_b > 0, b, a)
    both = np.maximum(n_c + n_b, 1)
    worst = np.clip((n_b * b * (1 - margin * a) - n_c * a) / (a * np.maximum(b, 1e-300) * both),
                    0, 1 - margin)  # fmt: skip
    bound = n_c * np.log1p(-(worst + margin) * a) + n_b * np.log1p(worst * b)
    gained = x_c * np.log1p(-a) + x_b * np.log1p(b) - bound
    return np.where(n_c > 0, gained, 0)


def _steady(late: Array, margin: float) -> Array:
    """What the bets against bursts gain; takes what they have seen out of `late`."""
    full = np.minimum(late[0], late[2]) >= comparison.BURST_UNITS
    top = comparison.BURST
    excess = np.clip(late[1] / np.maximum(late[0], 1) - late[3] / np.maximum(late[2], 1), -top, top)
    edge = (margin - excess) / (top - margin)
    gained = np.where(full[:, None], np.log1p(np.array(STEADY) * edge[:, None]), 0)
    late[:, full] = 0
    return gained


def _latency(
    rules: Rules, case: Case, sides: Sequence[tuple[Arm, Arm]], said: Said, begin: float
) -> None:
    compared = Compared(len(sides), rules)
    share = rules.measure.share  # type: ignore[union-attr]
    assert share is not None
    least = max(measure.PER_UNIT_AT_LEAST, math.ceil(2 / (1 - share) - 1e-9))
    used = np.flatnonzero(sum(one.latency.sum(axis=0) for pair in sides for one in pair))
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    window = [np.zeros((len(sides), high - low)) for _ in (0, 1)]
    for place, step in enumerate(steps(case)):
        evidence = place >= begin
        if place == begin:
            window = [np.zeros_like(one) for one in window]
        if evidence:
            compared.begin_again(step)
        for side in (0, 1):
            window[side] += np.stack([pair[side].latency[place, low:high] for pair in sides])
        sizes = window[0].sum(axis=1), window[1].sum(axis=1)
        full = np.minimum(*sizes) >= least
        if full.any():
            values = [np.zeros(len(sides)), np.zeros(len(sides))]
            for side in (0, 1):
                values[side][full] = _log_quantile(window[side][full], share, low)
                window[side][full] = 0
            compared.window(full, values[0] - values[1], sizes, evidence)
        if evidence:
            compared.quiet += 1
            said.take(place + 1, compared.log_worse(), compared.log_safe(),
                      compared.units.min(axis=0))  # fmt: skip


def _log_quantile(counts: Array, share: float, low: int) -> Array:
    below = counts.cumsum(axis=1)
    wanted = share * below[:, -1]
    at = (below >= wanted[:, None]).argmax(axis=1)
    rows = np.arange(at.size)
    inside = counts[rows, at]
    part = (wanted - (below[rows, at] - inside)) / inside
    return np.asarray((low + at - 1 + part) * math.log(GROWTH))


def _groups(
    asked: EachGroup, case: Case, sides: Sequence[tuple[Arm, Arm]], said: Said, begin: float
) -> None:
    """Two groups, both seen in the canary's first block: a third of the capital each."""
    runs = len(sides)
    counts = [np.stack([np.stack(pair[side].groups) for pair in sides]) for side in (0, 1)]
    changes, behinds = ([Compared(runs, asked.rules) for _ in (0, 1)] for _ in (0, 1))
    gaps = [[np.zeros((runs, 4)) for _ in (0, 1)] for _ in (0, 1)]
    alone = [np.zeros((runs, 4)) for _ in (0, 1)]
    tops = np.zeros((2, runs))
    for place, step in enumerate(steps(case)):
        evidence = place >= begin
        worse, safe = [], []
        for group in (0, 1):
            order = [0, 1, 2, 3] if group == 0 else [2, 3, 0, 1]
            now = [one[:, order, place] for one in counts]
            if place == begin:
                gaps[group] = [np.zeros((runs, 4)), np.zeros((runs, 4))]
                alone[group] = np.zeros((runs, 4))
            change, behind = changes[group], behinds[group]
            if evidence:
                change.begin_again(step)
                behind.begin_again(step)
            for side in (0, 1):
                gaps[group][side] += now[side]
            alone[group] += now[0]
            sizes = tuple(one[:, [0, 2]].min(axis=1) for one in gaps[group])
            full = np.minimum(*sizes) >= measure.GROUP_AT_LEAST
            change.window(full, _gap(gaps[group][0]) - _gap(gaps[group][1]),
                          (sizes[0], sizes[1]), evidence)  # fmt: skip
            for one in gaps[group]:
                one[full] = 0
            full = alone[group][:, [0, 2]].min(axis=1) >= measure.GROUP_AT_LEAST
            behind.window(full, _gap(alone[group]), (alone[group][:, 2], alone[group][:, 0]),
                          evidence)  # fmt: skip
            alone[group][full] = 0
            if evidence:
                change.quiet += 1
                behind.quiet += 1
                worse.append(np.minimum(change.log_worse(), behind.log_worse()))
                safe.append(np.logaddexp(change.log_safe(), behind.log_safe()) - LOG_2)
        if evidence:
            capital = np.logaddexp(np.logaddexp(worse[0], worse[1]), 0) - math.log(3)
            tops = np.maximum(tops, safe)
            units = np.stack([one.units.min(axis=0) for one in changes]).min(axis=0)
            said.take(place + 1, capital, np.minimum(*safe), units, tops.min(axis=0))


def _gap(counts: Array) -> Array:
    own, good, rest, rest_good = counts.T
    return np.asarray(rest_good / np.maximum(rest, 1) - good / np.maximum(own, 1))


def _pairs(asked: Share, shadows: Sequence[list[PairCounts]], said: Said, begin: float) -> None:
    runs = len(shadows)
    what = "disagreements" if asked.metric == "disagree" else "flips"
    parts, largest = np.array(FRACTIONS), asked.largest
    above, below = np.zeros((runs, parts.size)), np.zeros((runs, parts.size))
    steady, total = np.zeros((runs, len(STEADY))), np.zeros(runs)
    bursts = asked.bursts
    assert bursts is not None
    for place in range(len(shadows[0]) if shadows else 0):
        units = np.array([run[place].units for run in shadows], float)
        events = np.array([getattr(run[place], what) for run in shadows], float)
        if place < begin:
            continue
        x = events / np.maximum(units, 1)
        seen = (units > 0)[:, None]
        above += np.where(seen, np.log1p(parts * ((x - largest) / largest)[:, None]), 0)
        below += events[:, None] * np.log1p(-parts)
        below += (units - events)[:, None] * np.log1p(parts * largest / (1 - largest))
        edge = ((bursts - x) / (1 - bursts))[:, None]
        steady += np.where(seen, np.log1p(np.array(STEADY) * edge), 0)
        total += units
        worse, *safe = (special.logsumexp(one, axis=1) - math.log(one.shape[1])
                        for one in (above, below, steady))  # fmt: skip
        said.take(place + 1, worse, np.minimum(*safe), total)
