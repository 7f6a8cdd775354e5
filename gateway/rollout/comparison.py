"""One guard between two arms: windows are filled, compared, and bet upon. Pure.

Half of the capital bets on all windows together. The other half bets on each step by itself (and
begins again each hour), for a version that is well at 5 % and not at 50 %: what was won while it
was well must not be held against finding that. Sums of e-processes begun at times that the future
does not know, of weights that sum to 1, are an e-process.

Warm-up blocks and the first window tell how noisy a window is (`scale`), with the arms' names taken
away, so that knowing it does not tell the sign of anything. Then every full window is one bet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gateway.rollout.block import Block
from gateway.rollout.eprocess import (
    Bounded,
    Difference,
    Paired,
    Peak,
    Stratified,
    log_mean_exp,
    rho_for,
    steady,
)
from gateway.rollout.measure import Latency, Measure, Rate, factor

V_WORSE, V_SAFE = 30.0, 60.0
"""Windows for which the boundaries are tightest: a version that is worse is to be found early."""
FAR = 5.0
"""Deviations between the arms at which a window is far apart, and counts for no more."""
QUIET = 6
"""Blocks without such a window, before the next one's sign is counted: a burst is one event."""
BURST = 0.2
"""Bad share of the canary's excess in a block: more is what hard limits are for."""
BURST_UNITS = 100
"""Units in each arm that make a share of it."""
RECENT_WINDOWS = 360
"""Windows after which the bets on recent ones begin again, within a step."""
PRIOR_UNITS = 50
"""With half an event: what the control's rate is taken for before there is any."""
BAD_UNITS_AT_LEAST = 5
"""Of the canary, before a test that counts single events has a say."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is compared, and how sure is sure. `margin`: as `Measure.value` counts."""

    measure: Measure
    margin: float
    alpha: float
    beta: float
    independent: bool = False
    bursts: float | None = None
    """What safe has to exclude of bursts (`eprocess.excluded`); None: the margin."""
    signs: bool = True
    """Whether safe goes by signs, too, where it may; not in edition 1."""

    @property
    def burst_margin(self) -> float:
        return self.margin if self.bursts is None else self.bursts

    @property
    def safe_by_signs(self) -> bool:
        return self.signs and isinstance(self.measure, Latency) and self.measure.share is not None

    @property
    def rho_worse(self) -> float:
        return rho_for(self.alpha, V_WORSE)

    @property
    def rho_safe(self) -> float:
        return rho_for(self.beta, V_SAFE)

    @property
    def of_units(self) -> bool:
        """Whether events are of units in two arms, so that tests of single events can be used."""
        return isinstance(self.measure, Rate) and self.measure.of in ("bad", "wrong")

    @property
    def may_burst(self) -> bool:
        """Whether safe has to be shown against rare bursts too."""
        return isinstance(self.measure, Rate) and self.measure.of == "bad" and self.margin < BURST


@dataclass(slots=True)
class Comparison:
    """`canary`, `control`: the window that is being filled, of `blocks` blocks; plain samples.

    `after` works on a copy of its own; nothing else changes one.
    """

    canary: Any
    control: Any
    blocks: int = 0
    started: bool = False
    past: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Of rates: units and events of canary and control, warm-up included."""
    noise: float = 0.0
    noise_windows: int = 0
    scale: float = 0.0
    """Standard deviation of a window's difference times its factor; 0 until the first window."""
    paired: Paired = Paired()
    recent: Paired = Paired()
    """Since `step` began, or the last hour: the bets of the `begun`-th beginning."""
    step: int = -1
    begun: int = 1
    recent_windows: int = 0
    banked: float = 0.0
    """log of what earlier beginnings have come to, each by its weight; if there were any."""
    stratified: Stratified | None = None
    difference: Difference | None = None
    bursts: Bounded | None = None
    lately: tuple[int, int, int, int] = (0, 0, 0, 0)
    """As `past`, of evidence that `bursts` has not seen yet."""
    quiet: int = QUIET
    """Blocks since a window was far apart."""
    looked: int = 0
    """Blocks in evidence."""
    windows: int = 0
    weight: float = 0.0
    weight_squared: float = 0.0
    weighted: float = 0.0
    """Sums over windows of w, w^2 and w d, where w = factor / scale and d is what was bet upon."""
    units: tuple[int, int] = (0, 0)
    """In evidence so far, of canary and control: units, or decisions where these are compared."""
    worse: Peak = Peak()
    safe: Peak = Peak()

    def copy(self) -> Comparison:
        return Comparison(*(getattr(self, name) for name in _NAMES))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def read(told: Mapping[str, Any]) -> Comparison:
        values = {key: _tuples(value) for key, value in told.items()}
        for name, kind in _PARTS.items():
            if values[name] is not None:
                parts = {key: _tuples(value) for key, value in told[name].items()}
                values[name] = kind(**parts)
        return Comparison(**values)


_NAMES = tuple(one.name for one in fields(Comparison))
_PARTS: dict[str, Any] = {
    "paired": Paired, "recent": Paired, "stratified": Stratified, "difference": Difference,
    "bursts": Bounded, "worse": Peak, "safe": Peak,
}  # fmt: skip


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value


def begin(rules: Rules) -> Comparison:
    empty = rules.measure.empty
    return Comparison(
        empty,
        empty,
        stratified=Stratified() if rules.independent else None,
        difference=Difference() if rules.of_units else None,
        bursts=steady() if rules.may_burst else None,
    )  # fmt: skip


def after(state: Comparison, rules: Rules, block: Block, evidence: bool) -> Comparison:
    """`evidence` False: warm-up; the block only tells how noisy things are."""
    measure: Any = rules.measure
    state = state.copy()
    if evidence and not state.started:
        state.canary = state.control = measure.empty
        state.blocks, state.started = 0, True
    if evidence:
        _begin_again(state, rules, block.step)
    canary, control = measure.take(block)
    counted = isinstance(measure, Rate)
    if counted:
        _count(state, rules, canary, control, evidence)
    state.canary = measure.joined(state.canary, canary)
    state.control = measure.joined(state.control, control)
    state.blocks += 1
    full = measure.is_full(state.canary, state.control, state.blocks)
    if full:
        _compare(state, rules, evidence)
        state.canary = state.control = measure.empty
        state.blocks = 0
    if evidence:
        state.looked += 1
        state.quiet += 1
        if full or counted:
            state.worse = state.worse.at(_log_worse(state, rules))
            state.safe = state.safe.at(_log_safe(state, rules))
    return state


def _begin_again(state: Comparison, rules: Rules, step: int) -> None:
    """Bets on recent windows at their next beginning, if it is time for one."""
    if step == state.step and state.recent_windows < RECENT_WINDOWS:
        return
    state.step = step
    if not state.recent_windows:
        return
    won = _weight(state.begun) + state.recent.log_worse(rules.rho_worse)
    state.banked = _log_sum((state.banked, won)) if state.begun > 1 else won
    state.begun += 1
    state.recent, state.recent_windows = Paired(), 0


def _weight(begun: int) -> float:
    """log of 1 / (n (n + 1)), which sums to 1; 1 / (n + 1) is left after n."""
    return -math.log(begun * (begun + 1))


def _log_sum(logs: tuple[float, ...]) -> float:
    return log_mean_exp(logs) + math.log(len(logs))


def _count(
    state: Comparison, rules: Rules, canary: tuple[int, int], control: tuple[int, int],
    evidence: bool,
) -> None:  # fmt: skip
    """Tests of single events see each block; what they expect is known before it."""
    (n_c, x_c), (n_b, x_b) = canary, control
    before, late = state.past, state.lately
    expected = (before[3] + 0.5) / (before[2] + PRIOR_UNITS)
    state.past = (before[0] + n_c, before[1] + x_c, before[2] + n_b, before[3] + x_b)
    if not evidence:
        return
    if state.difference is not None:
        state.difference = state.difference.after(n_c, x_c, n_b, x_b, rules.margin, expected)
    if state.stratified is not None:
        worse = min(expected + rules.margin, 1 - 1e-9)
        tolerated = max(1.0, worse / (1 - worse) * (1 - expected) / expected)
        state.stratified = state.stratified.after(n_c, x_c, n_b, x_b, tolerated)
    if state.bursts is not None:
        state.lately = (late[0] + n_c, late[1] + x_c, late[2] + n_b, late[3] + x_b)
        _bet_on_bursts(state, rules)


def _bet_on_bursts(state: Comparison, rules: Rules) -> None:
    """The excess of a stretch of blocks as one value: a bet against it, whatever made it."""
    n_c, x_c, n_b, x_b = state.lately
    if min(n_c, n_b) < BURST_UNITS:
        return
    assert state.bursts is not None
    excess = max(-BURST, min(BURST, x_c / n_c - x_b / n_b))
    state.bursts = state.bursts.after(-excess, -rules.burst_margin, -BURST)
    state.lately = (0, 0, 0, 0)


def _compare(state: Comparison, rules: Rules, evidence: bool) -> None:
    """The window is full."""
    measure: Any = rules.measure
    sizes = measure.size(state.canary), measure.size(state.control)
    difference = measure.value(state.canary) - measure.value(state.control)
    times = factor(*sizes)
    if not state.scale:
        state.noise += (difference * times) ** 2
        state.noise_windows += 1
    if not evidence:
        return
    state.scale = state.scale or _scale(state, rules, times)
    w = times / state.scale
    # The same bound on either side: a burst says which way, and not more than the bound.
    bound = max(FAR, 3 * rules.margin * w)
    d = max(-bound, min(bound, difference * w)) - rules.margin * w
    far = abs(difference * w) >= bound
    state.paired = state.paired.after(d, far and state.quiet >= QUIET)
    state.recent = state.recent.after(d, far and state.quiet >= QUIET)
    state.recent_windows += 1
    state.quiet = -1 if far else state.quiet
    state.windows += 1
    state.weight += w
    state.weight_squared += w * w
    state.weighted += w * d
    state.units = (state.units[0] + sizes[0], state.units[1] + sizes[1])


def _scale(state: Comparison, rules: Rules, times: float) -> float:
    """Never so small that a window of margins alone is more than twenty deviations."""
    least = max(abs(rules.margin) * times / 20, 1e-9)
    if isinstance(rules.measure, Rate):
        n_c, x_c, n_b, x_b = state.past
        rate = (x_c + x_b + 0.5) / (n_c + n_b + 1)
        return max(least, math.sqrt(2 * rate * (1 - rate)))
    return max(least, math.sqrt(state.noise / state.noise_windows))


def _log_worse(state: Comparison, rules: Rules) -> float:
    parts = (
        _weight(state.begun) + state.recent.log_worse(rules.rho_worse),
        -math.log(state.begun + 1),
    )
    by_step = _log_sum((*parts, state.banked) if state.begun > 1 else parts)
    paired = log_mean_exp((state.paired.log_worse(rules.rho_worse), by_step))
    if state.stratified is None:
        return paired
    single = state.stratified.log_e() if state.past[1] >= BAD_UNITS_AT_LEAST else 0.0
    return log_mean_exp((paired, min(single, state.stratified.log_e())))


def _log_safe(state: Comparison, rules: Rules) -> float:
    """The least of what there is: by windows, right if the arms' noise is alike; by units, right if
    they are independent; by stretches, right if bursts are rare but never over `BURST`."""
    parts = [state.paired.log_safe(rules.rho_safe, rules.safe_by_signs)]
    if state.difference is not None:
        parts.append(state.difference.log_e())
    if state.bursts is not None:
        parts.append(state.bursts.log_e())
    return min(parts)


def estimate(state: Comparison, rules: Rules) -> float | None:
    """Mean difference of the windows, weighed as the bets are; None: no evidence yet."""
    return rules.margin + state.paired.s / state.weight if state.windows else None


def interval(state: Comparison, rules: Rules, level: float) -> tuple[float, float] | None:
    """Differences that the windows do not speak against: at any time, with chance 1 - level.

    The two-sided set of the self-normalised process, moved to each difference in turn; None while
    it is unbounded, which is so at the start.
    """
    if not state.windows:
        return None
    rho = rho_for(level / 2, V_WORSE)
    bound = math.log(2 / level)
    middle = rules.margin + state.paired.s / state.weight  # as `estimate`

    def speaks(difference: float, sign: int) -> bool:
        by = difference - rules.margin
        s = state.paired.s - by * state.weight
        v = state.paired.v - 2 * by * state.weighted + by * by * state.weight_squared
        return Paired(sign * s, max(v, 0.0)).log_self_normalised(rho) >= bound

    # From far away, every window is of one sign and size: evidence grows to this and no further.
    ends = [_end(middle, sign, speaks, state.weight) for sign in (1, -1)]
    if ends[0] is None or ends[1] is None:
        return None
    return ends[0], ends[1]


def _end(middle: float, sign: int, speaks: Any, weight: float) -> float | None:
    """Bisection from the estimate outward, below it for sign 1 and above it for sign -1."""
    near, step = 0.0, 1 / weight
    while not speaks(middle - sign * (near + step), sign):
        near, step = near + step, step * 2
        if step > 2**40 / weight:
            return None
    far = near + step
    for _ in range(50):
        half = (near + far) / 2
        near, far = (near, half) if speaks(middle - sign * half, sign) else (half, far)
    return middle - sign * far
