"""Exact interventional TreeSHAP of an ensemble, averaged over a fixed background.

Each tree takes the fastest form that fits it: a table by its answers, tables by its leaves'
patterns, or its boxes one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.attribution.lookup import Lookup
from gateway.explain.attribution import Floats, Unreadable
from gateway.explain.boxes import BoxedTree
from gateway.explain.graph import Reading
from gateway.explain.tables import (
    BITS_AT_MOST,
    Tables,
    Unit,
    leaf_unit,
    players_of,
    splits_of,
    tree_unit,
)
from gateway.explain.trees import Ensemble, Leaf, read_ensemble

# Memory for tables of one model, and pairs of leaf and background pattern that a row may cost
# beyond them (about 20 ns each).
TABLE_BYTES_AT_MOST = 128 << 20
PAIRS_AT_MOST = 1 << 21


class TreeModel:
    """An ensemble and its background; the matrix is [n, columns], float32 or float64."""

    def __init__(
        self, reading: Reading, features: tuple[str, ...], background: NDArray[Any]
    ) -> None:
        if background.dtype not in (np.float32, np.float64):
            raise Unreadable(f"trees compare {background.dtype}")
        ensemble = read_ensemble(reading)
        self.space = ensemble.space
        self._features = len(features)
        self._players = [features.index(reading.owners[s.column]) for s in ensemble.splits]
        self._answers = np.zeros((len(background), len(ensemble.splits)), np.bool_)
        for number, split in enumerate(ensemble.splits):
            self._answers[:, number] = split.answers(background[:, split.column])
        self.base = ensemble.constant + sum(
            leaf.weight * self._share_inside(leaf) for tree in ensemble.trees for leaf in tree
        )
        self._build(ensemble, background.dtype)

    def _share_inside(self, leaf: Leaf) -> float:
        """How much of the background falls into the leaf."""
        inside = np.ones(len(self._answers), np.bool_)
        for split, wanted in leaf.conditions:
            inside &= self._answers[:, split] == wanted
        return float(inside.mean())

    def _build(self, ensemble: Ensemble, dtype: Any) -> None:
        units: list[Unit] = []
        self._boxed: list[BoxedTree] = []
        # A unit also costs a byte in each interval of its columns; two cuts a split, at most.
        intervals = 2 * len(ensemble.splits) + 2 * len(self._players)
        room = TABLE_BYTES_AT_MOST
        for tree in ensemble.trees:
            widths = self._table_widths(tree)
            cost = sum(2**bits * players * 12 + intervals for bits, players in widths)
            if widths and max(bits for bits, _ in widths) <= BITS_AT_MOST and cost <= room:
                room -= cost
                units += self._units(tree)
            elif splits_of(tree):
                self._boxed.append(
                    BoxedTree(tree, ensemble.splits, self._players, self._answers, self._features)
                )
        pairs = sum(tree.pairs for tree in self._boxed)
        if pairs > PAIRS_AT_MOST:
            raise Unreadable(f"trees too large to explain exactly: {pairs} pairs a row")
        self._tables = Tables(units, ensemble.splits, self._features, dtype) if units else None

    def _table_widths(self, tree: Sequence[Leaf]) -> list[tuple[int, int]]:
        """Bits and features of each table the tree would take: one, or one a leaf."""
        splits = splits_of(tree)
        if len(splits) <= BITS_AT_MOST:
            players = len({self._players[split] for split in splits})
            return [(len(splits), players)] if splits else []
        counts = [len(players_of(leaf, self._players)) for leaf in tree]
        return [(count, count) for count in counts]

    def _units(self, tree: Sequence[Leaf]) -> list[Unit]:
        if len(splits_of(tree)) <= BITS_AT_MOST:
            return [tree_unit(tree, self._players, self._answers)]
        return [leaf_unit(leaf, self._players, self._answers) for leaf in tree]

    @property
    def form(self) -> Lookup | None:
        """All of it as a lookup; None: some trees take more."""
        return self._tables.lookup if self._tables is not None and not self._boxed else None

    def values(self, matrix: NDArray[Any]) -> Floats:
        """Attributions [n, features]; a row's bits do not depend on the rows beside it."""
        if self._tables is None:
            values = np.zeros((len(matrix), self._features))
        else:
            values = self._tables.values(matrix)
        for tree in self._boxed:
            values += tree.values(matrix)
        return values
