"""Labels by group as they come: are errors upon some more than others, and since when?

A fold like windows. Changes of counts are kept in blocks of some hundred labels, of each version
in each arm; what is judged is the sum of the last blocks, and a breach is confirmed by the newer
half of them alone. A correction takes back what an older block has: sums stay right while that is
kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gateway.monitor.alert import Sighting
from gateway.monitor.alerts import BY_LABELS
from gateway.monitor.outcomes import GroupOutcomes, KeyOutcomes, gravest, judge_outcomes
from gateway.monitor.report import plain
from gateway.monitor.room import LET_GO, Room

LABELS = 500
BLOCKS = 20
SERIES_MAX = 200
CELLS_MAX = 2000
"""Cells of one block; what comes beyond is not counted."""

Cell = tuple[str, str, int, int]
"""Key, group, favourable, good."""
Block = dict[Cell, tuple[int, float]]


class Series:
    """One version's in one arm; the last block is open. `n`: labels in it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        """`told`: what `to_json` gave; {} for a new one."""
        self.n: int = told.get("n", 0)
        self.number: int = told.get("number", 0)
        self.blocks: list[Block] = [
            {(key, value, f, g): (count, score) for key, value, f, g, count, score in block}
            for block in told.get("blocks", [[]])
        ]

    def add(self, cell: Cell, count: int, score: float) -> None:
        block = self.blocks[-1]
        if cell in block or len(block) < CELLS_MAX:
            known = block.get(cell, (0, 0.0))
            block[cell] = (known[0] + count, known[1] + score)

    def judge(self, version: str, arm: str) -> list[KeyOutcomes]:
        """Judge all that is kept, and begin a block."""
        whole, newer = summed(self.blocks), summed(self.blocks[(len(self.blocks) + 1) // 2 :])
        found = [judge_outcomes(version, arm, key, {}, whole[key], newer[key]) for key in whole]
        self.blocks = [*self.blocks[1 - BLOCKS :], {}]
        self.n, self.number = 0, self.number + 1
        return found

    def to_json(self) -> dict[str, Any]:
        blocks = [[[*cell, *total] for cell, total in block.items()] for block in self.blocks]
        return {"n": self.n, "number": self.number, "blocks": blocks}


def summed(blocks: Iterable[Block]) -> dict[str, dict[tuple[str, int, int], tuple[int, float]]]:
    """By key; never below nothing, where what was corrected is no longer kept."""
    found: dict[str, dict[tuple[str, int, int], tuple[int, float]]] = defaultdict(dict)
    for block in blocks:
        for (key, value, favourable, good), (count, score) in block.items():
            cell = (value, favourable, good)
            known = found[key].get(cell, (0, 0.0))
            found[key][cell] = (known[0] + count, known[1] + score)
    return defaultdict(dict, {
        key: {cell: (count, score) for cell, (count, score) in cells.items() if count > 0}
        for key, cells in sorted(found.items())
    })  # fmt: skip


class OutcomeBlocks:
    def __init__(self, told: Mapping[str, Any]) -> None:
        """`told`: what `to_json` gave at the last commit, or {}."""
        self.room = Room("labels", SERIES_MAX, told)
        self._series = {name: Series(one) for name, one in told.items() if name != LET_GO}

    def take(
        self, changes: Mapping[str, Sequence[Sequence[Any]]], record: Mapping[str, Any]
    ) -> Iterator[Sighting]:
        """By model the changes that a leaf's `record` makes, as `labelled` leaves have them; what
        there is to say then. Only feedback and exchanges make any, and both have their time."""
        for model, counts in sorted(changes.items()):
            yield from self._take(model, counts, record["at"])

    def _take(self, model: str, counts: Sequence[Sequence[Any]], at: int) -> Iterator[Sighting]:
        changed = set()
        for version, arm, _, key, group, favourable, good, count, score in counts:
            name = f"{model}/{version}/{arm}"
            if not self.room.admit(self._series, name, at):
                continue
            series = self._series.setdefault(name, Series({"number": self.room.number}))
            series.add((key, group, favourable, good), count, score)
            if key == counts[0][3]:  # each key counts every label
                series.n += abs(count)
            changed.add(name)
        for name in sorted(changed):
            series = self._series[name]
            if series.n >= LABELS:
                model, version, arm = name.split("/")
                number = series.number + 1
                for found in series.judge(version, arm):
                    yield from sightings(model, found, f"{name}/labels/{number}", at)

    def to_json(self) -> dict[str, Any]:
        return self.room.kept(self._series)


def sightings(model: str, found: KeyOutcomes, window: str, at: int) -> Iterator[Sighting]:
    """One for each state of each group that says something."""
    for group in found.groups:
        for prefix, state in zip(BY_LABELS, states_of(group), strict=True):
            if state == "insufficient":
                continue
            yield Sighting(
                model=model,
                version=found.version,
                arm=f"{found.arm}, labelled",
                cause=f"{prefix}{group.key}/{group.value}",
                window=window,
                at=at,
                raised=state == "breach",
                severity="critical",
                first_seen=at if state in ("watch", "breach") else None,
                evidence=plain({"window": window, "decisions": [], "outcomes": asdict(group)}),
            )


def states_of(group: GroupOutcomes) -> tuple[str, str, str]:
    """Of opportunity, odds and calibration. The group that is better off raises no alert of its
    own: the other one does."""
    odds = gravest((group.opportunity.state, group.mistaken.state))
    return group.opportunity.state, odds, group.calibration_state
