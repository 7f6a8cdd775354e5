"""A block: what a rollout's guards see of ten seconds. It is the body of the evidence leaf, so that
whoever has the leaves can recompute every verdict.

**A unit counts once per attempt, by its first exchange in the arm.** All fields say which they are:
*exchanges* count everything and are for hard limits and shares; *units* are for statistics. An
exchange without a unit of its own (unit `exchange`) is a unit. What the controller owes a block:

* Units are of the two sides of `slices.side`, never of the whole arms; so is all that is counted of
  the control. The canary's `exchanges`, `bad_exchanges`, `latency_all` and `degraded_s` are of all
  of it, since limits protect whoever it answers. Arms `forced`, `explain` and `shadow` are in
  neither. An answer by a fallback counts for the arm that it was
  meant for, with the failure that made it (intention to treat).
* An exchange belongs to the block of its arrival; one that ends after that block closed counts in
  the block open then, in its arm, and in `late`. It is never left out: slow ones end late.
* A timed-out exchange enters the latencies at the time it was given, a failed one at what it took.
* Labels may come for units counted in earlier blocks; so do groups: one that no guard asks for is
  not counted, and one of which an arm has fewer than 20 people waits for a later block. (A leaf
  stays for ever, and would tell of single persons.)
* The registry of seen units ends with the attempt; pairs of a shadow have a registry of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from gateway.rollout.histogram import BUCKETS, Histogram, merged

FORMAT = 1
GROUPS_MAX = 64
"""Groups of one block; the controller counts what is beyond under `<key>=other`."""
SCORE_BINS_MAX = 64


class BadBlock(ValueError):
    """A document is not a block of a format that is read here; says which field."""


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Of one monitored group, all of first exchanges. `favourable` of `decisions` (rows)."""

    units: int = 0
    bad_units: int = 0
    decisions: int = 0
    favourable: int = 0


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One side of the comparison in one block."""

    exchanges: int = 0
    bad_exchanges: int = 0
    latency_all: Histogram = ()
    degraded_s: float = 0.0
    """Seconds of this block in which the arm had lost endpoints or its breaker was open."""
    units: int = 0
    bad_units: int = 0
    latency: Histogram = ()
    groups: Mapping[str, GroupCounts] = field(default_factory=dict)
    """By `key=value`, as `race=black`."""
    scores: tuple[int, ...] = ()
    """Decisions of first exchanges by the bins frozen for the attempt; empty: no scores."""
    right: int = 0
    wrong: int = 0
    """Labels that came in this block, of decisions of first exchanges."""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Decisions of one group where the shadow was favourable and the primary not, and reversed."""

    decisions: int = 0
    gained: int = 0
    lost: int = 0
    favourable: int = 0
    """Decisions that are favourable by the primary."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Primaries and their shadows. `eligible` and `compared` are exchanges, for coverage."""

    eligible: int = 0
    compared: int = 0
    units: int = 0
    disagreements: int = 0
    flips: int = 0
    """Units whose outcome lies on the other side of the threshold."""
    triples: int = 0
    """Units of the noise sample: primary A asked twice (A, A'), and its shadow B."""
    n10: int = 0
    """A disagrees with B and agrees with A'."""
    n01: int = 0
    """A agrees with B and disagrees with A'."""
    only_primary_right: int = 0
    only_shadow_right: int = 0
    """Labels that came in this block, of pairs of which one alone was right."""
    labels: int = 0
    """Labels that came in this block, of pairs."""
    groups: Mapping[str, PairGroup] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """`began` and `ended` in nanoseconds of the deciding clock; `step` counts from 0."""

    rollout: str
    attempt: int
    number: int
    began: int
    ended: int
    step: int
    canary: ArmCounts = ArmCounts()
    control: ArmCounts = ArmCounts()
    pairs: PairCounts = PairCounts()
    late: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **_plain(self)}

    def encode(self) -> bytes:
        """Canonical: sorted keys, no spaces; counts of zero and empty parts are left out."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS)

    @staticmethod
    def read(told: Mapping[str, Any]) -> Block:
        """From a document. BadBlock says what is wrong."""
        if told.get("format") != FORMAT:
            raise BadBlock(f"format: {told.get('format')!r} is not {FORMAT}")
        block: Block = _read(
            Block, {key: value for key, value in told.items() if key != "format"}, ""
        )
        for problem in _problems(block):
            raise BadBlock(problem)
        return block

    @staticmethod
    def decode(body: bytes) -> Block:
        try:
            told = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadBlock(f"not JSON: {error}") from error
        if not isinstance(told, dict):
            raise BadBlock("not an object")
        return Block.read(told)


def _plain(value: Any) -> dict[str, Any]:
    """Fields that differ from their defaults; numbers of the block itself always."""
    told: dict[str, Any] = {}
    for name in (one.name for one in fields(value)):
        part = getattr(value, name)
        if isinstance(part, ArmCounts | PairCounts | GroupCounts | PairGroup):
            part = _plain(part)
        elif isinstance(part, Mapping):
            part = {key: _plain(group) for key, group in part.items()}
        if part or name in ("attempt", "number", "began", "ended", "step"):
            told[name] = part
    return told


_PARTS: dict[str, type] = {"canary": ArmCounts, "control": ArmCounts, "pairs": PairCounts}


def _read(kind: type, told: Any, where: str) -> Any:
    if not isinstance(told, Mapping):
        raise BadBlock(f"{where.rstrip('.')}: not an object")
    known = {one.name for one in fields(kind)}
    if unknown := sorted(told.keys() - known):
        raise BadBlock(f"{where}{unknown[0]}: no such field")
    values: dict[str, Any] = {}
    for name, value in told.items():
        if name in _PARTS and kind is Block:
            values[name] = _read(_PARTS[name], value, f"{name}.")
        elif name == "groups":
            group = GroupCounts if kind is ArmCounts else PairGroup
            if not isinstance(value, Mapping) or len(value) > GROUPS_MAX:
                raise BadBlock(f"{where}groups: an object of at most {GROUPS_MAX} is wanted")
            values[name] = {key: _read(group, one, f"{where}groups.{key}.")
                            for key, one in value.items()}  # fmt: skip
        else:
            values[name] = _value(name, value, where)
    try:
        return kind(**values)
    except TypeError as error:
        raise BadBlock(f"{where or 'block'}: {error}") from error


def _value(name: str, value: Any, where: str) -> Any:
    if name == "rollout":
        if isinstance(value, str) and value:
            return value
    elif name in ("latency", "latency_all"):
        return _histogram(value, f"{where}{name}")
    elif name == "scores":
        if (
            isinstance(value, list | tuple)
            and len(value) <= SCORE_BINS_MAX
            and all(map(_count, value))
        ):
            return tuple(value)
    elif name == "degraded_s":
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return float(value)
    elif _count(value):
        return value
    raise BadBlock(f"{where}{name}: {str(value)[:60]!r} is not what stands here")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _histogram(value: Any, where: str) -> Histogram:
    try:
        pairs = tuple((bucket, count) for bucket, count in value)
    except (TypeError, ValueError) as error:
        raise BadBlock(f"{where}: pairs of bucket and count are wanted") from error
    buckets = [bucket for bucket, _ in pairs]
    if not all(_count(bucket) and _count(count) and count for bucket, count in pairs) or (
        buckets != sorted(set(buckets)) or (buckets and buckets[-1] >= BUCKETS)
    ):
        raise BadBlock(f"{where}: ascending buckets below {BUCKETS} with counts are wanted")
    return pairs


def _problems(block: Block) -> Iterator[str]:
    """Counts that no traffic can give. A part is never more than its whole."""
    if block.ended <= block.began:
        yield "ended: not after began"
    for name in ("canary", "control"):
        arm: ArmCounts = getattr(block, name)
        pairs = [("bad_exchanges", "exchanges"), ("bad_units", "units")]
        for part, whole in pairs:
            if getattr(arm, part) > getattr(arm, whole):
                yield f"{name}.{part}: more than {name}.{whole}"
        for key, group in arm.groups.items():
            if group.bad_units > group.units or group.favourable > group.decisions:
                yield f"{name}.groups.{key}: a part is more than its whole"
    pairs_of = block.pairs
    if max(pairs_of.disagreements, pairs_of.flips) > pairs_of.units:
        yield "pairs: more disagreements than units"
    if pairs_of.n10 + pairs_of.n01 > pairs_of.triples:
        yield "pairs: n10 and n01 are more than triples"
    if pairs_of.compared > pairs_of.eligible:
        yield "pairs.compared: more than pairs.eligible"
    if pairs_of.only_primary_right + pairs_of.only_shadow_right > pairs_of.labels:
        yield "pairs: more right alone than labels"
    for key, pair in pairs_of.groups.items():
        if pair.gained + pair.lost > pair.decisions or pair.favourable > pair.decisions:
            yield f"pairs.groups.{key}: a part is more than its whole"


def added(one: ArmCounts, other: ArmCounts) -> ArmCounts:
    """Both together."""
    return ArmCounts(
        exchanges=one.exchanges + other.exchanges,
        bad_exchanges=one.bad_exchanges + other.bad_exchanges,
        latency_all=merged(one.latency_all, other.latency_all),
        degraded_s=one.degraded_s + other.degraded_s,
        units=one.units + other.units,
        bad_units=one.bad_units + other.bad_units,
        latency=merged(one.latency, other.latency),
        groups=_groups_added(one.groups, other.groups),
        scores=_bins_added(one.scores, other.scores),
        right=one.right + other.right,
        wrong=one.wrong + other.wrong,
        tokens=one.tokens + other.tokens,
    )


def _groups_added(
    one: Mapping[str, GroupCounts], other: Mapping[str, GroupCounts]
) -> Mapping[str, GroupCounts]:
    total = dict(one)
    for key, group in other.items():
        before = total.get(key, GroupCounts())
        total[key] = GroupCounts(
            before.units + group.units,
            before.bad_units + group.bad_units,
            before.decisions + group.decisions,
            before.favourable + group.favourable,
        )
    return total


def _bins_added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if not one or not other:
        return one or other
    assert len(one) == len(other), "bins are frozen for the attempt"
    return tuple(a + b for a, b in zip(one, other))
