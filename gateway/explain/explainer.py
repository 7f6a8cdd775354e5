"""Explanations of one artifact against one background.

The artifact's graph is read; what was read must give onnxruntime's own scores on candidate rows,
or it is not believed. Then the explanation is exact and cheap (`linear`, `trees`). Otherwise
`fallback_reason` says why not, and the scores are asked for: all coalitions of up to 8 features,
else antithetic permutations with their standard error.

A row's attributions do not depend on the rows beside it. Its prediction is the score that was
answered, so an explanation can be made again to the bit; without one it is onnxruntime's for the
batch here, which may differ in its last bits in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from gateway.attribution.plan import Plan
from gateway.card import Card
from gateway.explain.attribution import (
    Attributions,
    Columns,
    Floats,
    Method,
    Space,
    Unreadable,
    in_space,
    room,
)
from gateway.explain.background import choose, digest
from gateway.explain.coalitions import FEATURES_AT_MOST, coalitions, shapley
from gateway.explain.graph import expose, read
from gateway.explain.linear import LinearModel
from gateway.explain.permutations import estimate, scores_asked
from gateway.explain.rows import canonical, count, take
from gateway.explain.scorer import Scorer
from gateway.explain.treeshap import TreeModel

# Mixed rows scored in one call: bounds memory, and fixes the batches so that bits repeat.
ROWS_A_CALL = 4096
# What float32 sums of shares, as a forest's, may pass 0 or 1 by.
SUM_ROUNDING = 1e-4
# Candidates on which the reading of a graph must give onnxruntime's own score, evenly spread.
CHECKED_AT_MOST = 256

_Answer: TypeAlias = tuple[Floats, Floats, Floats | None]
"""Scores [n], attributions [n, features], their standard errors or None."""


class Scoring(Protocol):
    """Whoever gives scores [n] of rows, and the type that they are in."""

    score_type: np.dtype[Any]

    def scores(self, rows: Columns) -> Floats: ...


class Explainer:
    """One artifact's explanations; built once per (artifact digest, background digest).

    `background` is the candidates, of which `background.choose` takes at most 50. ValueError if
    none of them is on the side that is not adverse, a score that the card calls a probability is
    none, or the card does not fit the model.
    """

    fallback_reason: str | None = None

    def __init__(
        self, card: Card, model: bytes, background: Columns, scorer: Scoring | None = None
    ) -> None:
        """`scorer`: who scores for a model that is not held; `model` only names it then."""
        self._card = card
        self._features = tuple(feature.name for feature in card.used)
        self._scorer: Scoring = scorer if scorer is not None else Scorer(card, model)
        scores = self._scorer.scores(background)
        if card.outputs.score.kind == "probability":
            _probabilities(scores)
        chosen = choose(card, scores)
        self._background = take(background, chosen)
        self._background_digest = digest(card, self._background)
        self._seed: int | None = None
        self._budget = 0
        self._base: float
        self._space: Space
        self.method: Method
        self.plan: Plan
        self._answer: Callable[[Columns], _Answer]
        try:
            if scorer is not None:
                raise Unreadable("the model is served elsewhere")
            self._read(model, background, scores, chosen)
        except Unreadable as refusal:
            self.fallback_reason = str(refusal)
            self._sample(model, scores[chosen])

    def explain(self, rows: Columns, answered: Floats | None = None) -> Attributions:
        """Explain n >= 1 rows; ValueError if they do not fit the card.

        `answered` [n]: the scores that were given, by whoever answered. They are what is explained:
        where another model gave them, or they were rounded on the way, the residual shows it.
        """
        if not count(rows):
            raise ValueError("no rows to explain")
        scores, values, standard_errors = self._answer(rows)
        if answered is not None:
            scores = answered.astype(self._scorer.score_type).astype(np.float64)
        predictions = in_space(self._space, scores)
        return Attributions(
            method=self.method,
            space=self._space,
            features=self._features,
            base=self._base,
            values=values,
            predictions=predictions,
            residuals=predictions - (self._base + values.sum(axis=1)),
            standard_errors=standard_errors,
            background=self._background_digest,
            background_rows=count(self._background),
            seed=self._seed,
            budget=self._budget,
        )

    def scores(self, rows: Columns) -> Floats:
        """What the artifact answers, [n]."""
        return self._scorer.scores(rows)

    def _read(
        self, model: bytes, candidates: Columns, scores: Floats, chosen: NDArray[np.intp]
    ) -> None:
        graph = onnx.load_model_from_string(model)
        reading = read(self._card, graph)
        exposed = expose(graph, reading.matrix)
        scorer = Scorer(self._card, exposed, reading.matrix)
        exposed_scores, matrix = scorer.scores_and_exposed(candidates)
        if matrix.shape != (len(scores), len(reading.owners)):
            raise Unreadable(f"{reading.matrix} is {matrix.shape}, {len(reading.owners)} read")
        if not np.array_equal(exposed_scores, scores, equal_nan=True):
            raise Unreadable("the graph scores differently with its inner tensor exposed")
        form = LinearModel if reading.operator.startswith("Linear") else TreeModel
        closed = form(reading, self._features, matrix[chosen])
        _agree(closed, matrix, scores)

        def answer(rows: Columns) -> _Answer:
            row_scores, row_matrix = scorer.scores_and_exposed(rows)
            return row_scores, closed.values(row_matrix), None

        self._answer, self._base, self._space = answer, closed.base, closed.space
        self.method = "linear" if form is LinearModel else "trees"
        if closed.form is None:
            self.plan = Plan(unavailable="trees_too_large")
        else:
            told = (self.method, self._background_digest, self._features)
            self.plan = Plan(None, *told, reading.matrix, exposed, closed.form)

    def _sample(self, model: bytes, chosen_scores: Floats) -> None:
        self.plan = Plan(unavailable="sampled")
        self._space = "margin" if self._card.outputs.score.kind == "probability" else "output"
        self._base = float(in_space(self._space, chosen_scores).mean())
        rows, features = count(self._background), len(self._features)
        if features <= FEATURES_AT_MOST:
            self._budget = rows * 2**features
            self.method, self._answer = "coalitions", self._by_coalitions
            return
        self._budget = scores_asked(rows, features)
        self.method, self._answer = "permutations", self._by_permutations
        named = hashlib.sha256(model).digest() + bytes.fromhex(self._background_digest)
        self._seed = int.from_bytes(hashlib.sha256(named).digest()[:8], "little") >> 1

    def _by_coalitions(self, rows: Columns) -> _Answer:
        taken = coalitions(len(self._features))
        background = np.arange(count(self._background))
        values = []
        for row in range(count(rows)):
            scores = self._mixed(
                rows, row, np.tile(background, len(taken)), np.repeat(taken, len(background), 0)
            )
            values.append(shapley(scores.reshape(len(taken), -1).mean(axis=1)))
        return self._scorer.scores(rows), np.array(values), None

    def _by_permutations(self, rows: Columns) -> _Answer:
        """Each row has dice of its own, from the seed and its bytes, whatever its batch."""
        assert self._seed is not None
        values, errors = [], []
        for row, named in enumerate(canonical(self._card.used, rows)):
            dice = [self._seed, *np.frombuffer(hashlib.sha256(named).digest(), np.uint32)]
            row_values, row_errors = estimate(
                partial(self._mixed, rows, row),
                count(self._background),
                len(self._features),
                np.random.default_rng(dice),
            )
            values.append(row_values)
            errors.append(row_errors)
        return self._scorer.scores(rows), np.array(values), np.array(errors)

    def _mixed(
        self, rows: Columns, row: int, numbers: NDArray[np.intp], taken: NDArray[np.bool_]
    ) -> Floats:
        """Scores, in the space, of background rows with the taken features from the row.

        What the model does not use comes from the row.
        """
        scores = []
        for start in range(0, len(numbers), ROWS_A_CALL):
            part = slice(start, start + ROWS_A_CALL)
            scores.append(self._scorer.scores(self._mix(rows, row, numbers[part], taken[part])))
        return in_space(self._space, np.concatenate(scores))

    def _mix(
        self, rows: Columns, row: int, numbers: NDArray[np.intp], taken: NDArray[np.bool_]
    ) -> dict[str, NDArray[Any]]:
        mixed = {}
        for feature in self._card.features:
            own = np.full(
                len(numbers), rows[feature.name][row], np.asarray(rows[feature.name]).dtype
            )
            if feature.used:
                others = np.asarray(self._background[feature.name])[numbers]
                own = np.where(taken[:, self._features.index(feature.name)], own, others)
            mixed[feature.name] = own
        return mixed


def _probabilities(scores: Floats) -> None:
    wrong = scores[(scores < -SUM_ROUNDING) | (scores > 1 + SUM_ROUNDING)]
    if len(wrong):
        raise ValueError(f"the card calls the score a probability, and the model gives {wrong[0]}")


def _agree(closed: LinearModel | TreeModel, matrix: NDArray[Any], scores: Floats) -> None:
    """Base plus values is the score of what was read: it must be onnxruntime's."""
    spread = np.linspace(0, len(matrix) - 1, min(len(matrix), CHECKED_AT_MOST)).astype(np.intp)
    values = closed.values(matrix[spread])
    expected = in_space(closed.space, scores[spread])
    difference = np.abs(expected - closed.base - values.sum(axis=1))
    if not np.all(difference <= room(closed.space, expected, closed.base, values)):
        raise Unreadable(f"what was read differs from onnxruntime by {difference.max():.3g}")
