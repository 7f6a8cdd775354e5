"""One artifact under onnxruntime: rows in, the card's score out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gateway.card import Card
from gateway.explain.attribution import Columns, Floats
from gateway.explain.tensors import feeds

_FLOATS: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Scorer:
    """A session of one thread; `exposed` names an inner tensor to be returned with the score.

    `score_type` is the type that the model gives its score in: a recorded score is the shortest
    text that reads back as it, and has to be rounded to it before bits are compared.
    """

    def __init__(self, card: Card, model: bytes, exposed: str | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._card = card
        (self.score_type,) = (
            np.dtype(_FLOATS.get(entry.type, np.float64))
            for entry in self._session.get_outputs()
            if entry.name == card.outputs.score.tensor
        )
        self._inputs = tuple(self._session.get_inputs())
        self._exposed = exposed

    def scores(self, rows: Columns) -> Floats:
        """[n]: the score, as float64."""
        answer = self._session.run([self._card.outputs.score.tensor], self.feeds(rows))[0]
        return self._score(answer)

    def scores_and_exposed(self, rows: Columns) -> tuple[Floats, NDArray[Any]]:
        """The score [n] and the exposed tensor, which may be one of the inputs."""
        assert self._exposed is not None
        fed = self.feeds(rows)
        if self._exposed in fed:
            answer = self._session.run([self._card.outputs.score.tensor], fed)[0]
            return self._score(answer), fed[self._exposed]
        names = [self._card.outputs.score.tensor, self._exposed]
        answer, exposed = self._session.run(names, fed)
        return self._score(answer), np.asarray(exposed)

    def feeds(self, rows: Columns) -> dict[str, NDArray[Any]]:
        return feeds(self._card, self._inputs, rows)

    def _score(self, answer: object) -> Floats:
        score = self._card.outputs.score
        if not isinstance(answer, np.ndarray) or answer.ndim not in (1, 2):
            raise ValueError(f"score {score.tensor}: not a tensor [n] or [n, columns]")
        columns = answer.reshape(len(answer), -1)
        if score.column >= columns.shape[1]:
            raise ValueError(f"score {score.tensor}: no column {score.column}")
        return columns[:, score.column].astype(np.float64)
