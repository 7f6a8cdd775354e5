"""After every block: what each guard says, which limits are reached, whether to believe any of it.

`judge` is a fold over blocks. The same settings and the same blocks give the same verdicts on every
machine: that is what `headworks rollout verify` does with the leaves, and a published vector
(tests/formats/verdicts-2.json, and -1 of before) holds it still.

Two e-processes a guard. *worse*: the canary is worse than the guard tolerates; it convinces at 1 /
(the guard's part of alpha). *safe*: it is not; it convinces at 1 / beta. Both may be looked at
after every block, for their highest value ever has that chance of being wrong (Ville). Safe must
also still hold: where its evidence has gone (below 1), or that of worse is 1 / beta, the guard is
undecided again.

That a version like the control is called worse by any guard, at any step, has a chance of at most
alpha: the guards' parts of alpha are set before the first block and sum to it, each guard has one
e-process over the whole attempt, and P(any of them ever is 1 / its part) is at most the sum of
parts, however the guards depend on each other and whichever steps feed them (Ville, and a union).
How the parts are dealt out is free, and only tells how soon each finds what it is for. Shares of
pairs win fast, since nothing but the version tells a pair's answers apart: a quarter of another
guard's part costs them log 4, a block or two, and leaves errors and latency nearly what they have
without a shadow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gateway.declaration import MILLION
from gateway.rollout import histogram
from gateway.rollout.block import Block
from gateway.rollout.eprocess import Peak, log_sample_ratio
from gateway.rollout.guardsettings import (
    EDITION,
    QUANTILES,
    GuardSettings,
    HealthSettings,
    JudgeSettings,
    LimitSettings,
)
from gateway.rollout.question import Found, Question, Terms, question

Word = Literal["worse", "safe", "undecided"]
SAMPLE_RATIO_LEVEL = 1e-3
ELIGIBLE_AT_LEAST = 50
"""Pairs, or exchanges, before shares of missing ones are believed."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guard says after a block. Logarithms are natural.

    `estimate` and `interval` (95 %, at all times together) are differences, or logarithms of a
    ratio where the guard's tolerance is a factor; only `readings` fills them in.
    """

    guard: str
    word: Word
    log_worse: float
    top_worse: float
    need_worse: float
    """As `need_safe` an e-value, 1 / level: 100 means log_worse has to reach log(100)."""
    log_safe: float
    top_safe: float
    need_safe: float
    units: tuple[int, int]
    on_fail: str
    why: str | None = None
    """What is missing, while undecided for want of it."""
    group: str | None = None
    estimate: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def e_worse(self) -> float:
        return math.exp(min(self.log_worse, 700.0))

    @property
    def e_safe(self) -> float:
        return math.exp(min(self.log_safe, 700.0))

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A hard limit. `value` as the limit is set: a share, or seconds."""

    metric: str
    value: float
    above: float
    blocks: int
    on_fail: str


@dataclass(frozen=True, slots=True)
class Ailment:
    """Why the experiment itself is not to be believed."""

    name: Literal["sample_ratio", "no_traffic", "shadow_coverage"]
    do: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    verdicts: tuple[Verdict, ...]
    limits: tuple[LimitReached, ...]
    ailments: tuple[Ailment, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What health is read from, summed over the attempt; times in nanoseconds."""

    last_traffic: int
    canary: int = 0
    control: int = 0
    """Units."""
    eligible: int = 0
    compared: int = 0
    ratio: Peak = Peak()


@dataclass(frozen=True, slots=True)
class State:
    """Of one attempt. `arms_since`, `pairs_since`: begin of the first block with some; ns."""

    rollout: str
    attempt: int
    number: int
    counts: Counts
    guards: tuple[Any, ...]
    over: tuple[float, ...]
    """By limit: blocks running (or seconds) in which it was exceeded."""
    arms_since: int | None = None
    pairs_since: int | None = None


class Plan:
    """Settings made ready: a question for each guard, and its part of alpha.

    `reference`: shares of scores by bin, frozen at the start of the attempt; () where there is
    none, then the control's first scores are.
    """

    def __init__(
        self, settings: JudgeSettings, reference: Sequence[float] = (), edition: int = EDITION
    ) -> None:
        self.settings = settings
        self.alphas = alphas(settings.guards, settings.evidence.alpha, edition)
        beta = settings.evidence.beta
        self.questions: tuple[Question, ...] = tuple(
            question(guard, Terms(alpha, beta, settings.blocks_planned(guard.of_pairs), edition),
                     tuple(reference))
            for guard, alpha in zip(settings.guards, self.alphas)
        )  # fmt: skip

    def begin(self, block: Block) -> State:
        return State(
            block.rollout, block.attempt, block.number - 1, Counts(last_traffic=block.began),
            tuple(asked.begin() for asked in self.questions), (0.0,) * len(self.settings.limits),
        )  # fmt: skip

    def state_to_json(self, state: State) -> dict[str, Any]:
        guards = [asked.to_json(one) for asked, one in zip(self.questions, state.guards)]
        rest = {"rollout": state.rollout, "attempt": state.attempt, "number": state.number,
                "counts": asdict(state.counts), "over": list(state.over),
                "arms_since": state.arms_since, "pairs_since": state.pairs_since}  # fmt: skip
        return {"format": FORMAT, "guards": guards, **rest}

    def read_state(self, told: Mapping[str, Any]) -> State:
        """As `state_to_json` wrote it, for the same settings."""
        if told.get("format") != FORMAT or len(told["guards"]) != len(self.questions):
            raise ValueError("the state is not of this format, or not of these guards")
        guards = tuple(asked.read(one) for asked, one in zip(self.questions, told["guards"]))
        counts = {key: value for key, value in told["counts"].items()
                  if key in Counts.__dataclass_fields__}  # fmt: skip
        counts["ratio"] = Peak(**told["counts"]["ratio"])
        return State(
            told["rollout"], told["attempt"], told["number"], Counts(**counts), guards,
            tuple(told["over"]), told["arms_since"], told["pairs_since"],
        )  # fmt: skip


def alphas(
    guards: Sequence[GuardSettings], alpha: float, edition: int = EDITION
) -> tuple[float, ...]:
    """What is asked for first; of the rest a critical guard gets twice as much as another, and one
    on shares of pairs a quarter of it. They sum to alpha, or to less."""
    asked = sum(guard.share_of_alpha or 0.0 for guard in guards)
    weights = [0.0 if guard.share_of_alpha else _weight(guard, edition) for guard in guards]
    each = (1 - asked) / (sum(weights) or 1)
    return tuple(
        alpha * (guard.share_of_alpha or each * weight) for guard, weight in zip(guards, weights)
    )


def _weight(guard: GuardSettings, edition: int) -> float:
    if guard.critical:
        return 2.0
    return 0.25 if guard.of_shares and edition > 1 else 1.0


def judge(plan: Plan, state: State | None, block: Block) -> tuple[State, Judgement]:
    """The state after `block`, and what it says. None begins an attempt; blocks come in order."""
    state = plan.begin(block) if state is None else state
    if (block.rollout, block.attempt) != (state.rollout, state.attempt):
        raise ValueError(f"block of {block.rollout}#{block.attempt}, not of "
                         f"{state.rollout}#{state.attempt}")  # fmt: skip
    if block.number <= state.number:
        raise ValueError(f"block {block.number} does not come after block {state.number}")
    state = _since(state, block)
    warmup = plan.settings.evidence.warmup * 1e9
    evidence = [since is not None and block.began >= since + warmup
                for since in (state.arms_since, state.pairs_since)]  # fmt: skip
    guards = tuple(
        asked.after(one, block, evidence[guard.of_pairs])
        for asked, guard, one in zip(plan.questions, plan.settings.guards, state.guards)
    )
    over = tuple(
        _over(limit, before, block) for limit, before in zip(plan.settings.limits, state.over)
    )
    counts = _counted(state.counts, block)
    state = replace(state, number=block.number, guards=guards, over=over, counts=counts)
    limits = tuple(
        _reached(limit, so_far, block)
        for limit, so_far in zip(plan.settings.limits, over)
        if so_far >= limit.for_
    )
    ailments = _ailments(plan.settings.health, counts, block)
    return state, Judgement(_verdicts(plan, state, shown=False), limits, ailments)


def readings(plan: Plan, state: State) -> tuple[Verdict, ...]:
    """The verdicts as they stand, with estimates and intervals, for whoever looks."""
    return _verdicts(plan, state, shown=True)


def _since(state: State, block: Block) -> State:
    if state.arms_since is None and block.canary.exchanges:
        state = replace(state, arms_since=block.began)
    if state.pairs_since is None and block.pairs.eligible:
        state = replace(state, pairs_since=block.began)
    return state


def _verdicts(plan: Plan, state: State, *, shown: bool) -> tuple[Verdict, ...]:
    told = []
    for guard, alpha, asked, one in zip(
        plan.settings.guards, plan.alphas, plan.questions, state.guards
    ):
        found = asked.found(one, shown=shown)
        if missing := _missing(plan.settings, state, guard, found):
            found = replace(found, missing=missing)
        told.append(_verdict(guard, found, alpha, plan.settings.evidence.beta))
    return tuple(told)


def _missing(
    settings: JudgeSettings, state: State, guard: GuardSettings, found: Found
) -> str | None:
    least = settings.evidence.min_requests
    if guard.of_pairs and (short := _coverage(settings.health, state.counts)) is not None:
        return short
    if not any(found.units) and (words := _warming(settings, state, guard)) is not None:
        return words
    if found.missing is not None:
        return found.missing
    if min(found.units) < least and guard.by is None:
        labelled = guard.metric == "label_correct"
        what = "labels" if labelled else "pairs" if guard.of_pairs else "units"
        what += "" if guard.of_pairs else " in each arm"
        return f"{min(found.units)} of {least} {what}"
    return None


def _warming(settings: JudgeSettings, state: State, guard: GuardSettings) -> str | None:
    """That nothing counts yet, and for how long. A block that begins within the warm-up is none."""
    since = state.pairs_since if guard.of_pairs else state.arms_since
    warmup = settings.evidence.warmup
    if since is None or (left := since / 1e9 + warmup - state.counts.last_traffic / 1e9) < 0:
        return None
    first = "first pair" if guard.of_pairs else "canary's first exchange"
    return f"warm-up, {left:.0f} s more: {warmup:.0f} s from the {first} on are no evidence"


def _verdict(guard: GuardSettings, found: Found, alpha: float, beta: float) -> Verdict:
    word: Word = "undecided"
    if found.missing is None:
        if found.worse.top >= -math.log(alpha):
            word = "worse"
        elif found.safe.top >= -math.log(beta) and _holds(found, beta):
            word = "safe"
    return Verdict(
        guard.name, word, found.worse.now, found.worse.top, 1 / alpha, found.safe.now,
        found.safe.top, 1 / beta, found.units, guard.on_fail, found.missing, found.group,
        found.estimate, found.interval,
    )  # fmt: skip


def _holds(found: Found, beta: float) -> bool:
    return found.safe.now >= 0 and found.worse.now < -math.log(beta)


def _over(limit: LimitSettings, before: float, block: Block) -> float:
    """Blocks running, or seconds, in which the limit was exceeded, this block included."""
    if limit.metric == "arm_degraded":
        degraded = block.canary.degraded_s
        span = (block.ended - block.began) / 1e9
        return before + degraded if degraded >= span * 0.99 else degraded
    value = _limited(limit, block)
    assert limit.above is not None
    over = value is not None and value > (
        limit.above / MILLION if limit.metric == "bad_ratio" else limit.above
    )
    return before + 1 if over else 0


def _limited(limit: LimitSettings, block: Block) -> float | None:
    canary = block.canary
    if canary.exchanges < limit.min_requests:
        return None
    if limit.metric == "bad_ratio":
        return canary.bad_exchanges / canary.exchanges
    share = QUANTILES[limit.metric.removeprefix("latency_")]
    if not canary.latency_all:
        return None
    return math.exp(histogram.log_quantile(canary.latency_all, share)) / 1e6


def _reached(limit: LimitSettings, so_far: float, block: Block) -> LimitReached:
    if limit.metric == "arm_degraded":
        return LimitReached(limit.metric, so_far, limit.for_, 0, limit.on_fail)
    value = _limited(limit, block)
    assert value is not None
    assert limit.above is not None
    above = limit.above / MILLION if limit.metric == "bad_ratio" else limit.above
    return LimitReached(limit.metric, value, above, int(so_far), limit.on_fail)


def _counted(counts: Counts, block: Block) -> Counts:
    canary, control, pairs = block.canary, block.control, block.pairs
    units = counts.canary + canary.units, counts.control + control.units
    ratio = log_sample_ratio(units, (0.5, 0.5)) if sum(units) else 0.0
    return Counts(
        last_traffic=block.ended if canary.exchanges or pairs.eligible else counts.last_traffic,
        canary=units[0],
        control=units[1],
        eligible=counts.eligible + pairs.eligible,
        compared=counts.compared + pairs.compared,
        ratio=counts.ratio.at(ratio),
    )


def _coverage(health: HealthSettings, counts: Counts) -> str | None:
    """Missing pairs are not missing at random: they go with load. None when enough are compared."""
    if counts.eligible < ELIGIBLE_AT_LEAST:
        return None
    share, least = counts.compared / counts.eligible, health.shadow_coverage.below / MILLION
    if share >= least:
        return None
    told = math.floor(share * 1000) / 10  # never the share that is wanted
    return f"{told:.1f}% of the shadows were compared, at least {least:.1%} is wanted"


def _ailments(health: HealthSettings, counts: Counts, block: Block) -> tuple[Ailment, ...]:
    found = []
    if counts.ratio.top >= -math.log(SAMPLE_RATIO_LEVEL):
        text = f"{counts.canary} units in the canary and {counts.control} in its control"
        found.append(Ailment("sample_ratio", health.sample_ratio, text))
    quiet = (block.ended - counts.last_traffic) / 1e9
    if quiet >= health.no_traffic.after:
        text = f"no exchange for {quiet:.0f} s"
        found.append(Ailment("no_traffic", health.no_traffic.do, text))
    if (short := _coverage(health, counts)) is not None:
        found.append(Ailment("shadow_coverage", health.shadow_coverage.do, short))
    return tuple(found)
