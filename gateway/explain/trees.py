"""Tree ensembles as they stand in an ONNX graph, read into splits and leaves.

A leaf is a box: the answers that a row must give to the splits on the way. A split is one
question to one column of the matrix; equal questions anywhere in the ensemble are one split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from gateway.explain.attribution import Floats, Space, Unreadable
from gateway.explain.graph import Reading, combination

Mode: TypeAlias = Literal["LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER"]
_MODES: tuple[Mode, ...] = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
# With other members onnxruntime (1.32) takes 2.5 for a member of {2, 31}, or refuses the model.
MEMBERS = np.arange(31)
# Paths are copied at each branch, so a chain of nodes would cost its length squared.
DEPTH_AT_MOST = 256
# LightGBM's exporter lets several branches of a set of categories lead to one node: a leaf below it
# is a box for each way, and ways multiply. A ring has no end, and is refused by this too.
LEAVES_AT_MOST = 1 << 16


@dataclass(frozen=True)
class Split:
    """A question to one column. `values` holds the threshold, or the members of a set."""

    column: int
    mode: Mode
    values: tuple[float, ...]
    missing_is_true: bool

    def answers(self, x: NDArray[Any]) -> NDArray[np.bool_]:
        """True where the row takes the true branch; compared in the type of x, as onnxruntime
        does: NaN fails every comparison but NEQ, unless missing values track true."""
        values = np.array(self.values, x.dtype)
        if self.mode == "MEMBER":
            answers = np.isin(x, values)
        else:
            answers = _COMPARE[self.mode](x, values[0])
        if self.missing_is_true:
            answers = answers | np.isnan(x)
        return np.asarray(answers, np.bool_)

    def cuts(self, dtype: Any) -> NDArray[Any]:
        """Where the answer may change: it is constant on each interval [cut, next cut)."""
        values = np.array(self.values, dtype)
        above = np.asarray(np.nextafter(values, np.array(np.inf, dtype)))
        if self.mode in ("LEQ", "GT"):
            return above
        if self.mode in ("LT", "GTE"):
            return values
        return np.concatenate([values, above])


_COMPARE: dict[Mode, Any] = {
    "LEQ": np.less_equal,
    "LT": np.less,
    "GTE": np.greater_equal,
    "GT": np.greater,
    "EQ": np.equal,
    "NEQ": np.not_equal,
}


@dataclass(frozen=True)
class Leaf:
    """A weight, and the box it holds for: pairs of split number and wanted answer."""

    weight: float
    conditions: tuple[tuple[int, bool], ...]


@dataclass(frozen=True)
class Ensemble:
    """`constant` plus, for each tree, the weight of the leaf whose box holds the row."""

    splits: tuple[Split, ...]
    trees: tuple[tuple[Leaf, ...], ...]
    constant: float
    space: Space


@dataclass(frozen=True)
class _Branch:
    """A node of either operator's encoding: a split and the keys of its two children."""

    split: Split
    when_true: int
    when_false: int


def read_ensemble(reading: Reading) -> Ensemble:
    """Read any of the three tree operators; Unreadable if its form is not certain."""
    if _aggregate(reading.attributes) not in ("SUM", "AVERAGE"):
        raise Unreadable(f"trees are aggregated by {_aggregate(reading.attributes)}")
    if reading.operator == "TreeEnsemble":
        return _read_version_5(reading)
    return _read_version_3(reading)


def _aggregate(attribute: Mapping[str, Any]) -> str:
    value = attribute.get("aggregate_function", b"SUM")
    return value.decode() if isinstance(value, bytes) else _AGGREGATES[value]


def _numbers(attribute: Mapping[str, Any], key: str) -> Floats:
    tensor = attribute.get(f"{key}_as_tensor", attribute.get(key))
    if tensor is None:
        return np.zeros(0)
    if isinstance(tensor, onnx.TensorProto):
        tensor = onnx.numpy_helper.to_array(tensor)
    return np.asarray(tensor, np.float64)


def _read_version_3(reading: Reading) -> Ensemble:
    """TreeEnsembleClassifier and TreeEnsembleRegressor: nodes keyed by tree and node number."""
    attribute = reading.attributes
    kind = "class" if reading.operator == "TreeEnsembleClassifier" else "target"
    trees, numbers = attribute["nodes_treeids"], attribute["nodes_nodeids"]
    place = {key: i for i, key in enumerate(zip(trees, numbers))}
    if len(place) != len(trees):
        raise Unreadable("two nodes of a tree have one number")
    branches = _branches_version_3(attribute, place)
    children = {c for b in branches.values() for c in (b.when_true, b.when_false)}
    roots = [i for i in range(len(trees)) if i not in children]
    if sorted(trees[i] for i in roots) != sorted(set(trees)):
        raise Unreadable("a tree has no root, or several")

    ids = np.asarray(attribute.get(f"{kind}_ids", ()), np.intp)
    named = zip(attribute[f"{kind}_treeids"], attribute[f"{kind}_nodeids"])
    nodes = np.array([place[key] for key in named], np.intp)
    targets = reading.columns
    base = _numbers(attribute, "base_values")
    if kind == "class" and targets == 2 and len(base) == 2:
        raise Unreadable("two base values: onnxruntime derives one class from the other")
    if kind == "class" and targets == 2 and len(set(ids)) == 1:
        # One class has weights: onnxruntime sums once, derives the other column, and adds a base
        # only if that class is numbered 0.
        if len(base) and ids[0] != 0:
            raise Unreadable(f"a base value beside the one class {ids[0]}")
        ids, targets = np.zeros_like(ids), 1
    weights = np.zeros((len(trees), targets))
    np.add.at(weights, (nodes, ids), _numbers(attribute, f"{kind}_weights"))
    if kind == "class" and targets > 1:
        _each_class_always_scored(np.asarray(trees), set(branches), zip(nodes, ids), targets)
    return _ensemble(reading, branches, roots, weights, base)


def _each_class_always_scored(
    trees: NDArray[np.int_], branches: set[int], scored: Iterable[tuple[int, int]], classes: int
) -> None:
    """onnxruntime treats a class that no leaf reached has a weight for in a way of its own."""
    has_weight = np.zeros((len(trees), classes), np.bool_)
    for node, number in scored:
        has_weight[node, number] = True
    has_weight[list(branches)] = True
    always = np.zeros(classes, np.bool_)
    for tree in np.unique(trees):
        always |= has_weight[trees == tree].all(axis=0)
    if not always.all():
        raise Unreadable("a class may be left without a weight")


def _branches_version_3(
    attribute: Mapping[str, Any], place: Mapping[tuple[int, int], int]
) -> dict[int, _Branch]:
    values = _numbers(attribute, "nodes_values")
    missing = attribute.get("nodes_missing_value_tracks_true") or [0] * len(place)
    branches = {}
    for (tree, _), i in place.items():
        mode = attribute["nodes_modes"][i].decode().removeprefix("BRANCH_")
        if mode == "LEAF":
            continue
        if mode not in _COMPARE:
            raise Unreadable(f"node mode {mode}")
        split = _split(attribute["nodes_featureids"][i], mode, (values[i],), bool(missing[i]))
        branches[i] = _Branch(
            split,
            place[tree, attribute["nodes_truenodeids"][i]],
            place[tree, attribute["nodes_falsenodeids"][i]],
        )
    return branches


def _read_version_5(reading: Reading) -> Ensemble:
    """TreeEnsemble: branches and leaves in two lists; here leaves follow the branches."""
    attribute = reading.attributes
    splits = _numbers(attribute, "nodes_splits")
    modes = _numbers(attribute, "nodes_modes").astype(int)
    missing = attribute.get("nodes_missing_value_tracks_true") or [0] * len(splits)
    members = iter(_members(_numbers(attribute, "membership_values")))
    branches = {}
    for i, mode in enumerate(modes):
        values = next(members) if _MODES[mode] == "MEMBER" else (splits[i],)
        split = _split(attribute["nodes_featureids"][i], _MODES[mode], values, bool(missing[i]))
        branches[i] = _Branch(
            split,
            attribute["nodes_truenodeids"][i] + len(splits) * attribute["nodes_trueleafs"][i],
            attribute["nodes_falsenodeids"][i] + len(splits) * attribute["nodes_falseleafs"][i],
        )
    leaf_weights = _numbers(attribute, "leaf_weights")
    weights = np.zeros((len(splits) + len(leaf_weights), reading.columns))
    leaves = len(splits) + np.arange(len(leaf_weights))
    np.add.at(weights, (leaves, attribute["leaf_targetids"]), leaf_weights)
    return _ensemble(reading, branches, list(attribute["tree_roots"]), weights, np.zeros(0))


def _members(values: Floats) -> list[tuple[float, ...]]:
    """The sets, each ended by a NaN."""
    members = values[~np.isnan(values)]
    if not np.isin(members, MEMBERS).all():
        raise Unreadable("a set has other members than whole numbers from 0 to 30")
    ends = np.flatnonzero(np.isnan(values))
    return [tuple(part[~np.isnan(part)]) for part in np.split(values, ends + 1)]


def _split(column: int, mode: Mode, values: Sequence[float], missing_is_true: bool) -> Split:
    if np.isnan(values).any():
        raise Unreadable("a threshold is NaN")
    return Split(int(column), mode, tuple(float(v) for v in values), missing_is_true)


def _ensemble(
    reading: Reading,
    branches: Mapping[int, _Branch],
    roots: Sequence[int],
    weights: Floats,
    base: Floats,
) -> Ensemble:
    """Combine the targets' weights [nodes, targets] into the score's sum and walk every tree."""
    signs, space = combination(reading, weights.shape[1])
    if len(base) not in (0, len(signs)):
        raise Unreadable(f"{len(base)} base values for {len(signs)} sums")
    share = 1 / len(roots) if _aggregate(reading.attributes) == "AVERAGE" else 1.0
    numbers: dict[Split, int] = {}
    sums = share * (weights @ signs)
    trees = tuple(_leaves(root, branches, sums, numbers) for root in roots)
    if any(split.column >= len(reading.owners) for split in numbers):
        raise Unreadable("a split asks for a column that its input does not have")
    constant = float(base @ signs) if len(base) else 0.0
    return Ensemble(tuple(numbers), trees, constant, space)


def _leaves(
    root: int, branches: Mapping[int, _Branch], weights: Floats, numbers: dict[Split, int]
) -> tuple[Leaf, ...]:
    """Every way to a leaf; `numbers` collects the splits of the ensemble."""
    leaves: list[Leaf] = []
    waiting: list[tuple[int, tuple[tuple[int, bool], ...]]] = [(root, ())]
    while waiting:
        node, path = waiting.pop()
        branch = branches.get(node)
        if branch is None:
            leaves.append(Leaf(float(weights[node]), path))
            continue
        if len(leaves) + len(waiting) > LEAVES_AT_MOST:
            raise Unreadable(f"a tree has more than {LEAVES_AT_MOST} ways to its leaves")
        if len(path) == DEPTH_AT_MOST:
            raise Unreadable(f"a tree is deeper than {DEPTH_AT_MOST}")
        split = numbers.setdefault(branch.split, len(numbers))
        waiting.append((branch.when_false, (*path, (split, False))))
        waiting.append((branch.when_true, (*path, (split, True))))
    return tuple(leaves)
