"""Which input each column of an inner tensor comes from.

A coalition of features may only be mixed at an inner tensor if each of its columns depends on one
feature, and on nothing of other rows. The walk goes forward through the graph and keeps, for each
tensor, its *lanes*: an object array in the tensor's shape without the row axis, each item the
owner of that place (None: a constant). An operator that is not listed here makes its results
unreadable; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from gateway.explain.attribution import Unreadable

Lanes: TypeAlias = NDArray[np.object_]

# Each place of the output depends on that place of the inputs, after broadcasting: nothing else.
# fmt: off
PLACEWISE = frozenset((
    "Abs", "Add", "And", "Binarizer", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor",
    "Greater", "GreaterOrEqual", "Identity", "Imputer", "IsNaN", "LabelEncoder", "Less",
    "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Relu", "Round", "Scaler",
    "Sigmoid", "Sqrt", "Sub", "Tanh", "Where",
))
# fmt: on
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True)
class Graph:
    """The nodes in their order (ONNX sorts them topologically) and the constants by name."""

    nodes: tuple[Any, ...]
    inputs: tuple[str, ...]
    constants: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, model: Any) -> Graph:
        constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        for node in model.graph.node:
            value = attributes(node).get("value") if node.op_type == "Constant" else None
            if value is not None:
                constants[node.output[0]] = onnx.numpy_helper.to_array(value)
        inputs = tuple(entry.name for entry in model.graph.input if entry.name not in constants)
        return cls(tuple(model.graph.node), inputs, constants)

    def ancestors(self, tensor: str) -> tuple[Any, ...]:
        """The nodes that the tensor is computed from, in their order."""
        wanted, found = {tensor}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                found.append(node)
        return tuple(reversed(found))


def attributes(node: Any) -> dict[str, Any]:
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def lanes_of(
    graph: Graph, tensor: str, given: Mapping[str, Lanes], placewise: Collection[str] = PLACEWISE
) -> Lanes:
    """The lanes of a tensor, from those of the tensors given; Unreadable if not certain."""
    lanes = dict(given)
    for node in graph.ancestors(tensor):
        known = any(name in lanes for name in node.output)
        if not known and any(name in lanes for name in node.input):
            lanes[node.output[0]] = _after(node, graph, lanes, placewise)
    if tensor not in lanes:
        raise Unreadable(f"{tensor} is not computed from the inputs in a known way")
    return lanes[tensor]


def _after(
    node: Any, graph: Graph, lanes: Mapping[str, Lanes], placewise: Collection[str]
) -> Lanes:
    if node.domain not in _DOMAINS:
        raise Unreadable(f"operator {node.domain}.{node.op_type} is not known")
    if node.op_type in placewise:
        return _merged(node, graph, lanes)
    if node.op_type in _JOINING:
        return _joined(node, lanes)
    if node.op_type not in _RESHAPING or node.input[0] not in lanes:
        raise Unreadable(f"operator {node.op_type} may mix features")
    arguments = [_constant(node, name, graph) for name in node.input[1:]]
    return _RESHAPING[node.op_type](lanes[node.input[0]], arguments, attributes(node))


def _constant(node: Any, name: str, graph: Graph) -> NDArray[Any] | None:
    if name and name not in graph.constants:
        raise Unreadable(f"{node.op_type}: {name} is not a constant")
    return graph.constants[name] if name else None


def _merged(node: Any, graph: Graph, lanes: Mapping[str, Lanes]) -> Lanes:
    """Placewise operators: broadcasting aligns the last axes, the row axis stays first."""
    rank = max(lanes[name].ndim for name in node.input if name in lanes)
    operands = []
    for name in filter(None, node.input):
        if name in lanes:
            operand = lanes[name]
            if operand.ndim != rank:
                raise Unreadable(f"{node.op_type}: operands of different rank")
        else:
            operand = _constant_lanes(node, name, graph, rank)
        operands.append(operand)
    spread = np.broadcast_arrays(*operands)
    merged = np.empty(spread[0].shape, np.object_)
    for place in np.ndindex(merged.shape):
        owners = {operand[place] for operand in spread} - {None}
        if len(owners) > 1:
            raise Unreadable(f"{node.op_type} mixes {' and '.join(sorted(map(str, owners)))}")
        merged[place] = owners.pop() if owners else None
    return merged


def _constant_lanes(node: Any, name: str, graph: Graph, rank: int) -> Lanes:
    constant = _constant(node, name, graph)
    assert constant is not None
    shape = constant.shape
    if len(shape) == rank + 1 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > rank:
        raise Unreadable(f"{node.op_type}: constant {name} reaches over rows")
    return np.full(shape, None, np.object_)


def _joined(node: Any, lanes: Mapping[str, Lanes]) -> Lanes:
    if any(name not in lanes for name in node.input):
        raise Unreadable(f"{node.op_type}: an operand is not computed from the inputs")
    operands = [lanes[name] for name in node.input]
    if node.op_type == "FeatureVectorizer":
        widths = list(attributes(node).get("inputdimensions", []))
        if widths != [operand.size for operand in operands]:
            raise Unreadable("FeatureVectorizer: inputdimensions differ from its inputs")
        return np.concatenate([operand.ravel() for operand in operands])
    axis = _axis(attributes(node)["axis"], operands[0])
    if any(operand.ndim != operands[0].ndim for operand in operands):
        raise Unreadable("Concat: operands of different rank")
    return np.concatenate(operands, axis=axis)


def _axis(axis: int, lanes: Lanes) -> int:
    """The lanes' axis of a tensor's axis; the row axis may not be touched."""
    place = axis - 1 if axis >= 0 else axis + lanes.ndim
    if not 0 <= place < lanes.ndim:
        raise Unreadable(f"axis {axis} is the rows' axis")
    return place


Arguments: TypeAlias = Sequence[NDArray[Any] | None]


def _one_hot(lanes: Lanes, _: Arguments, attribute: dict[str, Any]) -> Lanes:
    categories = attribute.get("cats_strings") or attribute.get("cats_int64s")
    if not categories:
        raise Unreadable("OneHotEncoder without categories")
    return np.repeat(lanes[..., None], len(categories), axis=-1)


def _reshape(lanes: Lanes, arguments: Arguments, _: dict[str, Any]) -> Lanes:
    """Only shapes that certainly leave the rows alone: the rest must hold exactly one row."""
    target = [] if not arguments or arguments[0] is None else [int(i) for i in arguments[0]]
    if not target or target[0] not in (-1, 0) or 0 in target[1:]:
        raise Unreadable(f"Reshape to {target} may move rows")
    if target[0] == -1 and -1 in target[1:]:
        raise Unreadable(f"Reshape to {target} may move rows")
    try:
        return lanes.reshape(target[1:])
    except ValueError:
        raise Unreadable(f"Reshape to {target} moves rows") from None


def _flatten(lanes: Lanes, _: Arguments, attribute: dict[str, Any]) -> Lanes:
    if attribute.get("axis", 1) != 1:
        raise Unreadable("Flatten at another axis than 1")
    return lanes.ravel()


def _gather(lanes: Lanes, arguments: Arguments, attribute: dict[str, Any]) -> Lanes:
    if arguments[0] is None:
        raise Unreadable("Gather without constant indices")
    axis = _axis(attribute.get("axis", 0), lanes)
    return np.asarray(np.take(lanes, arguments[0], axis=axis), np.object_)


def _extract(lanes: Lanes, arguments: Arguments, _: dict[str, Any]) -> Lanes:
    if arguments[0] is None:
        raise Unreadable("ArrayFeatureExtractor without constant indices")
    return lanes[..., arguments[0].ravel()]


def _slice(lanes: Lanes, arguments: Arguments, attribute: dict[str, Any]) -> Lanes:
    named = [attribute.get(key) for key in ("starts", "ends", "axes")] + [None]
    for place, argument in enumerate(arguments):
        named[place] = argument
    starts, ends, axes, steps = named
    if starts is None or ends is None or axes is None:
        raise Unreadable("Slice without constant starts, ends and axes")
    for i, axis in enumerate(axes):
        step = 1 if steps is None else int(steps[i])
        if step < 1:
            raise Unreadable("Slice backwards")
        part = [slice(None)] * lanes.ndim
        part[_axis(int(axis), lanes)] = slice(int(starts[i]), int(ends[i]), step)
        lanes = lanes[tuple(part)]
    return lanes


_JOINING = ("Concat", "FeatureVectorizer")
_RESHAPING: dict[str, Callable[[Lanes, Arguments, dict[str, Any]], Lanes]] = {
    "OneHotEncoder": _one_hot,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Gather": _gather,
    "ArrayFeatureExtractor": _extract,
    "Slice": _slice,
}
