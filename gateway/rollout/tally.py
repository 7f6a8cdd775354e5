"""Blocks in the making: what the records of one attempt add up to, by the time of their arrival.

A fold over the ledger's leaves: from the same leaves come the same counts, so that a governor that
was killed reads on from its snapshot and is where it was. What it holds is bounded: a few open
blocks of counts, the registry of units, and the pairs of a shadow only as counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.rollout.block import (
    GROUPS_MAX,
    ArmCounts,
    Block,
    GroupCounts,
    PairCounts,
    PairGroup,
    added,
)
from gateway.rollout.histogram import bucket_of, of_counts
from gateway.rollout.observation import Observation, Pair
from gateway.rollout.predictions import Predictions
from gateway.rollout.units import Units

OTHER = "other"
PATIENCE_NS = 3 * 10**9
"""How long a shadow may take before it counts as missing: copies wait two seconds at most."""
KEYS_MAX = 16
"""Keys of groups that are told apart; each may need an `other`."""
PEOPLE_LEAST = 20
"""Of a group, before a block says anything of it: a leaf stays for ever, and tells of nobody."""
BINS = 40
"""Bins of scores: of a probability the same for all attempts, so that blocks need not say them."""


@dataclass(slots=True)
class ArmCount:
    """`ArmCounts`, while it grows."""

    exchanges: int = 0
    bad_exchanges: int = 0
    latency_all: dict[int, int] = field(default_factory=dict)
    degraded: bool = False
    units: int = 0
    bad_units: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)
    scores: list[int] = field(default_factory=list)
    right: int = 0
    wrong: int = 0
    tokens: int = 0

    def take(self, seen: Observation) -> None:
        """An exchange, whoever's it is."""
        self.exchanges += 1
        self.bad_exchanges += seen.failed
        self.degraded = self.degraded or seen.unavailable
        place = bucket_of(seen.total_us)
        self.latency_all[place] = self.latency_all.get(place, 0) + 1

    def take_unit(self, seen: Observation) -> None:
        """The first exchange of a unit."""
        self.units += 1
        self.bad_units += seen.refused
        self.tokens += seen.tokens
        place = bucket_of(seen.total_us)
        self.latency[place] = self.latency.get(place, 0) + 1
        for row, score in enumerate(seen.scores):
            self._take_score(score)
            good = seen.favourable[row]
            for key in _of_row(seen.groups, row):
                group = self._group(key)
                group[2] += 1
                group[3] += bool(good)
        for key in sorted({key for row_keys in seen.groups for key in row_keys}):
            group = self._group(key)
            group[0] += 1
            group[1] += seen.refused

    def _take_score(self, score: float) -> None:
        if 0.0 <= score <= 1.0:
            self.scores = self.scores or [0] * BINS
            self.scores[min(BINS - 1, int(score * BINS))] += 1

    def _group(self, key: str) -> list[int]:
        return self.groups.setdefault(bounded(key, self.groups), [0, 0, 0, 0])

    def counts(self, span_s: float) -> ArmCounts:
        """As a block has it; an arm that lacked endpoints did so for all of the block."""
        return ArmCounts(
            exchanges=self.exchanges, bad_exchanges=self.bad_exchanges,
            latency_all=of_counts(self.latency_all),
            degraded_s=span_s if self.degraded else 0.0,
            units=self.units, bad_units=self.bad_units, latency=of_counts(self.latency),
            groups={key: GroupCounts(*told) for key, told in self.groups.items()},
            scores=tuple(self.scores), right=self.right, wrong=self.wrong, tokens=self.tokens,
        )  # fmt: skip

    def absorb(self, other: ArmCount) -> None:
        """All that another one counted counts here."""
        both = ArmCount.of(added(self.counts(1.0), other.counts(1.0)))
        both.groups = joined(self.groups, other.groups)
        for name in self.__slots__:
            setattr(self, name, getattr(both, name))

    @classmethod
    def of(cls, told: ArmCounts) -> ArmCount:
        groups = {key: [one.units, one.bad_units, one.decisions, one.favourable]
                  for key, one in told.groups.items()}  # fmt: skip
        return cls(
            told.exchanges, told.bad_exchanges, dict(told.latency_all), told.degraded_s > 0,
            told.units, told.bad_units, dict(told.latency), groups, list(told.scores),
            told.right, told.wrong, told.tokens,
        )  # fmt: skip


def bounded(key: str, groups: Mapping[str, Any]) -> str:
    """The group that counts for `key`: itself, or `other` where there are too many."""
    if key in groups or len(groups) < GROUPS_MAX - KEYS_MAX:
        return key
    return f"{key.partition('=')[0]}={OTHER}"


def joined(one: Mapping[str, list[int]], other: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Groups of both, and still no more than are told apart."""
    groups = {key: list(counts) for key, counts in one.items()}
    for key in sorted(other):
        mine = groups.setdefault(bounded(key, groups), [0, 0, 0, 0])
        for place, count in enumerate(other[key]):
            mine[place] += count
    return groups


def _of_row(groups: tuple[tuple[str, ...], ...], row: int) -> tuple[str, ...]:
    if not groups:
        return ()
    return groups[row] if row < len(groups) else groups[0]


def _together(large: Sequence[str]) -> set[str]:
    """Those that another group of their key is told with: one alone is compared with nobody."""
    keys = Counter(key.partition("=")[0] for key in large)
    return {key for key in large if keys[key.partition("=")[0]] > 1}


@dataclass(slots=True)
class PairCount:
    """`PairCounts`, while it grows."""

    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by

    def take_group(self, key: str, seen: Pair) -> None:
        group = self.groups.setdefault(bounded(key, self.groups), [0, 0, 0, 0])
        counts = (seen.rows, seen.gained, seen.lost, seen.favourable)
        for place, count in enumerate(counts):
            group[place] += count

    def absorb(self, other: PairCount) -> None:
        for name, count in other.counts.items():
            self.add(name, count)
        self.groups = joined(self.groups, other.groups)

    def made(self) -> PairCounts:
        groups = {key: PairGroup(*told) for key, told in self.groups.items()}
        return PairCounts(**self.counts, groups=groups)

    @classmethod
    def of(cls, told: PairCounts) -> PairCount:
        names = [name for name in PairCounts.__dataclass_fields__ if name != "groups"]
        counts = {name: value for name in names if (value := getattr(told, name))}
        groups = {key: [one.decisions, one.gained, one.lost, one.favourable]
                  for key, one in told.groups.items()}  # fmt: skip
        return cls(counts, groups)


@dataclass(slots=True)
class Open:
    """One block that is not closed."""

    canary: ArmCount = field(default_factory=ArmCount)
    control: ArmCount = field(default_factory=ArmCount)
    pairs: PairCount = field(default_factory=PairCount)
    late: int = 0

    def absorb(self, other: Open) -> None:
        self.canary.absorb(other.canary)
        self.control.absorb(other.control)
        self.pairs.absorb(other.pairs)
        self.late += other.late

    def withhold(self) -> Open:
        """Take out the groups that would tell of single persons, in either arm: what they were."""
        kept = Open()
        arms = self.canary.groups, self.control.groups
        told = _together([
            key for key in arms[0].keys() & arms[1].keys()
            if all(min(arm[key][0], arm[key][2]) >= PEOPLE_LEAST for arm in arms)
        ])  # fmt: skip
        for arm, own in zip(arms, (kept.canary.groups, kept.control.groups)):
            own.update({key: arm.pop(key) for key in arm.keys() - told})
        pairs = self.pairs.groups
        told = _together([key for key, group in pairs.items() if group[0] >= PEOPLE_LEAST])
        kept.pairs.groups = {key: pairs.pop(key) for key in pairs.keys() - told}
        return kept

    def block(self, rollout: str, attempt: int, number: int, step: int, block_ns: int) -> Block:
        """As it stands; shadows compared are those of its own primaries."""
        span_s = block_ns / 1e9
        return Block(
            rollout, attempt, number, number * block_ns, (number + 1) * block_ns, step,
            self.canary.counts(span_s), self.control.counts(span_s), self.pairs.made(), self.late,
        )  # fmt: skip

    @classmethod
    def of(cls, block: Block) -> Open:
        return cls(
            ArmCount.of(block.canary), ArmCount.of(block.control), PairCount.of(block.pairs),
            block.late,
        )  # fmt: skip


class Tally:
    """`closed`: number of the last block that has a leaf; blocks are numbered by time. `looked`: of
    the last one that was over and had nothing to say: it has no leaf, so that what comes late for
    it still is in time, and no reader of leaves can know of it."""

    def __init__(
        self, block_ns: int, units: Units | None, closed: int, answers: Predictions | None = None
    ) -> None:
        """`answers`: what labels will be held against; None: no guard asks for labels."""
        self.block_ns, self.units, self.closed, self.answers = block_ns, units, closed, answers
        self.looked = closed
        self.open: dict[int, Open] = {}
        self.withheld = Open()  # groups of too few people to be in a block
        self.early = 0  # shadows compared whose primary's block is not the one they came in

    @property
    def units_refused(self) -> int:
        """Units that were too many to be told apart, and count in no statistic."""
        return self.units.refused if self.units is not None else 0

    @property
    def next(self) -> int:
        """The block that is looked at next."""
        return max(self.closed, self.looked) + 1

    def expose(self, at: int) -> None:
        """People come from now on: what a draft waited is no time of the attempt's."""
        self.closed = max(self.closed, at // self.block_ns)

    def block_at(self, at: int) -> Open:
        """Where something of this time counts now: late, if its own block is closed."""
        number = at // self.block_ns
        found = self.open.setdefault(max(number, self.closed + 1), Open())
        found.late += number <= self.closed
        return found

    def take(self, seen: Observation) -> None:
        """An exchange of the rule: for limits all of the canary, for statistics the slices."""
        side = seen.side or ("canary" if seen.arm == "canary" else None)
        if side is None:
            return
        arm: ArmCount = getattr(self.block_at(seen.at), side)
        arm.take(seen)
        if seen.side is not None and self._is_first("arm", seen.unit):
            arm.take_unit(seen)
            if self.answers is not None:
                self.answers.add(seen.id, seen.side, seen.favourable)

    def take_label(self, at: int, identity: str, row: int, good: bool) -> None:
        """What became of a decision, told at `at`: right or wrong counts in the block open then."""
        if self.answers is None:
            return
        found = self.answers.settle(identity, row, good)
        if found is not None:
            arm: ArmCount = getattr(self.block_at(at), found[0])
            arm.right += found[1]
            arm.wrong += not found[1]
        both = self.answers.settle_pair(identity, row, good)
        if both is not None:
            pairs = self.block_at(at).pairs
            pairs.add("labels")
            pairs.add("only_primary_right", both[0] > both[1])
            pairs.add("only_shadow_right", both[1] > both[0])

    def take_eligible(self, at: int) -> None:
        """A primary whose shadow should be compared: it is given a little time for it."""
        self.block_at(at + PATIENCE_NS).pairs.add("eligible")

    def take_pair(self, seen: Pair) -> None:
        """A shadow that was compared, or the second answer that completes a triple."""
        pairs = self.block_at(seen.at).pairs
        if seen.triple is not None and self._is_first("triple", seen.unit):
            pairs.add("triples")
            pairs.add("n10", seen.triple[0])
            pairs.add("n01", seen.triple[1])
        if not seen.rows:
            return
        pairs.add("compared")
        if not self._is_first("pair", seen.unit):
            return
        pairs.add("units")
        pairs.add("disagreements", not seen.agree)
        pairs.add("flips", seen.flipped)
        if self.answers is not None:
            self.answers.add_pair(seen.primary, seen.outcomes)
        for key in seen.groups:
            pairs.take_group(key, seen)

    def _is_first(self, kind: str, unit: str | None) -> bool:
        return unit is None or self.units is None or self.units.is_first(kind, unit)

    def _due(self, number: int) -> Open:
        """All up to this block's end that no leaf has yet."""
        due = Open()
        due.absorb(self.withheld)
        for one in sorted(one for one in self.open if one <= number):
            due.absorb(self.open[one])
        return due

    def peek(self, number: int, rollout: str, attempt: int, step: int) -> Block:
        """The block as it would be closed now, with all before it that were never closed."""
        due = self._due(number)
        due.withhold()
        block = due.block(rollout, attempt, number, step, self.block_ns)
        shown = min(block.pairs.compared + self.early, block.pairs.eligible)
        return replace(block, pairs=replace(block.pairs, compared=shown))

    def look(self, number: int) -> None:
        """This block is over, and is not worth a leaf."""
        self.looked = max(self.looked, number)

    def close(self, number: int) -> None:
        """This block has its leaf, and all before it. A shadow may be compared in the block after
        the one that has its primary: it counts as soon as there is a primary that lacks it."""
        due = self._due(number)
        self.withheld = due.withhold()
        self.early += due.pairs.counts.get("compared", 0)
        self.early -= min(self.early, due.pairs.counts.get("eligible", 0))
        self.closed = max(self.closed, number)
        for one in [one for one in self.open if one <= number]:
            del self.open[one]

    def is_empty(self, number: int) -> bool:
        return not any(one <= number for one in self.open)

    def to_json(self, rollout: str, attempt: int) -> dict[str, Any]:
        """What a snapshot has; the units' file is made durable with it."""
        blocks = [self._told(number, self.open[number], rollout, attempt)
                  for number in sorted(self.open)]  # fmt: skip
        return {"closed": self.closed, "open": blocks, "early": self.early,
                "withheld": self._told(0, self.withheld, rollout, attempt),
                "units": self.units.flush() if self.units else 0,
                "answers": self.answers.flush() if self.answers else 0}  # fmt: skip

    def _told(self, number: int, one: Open, rollout: str, attempt: int) -> dict[str, Any]:
        """More may be compared than is eligible, which no block may say."""
        block = one.block(rollout, attempt, number, 0, self.block_ns)
        plain = replace(block, pairs=replace(block.pairs, compared=0))
        return {"block": plain.to_json(), "compared": block.pairs.compared}

    def restore(self, told: Mapping[str, Any]) -> None:
        self.closed, self.early = told["closed"], told["early"]
        self.looked = self.closed
        self.withheld = _read(told["withheld"])[1] if "withheld" in told else Open()
        self.open = dict(map(_read, told["open"]))


def _read(told: Mapping[str, Any]) -> tuple[int, Open]:
    block = Block.read(told["block"])
    pairs = replace(block.pairs, compared=told["compared"])
    return block.number, Open.of(replace(block, pairs=pairs))
