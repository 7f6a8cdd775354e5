"""Trees too large for tables, explained exactly leaf by leaf.

Nothing is tabulated by the row's pattern; instead each leaf keeps the distinct patterns of the
background with their frequencies (see `games`), and a row is held against each. The cost of a row
grows with leaves times distinct patterns, which is limited when the model is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gateway.explain.attribution import Floats, Unreadable
from gateway.explain.games import shares
from gateway.explain.tables import splits_of
from gateway.explain.trees import Leaf, Split

PLAYERS_AT_MOST = 64
# Rows are taken in parts, so that the arrays of rows x patterns stay near 8 MB each.
CELLS_AT_A_TIME = 1 << 20


class BoxedTree:
    """One tree; `pairs` is its number of leaf and background pattern pairs."""

    def __init__(
        self,
        tree: Sequence[Leaf],
        splits: Sequence[Split],
        player_of_split: Sequence[int],
        answers: NDArray[np.bool_],
        features: int,
    ) -> None:
        asked = splits_of(tree)
        self._splits = [splits[split] for split in asked]
        self._players = tuple(dict.fromkeys(player_of_split[split] for split in asked))
        if len(self._players) > PLAYERS_AT_MOST:
            raise Unreadable(f"a tree asks about more than {PLAYERS_AT_MOST} features")
        # A tree of one leaf, or a leaf without conditions, has no game to divide.
        self._read_conditions([leaf for leaf in tree if leaf.conditions], asked, player_of_split)
        self._keep_background(answers[:, asked])
        self._features = features
        self._for_a, self._for_b = shares(len(self._players))

    def _read_conditions(
        self, leaves: Sequence[Leaf], asked: Sequence[int], player_of_split: Sequence[int]
    ) -> None:
        """Conditions of all leaves in one line, sorted by leaf: split, wanted answer, bit."""
        self._weights = np.array([leaf.weight for leaf in leaves])
        lengths = [len(leaf.conditions) for leaf in leaves]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(np.intp)
        number = {split: i for i, split in enumerate(asked)}
        bit = {player: np.uint64(1 << i) for i, player in enumerate(self._players)}
        pairs = [pair for leaf in leaves for pair in leaf.conditions]
        self._split_of = np.array([number[split] for split, _ in pairs], np.intp)
        self._wanted = np.array([wanted for _, wanted in pairs], np.bool_)
        self._bit_of = np.array([bit[player_of_split[split]] for split, _ in pairs], np.uint64)

    def _keep_background(self, answers: NDArray[np.bool_]) -> None:
        """Each leaf's distinct background patterns, one line sorted by leaf."""
        patterns = self._patterns(answers)
        leaf_of, pattern, weight = [], [], []
        for leaf in range(patterns.shape[1]):
            distinct, counts = np.unique(patterns[:, leaf], return_counts=True)
            leaf_of.append(np.full(len(distinct), leaf))
            pattern.append(distinct)
            weight.append(self._weights[leaf] * counts / len(patterns))
        self.pairs = sum(map(len, pattern))
        self._pair_starts = np.cumsum([0, *map(len, pattern)])[:-1]
        self._leaf_of, self._pattern = np.concatenate(leaf_of), np.concatenate(pattern)
        self._pair_weight = np.concatenate(weight)
        places, bits = [], []
        for place in range(len(self._players)):
            having = np.flatnonzero(self._pattern & np.uint64(1 << place))
            places.append(having)
            bits.append(np.full(len(having), place))
        rows, columns = np.concatenate(bits), np.concatenate(places)
        self._wrong_in_background = csr_array(
            (np.ones(len(rows)), (rows, columns)), shape=(len(self._players), self.pairs)
        )

    def _patterns(self, answers: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """[rows, leaves]: bits of the features that are wrong, from answers [rows, own splits]."""
        wrong = answers[:, self._split_of] != self._wanted
        bits = np.where(wrong, self._bit_of, np.uint64(0))
        return np.asarray(np.bitwise_or.reduceat(bits, self._starts, axis=1))

    def values(self, matrix: NDArray[Any]) -> Floats:
        """Attributions [n, features]."""
        values = np.zeros((len(matrix), self._features))
        step = max(1, CELLS_AT_A_TIME // max(self.pairs, len(self._split_of)))
        for start in range(0, len(matrix), step):
            part = matrix[start : start + step]
            values[start : start + step, list(self._players)] = self._values(part)
        return values

    def _values(self, matrix: NDArray[Any]) -> Floats:
        answers = [split.answers(matrix[:, split.column]) for split in self._splits]
        in_row = self._patterns(np.stack(answers, axis=1))
        row_patterns = in_row[:, self._leaf_of]
        weight = np.where(row_patterns & self._pattern, 0.0, self._pair_weight)
        sizes = np.bitwise_count(self._pattern), np.bitwise_count(row_patterns)
        for_a = weight * self._for_a[sizes]
        for_b = np.add.reduceat(weight * self._for_b[sizes], self._pair_starts, axis=1)
        values = np.asarray((self._wrong_in_background @ for_a.T).T)
        for place in range(len(self._players)):
            wrong = (in_row & np.uint64(1 << place)) != 0
            values[:, place] += np.where(wrong, for_b, 0.0).sum(axis=1)
        return values
