"""Random ensembles, made node by node, against the definition through onnxruntime."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from oracle import Oracle, card_of, columns, graph_of, one_tensor, part

from gateway.explain import tables, treeshap
from gateway.explain.attribution import Unreadable
from gateway.explain.explainer import Explainer
from gateway.explain.trees import Split, _Branch, _leaves

FEATURES = 5
GRID = np.array([-1.5, -1.0, 0.0, 0.5, 1.0, 2.0], np.float32)
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


class Nodes:
    """The attribute lists of an old-style ensemble, grown tree by tree."""

    def __init__(self, dice, modes, targets):
        self.dice, self.modes, self.targets = dice, modes, targets
        self.lists = {key: [] for key in ("mode", "feature", "value", "true", "false", "missing")}
        self.trees, self.numbers, self.leaves = [], [], []

    def grow(self, tree, depth):
        self.count = 0
        self._node(tree, depth)

    def _node(self, tree, depth):
        number, place = self.count, len(self.trees)
        self.count += 1
        self.trees.append(tree)
        self.numbers.append(number)
        branch = depth > 0 and (number == 0 or self.dice.random() < 0.85)
        row = {"mode": "LEAF", "feature": 0, "value": 0.0, "true": 0, "false": 0, "missing": 0}
        if branch:
            row["mode"] = str(self.dice.choice(self.modes))
            row["feature"] = int(self.dice.integers(FEATURES))
            row["value"] = float(self.dice.choice(GRID))
            row["missing"] = int(self.dice.random() < 0.4)
        for key, value in row.items():
            self.lists[key].append(value)
        if branch:
            self.lists["true"][place] = self._node(tree, depth - 1)
            self.lists["false"][place] = self._node(tree, depth - 1)
        else:
            for target in range(self.targets):
                self.leaves.append((tree, number, target, float(self.dice.normal())))
        return number

    def attributes(self, kind):
        trees, numbers, ids, weights = map(list, zip(*self.leaves))
        return {
            "nodes_treeids": self.trees,
            "nodes_nodeids": self.numbers,
            "nodes_modes": self.lists["mode"],
            "nodes_featureids": self.lists["feature"],
            "nodes_values": self.lists["value"],
            "nodes_truenodeids": self.lists["true"],
            "nodes_falsenodeids": self.lists["false"],
            "nodes_missing_value_tracks_true": self.lists["missing"],
            f"{kind}_treeids": trees,
            f"{kind}_nodeids": numbers,
            f"{kind}_ids": ids,
            f"{kind}_weights": weights,
        }


def grown(seed, depth, trees, modes, targets=1):
    nodes = Nodes(np.random.default_rng(seed), modes, targets)
    for tree in range(trees):
        nodes.grow(tree, depth)
    return nodes


def rows_of(seed, count=12, missing=0.15):
    """Values on and beside the thresholds, and missing ones."""
    dice = np.random.default_rng(seed)
    matrix = dice.choice(GRID, size=(count, FEATURES))
    matrix = np.nextafter(matrix, dice.choice([-9, 9], matrix.shape).astype(np.float32))
    exact = dice.random(matrix.shape) < 0.6
    matrix[exact] = dice.choice(GRID, size=int(exact.sum()))
    matrix[dice.random(matrix.shape) < missing] = np.nan
    return columns(matrix)


def check(model, seed, space, kind="quantity", score="score", column=0, candidates=None):
    card = card_of(model, one_tensor(FEATURES), score=score, column=column, kind=kind)
    background = rows_of(seed + 1, 7) if candidates is None else candidates
    explainer = Explainer(card, model, background)
    assert explainer.fallback_reason is None
    rows = rows_of(seed + 2)
    explained = explainer.explain(rows)
    assert (explained.method, explained.space) == ("trees", space)
    values, base = Oracle(card, model, space).shapley(rows, background)
    np.testing.assert_allclose(explained.values, values, atol=3e-5)
    assert explained.base == pytest.approx(base, abs=3e-5)
    assert explained.additive.all()
    alone = explainer.explain(part(rows, slice(3, 4)))
    assert alone.values.tobytes() == explained.values[3].tobytes()


def regressor(nodes, **more):
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=nodes.targets,
        **nodes.attributes("target"),
        **more,
    )
    return graph_of([node], {"X": FEATURES}, ["score"])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(0, 7),
    trees=st.integers(1, 4),
    modes=st.lists(st.sampled_from(MODES), min_size=1, unique=True),
)
def test_any_regressor_equals_the_definition(seed, depth, trees, modes):
    """Whatever the node modes, depths, equal splits and missing values: exact for every row."""
    check(regressor(grown(seed, depth, trees, modes), base_values=[0.5]), seed, "output")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 7))
def test_trees_without_room_for_tables_equal_the_definition(seed, depth):
    """With no room for tables each tree is explained box by box, to the same values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(treeshap, "TABLE_BYTES_AT_MOST", 0)
        check(regressor(grown(seed, depth, 2, MODES)), seed, "output")


def test_sparse_tables_equal_the_definition(monkeypatch):
    """Tables too large to be dense are kept by their features, with the same values."""
    monkeypatch.setattr(tables, "DENSE_BYTES_AT_MOST", 0)
    check(regressor(grown(4, 6, 3, MODES)), 4, "output")


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE"])
def test_the_second_target_is_read(aggregate):
    """Of a regressor with three targets the card's column is explained, summed or averaged."""
    model = regressor(grown(3, 4, 3, MODES, targets=3), aggregate_function=aggregate)
    check(model, 3, "output", column=1)


@pytest.mark.parametrize(
    ("classes", "post_transform", "base", "column"),
    [
        (1, "LOGISTIC", [0.3], 1),
        (1, "LOGISTIC", None, 0),
        (2, "LOGISTIC", None, 1),
        (2, "SOFTMAX", None, 1),
        (2, "SOFTMAX", None, 0),
        (3, "LOGISTIC", [0.3, -0.2, 0.1], 2),
    ],
)
def test_classifiers_are_explained_in_the_margin(classes, post_transform, base, column):
    """The margin is the sum before the transform, or the difference of two under softmax."""
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "score"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(max(classes, 2))),
        post_transform=post_transform,
        **({"base_values": base} if base else {}),
        **grown(11, 3, 3, MODES, classes).attributes("class"),
    )
    model = graph_of([node], {"X": FEATURES}, ["score"])
    check(model, 11, "margin", kind="probability", column=column)


def version_5(members=None, aggregate=1, sigmoid=False):
    """Two trees of the newer operator: a set or a threshold first, then a threshold; one stump."""
    modes = np.array([6 if members else 0, 2, 5], np.uint8)
    sets = {"membership_values": np.float32([*members, np.nan])} if members else {}
    tensors = {
        "nodes_splits": np.float32([0.5, 0.0, -1.0]),
        "nodes_modes": modes,
        "leaf_weights": np.float32([1.0, -2.0, 0.5, 3.0, -1.0]),
        **sets,
    }
    node = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["sum" if sigmoid else "score"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=aggregate,
        tree_roots=[0, 2],
        nodes_featureids=[1, 3, 0],
        nodes_trueleafs=[0, 1, 1],
        nodes_truenodeids=[1, 0, 3],
        nodes_falseleafs=[1, 1, 1],
        nodes_falsenodeids=[2, 1, 4],
        nodes_missing_value_tracks_true=[1, 0, 0],
        leaf_targetids=[0] * 5,
        **{key: onnx.numpy_helper.from_array(value, key) for key, value in tensors.items()},
    )
    after = [helper.make_node("Sigmoid", ["sum"], ["score"])] if sigmoid else []
    return graph_of([node, *after], {"X": FEATURES}, ["score"], opset=21, ml=5)


@pytest.mark.parametrize("members", [None, [0, 1, 2], [0]])
@pytest.mark.parametrize("aggregate", [0, 1])
def test_the_newer_operator_equals_the_definition(members, aggregate):
    """`TreeEnsemble` of ai.onnx.ml 5 is read, its membership sets and averages too."""
    check(version_5(members, aggregate), 5, "output")


def test_a_sigmoid_behind_the_newer_operator_is_its_margin():
    """`TreeEnsemble` with a Sigmoid behind it is explained before the Sigmoid."""
    check(version_5(sigmoid=True), 5, "margin", kind="probability")


def test_sets_that_onnxruntime_blurs_are_refused():
    """A set with a negative member also takes fractions in onnxruntime: not explained from it."""
    reason = fallback_reason(version_5([-1, 1, 2]))
    assert reason == "a set has other members than whole numbers from 0 to 30"


def fallback_reason(model, column=0, kind="quantity"):
    card = card_of(model, one_tensor(FEATURES), score="score", column=column, kind=kind)
    return Explainer(card, model, rows_of(1)).fallback_reason


@pytest.mark.parametrize(
    ("classes", "number", "base", "message"),
    [
        (2, 0, [0.3, -0.2], "two base values"),
        (1, 0, [0.3, -0.2], "two base values"),
        (1, 1, [0.3], "a base value beside the one class 1"),
    ],
)
def test_bases_that_onnxruntime_takes_its_own_way_are_refused(classes, number, base, message):
    """Where onnxruntime departs from base plus weights, the graph is not read."""
    attributes = grown(11, 3, 3, MODES, classes).attributes("class")
    if number:
        attributes["class_ids"] = [number] * len(attributes["class_ids"])
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "score"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
        base_values=base,
        **attributes,
    )
    model = graph_of([node], {"X": FEATURES}, ["score"])
    assert fallback_reason(model, 1, "probability").startswith(message)


def test_what_is_not_a_sum_is_refused():
    """A minimum over trees has no sum to divide."""
    model = regressor(grown(3, 2, 2, MODES), aggregate_function="MIN")
    assert fallback_reason(model) == "trees are aggregated by MIN"


def test_a_class_that_may_have_no_weight_is_refused():
    """onnxruntime scores a class without weight in a way of its own; we do not guess it."""
    attributes = grown(3, 2, 1, MODES, targets=2).attributes("class")
    for key in ("treeids", "nodeids", "ids", "weights"):
        del attributes[f"class_{key}"][0]
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "score"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        **attributes,
    )
    model = graph_of([node], {"X": FEATURES}, ["score"])
    assert fallback_reason(model, 1) == "a class may be left without a weight"


def test_trees_too_large_are_refused(monkeypatch):
    """Beyond the stated number of pairs a model is estimated, and the reason gives the number."""
    monkeypatch.setattr(treeshap, "TABLE_BYTES_AT_MOST", 0)
    monkeypatch.setattr(treeshap, "PAIRS_AT_MOST", 3)
    assert fallback_reason(regressor(grown(3, 5, 2, MODES))).startswith("trees too large")


def test_a_node_that_several_branches_lead_to():
    """LightGBM's sets of categories: 1, 4 or 8 in f0 lead to one subtree, which is there once."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 7,
        nodes_nodeids=list(range(7)),
        nodes_modes=["BRANCH_EQ"] * 3 + ["BRANCH_LEQ"] + ["LEAF"] * 3,
        nodes_featureids=[0, 0, 0, 1, 0, 0, 0],
        nodes_values=[-1.0, 0.5, 2.0, 0.0, 0.0, 0.0, 0.0],
        nodes_truenodeids=[3, 3, 3, 4, 0, 0, 0],
        nodes_falsenodeids=[1, 2, 6, 5, 0, 0, 0],
        target_treeids=[0] * 3,
        target_nodeids=[4, 5, 6],
        target_ids=[0] * 3,
        target_weights=[1.0, -2.0, 0.5],
    )
    check(graph_of([node], {"X": FEATURES}, ["score"]), 9, "output")


def test_a_ring_of_nodes_is_refused():
    """A graph whose branches lead back to themselves has no leaves to explain from."""
    question = Split(0, "LEQ", (0.0,), False)
    ring = {0: _Branch(question, 1, 1), 1: _Branch(question, 0, 0)}
    with pytest.raises(Unreadable, match="ways to its leaves|deeper than"):
        _leaves(0, ring, np.zeros(2), {})
