"""Two versions on the same requests: does the new one treat a group worse than the one in use?

Both versions decide the same case, so all that differs is in the cases that they decide unlike:
pairs see with some hundred requests what two samples see with thousands. Per group, with n10 that
only the version that answered favours and n01 that only the shadow does, the difference of rates is
(n01 - n10) / n, its interval Newcombe's for pairs, the test McNemar's. A drop of `MARGIN` is what
counts: `breach` where the whole interval lies beyond it and decisions made since say so too.

A fold: the same leaves give the same counts. Which group a decision was of is sealed, and leaves
have counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.card import Card, OutcomeWords
from gateway.monitor.alert import Sighting
from gateway.monitor.alerts import OF_PAIRS
from gateway.monitor.bias import (
    DAY_NS,
    GROUP_AT_LEAST,
    OUTCOME_AT_LEAST,
    GroupState,
    admitted,
    group_of,
    keep,
    size,
    summed,
    with_intersections,
)
from gateway.monitor.proportion import Interval, mcnemar, newcombe_paired
from gateway.monitor.report import plain
from gateway.monitor.room import LET_GO, Room

MARGIN = 0.05
"""A drop of a group's rate that matters: five of a hundred who were favoured no longer are."""
DECISIONS = 500
GROUPS_AT_MOST = 100
"""Groups of one report, the gravest first: a leaf has to stay below 64 KiB."""
PAIRS_MAX = 100
"""Pairs of versions that are followed at once; what comes beyond is not counted."""

GRAVEST: Sequence[GroupState] = ("breach", "watch", "ok", "insufficient")

Four = tuple[int, int, int, int]
"""Decisions that both versions favour, only the one that answered, only the shadow, neither."""
Block = Mapping[str, Mapping[str, Four]]
NOTHING: Four = (0, 0, 0, 0)


@dataclass(frozen=True)
class Paired:
    """Shares are of `n` pairs; `difference`: the second version's less the first's."""

    n: int
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    interval: Interval
    p_value: float


@dataclass(frozen=True)
class PairedGroup:
    """One group of a key, under both versions."""

    key: str
    value: str
    state: GroupState
    breach_pending: bool
    paired: Paired


@dataclass(frozen=True)
class PairReport:
    """A shadow's `version` and the one that answered, over their last `decisions` pairs.
    `left_out`: groups beyond `GROUPS_AT_MOST`."""

    model: str
    version: str
    against: str
    number: int
    at: int
    decisions: int
    groups: tuple[PairedGroup, ...]
    left_out: int

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = plain(asdict(self))
        return told


def paired_of(counts: Four) -> Paired:
    n = sum(counts)
    _, first, second, _ = counts
    interval = newcombe_paired(*counts)
    return Paired(n, *counts, (second - first) / n, interval, mcnemar(first, second))


def judge_pairs(
    blocks: Sequence[Block], pending: Mapping[str, Four], fresh: Block
) -> tuple[PairedGroup, ...]:
    """`pending`, by `key/value`: counts since a first sight beyond the margin; `fresh`: those of
    the newest, which the last of `blocks` holds too."""
    found = []
    for key in sorted({key for block in blocks for key in block}):
        for value, counts in summed(key, blocks).items():
            paired = paired_of(counts)
            since = pending.get(f"{key}/{value}")
            if since is not None:
                since = added(since, fresh.get(key, {}).get(value, NOTHING))
            state = state_of(counts, paired, since)
            waits = state == "watch" and paired.interval.high < -MARGIN
            found.append(PairedGroup(key, value, state, waits, paired))
    return tuple(found)


def state_of(counts: Four, paired: Paired, since: Four | None) -> GroupState:
    both, first, second, neither = counts
    fewest = min(2 * both + first + second, 2 * neither + first + second)
    if paired.n < GROUP_AT_LEAST or fewest < OUTCOME_AT_LEAST:
        return "insufficient"
    if paired.interval.low >= -MARGIN:
        return "ok"
    return "breach" if paired.interval.high < -MARGIN and is_confirmed(since) else "watch"


def is_confirmed(since: Four | None) -> bool:
    """Enough pairs since the first sight, and they tell the same."""
    if since is None or sum(since) < GROUP_AT_LEAST:
        return False
    return (since[2] - since[1]) / sum(since) < -MARGIN


def pending_after(
    judged: Sequence[PairedGroup], before: Mapping[str, Four], fresh: Block
) -> dict[str, Four]:
    """Counts since each group was first seen beyond the margin; gone when it is not any more."""
    after = {}
    for group in judged:
        name = f"{group.key}/{group.value}"
        if group.state in ("watch", "breach") and group.paired.interval.high < -MARGIN:
            new = fresh.get(group.key, {}).get(group.value, NOTHING)
            after[name] = added(before[name], new) if name in before else NOTHING
    return after


def added(one: Four, other: Four) -> Four:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def flips(comparison: Mapping[str, Any], rows: int) -> list[bool]:
    """Whether each row's outcomes differ; none where the comparison does not say it of all. Near
    ties agree and are flips nevertheless: somebody is decided differently."""
    if comparison.get("kind") != "decision" or comparison.get("rows") != rows:
        return []
    if rows == 1:
        reason = comparison.get("reason")
        known = reason in (None, "jitter", "flip", "near_tie")
        return [reason in ("flip", "near_tie")] if known else []
    differing = {row for row, *_ in comparison["differing"]}
    whole = set(comparison["reasons"]) <= {"jitter", "flip"}
    if not whole or comparison["disagree"] > len(differing):
        return []
    return [row in differing for row in range(rows)]


def words_alike(one: Card | None, other: Card | None) -> OutcomeWords | None:
    """The words of two versions that decide between the same two, None: of others."""
    if one is None or other is None:
        return None
    mine, theirs = one.outputs.outcome, other.outputs.outcome
    if mine is None or theirs is None or mine.adverse != theirs.adverse:
        return None
    same = {mine.below, mine.at_or_above} == {theirs.below, theirs.at_or_above}
    return mine if same else None


class Pair:
    """One shadow version beside one that answered, since its last report."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        """`told`: what `to_json` gave; {} for a new one."""
        self.number, self.n = told.get("number", 0), told.get("n", 0)
        self.since: int = told.get("since", 0)
        self.fresh = _block(told.get("fresh", {}))
        self.blocks: tuple[Block, ...] = tuple(_block(one) for one in told.get("blocks", ()))
        self.begun: tuple[int, ...] = tuple(told.get("begun", ()))
        self.pending: dict[str, Four] = _counts(told.get("pending", {}))

    def add(self, groups: Mapping[str, str], keys: Sequence[str], place: int, at: int) -> None:
        """`place` in `Four` of one decision."""
        self.since = self.since if self.n else at
        self.n += 1
        for key in with_intersections(keys):
            of_key = self.fresh.setdefault(key, {})
            value = group_of(groups, key)
            if value not in of_key:
                known = dict.fromkeys(v for b in (*self.blocks, self.fresh) for v in b.get(key, {}))
                value = admitted(value, known)
            counts = [*of_key.get(value, NOTHING)]
            counts[place] += 1
            of_key[value] = (counts[0], counts[1], counts[2], counts[3])

    def is_due(self, at: int) -> bool:
        return self.n >= DECISIONS or (self.n > 0 and at - self.since > DAY_NS)

    def judge(self) -> tuple[PairedGroup, ...]:
        """Judge all that is kept, and begin anew."""
        self.blocks, self.begun = keep(self.blocks, self.begun, self.fresh, self.since)
        groups = judge_pairs(self.blocks, self.pending, self.fresh)
        self.pending = pending_after(groups, self.pending, self.fresh)
        self.number, self.n, self.fresh = self.number + 1, 0, {}
        return groups

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "n": self.n, "since": self.since, "fresh": self.fresh,
                "blocks": self.blocks, "begun": self.begun, "pending": self.pending}  # fmt: skip


class Pairs:
    def __init__(self, told: Mapping[str, Any]) -> None:
        """`told`: what `to_json` gave at the last commit, or {}."""
        self.room = Room("pairs", PAIRS_MAX, told)
        self._pairs = {name: Pair(one) for name, one in told.items() if name != LET_GO}

    def offer(
        self, leaf: Mapping[str, Any], cards: Mapping[str, Card | None], keys: Sequence[str],
        groups: Sequence[Mapping[str, str]],
    ) -> None:  # fmt: skip
        """A leaf with a comparison; taken where two versions decide between the same words."""
        record, first = leaf["record"], leaf["comparison"].get("of", {}).get("version")
        if record.get("noise") or first == record["version"] or first not in cards:
            return
        words = words_alike(cards[first], cards.get(record["version"]))
        if words is not None:
            self.take(leaf, words, keys, groups)

    def take(
        self, leaf: Mapping[str, Any], words: OutcomeWords, keys: Sequence[str],
        groups: Sequence[Mapping[str, str]],
    ) -> None:  # fmt: skip
        """A shadow's leaf; `groups` one for all rows, or one a row."""
        record, comparison, decisions = leaf["record"], leaf["comparison"], leaf["decisions"]
        name = f"{record['model']}/{record['version']}/{comparison['of']['version']}"
        if not keys or not self.room.admit(self._pairs, name, record["at"]):
            return
        pair = self._pairs.setdefault(name, Pair({"number": self.room.number}))
        for row, (decision, flipped) in enumerate(
            zip(decisions, flips(comparison, len(decisions)))
        ):
            if decision["outcome"] is None:
                continue
            adverse = decision["outcome"] == words.adverse
            place = (1 if adverse else 2) if flipped else (3 if adverse else 0)
            told = groups[row if len(groups) > 1 else 0] if groups else {}
            pair.add(told, keys, place, record["at"])

    def due(self, at: int) -> Iterator[PairReport]:
        """What is to be said now; `at` (ns): the time of the leaf that was taken."""
        for name, pair in sorted(self._pairs.items()):
            if pair.is_due(at):
                model, version, against = name.split("/")
                groups = sorted(pair.judge(), key=lambda one: GRAVEST.index(one.state))
                decisions, most = sum(map(size, pair.blocks)), GROUPS_AT_MOST
                yield PairReport(
                    model, version, against, pair.number, at, decisions,
                    tuple(groups[:most]), len(groups[most:]),
                )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return self.room.kept(self._pairs)


def sightings(report: PairReport) -> list[Sighting]:
    """One for each group of which the report says something."""
    window = f"{report.model}/{report.version}/shadow of {report.against}/{report.number}"
    return [
        Sighting(
            model=report.model,
            version=report.version,
            arm=f"shadow of {report.against}",
            cause=f"{OF_PAIRS}{group.key}/{group.value}",
            window=window,
            at=report.at,
            raised=group.state == "breach",
            severity="critical",
            first_seen=report.at if group.state in ("watch", "breach") else None,
            evidence=plain({"window": window, "decisions": [], "pair": asdict(group)}),
        )
        for group in report.groups
        if group.state != "insufficient"
    ]


def _block(told: Mapping[str, Any]) -> dict[str, dict[str, Four]]:
    return {key: _counts(values) for key, values in told.items()}


def _counts(told: Mapping[str, Sequence[int]]) -> dict[str, Four]:
    return {
        name: (both, first, second, neither)
        for name, (both, first, second, neither) in told.items()
    }
