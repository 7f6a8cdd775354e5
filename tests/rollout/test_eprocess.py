"""E-processes against slow exact sums, integrals and expectations by enumeration."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from gateway.rollout import eprocess
from gateway.rollout.eprocess import (
    Bounded,
    Difference,
    Paired,
    Stratified,
    excluded,
    log_fair_tail,
    log_half_normal,
    log_mean_exp,
    log_sample_ratio,
    log_sign,
    odds_sums,
    rho_for,
    steady,
)
from gateway.rollout.wager import Wager


def log_fraction(value):
    """Logarithm of a positive fraction of any size."""
    return math.log(value.numerator) - math.log(value.denominator)


@pytest.mark.parametrize("n", [1, 2, 7, 40, 301])
def test_fair_tail_is_the_binomial_sum(n):
    """log P(Binomial(n, 1/2) <= k) by whole numbers, for every k."""
    for k in range(n + 1):
        exact = Fraction(sum(math.comb(n, j) for j in range(k + 1)), 2**n)
        assert log_fair_tail(k, n) == pytest.approx(log_fraction(exact), rel=1e-12, abs=1e-12)


def test_fair_tail_is_scipy_s_incomplete_beta():
    """1 - I_{1/2}(k + 1, n - k), where scipy can still say it."""
    for k, n in ((10, 100), (480, 1000), (5200, 10_000), (499_000, 10**6), (501_000, 10**6)):
        expected = math.log(special.betaincc(k + 1, n - k, 0.5))
        assert log_fair_tail(k, n) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 3), (0, 9), (5, 9), (20, 25), (11, 40)])
def test_sign_is_the_mixture_it_says(k, n):
    """2 times the integral over p in (1/2, 1) of (2p)^k (2 - 2p)^(n - k), as a polynomial."""
    total = Fraction(0)
    for j in range(n - k + 1):
        power = k + j + 1
        area = (1 - Fraction(1, 2) ** power) / power
        total += math.comb(n - k, j) * (-1) ** j * area
    assert log_sign(k, n) == pytest.approx(log_fraction(2 * 2**n * total), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("rho", [0.3, 2.6, 50.0])
@pytest.mark.parametrize(("s", "v"), [(0, 0), (4, 9), (-12, 40), (30, 80), (-3, 0.5)])
def test_half_normal_is_the_mixture_it_says(s, v, rho):
    """The closed form equals the integral over the half-normal prior."""
    area, _ = integrate.quad(
        lambda x: 2 * stats.norm.pdf(x, scale=rho**-0.5) * math.exp(x * s - x * x * v / 2),
        0, 12 / math.sqrt(rho + v) + max(0, s) / (rho + v), epsabs=0, epsrel=1e-11,
    )  # fmt: skip
    assert log_half_normal(s, v, rho) == pytest.approx(math.log(area), rel=1e-8, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0, 3)), min_size=1, max_size=9))
def test_paired_is_fair_under_every_assignment(windows):
    """Over all ways to swap the arms, the mean of either part is at most 1, with any margins.

    A window is a difference whose sign is a coin, less a margin: equal versions, whatever else.
    """
    parts = ([], [])
    for signs in itertools.product((1, -1), repeat=len(windows)):
        state = Paired()
        for sign, (size, margin) in zip(signs, windows):
            state = state.after(sign * size - margin)
        parts[0].append(math.exp(state.log_self_normalised(2.6)))
        parts[1].append(math.exp(log_sign(state.up, state.moved)))
    assert np.mean(parts[0]) <= 1 + 1e-9
    assert np.mean(parts[1]) <= 1 + 1e-9


def test_safe_mirrors_worse():
    """The self-normalised part for safe is that for worse with the arms swapped."""
    state = mirrored = Paired()
    for d in (0.4, -1.2, 0.1, -0.9, -2.0):
        state, mirrored = state.after(d), mirrored.after(-d)
    assert state.log_safe(2.6) == mirrored.log_self_normalised(2.6)


@pytest.mark.parametrize(("n_c", "n_b", "k"), [(5, 7, 4), (30, 11, 20), (400, 380, 55), (9, 2, 10)])
def test_odds_sums_are_whole_number_sums(n_c, n_b, k):
    """Ratios of sum_j C(n_c, j) C(n_b, k - j) theta^j, theta rational, to 12 digits."""
    thetas = [Fraction(1), Fraction(5, 4), Fraction(2), Fraction(8), Fraction(20)]
    exact = [
        sum(math.comb(n_c, j) * math.comb(n_b, k - j) * theta**j
            for j in range(max(0, k - n_b), min(n_c, k) + 1))
        for theta in thetas
    ]  # fmt: skip
    found = odds_sums(n_c, n_b, k, np.log([float(theta) for theta in thetas]))
    for place in range(1, len(thetas)):
        expected = log_fraction(Fraction(exact[place], exact[0]))
        assert found[place] - found[0] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_odds_sums_of_extreme_counts():
    """A million each with half a million bad: still exact, in a window around the largest terms."""
    n, k, theta = 4000, 3000, 3.0
    j = np.arange(0, k + 1)
    logs = (special.gammaln(n + 1) * 2 - special.gammaln(j + 1) - special.gammaln(n - j + 1)
            - special.gammaln(k - j + 1) - special.gammaln(n - k + j + 1))  # fmt: skip
    expected = special.logsumexp(logs + j * math.log(theta)) - special.logsumexp(logs)
    one, three = odds_sums(n, n, k, np.log([1.0, theta]))
    assert three - one == pytest.approx(expected, rel=1e-9)
    one, eight = odds_sums(10**6, 10**6, 10**6, np.log([1.0, 8.0]))
    assert math.isfinite(eight - one)


@pytest.mark.parametrize("tolerated", [1.0, 1.25, 3.0])
def test_stratified_is_fair_given_the_margins(tolerated):
    """At the tolerated odds ratio its mean over all tables of these margins is 1; below, less."""
    n_c, n_b, k = 12, 9, 7
    means = []
    for theta in (tolerated, (1 + tolerated) / 2):
        low, high = max(0, k - n_b), min(n_c, k)
        chances = np.array(
            [math.comb(n_c, x) * math.comb(n_b, k - x) * theta**x for x in range(low, high + 1)]
        )
        es = [
            math.exp(Stratified().after(n_c, x, n_b, k - x, tolerated).log_e())
            for x in range(low, high + 1)
        ]
        means.append(float(np.sum(chances / chances.sum() * es)))
    assert means[0] == pytest.approx(1, rel=1e-9)
    assert means[1] <= 1 + 1e-9


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("expected", [0.0005, 0.05, 0.7])
@pytest.mark.parametrize(("n_c", "n_b"), [(20, 20), (5, 30), (8, 0)])
def test_difference_is_fair_at_every_rate(margin, expected, n_c, n_b):
    """Its mean is at most 1 wherever p_c >= p_b + margin, whatever rate was expected."""
    es = np.array([
        [math.exp(Difference().after(n_c, x_c, n_b, x_b, margin, expected).log_e())
         for x_b in range(n_b + 1)] for x_c in range(n_c + 1)
    ])  # fmt: skip
    for p_b in (0.0, 0.01, 0.2, 0.5, 0.79):
        for p_c in (p_b + margin, min(1.0, p_b + margin + 0.1)):
            canary = stats.binom.pmf(np.arange(n_c + 1), n_c, p_c)
            control = stats.binom.pmf(np.arange(n_b + 1), n_b, p_b)
            assert canary @ es @ control <= 1 + 1e-9


def test_difference_is_the_rule_of_three():
    """3 / margin units without one bad are enough for 1 / 0.05, and hardly fewer."""
    state, units = Difference(), 0
    while state.log_e() < math.log(20):
        state, units = state.after(50, 0, 50, 0, 0.002, 0.5 / (units + 50)), units + 50
    assert 1500 <= units <= 3500


@settings(deadline=None)
@given(st.floats(0.001, 0.9), st.lists(st.booleans(), max_size=40))
def test_bounded_of_single_events_is_bernoulli_s(mean, events):
    """One unit a block: a mixture of likelihood ratios of p against the mean."""
    state = Bounded()
    for event in events:
        state = state.after(float(event), mean, 0.0)
    logs = []
    for part in eprocess.FRACTIONS:
        p = mean + part * (1 - mean)
        k = sum(events)
        logs.append(k * math.log(p / mean) + (len(events) - k) * math.log((1 - p) / (1 - mean)))
    assert state.log_e() == pytest.approx(log_mean_exp(logs), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(st.floats(0.01, 0.5), st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0, 1))
def test_bounded_is_fair_for_any_law(mean, points, weight):
    """Two points with that mean: the bettors' mean capital is 1; with a lower mean, less."""
    low, high = min(points) * mean, mean + max(points) * (1 - mean)
    if high - low < 1e-9:
        return
    chance = (mean - low) / (high - low) * weight
    after = [math.exp(Bounded().after(x, mean, 0.0).log_e()) for x in (low, high)]
    assert (1 - chance) * after[0] + chance * after[1] <= 1 + 1e-9


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.1])
def test_labels_of_pairs_are_mcnemar_s(margin):
    """Each labelled pair is one fair bet, in whatever order; without a tolerance pairs that are
    both right or both wrong say nothing, and the rest is a mixture over p of (p, 1 - p) coins."""
    worse, better, alike = (1 + margin) / 2 * 0.2, (1 - margin) / 2 * 0.2, 0.8
    mean = worse - better
    parts = {1.0: worse, -1.0: better, 0.0: alike}
    gained = {x: math.exp(Bounded().after(x, mean, -1.0).log_e()) for x in parts}
    assert sum(share * gained[x] for x, share in parts.items()) == pytest.approx(1)
    one = Wager().after_each({1.0: 7, -1.0: 3, 0.0: 40}, mean=margin, low=-1.0, high=1.0)
    other = Wager()
    for x, times in ((0.0, 40), (-1.0, 3), (1.0, 7)):
        for _ in range(times):
            other = other.after_each({x: 1}, mean=margin, low=-1.0, high=1.0)
    assert one.above.logs == pytest.approx(other.above.logs)
    assert one.below.logs == pytest.approx(other.below.logs)
    assert (one.units, one.total) == (other.units, other.total) == (50, 4)
    if not margin:
        coins = [10 * math.log(2) + 7 * math.log(p) + 3 * math.log(1 - p)
                 for p in ((1 + part) / 2 for part in eprocess.FRACTIONS)]  # fmt: skip
        assert one.above.log_e() == pytest.approx(log_mean_exp(coins))


def test_sample_ratio_is_fair():
    """Its mean over Binomial(n, 1/2) is 1, and it finds a slice that is a tenth narrower."""
    mean = sum(
        math.comb(40, k) / 2**40 * math.exp(log_sample_ratio((k, 40 - k), (0.5, 0.5)))
        for k in range(41)
    )
    assert mean == pytest.approx(1, rel=1e-9)
    assert log_sample_ratio((9_000, 10_000), (0.5, 0.5)) > math.log(1000)
    assert log_sample_ratio((9_950, 10_050), (0.5, 0.5)) < 0


def test_nothing_overflows():
    """After years of blocks and with absurd counts, logarithms stay numbers."""
    for s, v in ((1e9, 1e3), (-1e9, 1e3), (0, 1e300), (1e150, 1e200), (-1e150, 1.0)):
        assert not math.isnan(log_half_normal(s, v, 2.6))
    for k, n in ((0, 10**8), (10**8, 10**8), (5 * 10**7, 10**8), (50_100_000, 10**8)):
        assert math.isfinite(log_sign(k, n))
    assert math.isfinite(log_sample_ratio((10**12, 10**12), (0.5, 0.5)))
    assert math.isfinite(Difference().after(10**9, 10**7, 10**9, 0, 0.002, 0.0).log_e())
    assert log_half_normal(-31, 0.9, 0.1) == pytest.approx(
        math.log(2) + 0.5 * math.log(0.1) + 31**2 / 2 + special.log_ndtr(-31), abs=1e-6
    )


@pytest.mark.parametrize("signs", [False, True])
def test_safe_is_fair_for_a_shift_by_the_margin(signs):
    """d of a canary that is worse by just the margin is symmetric: over all signs of a sequence of
    sizes the mean is at most 1 after each window, and 1/b is ever reached by at most b of them."""
    sizes, rho = (0.3, 2.5, 1.0, 0.1, 4.0, 1.3, 0.7, 1.0, 2.0), rho_for(0.05, 60.0)
    told = []
    for turned in itertools.product((-1, 1), repeat=len(sizes)):
        state, row = Paired(), []
        for sign, size in zip(turned, sizes):
            state = state.after(sign * size)
            row.append(math.exp(state.log_safe(rho, signs)))
        told.append(row)
    es = np.array(told)
    assert (es.mean(axis=0) <= 1 + 1e-9).all()
    for b in (0.5, 0.2, 0.05):
        assert (es.max(axis=1) >= 1 / b).mean() <= b
    assert es.max() > (20 if signs else 5)


@pytest.mark.parametrize("most", [0.2, 1.0])
def test_bursts_are_excluded_as_far_as_time_allows(most):
    """All blocks well: half of the planned ones convince, whatever was planned; and with time the
    margin is what is asked for. Not more than it may be, not less than is tolerated."""
    for blocks in (2, 6, 18, 100, 700):
        bound = excluded(blocks, 0.002, most, 0.05)
        assert 0.002 < bound < most
        bets = steady()
        for _ in range(blocks // 2):
            bets = bets.after(0.0, -bound, -most)
        assert bets.log_e() == pytest.approx(math.log(20), abs=math.log(2))
        assert bets.log_e() >= math.log(20) - 1e-9
    assert excluded(1e6, 0.002, most, 0.05) == excluded(None, 0.002, most, 0.05) == 0.002
    assert excluded(0.1, 0.002, most, 1e-300) <= most


def test_pairs_that_are_safe_are_shown_so_by_pairs_and_by_blocks():
    """The rule of three by pairs, and not by one block of them; a burst of disagreement in each
    fourth block is not safe, however few pairs it is of all."""
    one = Wager(steady=steady()).after_pairs(0, 10_000, mean=0.02, bursts=0.3)
    assert one.safe.now == one.steady.log_e() < math.log(20) < one.below.log_e()
    good = bursty = one
    for number in range(40):
        good = good.after_pairs(1, 1000, mean=0.02, bursts=0.3)
        bad = 100 if number % 4 else 0
        bursty = bursty.after_pairs(0 if bad else 100, 100 if not bad else 10_000,
                                    mean=0.02, bursts=0.2)  # fmt: skip
    assert good.safe.now > math.log(20)
    assert bursty.below.log_e() > math.log(20)
    assert bursty.safe.now < 0
    assert Wager.read(good.to_json()) == good


def test_rho_is_tightest_where_it_says():
    """The boundary S at variance v is lowest for the rho that is meant for v."""

    def boundary(rho, v):
        low, high = 0.0, 1e3
        while high - low > 1e-6:
            half = (low + high) / 2
            low, high = (
                (low, half) if log_half_normal(half, v, rho) > math.log(100) else (half, high)
            )
        return low

    best = boundary(rho_for(0.01, 30.0), 30.0)
    assert best <= 1.01 * min(boundary(rho, 30.0) for rho in np.geomspace(0.05, 100, 60))
