"""Evidence that may be looked at after every block.

An e-process is a product of bets against a null hypothesis, at fair or worse odds: under the null
it is never above 1/a with a chance of more than a, over all time at once (Ville 1939). So a verdict
is taken at each block, and nothing is corrected for having looked. Everything here is in natural
logarithms, grows block by block, and has a state that is plain numbers. `docs/verdicts.md` says
which form judges what; the benchmark there is of this code.

    Paired         two arms, exchangeable in each block: any statistic, any bursts   (the default)
    Difference     rare events of independent units: is the difference below a margin?
    Stratified     rare events of independent units: is the odds ratio above a margin?
    Bounded        the mean of a bounded quantity, however its values hang together in a block
    sign, sample ratio   closed forms of counts

Sources: de la Pena, Ann. Probab. 27 (1999); Howard et al., Probab. Surv. 17 (2020),
arXiv:1808.03204
and Ann. Stat. 49 (2021), arXiv:1810.08240; Turner, Ly and Grunwald, JSPI 230 (2024),
arXiv:2106.02693; Waudby-Smith and Ramdas, JRSS-B 86 (2024), arXiv:2010.09686; Lindon and Malek,
NeurIPS 2022, arXiv:2011.03567.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOG_2 = math.log(2)
FAR_BELOW = -30.0
"""Below this many standard deviations the normal tail is read from its asymptotic series."""


def log_mean_exp(logs: Sequence[float]) -> float:
    """Of e-processes, the average, which is one."""
    top = max(logs)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))


def log_scaled_tail(z: float) -> float:
    """log(exp(z^2 / 2) Phi(z)), without overflow on either side."""
    if z > FAR_BELOW:
        return z * z / 2 + math.log(math.erfc(-z / math.sqrt(2)) / 2)
    inverse = 1 / (z * z)
    series = 1 - inverse * (1 - 3 * inverse * (1 - 5 * inverse * (1 - 7 * inverse)))
    return math.log(series / (-z * math.sqrt(2 * math.pi)))


def log_half_normal(s: float, v: float, rho: float) -> float:
    """Mixture of exp(l s - l^2 v / 2) over a half-normal l > 0 of variance 1/rho.

    One-sided: 2 sqrt(rho / (v + rho)) exp(s^2 / 2(v + rho)) Phi(s / sqrt(v + rho)). With v the sum
    of squares it is an e-process if each increment is symmetric, or such less a margin.
    """
    return LOG_2 + 0.5 * math.log(rho / (v + rho)) + log_scaled_tail(s / math.sqrt(v + rho))


def rho_for(level: float, v: float) -> float:
    """The rho that makes the mixture's boundary for `level` tightest near variance `v`."""
    wanted = -2 * math.log(level)
    return v / (wanted + math.log(1 + wanted))


def log_fair_tail(k: int, n: int) -> float:
    """log P(Binomial(n, 1/2) <= k), exact: a sum of like-signed terms from the largest one on.

    This is 1 - I_{1/2}(k + 1, n - k), the incomplete beta function of whole numbers.
    """
    if k >= n:
        return 0.0
    if 2 * k >= n:
        return math.log1p(-math.exp(log_fair_tail(n - k - 1, n)))
    if k < 0:
        return -math.inf
    total = term = 1.0
    for j in range(k, 0, -1):
        term *= j / (n - j + 1)
        total += term
        if term < 1e-17 * total:
            break
    log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return log_choose - n * LOG_2 + math.log(total)


def log_sign(k: int, n: int) -> float:
    """Evidence that more than half of n are of one kind, k of them are; mixed over (1/2, 1).

    2^(n+1) B(1 + k, 1 + n - k) P(Binomial(n + 1, 1/2) <= k). The null is P <= 1/2, each given the
    past. It is McNemar's test of discordant pairs too.
    """
    log_beta = math.lgamma(1 + k) + math.lgamma(1 + n - k) - math.lgamma(n + 2)
    return (n + 1) * LOG_2 + log_beta + log_fair_tail(k, n + 1)


def log_sample_ratio(counts: Sequence[int], shares: Sequence[float], weight: float = 100) -> float:
    """Evidence that units do not come in these shares: Dirichlet-multinomial against them.

    The alternative is Dirichlet(`weight` x shares), so it looks near the shares first.
    """
    prior = [weight * share for share in shares]
    log_e = math.lgamma(weight) - math.lgamma(weight + sum(counts))
    for count, share, start in zip(counts, shares, prior):
        log_e += math.lgamma(start + count) - math.lgamma(start) - count * math.log(share)
    return log_e


@dataclass(frozen=True, slots=True)
class Paired:
    """Two arms that are exchangeable in each window, compared by any statistic.

    `d`: statistic of the canary less that of the control less the margin, times a factor that is
    the same if the arms are swapped. If both arms are alike, d plus the margin is symmetric,
    whatever the traffic, its bursts and its tails: that is all that is assumed of equal versions.
    """

    s: float = 0.0
    v: float = 0.0
    up: int = 0
    moved: int = 0
    """Windows with d > 0, and with d other than 0."""
    far_up: int = 0
    far: int = 0
    """The same, of windows in which the arms were far apart."""

    def after(self, d: float, far: bool = False) -> Paired:
        """`far` must not change when the arms are swapped."""
        up, moved = d > 0, d != 0
        return Paired(
            self.s + d, self.v + d * d, self.up + up, self.moved + moved,
            self.far_up + (far and up), self.far + (far and moved),
        )  # fmt: skip

    def log_self_normalised(self, rho: float) -> float:
        return log_half_normal(self.s, self.v, rho)

    def log_worse(self, rho: float) -> float:
        """A third each: self-normalised, which uses sizes; signs, which no burst can drown; and
        signs of windows far apart, which find a version that fails in bursts only."""
        return log_mean_exp((
            self.log_self_normalised(rho), log_sign(self.up, self.moved),
            log_sign(self.far_up, self.far),
        ))  # fmt: skip

    def log_safe(self, rho: float, signs: bool = False) -> float:
        """That the canary is not worse by the margin or more.

        Self-normalised, which has half a nat of each window at most. `signs`, which have log 2, get
        half of the capital where d is of a quantile of many; not of rates: among few events the
        sign of d is that of the margin.
        """
        sizes = log_half_normal(-self.s, self.v, rho)
        if not signs:
            return sizes
        return log_mean_exp((sizes, log_sign(self.moved - self.up, self.moved)))


def odds_sums(n_c: int, n_b: int, k: int, log_thetas: NDArray[np.float64]) -> NDArray[np.float64]:
    """log sum_j C(n_c, j) C(n_b, k - j) theta^j for thetas >= 1, up to one common constant.

    Terms further than 40 standard deviations from every theta's largest one are below the last bit.
    """
    low, high = max(0, k - n_b), min(n_c, k)
    spread = 60 + 40 * math.sqrt(min(k, n_c, n_b, n_c + n_b - k))
    first = _largest_term(n_c, n_b, k, math.exp(log_thetas.min()))
    last = _largest_term(n_c, n_b, k, math.exp(log_thetas.max()))
    low, high = max(low, math.floor(first - spread)), min(high, math.ceil(last + spread))
    j = np.arange(low, high, dtype=np.float64)
    steps = np.log((n_c - j) * (k - j)) - np.log((j + 1) * (n_b - k + j + 1))
    terms = np.concatenate([[0.0], np.cumsum(steps)])
    weighed = terms + np.outer(log_thetas, np.arange(low, high + 1))
    top = weighed.max(axis=1)
    return np.asarray(top + np.log(np.exp(weighed - top[:, None]).sum(axis=1)))


def _largest_term(n_c: int, n_b: int, k: int, theta: float) -> float:
    """Where C(n_c, j) C(n_b, k - j) theta^j is largest, give or take one."""
    b = theta * (n_c + k) + n_b - k
    c = theta * n_c * k
    return 2 * c / (b + math.sqrt(max(0.0, b * b - 4 * (theta - 1) * c)))


THETAS = np.exp(np.linspace(math.log(1.1), math.log(8), 24))
"""Odds ratios that are looked for, as multiples of the one that is tolerated."""


@dataclass(frozen=True, slots=True)
class Stratified:
    """Whether bad units are more frequent in the canary: 2x2 tables, one a block, margins given.

    Conditional on k bad units of both arms the canary's share depends on the odds ratio alone, so
    any split, any ramp and any common change of the rate is allowed. But units of a block must be
    independent: bursts in one arm roll back healthy versions (docs/verdicts.md has how often).
    """

    logs: tuple[float, ...] = (0.0,) * len(THETAS)

    def after(self, n_c: int, x_c: int, n_b: int, x_b: int, tolerated: float) -> Stratified:
        """`tolerated`: odds ratio of the null, >= 1, known before the block."""
        k = x_c + x_b
        if not k or not n_c or not n_b or k == n_c + n_b:
            return self
        start = math.log(tolerated)
        log_thetas = np.concatenate([[0.0], np.log(THETAS)]) + start
        sums = odds_sums(n_c, n_b, k, log_thetas)
        gained = x_c * (log_thetas[1:] - start) + sums[0] - sums[1:]
        return Stratified(tuple((np.array(self.logs) + gained).tolist()))

    def log_e(self) -> float:
        return log_mean_exp(self.logs)


STAKES = np.geomspace(0.004, 0.98, 12)


@dataclass(frozen=True, slots=True)
class Difference:
    """That p_c - p_b is below `margin`, from units of which each is bad or not.

    exp(-l x_c + m x_b) over its largest expectation under p_c >= p_b + margin, which has a closed
    form; m is chosen so that this is reached at the rate expected of the control. One stake, A =
    1 - exp(-l), for each entry of `STAKES`. With no bad unit at all it is the rule of three.
    """

    logs: tuple[float, ...] = (0.0,) * len(STAKES)

    def after(
        self, n_c: int, x_c: int, n_b: int, x_b: int, margin: float, expected: float
    ) -> Difference:
        """`expected`: the control's rate, known before the block; a wrong one costs power only."""
        if not n_c:
            return self
        a = STAKES
        room = n_b * (1 - a * (margin + expected)) - n_c * a * expected
        b = np.where(room > 0, n_c * a / np.maximum(room, 1e-12), 1e6) if n_b else a
        worst = (n_b * b * (1 - margin * a) - n_c * a) / (a * b * (n_c + n_b))
        worst = np.clip(worst, 0.0, 1 - margin)
        bound = n_c * np.log1p(-(worst + margin) * a) + n_b * np.log1p(worst * b)
        gained = x_c * np.log1p(-a) + x_b * np.log1p(b) - bound
        return Difference(tuple((np.array(self.logs) + gained).tolist()))

    def log_e(self) -> float:
        return log_mean_exp(self.logs)


STEADY = (0.3, 0.95)
"""Fractions for a bet that nothing but rare bursts can spoil."""
FRACTIONS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Bounded:
    """That the mean of x is above `mean`, x >= low: capital of bettors who stake fractions of it.

    A block's x is the mean over its units, so nothing is assumed about how these hang together.
    With one unit a block and x in {0, 1} it is the mixture of Bernoulli likelihood ratios.
    """

    logs: tuple[float, ...] = (0.0,) * len(FRACTIONS)
    fractions: tuple[float, ...] = FRACTIONS

    def after(self, x: float, mean: float, low: float, times: int = 1) -> Bounded:
        """`times`: so many bets, one after the other, that all came out at x."""
        edge = (x - mean) / (mean - low)
        logs = (
            log + times * math.log1p(part * edge) for log, part in zip(self.logs, self.fractions)
        )
        return Bounded(tuple(logs), self.fractions)

    def log_e(self) -> float:
        return log_mean_exp(self.logs)


def steady() -> Bounded:
    """Bettors that nothing but rare bursts can spoil."""
    return Bounded((0.0,) * len(STEADY), STEADY)


def excluded(blocks: float | None, margin: float, most: float, beta: float) -> float:
    """The least mean of a block's excess that safe has to speak against, where it comes in bursts.

    No method sees in n blocks what comes in less than one of n. So it is what `steady` refutes at
    `beta` in half of the blocks that the steps give, all of them well: with more time rarer bursts,
    down to the margin. It is set before the first block, and so the bets against it are fair.
    `most`: what a block's excess counts for at most; `blocks` None: no step says, the margin.
    """
    if blocks is None:
        return margin
    growth = (math.log(len(STEADY)) - math.log(beta)) / max(1.0, blocks / 2)
    stake = math.expm1(min(growth, 50.0)) / STEADY[-1]
    return max(margin, most * stake / (1 + stake))


@dataclass(frozen=True, slots=True)
class Peak:
    """An e-process's value now and the highest so far, in logarithms."""

    now: float = 0.0
    top: float = 0.0

    def at(self, log_e: float) -> Peak:
        return Peak(log_e, max(self.top, log_e))
