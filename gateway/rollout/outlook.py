"""What can be expected: how large a difference would be found by when, and when safe is near. Pure.

Evidence grows by its drift, so these are even odds, not promises; they are for people who plan and
for a status line, and no verdict uses them. Groups have no outlook of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gateway.rollout.comparison import BURST, BURST_UNITS, Comparison, Rules
from gateway.rollout.eprocess import Bounded, log_half_normal, log_mean_exp, log_sign
from gateway.rollout.guard import Plan, State
from gateway.rollout.question import Arms, Scored, Scores, Share
from gateway.rollout.wager import Wager

BLOCKS_MAX = 10_000_000
"""Three years of blocks: further than that is never."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """`detectable`: the smallest difference (logarithm of a ratio for a factor, share for pairs)
    that is as likely as not called worse within the time asked for. `safe_in_s`: until the guard is
    safe, if there is no difference; 0 when it is."""

    guard: str
    detectable: float | None
    safe_in_s: float | None


def outlook(plan: Plan, state: State, within_s: float) -> tuple[Outlook, ...]:
    block_s = plan.settings.evidence.block
    told = []
    for guard, alpha, asked, one in zip(
        plan.settings.guards, plan.alphas, plan.questions, state.guards
    ):
        need = -math.log(alpha), -math.log(plan.settings.evidence.beta)
        found: tuple[float | None, float | None] = (None, None)
        blocks = within_s / block_s
        if isinstance(asked, Arms):
            found = _of_arms(one, asked.rules, blocks, need)
        elif isinstance(asked, Scores):
            assert isinstance(one, Scored)
            if one.compared is not None:
                found = _of_arms(one.compared, asked.rules, blocks, need)
        elif isinstance(asked, Share):
            found = _of_pairs(one, asked, blocks, need)
        safe_in = None if found[1] is None else found[1] * block_s
        told.append(Outlook(guard.name, found[0], safe_in))
    return tuple(told)


def blocks_until_worse(state: Comparison, rules: Rules, difference: float) -> float | None:
    """Blocks from now until the canary is as likely as not called worse, if it differs by this."""
    if not state.windows:
        return None
    # The other two thirds of the average, the signs, are taken to have nothing.
    need = math.log(3) - math.log(rules.alpha)
    return _blocks_until(state, difference - rules.margin, 1, rules.rho_worse, need)


def _of_arms(
    state: Comparison, rules: Rules, blocks: float, need: tuple[float, float]
) -> tuple[float | None, float | None]:
    if not state.windows:
        return None, None

    def found(difference: float) -> bool:
        wanted = blocks_until_worse(state, rules, difference)
        return wanted is not None and wanted <= blocks

    unit = state.windows / state.weight  # the difference that moves a window by one deviation
    detectable = _smallest(found, rules.margin, rules.margin + 50 * unit)
    if state.safe.top >= need[1] and state.safe.now >= 0:
        return detectable, 0.0
    safe = _blocks_until(
        state, -rules.margin, -1, rules.rho_safe, need[1], signs=rules.safe_by_signs
    )
    if safe is not None and state.bursts is not None:
        units = min(state.units) / state.looked
        steady = _wagered(state.bursts, 0.0, -rules.burst_margin, -BURST, units, need[1])
        stretch = max(1.0, BURST_UNITS / units)
        safe = None if steady is None else max(safe, steady * stretch)
    return detectable, safe


def _blocks_until(
    state: Comparison, less: float, sign: int, rho: float, need: float, signs: bool = False
) -> float | None:
    """`less`: difference less the margin, from now on in every window, as noisy as before.
    `signs`: half of the capital is on these."""
    drift = less * state.weight / state.windows
    mean = state.paired.s / state.windows
    noise = max(state.paired.v / state.windows - mean * mean, 0.1)

    paired = state.paired
    ours = paired.up if sign > 0 else paired.moved - paired.up
    likely = math.erfc(-sign * drift / math.sqrt(2 * noise)) / 2

    def enough(windows: float) -> bool:
        s = sign * (paired.s + windows * drift)
        log = log_half_normal(s, paired.v + windows * (noise + drift * drift), rho)
        if signs:
            won = log_sign(ours + round(windows * likely), paired.moved + round(windows))
            log = log_mean_exp((log, won))
        return log >= need

    windows = _least(enough)
    return None if windows is None else windows * state.looked / state.windows


def _of_pairs(
    state: Wager, asked: Share, blocks: float, need: tuple[float, float]
) -> tuple[float | None, float | None]:
    if not state.looked:
        return None, None
    largest = asked.largest
    units = state.units / state.looked

    def found(share: float) -> bool:
        wanted = _wagered(state.above, share, largest, 0.0, units, need[0])
        return wanted is not None and wanted <= blocks

    share = state.total / state.units
    if state.safe.top >= need[1]:
        safe: float | None = 0.0
    elif asked.bursts is None or state.steady is None:
        safe = _wagered(state.below, -share, -largest, -1.0, units, need[1])
    else:
        each = _wagered(state.below, -share, -largest, -1.0, 1.0, need[1])
        steady = _wagered(state.steady, -share, -asked.bursts, -1.0, units, need[1])
        safe = None if each is None or steady is None else max(each / units, steady)
    return _smallest(found, largest, 1.0), safe


def _wagered(
    state: Bounded, x: float, mean: float, low: float, units: float, need: float
) -> float | None:
    """Blocks until the bettors' capital is enough, each block's share being around x."""
    edge = (x - mean) / (mean - low)
    if edge <= 0:
        return None
    spread = abs(x) * (1 - abs(x)) / units / (mean - low) ** 2
    growth = [
        math.log1p(part * edge) - part * part * spread / (2 * (1 + part * edge) ** 2)
        for part in state.fractions
    ]

    def enough(blocks: float) -> bool:
        logs = [log + blocks * more for log, more in zip(state.logs, growth)]
        return log_mean_exp(logs) >= need

    return _least(enough)


def _least(enough: Callable[[float], bool]) -> float | None:
    """Where `enough` begins to hold, by doubling and halving; None: not within reason."""
    if enough(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, high * 2
        if high > BLOCKS_MAX:
            return None
    for _ in range(40):
        half = (low + high) / 2
        low, high = (low, half) if enough(half) else (half, high)
    return high


def _smallest(found: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest value that is found, between one that is not and the largest that counts."""
    if not found(high):
        return None
    for _ in range(40):
        half = (low + high) / 2
        low, high = (low, half) if found(half) else (half, high)
    return high
