"""From the score of an ONNX graph back to the one estimator that adds it up.

The estimator's input, the *matrix*, is where features are mixed: onnxruntime itself computes it
(with its scaling, imputing and encoding, in float32), and `ownership` says which feature each of
its columns belongs to. Categories behind a one-hot are several columns of one feature and switch
together. What is read here is believed only after it has given onnxruntime's own scores on
candidate rows; see `explainer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from gateway.card import Card
from gateway.explain.attribution import Floats, Space, Unreadable
from gateway.explain.ownership import Graph, Lanes, attributes, lanes_of
from gateway.explain.tensors import carried_by

_FLOATING = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_HEAD = ("Identity", "Cast", "Sigmoid", "Mul", "Div")
_CLASSIFIERS = ("LinearClassifier", "TreeEnsembleClassifier")
ESTIMATORS = (*_CLASSIFIERS, "LinearRegressor", "TreeEnsembleRegressor", "TreeEnsemble")
_POST_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(frozen=True)
class Reading:
    """An estimator and its surroundings: score column, matrix, owner of each matrix column."""

    operator: str
    attributes: Mapping[str, Any]
    matrix: str
    owners: tuple[str, ...]
    column: int
    columns: int
    post_transform: str
    scale: float


def read(card: Card, model: Any) -> Reading:
    """Recognise the card's score in an `onnx.ModelProto`; Unreadable says what is in the way."""
    graph = Graph.of(model)
    node = _estimator(graph, card.outputs.score.tensor)
    attribute = attributes(node)
    columns = _score_columns(node, attribute)
    column, post_transform, scale = _head(card, graph, node, columns, _post_transform(attribute))
    lanes = lanes_of(graph, node.input[0], _input_lanes(card, graph))
    if lanes.ndim != 1 or any(owner is None for owner in lanes):
        raise Unreadable(f"{node.op_type}: its input is not a matrix of features")
    _all_used(card, lanes)
    told = (column, columns, post_transform, scale)
    return Reading(node.op_type, attribute, node.input[0], tuple(lanes), *told)


def expose(model: Any, tensor: str) -> bytes:
    """The model with an inner tensor among its outputs; its type is left to onnxruntime."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outside = {entry.name for entry in (*exposed.graph.input, *exposed.graph.output)}
    if tensor not in outside:
        exposed.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return bytes(exposed.SerializeToString())


def combination(reading: Reading, targets: int) -> tuple[Floats, Space]:
    """Signs [targets] and space in which the score is `signs @ sums` plus constants.

    `targets` is how many sums the estimator makes; a binary classifier may make one and have
    onnxruntime derive the other column. Softmax of two sums is the logistic of their difference.
    """
    column, post_transform = reading.column, reading.post_transform
    space: Space = "output" if post_transform == "NONE" else "margin"
    signs = np.zeros(targets)
    if targets == 1 and reading.columns == 2 and post_transform in ("LOGISTIC", "NONE"):
        if column == 0 and post_transform == "NONE":
            raise Unreadable("the score is the derived column of a binary classifier")
        signs[0] = 1.0 if column == 1 else -1.0
    elif targets == reading.columns and post_transform in ("LOGISTIC", "NONE"):
        signs[column] = 1.0
    elif targets == 2 and post_transform == "SOFTMAX":
        signs[:] = -1.0
        signs[column] = 1.0
    else:
        raise Unreadable(f"{reading.operator}: {post_transform} of {targets} sums is not additive")
    return signs * reading.scale, space


def _estimator(graph: Graph, score: str) -> Any:
    ancestors = graph.ancestors(score)
    found = [node for node in ancestors if node.op_type in ESTIMATORS]
    if len(found) == 1 and found[0].domain == "ai.onnx.ml":
        return found[0]
    if found:
        raise Unreadable(f"{len(found)} estimators make the score")
    operators = sorted({node.op_type for node in ancestors})
    raise Unreadable(f"no linear or tree estimator makes the score: {', '.join(operators)}")


def _score_columns(node: Any, attribute: Mapping[str, Any]) -> int:
    if node.op_type in _CLASSIFIERS:
        for key in ("classlabels_ints", "classlabels_int64s", "classlabels_strings"):
            if attribute.get(key):
                return len(attribute[key])
        raise Unreadable(f"{node.op_type} without class labels")
    return int(attribute.get("targets" if node.op_type == "LinearRegressor" else "n_targets", 1))


def _post_transform(attribute: Mapping[str, Any]) -> str:
    value = attribute.get("post_transform", b"NONE")
    return value.decode() if isinstance(value, bytes) else _POST_TRANSFORMS[value]


def _head(
    card: Card, graph: Graph, node: Any, columns: int, post_transform: str
) -> tuple[int, str, float]:
    """The estimator's column that is the score, the transform between sum and score, and a factor:
    LightGBM's exporter multiplies probabilities by one, and divides a forest's sum by its trees."""
    output = node.output[1 if node.op_type in _CLASSIFIERS else 0]
    between = _between(graph, output, card.outputs.score.tensor)
    for follower in between:
        if follower.op_type == "Cast" and attributes(follower)["to"] not in _FLOATING:
            raise Unreadable("the score is cast to whole numbers")
    numbers = np.empty(columns, np.object_)
    numbers[:] = range(columns)
    lanes = lanes_of(graph, card.outputs.score.tensor, {output: numbers}, _HEAD).ravel()
    column = card.outputs.score.column
    if column >= len(lanes):
        raise Unreadable(f"the score has no column {column}")
    sigmoids = sum(n.op_type == "Sigmoid" for n in between)
    if sigmoids:
        if sigmoids > 1 or post_transform != "NONE":
            raise Unreadable("the score passes more than one transform")
        post_transform = "LOGISTIC"
    scale = _scale(graph, between)
    if scale != 1 and post_transform != "NONE":
        raise Unreadable(f"the score is multiplied by {scale:g} beside {post_transform}")
    if (post_transform != "NONE") and card.outputs.score.kind == "quantity":
        raise Unreadable(f"the score is a quantity made by {post_transform}")
    return int(lanes[column]), post_transform, scale


def _scale(graph: Graph, between: list[Any]) -> float:
    """The product of the constants that the score is multiplied with or divided by."""
    scale = 1.0
    for node in between:
        if node.op_type in ("Mul", "Div"):
            factor = graph.constants.get(node.input[1])
            if factor is None and node.op_type == "Mul":
                factor = graph.constants.get(node.input[0])
            if factor is None or factor.size != 1:
                raise Unreadable(f"{node.op_type} behind the estimator is not by one constant")
            scale = scale * factor.item() if node.op_type == "Mul" else scale / factor.item()
    return scale


def _between(graph: Graph, start: str, end: str) -> list[Any]:
    """The nodes on the ways from one tensor to another."""
    reached, found = {start}, []
    for node in graph.ancestors(end):
        if reached.intersection(node.input):
            reached.update(node.output)
            found.append(node)
    return found


def _input_lanes(card: Card, graph: Graph) -> dict[str, Lanes]:
    lanes = {}
    for name in graph.inputs:
        names = [feature.name for feature in carried_by(card, name)]
        lanes[name] = np.array(names, np.object_)
    return lanes


def _all_used(card: Card, owners: Lanes) -> None:
    unused = {feature.name for feature in card.features if not feature.used}
    read_anyway = sorted(unused.intersection(owners))
    if read_anyway:
        raise Unreadable(f"the model reads {', '.join(read_anyway)}: not used, says the card")
