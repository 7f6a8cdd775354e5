"""What each guard asks, as a fold over blocks: begin, after each block, and what it has found.

Six questions for eight metrics: arms compared by one measure, scores against a reference, each
group's gap, a shadow's share of disagreement, each group's share of flips in a shadow, who of a
shadow's pairs was right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gateway.declaration import MILLION
from gateway.rollout import comparison
from gateway.rollout.block import Block, PairGroup
from gateway.rollout.comparison import BURST, Comparison, Rules
from gateway.rollout.eprocess import Peak, excluded, log_mean_exp, steady
from gateway.rollout.guardsettings import QUANTILES, GuardSettings
from gateway.rollout.measure import Behind, Distance, Gap, Latency, Measure, Rate, Tokens
from gateway.rollout.wager import Wager

REFERENCE_AT_LEAST = 1000
"""Scores of the control that become the reference, where none is given."""
GROUPS_MAX = 32
"""Groups of one guard that are judged; the first ones seen."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a guard knows. `units` in evidence, canary and control (or pairs twice); `least` of them
    is wanted. `group`: the one that is worst off. `missing`: why there can be no verdict yet."""

    worse: Peak
    safe: Peak
    units: tuple[int, int]
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    group: str | None = None
    missing: str | None = None


INTERVAL_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Arms:
    """Two arms by one measure."""

    rules: Rules

    def begin(self) -> Comparison:
        return comparison.begin(self.rules)

    def after(self, state: Comparison, block: Block, evidence: bool) -> Comparison:
        return comparison.after(state, self.rules, block, evidence)

    def found(self, state: Comparison, *, shown: bool) -> Found:
        """`shown`: with estimate and interval, which verdicts do without."""
        return Found(
            state.worse, state.safe, state.units,
            comparison.estimate(state, self.rules) if shown else None,
            comparison.interval(state, self.rules, INTERVAL_LEVEL) if shown else None,
        )  # fmt: skip

    def to_json(self, state: Comparison) -> dict[str, Any]:
        return state.to_json()

    def read(self, told: Mapping[str, Any]) -> Comparison:
        return Comparison.read(told)


@dataclass(frozen=True, slots=True)
class Scored:
    """`collected`: the control's scores that will be the reference, until there are enough."""

    collected: tuple[int, ...]
    reference: tuple[float, ...]
    compared: Comparison | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Distances to the reference; without one, to the control's first scores."""

    stat: str
    rules: Rules
    reference: tuple[float, ...]

    def begin(self) -> Scored:
        if not self.reference:
            return Scored((), (), None)
        return Scored((), self.reference, comparison.begin(self._rules(self.reference)))

    def _rules(self, reference: tuple[float, ...]) -> Rules:
        return replace(self.rules, measure=Distance(self.stat, reference))

    def after(self, state: Scored, block: Block, evidence: bool) -> Scored:
        if state.compared is not None:
            rules = self._rules(state.reference)
            return replace(state, compared=comparison.after(state.compared, rules, block, evidence))
        scores = block.control.scores
        collected = (
            tuple(a + b for a, b in zip(state.collected, scores))
            if state.collected and scores
            else state.collected or scores
        )
        total = sum(collected)
        if total < REFERENCE_AT_LEAST:
            return replace(state, collected=collected)
        reference = tuple(count / total for count in collected)
        return Scored((), reference, comparison.begin(self._rules(reference)))

    def found(self, state: Scored, *, shown: bool) -> Found:
        if state.compared is None:
            so_far = sum(state.collected)
            missing = f"{so_far} of {REFERENCE_AT_LEAST} scores of the control for a reference"
            return Found(Peak(), Peak(), (0, 0), missing=missing)
        return Arms(self._rules(state.reference)).found(state.compared, shown=shown)

    def to_json(self, state: Scored) -> dict[str, Any]:
        return asdict(state)

    def read(self, told: Mapping[str, Any]) -> Scored:
        compared = told["compared"]
        return Scored(
            tuple(told["collected"]), tuple(told["reference"]),
            None if compared is None else Comparison.read(compared),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Members:
    """States by group, in the order first seen, and the weight of each among bettors.

    The weights of all groups and the cash that is left sum to 1, so that the capital together is
    one e-process, although groups are met on the way.
    """

    groups: Mapping[str, Any]
    weights: Mapping[str, float]
    cash: float = 1.0


def joined(members: Members, names: list[str], begin: Any) -> Members:
    """With the groups that are new: at first all get a like part, later ones half of the cash."""
    room = GROUPS_MAX - len(members.groups)
    new = [name for name in names if name not in members.groups][:room]
    if not new:
        return members
    groups, weights, cash = dict(members.groups), dict(members.weights), members.cash
    part = cash / (len(new) + 1)
    for name in new:
        groups[name] = begin(name)
        weights[name] = part
    return Members(groups, weights, cash - part * len(new))


def capital(members: Members, peaks: Mapping[str, Peak]) -> float:
    """log of the weighted mean of the groups' e-processes now, cash at 1."""
    logs = [math.log(members.cash)]
    logs += [math.log(members.weights[name]) + peak.now for name, peak in peaks.items()]
    return log_mean_exp(logs) + math.log(len(logs))


@dataclass(frozen=True, slots=True)
class Both:
    """Of one group: how its gap to the others changed, and whether it is behind in the canary.

    Worse is who is both; the lesser of two e-processes is one against "not this or not that". Safe
    is who is shown not to be one of them.
    """

    change: Any
    behind: Any
    worse: Peak = Peak()
    safe: Peak = Peak()

    def after(self, change: Any, behind: Any) -> Both:
        worse = min(change.worse.now, behind.worse.now)
        safe = log_mean_exp((change.safe.now, behind.safe.now))
        return Both(change, behind, self.worse.at(worse), self.safe.at(safe))


@dataclass(frozen=True, slots=True)
class Grouped:
    """State of the questions that are asked of each group."""

    members: Members
    worse: Peak = Peak()

    def after(self, members: Members) -> Grouped:
        worse = capital(members, {name: one.worse for name, one in members.groups.items()})
        return Grouped(members, self.worse.at(worse))


@dataclass(frozen=True, slots=True)
class EachGroup:
    """How far each group is behind the others in the canary, against the control."""

    key: str
    rules: Rules
    min_per_group: int

    def begin(self) -> Grouped:
        return Grouped(Members({}, {}))

    def _rules(self, group: str) -> tuple[Rules, Rules]:
        return replace(self.rules, measure=Gap(group)), replace(self.rules, measure=Behind(group))

    def after(self, state: Grouped, block: Block, evidence: bool) -> Grouped:
        names = {*block.canary.groups, *block.control.groups}
        own = sorted(name for name in names if name.startswith(f"{self.key}="))
        members = joined(state.members, own, self._begin)
        groups = {}
        for name, one in members.groups.items():
            change, behind = self._rules(name)
            groups[name] = one.after(
                comparison.after(one.change, change, block, evidence),
                comparison.after(one.behind, behind, block, evidence),
            )
        return state.after(replace(members, groups=groups))

    def _begin(self, group: str) -> Both:
        change, behind = self._rules(group)
        return Both(comparison.begin(change), comparison.begin(behind))

    def found(self, state: Grouped, *, shown: bool) -> Found:
        sizes = {name: one.change.units for name, one in state.members.groups.items()}
        judged = [name for name, size in sizes.items() if min(size) >= self.min_per_group]
        if len(judged) < 2:
            return _no_groups(state, self.key, {n: min(s) for n, s in sizes.items()},
                              self.min_per_group)  # fmt: skip
        groups = {name: state.members.groups[name] for name in judged}
        worst = max(judged, key=lambda name: groups[name].worse.now)
        change, rules = groups[worst].change, self._rules(worst)[0]
        return Found(
            state.worse, _least(one.safe for one in groups.values()), sizes[worst],
            comparison.estimate(change, rules) if shown else None,
            comparison.interval(change, rules, INTERVAL_LEVEL) if shown else None,
            worst,
        )  # fmt: skip

    def to_json(self, state: Grouped) -> dict[str, Any]:
        return asdict(state)

    def read(self, told: Mapping[str, Any]) -> Grouped:
        return _grouped(told, Comparison.read)


def _no_groups(state: Grouped, key: str, sizes: Mapping[str, int], least: int) -> Found:
    seen = ", ".join(f"{name} {size}" for name, size in sorted(sizes.items())) or "none"
    missing = f"two groups of {key} with {least} decisions are wanted, seen: {seen}"
    return Found(state.worse, Peak(), (0, 0), missing=missing)


def _least(peaks: Any) -> Peak:
    """Safe is who is safe in every group: the least of e-processes is one for "any is not"."""
    told = list(peaks)
    return Peak(min(one.now for one in told), min(one.top for one in told))


def _grouped(told: Mapping[str, Any], read: Any) -> Grouped:
    members = told["members"]
    groups = {
        name: Both(read(one["change"]), read(one["behind"]), Peak(**one["worse"]),
                   Peak(**one["safe"]))
        for name, one in members["groups"].items()
    }  # fmt: skip
    return Grouped(
        Members(groups, dict(members["weights"]), members["cash"]), Peak(**told["worse"])
    )


@dataclass(frozen=True, slots=True)
class Share:
    """The share of pairs that disagree, or flip, against the largest that is well.

    *Worse* is bet upon block by block: no burst is more than one bet. *Safe* by blocks alone would
    take log(20) / max of them, however many pairs there are. So each pair is a bet, right if which
    of them disagrees says nothing of the next; and against its being otherwise blocks are, by
    `bursts`: what the mean over blocks is not. The lesser of both is safe. `bursts` None: edition
    1, by blocks alone.
    """

    metric: str
    largest: float
    bursts: float | None

    def begin(self) -> Wager:
        return Wager() if self.bursts is None else Wager(steady=steady())

    def after(self, state: Wager, block: Block, evidence: bool) -> Wager:
        pairs = block.pairs
        if not evidence or not pairs.units:
            return state
        events = pairs.disagreements if self.metric == "disagree" else pairs.flips
        if self.bursts is None:
            return state.after(
                events / pairs.units, mean=self.largest, low=0.0, high=1.0,
                units=pairs.units, total=events,
            )  # fmt: skip
        return state.after_pairs(events, pairs.units, mean=self.largest, bursts=self.bursts)

    def found(self, state: Wager, *, shown: bool) -> Found:
        share = state.total / state.units if state.units and shown else None
        return Found(state.worse, state.safe, (state.units, state.units), share)

    def to_json(self, state: Wager) -> dict[str, Any]:
        return state.to_json()

    def read(self, told: Mapping[str, Any]) -> Wager:
        return Wager.read(told)


@dataclass(frozen=True, slots=True)
class EachGroupOfPairs:
    """How far each group is behind the others, when the shadow's answers are taken for the
    primary's. Betting as Chugg et al. (NeurIPS 2023) do: half the difference of two groups' means
    in a block, of changes and of favourable shares.
    """

    key: str
    margin: float
    min_per_group: int

    def begin(self) -> Grouped:
        return Grouped(Members({}, {}))

    def after(self, state: Grouped, block: Block, evidence: bool) -> Grouped:
        own = {name: one for name, one in block.pairs.groups.items()
               if name.startswith(f"{self.key}=")}  # fmt: skip
        members = joined(state.members, sorted(own), lambda name: Both(Wager(), Wager()))
        groups = dict(members.groups)
        for name in sorted(groups.keys() & own.keys()) if evidence else ():
            groups[name] = self._bet(groups[name], own, name)
        return state.after(replace(members, groups=groups))

    def _bet(self, both: Both, groups: Mapping[str, PairGroup], name: str) -> Both:
        own = groups[name]
        others = [one for other, one in groups.items() if other != name]
        rest = sum(one.decisions for one in others)
        if not own.decisions or not rest:
            return both
        change = sum(one.gained - one.lost for one in others) / rest
        change -= (own.gained - own.lost) / own.decisions
        gap = sum(one.favourable for one in others) / rest - own.favourable / own.decisions
        return both.after(
            self._wagered(both.change, change, own.decisions),
            self._wagered(both.behind, max(-1.0, min(1.0, gap + change)), own.decisions),
        )

    def _wagered(self, wager: Wager, x: float, decisions: int) -> Wager:
        return wager.after(
            x / 2, mean=self.margin / 2, low=-1.0, high=1.0, units=decisions, total=x * decisions
        )

    def found(self, state: Grouped, *, shown: bool) -> Found:
        sizes = {name: one.change.units for name, one in state.members.groups.items()}
        judged = [name for name, size in sizes.items() if size >= self.min_per_group]
        if len(judged) < 2:
            return _no_groups(state, self.key, sizes, self.min_per_group)
        groups = {name: state.members.groups[name] for name in judged}
        worst = max(judged, key=lambda name: groups[name].worse.now)
        one = groups[worst].change
        return Found(
            state.worse, _least(other.safe for other in groups.values()), (one.units, one.units),
            one.total / one.units if shown else None, None, worst,
        )  # fmt: skip

    def to_json(self, state: Grouped) -> dict[str, Any]:
        return asdict(state)

    def read(self, told: Mapping[str, Any]) -> Grouped:
        return _grouped(told, Wager.read)


@dataclass(frozen=True, slots=True)
class Right:
    """Who was right by the labels of a shadow's pairs: McNemar's test of the pairs of which one
    alone was, with a tolerance. A labelled pair is 1 (the primary alone), -1 or 0, and each is bet
    upon: labels come in files, and a file of ten thousand is no single look.
    """

    margin: float

    def begin(self) -> Wager:
        return Wager()

    def after(self, state: Wager, block: Block, evidence: bool) -> Wager:
        pairs = block.pairs
        if not evidence or not pairs.labels:
            return state
        worse, better = pairs.only_primary_right, pairs.only_shadow_right
        seen = {1.0: worse, -1.0: better, 0.0: pairs.labels - worse - better}
        return state.after_each(seen, mean=self.margin, low=-1.0, high=1.0)

    def found(self, state: Wager, *, shown: bool) -> Found:
        mean = state.total / state.units if state.units and shown else None
        return Found(state.worse, state.safe, (state.units, state.units), mean)

    def to_json(self, state: Wager) -> dict[str, Any]:
        return state.to_json()

    def read(self, told: Mapping[str, Any]) -> Wager:
        return Wager.read(told)


Question = Arms | Scores | EachGroup | Share | EachGroupOfPairs | Right


@dataclass(frozen=True, slots=True)
class Terms:
    """How sure a guard has to be: `alpha` is its own part of the rollout's; `blocks`: of evidence
    that the steps give it, None where they do not say."""

    alpha: float
    beta: float
    blocks: float | None
    edition: int


def question(guard: GuardSettings, terms: Terms, reference: tuple[float, ...]) -> Question:
    """What a guard asks."""
    margin = _margin(guard)
    if guard.of_shares:
        return Share(guard.metric, margin, _bursts(terms, margin, 1.0))
    if guard.metric == "positive_rate_gap" and guard.of_pairs:
        return EachGroupOfPairs(str(guard.by), margin, guard.min_per_group)
    if guard.metric == "label_correct" and guard.of_pairs:
        return Right(margin)
    rules = Rules(
        _measure(guard, margin, terms.edition), margin, terms.alpha, terms.beta,
        guard.independent, _bursts(terms, margin, BURST), terms.edition > 1,
    )  # fmt: skip
    if guard.metric == "positive_rate_gap":
        return EachGroup(str(guard.by), rules, guard.min_per_group)
    if guard.metric == "score":
        return Scores(str(guard.statistic), rules, reference)
    return Arms(rules)


def _margin(guard: GuardSettings) -> float:
    if guard.max is not None:
        return guard.max / MILLION
    assert guard.worse_than is not None
    amount = abs(guard.worse_than.amount)
    return math.log(amount) if guard.worse_than.factor else amount


def _bursts(terms: Terms, margin: float, most: float) -> float | None:
    """None: as before there was an edition."""
    if terms.edition < 2:
        return None
    return excluded(terms.blocks, margin, most, terms.beta)


def _measure(guard: GuardSettings, margin: float, edition: int) -> Measure:
    sized = edition > 1
    match guard.metric:
        case "bad_ratio":
            return Rate("bad", margin, sized)
        case "disagree":
            return Rate("noise", margin, sized)
        case "label_correct":
            return Rate("wrong", margin, sized)
        case "latency":
            return Latency(QUANTILES.get(str(guard.statistic)))
        case "tokens":
            return Tokens()
        case "score":
            return Distance(str(guard.statistic), ())
        case _:
            return Gap("")
