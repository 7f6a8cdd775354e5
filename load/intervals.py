"""Data quality's exact tests, intervals of groups, and the states of the four-fifths rule."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from scipy import stats

from gateway.monitor import bias, drift, flaws, proportion, quality
from gateway.monitor.column import Column
from load.pages import Table
from load.synthetic import CARD, FEATURES, REFERENCE_ROWS

PAGES = 1e-4
"""Chance of a page in a window without drift, of all causes together: one in 10,000."""


def missing(scale: float) -> list[Table]:
    """A missing rate that rises from 1 % to 3 %, and an unseen category at 0.5 %: what the first
    window says, and the second."""
    repeats = max(50, int(1000 * scale))
    dice = np.random.default_rng(8)
    rows = []
    count = 1000
    fixed = flaws.level_of(CARD, drift.RULES.alpha)
    some = Column(count, 1, 0, 0, 0, 1, np.empty(0), None, None)
    level = flaws.level_of_counts([(some, some)] * FEATURES, fixed)
    cases = (("missing", 0.01, 0.03), ("missing", 0.01, 0.05), ("missing", 0.01, 0.01),
             ("missing", 0.1, 0.1), ("unseen", 0.0, 0.005), ("unseen", 0.0, 0.0))  # fmt: skip
    for name, before, now in cases:
        first = second = watch = 0
        for _ in range(repeats):
            then = int(dice.binomial(REFERENCE_ROWS, before))
            one, other = (
                quality.excess("missing", int(dice.binomial(count, now)), count, then,
                               REFERENCE_ROWS, level)
                for _ in range(2)
            )  # fmt: skip
            begun = quality.settled(one, suspected=False).state
            after = quality.settled(other, suspected=one.state == "fault").state
            first += begun == "fault"
            watch += begun == "watch"
            second += "fault" in (begun, after)
        rows.append([name, f"{100 * before:g} %", f"{100 * now:g} %",
                     *(f"{100 * n / repeats:.1f} %" for n in (first, watch, second))])  # fmt: skip
    note = (
        f"Windows of 1,000, {FEATURES} features of which each lacks values; level "
        f"{drift.RULES.alpha:g} for all features and kinds of a window. {repeats} times."
    )
    levels = {"as it is": level, "were it shared by all kinds, seen or not": fixed,
              "one test alone": drift.RULES.alpha, "at once (a page)": quality.CERTAIN,
              "at once, were all pages there may be for it": PAGES}  # fmt: skip
    seen = [
        [f"{rows_there:,}", *(f"{100 * seen_by(rows_there, one):.0f} %" for one in levels.values())]
        for rows_there in (REFERENCE_ROWS, 10_000, 50_000)
    ]
    seen.append(["known exactly", *(f"{100 * seen_at_best(one):.0f} %" for one in levels.values())])
    return [
        ("Data quality", note, ["kind", "reference", "now", "first window: fault", "watch",
                                "fault by the second"], rows),
        ("What an exact test can see of it", "Calculated: the chance that a window of 1,000 with "
         "3 % missing is significantly over a reference with 1 %, by the rows of the reference and "
         "the level. With a share that is known exactly: the most powerful test there is (Neyman "
         "and Pearson).",
         ["reference rows", *levels], seen),
    ]  # fmt: skip


def seen_by(
    rows: int, level: float, n: int = 1000, before: float = 0.01, now: float = 0.03
) -> float:
    """Power of Fisher's one-sided test, over all that the reference may have shown."""
    total = 0.0
    for then in range(*(int(stats.binom.ppf(q, rows, before)) for q in (1e-5, 1 - 1e-5))):
        least = least_seen(then, rows, level, n)
        total += stats.binom.pmf(then, rows, before) * stats.binom.sf(least - 1, n, now)
    return float(total)


def seen_at_best(level: float, n: int = 1000, before: float = 0.01, now: float = 0.03) -> float:
    """Power of the binomial test of a share that is known, randomised up to its level."""
    least = int(stats.binom.isf(level, n, before)) + 1
    at_least = stats.binom.sf(least - 1, n, before)
    rest = (level - at_least) / stats.binom.pmf(least - 1, n, before)
    return float(stats.binom.sf(least - 1, n, now) + rest * stats.binom.pmf(least - 1, n, now))


def least_seen(then: int, rows: int, level: float, n: int) -> int:
    """Of `n`, so many are significantly more than `then` of the reference's rows."""
    return bisect_left(
        range(n), True,
        key=lambda now: float(stats.hypergeom.sf(now - 1, n + rows, now + then, n)) < level,
    )  # fmt: skip


def coverage(scale: float) -> list[Table]:
    """Coverage of the 95 % intervals, and the states of the four-fifths rule."""
    repeats = max(500, int(10_000 * scale))
    dice = np.random.default_rng(9)
    rows = []
    cases = ((100, 400, 0.5, 0.8), (300, 1000, 0.3, 0.8), (300, 1000, 0.9, 0.8),
             (1000, 1000, 0.7, 1.0), (855, 855, 0.3, 0.8))  # fmt: skip
    for n, other, share, ratio in cases:
        difference = inside = 0
        for _ in range(repeats):
            a, b = int(dice.binomial(n, share * ratio)), int(dice.binomial(other, share))
            if min(a, b, n - a, other - b) == 0:
                continue
            gap = proportion.newcombe(a, n, b, other)
            of = proportion.katz(a, n, b, other)
            difference += gap.low <= share * ratio - share <= gap.high
            inside += of.low <= ratio <= of.high
        rows.append([f"{n} of {share * ratio:.2f}, {other} of {share:g}", f"{ratio:g}",
                     *(f"{100 * k / repeats:.1f} %" for k in (difference, inside))])  # fmt: skip
    states = []
    for ratio in (1.0, 0.9, 0.8, 0.7, 0.6):
        told = {"insufficient": 0, "ok": 0, "watch": 0, "breach": 0}
        plain = 0
        for _ in range(repeats // 5):
            a, b = int(dice.binomial(1000, 0.5 * ratio)), int(dice.binomial(1000, 0.5))
            own, theirs = (a, 1000 - a), (b, 1000 - b)
            if not (bias.is_sufficient(*own) and bias.is_sufficient(*theirs)):
                told["insufficient"] += 1
                continue
            later, others = int(dice.binomial(1000, 0.5 * ratio)), int(dice.binomial(1000, 0.5))
            since = (later, 1000 - later, others, 1000 - others)
            told[bias.state_of(bias.compare_groups("b", own, theirs), a / 1000, since)] += 1
            plain += a / b < 0.8
        n = repeats // 5
        shares = [told["ok"], told["watch"], told["breach"], plain]
        states.append([f"{ratio:g}", *(f"{100 * share / n:.1f} %" for share in shares)])
    return [
        ("Intervals of two groups", f"{repeats} draws; nominal 95 %, target 93 to 97 %.",
         ["groups: size and rate", "true ratio", "difference (Newcombe)", "ratio (Katz)"], rows),
        ("States of the four-fifths rule",
         "Two groups of 1,000, the higher rate 0.5, and as many new "
         "decisions that may confirm a `breach`. The last column is the point ratio below 0.8, "
         "which knows no doubt.",
         ["true ratio", "ok", "watch", "breach", "point value says below 0.8"], states),
    ]  # fmt: skip
