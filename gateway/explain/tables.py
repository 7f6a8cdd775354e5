"""Attributions looked up: with the background fixed they depend on few bits of the row.

A *unit* is a tree of at most 8 splits, its code the row's answers to them; or a leaf of at most 8
features, its code the row's pattern (see `games`). Each code of each unit has its attributions in
a table built at load, so a row costs one code and one table row a unit, whatever the background's
size: `attribution/lookup.py` finds and adds them. Tables too large to be dense are compressed rows,
added by scipy's product in the order of the units too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gateway.attribution.lookup import ColumnBits, Lookup, codes
from gateway.explain.attribution import Floats
from gateway.explain.games import leaf_table
from gateway.explain.trees import Leaf, Split

BITS_AT_MOST = 8
# Beyond this a table row is kept by its features only.
DENSE_BYTES_AT_MOST = 32 << 20


@dataclass(frozen=True)
class Unit:
    """For each bit of the code the (split, answer) pairs that set it, and the table by code.

    `table` is [2**bits, len(players)]; `players` are numbers of features.
    """

    bits: tuple[tuple[tuple[int, bool], ...], ...]
    players: tuple[int, ...]
    table: Floats


def players_of(leaf: Leaf, player_of_split: Sequence[int]) -> tuple[int, ...]:
    """The features a leaf asks about, in order of first question."""
    return tuple(dict.fromkeys(player_of_split[split] for split, _ in leaf.conditions))


def splits_of(tree: Sequence[Leaf]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(split for leaf in tree for split, _ in leaf.conditions))


def leaf_unit(leaf: Leaf, player_of_split: Sequence[int], answers: NDArray[np.bool_]) -> Unit:
    """A leaf by its patterns; `answers` is the background's [rows, splits]."""
    players = players_of(leaf, player_of_split)
    bits = tuple(
        tuple((s, not wanted) for s, wanted in leaf.conditions if player_of_split[s] == player)
        for player in players
    )
    codes = _codes(bits, answers)
    histogram = np.bincount(codes, minlength=2 ** len(players)) / len(codes)
    return Unit(bits, players, leaf_table(leaf.weight, histogram))


def tree_unit(
    tree: Sequence[Leaf], player_of_split: Sequence[int], answers: NDArray[np.bool_]
) -> Unit:
    """A tree by its answers: for each of the 2**splits codes the sum over its leaves."""
    splits = splits_of(tree)
    players = tuple(dict.fromkeys(player_of_split[split] for split in splits))
    codes = np.arange(2 ** len(splits))
    asked = np.zeros((len(codes), answers.shape[1]), np.bool_)
    asked[:, splits] = (codes[:, None] >> np.arange(len(splits))) & 1
    table = np.zeros((len(codes), len(players)))
    for leaf in tree:
        unit = leaf_unit(leaf, player_of_split, answers)
        places = [players.index(player) for player in unit.players]
        table[:, places] += unit.table[_codes(unit.bits, asked)]
    return Unit(tuple(((split, True),) for split in splits), players, table)


def _codes(
    bits: Sequence[Sequence[tuple[int, bool]]], answers: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """The code of each row of answers [rows, splits]: a bit is set if any of its pairs holds."""
    codes = np.zeros(len(answers), np.intp)
    for place, pairs in enumerate(bits):
        setting = np.zeros(len(answers), np.bool_)
        for split, answer in pairs:
            setting |= answers[:, split] == answer
        codes |= setting.astype(np.intp) << place
    return codes


class Tables:
    """The units of an ensemble together; `values` adds their attributions [n, features].

    `lookup` is what a worker can do too; None: the tables are compressed.
    """

    def __init__(
        self, units: Sequence[Unit], splits: Sequence[Split], features: int, dtype: Any
    ) -> None:
        self._columns = _columns(units, splits, dtype)
        sizes = [len(unit.table) for unit in units]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int32)
        self._table = _joined(units, sum(sizes), features)
        self.lookup: Lookup | None = None
        if isinstance(self._table, np.ndarray):
            self.lookup = Lookup(self._columns, self._offsets, self._table)

    def values(self, matrix: NDArray[Any]) -> Floats:
        if self.lookup is not None:
            return self.lookup.values(matrix)
        units = len(self._offsets)
        places = (codes(self._columns, units, matrix) + self._offsets).ravel()
        starts = np.arange(0, len(places) + 1, units, dtype=np.int32)
        chosen = csr_array(
            (np.ones(len(places)), places, starts), shape=(len(matrix), self._table.shape[0])
        )
        return np.asarray((chosen @ self._table).toarray())


def _columns(units: Sequence[Unit], splits: Sequence[Split], dtype: Any) -> tuple[ColumnBits, ...]:
    """For each column asked: its cuts, and the bits of each unit."""
    by_column: dict[int, list[tuple[int, bool, int, int]]] = {}
    for number, unit in enumerate(units):
        for place, pairs in enumerate(unit.bits):
            for split, answer in pairs:
                by_column.setdefault(splits[split].column, []).append(
                    (split, answer, number, place)
                )
    columns = []
    for column, settings in sorted(by_column.items()):
        asked = sorted({split for split, *_ in settings})
        cuts = np.unique(np.concatenate([splits[split].cuts(dtype) for split in asked]))
        inside = np.concatenate([[-np.inf], cuts, [np.nan]]).astype(dtype)
        answers = {split: splits[split].answers(inside) for split in asked}
        bits = np.zeros((len(inside), len(units)), np.uint8)
        for split, answer, number, place in settings:
            bits[:, number] |= (answers[split] == answer).astype(np.uint8) << place
        columns.append(ColumnBits(column, cuts, bits))
    return tuple(columns)


def _joined(units: Sequence[Unit], height: int, features: int) -> Any:
    """All tables, one under the other: dense if that is small, else compressed rows."""
    widths = np.concatenate([np.full(len(unit.table), len(unit.players)) for unit in units])
    data = np.concatenate([unit.table.ravel() for unit in units])
    players = np.concatenate([np.tile(unit.players, len(unit.table)) for unit in units])
    starts = np.concatenate([[0], np.cumsum(widths)])
    table = csr_array((data, players.astype(np.int32), starts), shape=(height, features))
    if height * features * 8 <= DENSE_BYTES_AT_MOST:
        return table.toarray()
    table.eliminate_zeros()
    return table
