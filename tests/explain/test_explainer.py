import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pyarrow.parquet
import pytest
import yaml
from onnx import helper
from oracle import (
    Oracle,
    card_of,
    category,
    columns,
    graph_of,
    linear_node,
    number,
    one_tensor,
    part,
)
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from gateway.artifacts import Artifacts
from gateway.card import Card
from gateway.explain.explainer import Explainer
from gateway.explain.worker import Explanations
from gateway.table import Version

DENY = {"below": "approve", "at_or_above": "deny", "adverse": "deny", "threshold": 0.5}
FLOAT32 = 2e-5
MORTGAGE = Path(__file__).parents[2] / "models" / "mortgage"


def export(estimator, matrix, target, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(matrix, target)
        last = estimator[-1] if hasattr(estimator, "steps") else estimator
        options = {id(last): {"zipmap": False}} if hasattr(last, "predict_proba") else None
        return to_onnx(estimator, initial_types=inputs, options=options).SerializeToString()


def mixed_data(rows=240):
    """Three numbers, one with holes, and two categories; a target that needs all of them."""
    dice = np.random.default_rng(5)
    numbers = dice.normal(size=(rows, 3)).astype(np.float32)
    town = np.array(["east", "north", "west"])[dice.integers(0, 3, rows)]
    own = np.array(["no", "yes"])[dice.integers(0, 2, rows)]
    target = numbers[:, 0] * (town == "east") + numbers[:, 1] - (own == "yes") + numbers[:, 2] ** 2
    numbers[dice.random(rows) < 0.1, 2] = np.nan
    matrix = np.empty((rows, 5), object)
    matrix[:, :3], matrix[:, 3], matrix[:, 4] = numbers, town, own
    kinds = [FloatTensorType, FloatTensorType, FloatTensorType, StringTensorType, StringTensorType]
    names = ["a", "b", "c", "town", "own"]
    inputs = [(name, kind([None, 1])) for name, kind in zip(names, kinds)]
    columns_of = {name: numbers[:, i].astype(np.float64) for i, name in enumerate(names[:3])}
    columns_of |= {"town": town.astype(object), "own": own.astype(object)}
    features = [number(name) for name in names[:3]]
    features += [category("town", "east", "north", "west"), category("own", "no", "yes")]
    return matrix, target, inputs, columns_of, features


def one_hot_columns():
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), [0, 1, 2]),
        (OneHotEncoder(handle_unknown="ignore"), [3, 4]),
    )


def ordinal_columns():
    return make_column_transformer(
        (MinMaxScaler(), [1]),
        (SimpleImputer(), [2, 0]),
        (OrdinalEncoder(), [3, 4]),
    )


PIPELINES = {
    "logistic": ("linear", "margin", one_hot_columns, LogisticRegression()),
    "boosting": (
        "trees",
        "margin",
        one_hot_columns,
        GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=0),
    ),
    "boosting, deeper": (
        "trees",
        "margin",
        ordinal_columns,
        GradientBoostingClassifier(n_estimators=8, max_depth=6, random_state=0),
    ),
    "forest": (
        "trees",
        "output",
        one_hot_columns,
        RandomForestClassifier(n_estimators=7, random_state=0),
    ),
    "ridge": ("linear", "output", one_hot_columns, Ridge()),
    "regressor": (
        "trees",
        "output",
        ordinal_columns,
        GradientBoostingRegressor(n_estimators=12, random_state=0),
    ),
    "neural": (
        "coalitions",
        "margin",
        one_hot_columns,
        MLPClassifier((4,), max_iter=50, random_state=0),
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_exported_pipelines_equal_the_definition(name):
    """Each pipeline that scikit-learn exports is explained as Shapley's definition has it."""
    method, space, preparation, estimator = PIPELINES[name]
    matrix, target, inputs, rows, features = mixed_data()
    if hasattr(estimator, "predict_proba"):
        model = export(make_pipeline(preparation(), estimator), matrix, target > 0.5, inputs)
        card = card_of(model, features, outcome=DENY)
    else:
        model = export(make_pipeline(preparation(), estimator), matrix, target, inputs)
        card = card_of(model, features, score="variable", column=0, kind="quantity")
    background, asked = part(rows, slice(0, 40)), part(rows, slice(40, 64))
    explainer = Explainer(card, model, background)
    explained = explainer.explain(asked)
    assert (explained.method, explained.space) == (method, space), explainer.fallback_reason

    oracle = Oracle(card, model, space)
    values, base = oracle.shapley(asked, explainer._background)
    np.testing.assert_allclose(explained.values, values, atol=FLOAT32, rtol=FLOAT32)
    assert explained.base == pytest.approx(base, abs=FLOAT32)
    np.testing.assert_allclose(explained.predictions, oracle.worth(asked), atol=FLOAT32)
    assert explained.additive.all()
    assert np.abs(explained.residuals).max() < FLOAT32


@pytest.mark.parametrize("name", ["logistic", "boosting", "boosting, deeper", "forest", "neural"])
def test_bits_do_not_depend_on_the_batch(name):
    """A row alone and the same row among 256 have the same attributions, bit for bit."""
    _, _, preparation, estimator = PIPELINES[name]
    matrix, target, inputs, rows, features = mixed_data(256)
    model = export(make_pipeline(preparation(), estimator), matrix, target > 0.5, inputs)
    few = {name: values[:12] for name, values in rows.items()}
    explainer = Explainer(card_of(model, features), model, few)
    size = 16 if name == "neural" else 256
    together = explainer.explain(part(rows, slice(0, size)))
    for row in (0, 1, 7, size - 1):
        alone = explainer.explain(part(rows, slice(row, row + 1)))
        assert alone.values.tobytes() == together.values[row].tobytes()
        assert alone.base == together.base


def test_what_is_not_used_is_fed_and_not_explained():
    """An input that the card calls unused reaches the model and has no attribution."""
    matrix, target, inputs, rows, features = mixed_data()
    model = export(make_pipeline(one_hot_columns(), Ridge()), matrix, target, inputs)
    loaded = onnx.load_model_from_string(model)
    loaded.graph.input.append(helper.make_tensor_value_info("race", 8, [None, 1]))
    features = [*features, category("race", "x", "y") | {"used": False}]
    rows = rows | {"race": np.array(["x", "y"] * 120, object)}
    model = loaded.SerializeToString()
    card = card_of(model, features, score="variable", column=0, kind="quantity")
    explained = Explainer(card, model, rows).explain(part(rows, slice(0, 3)))
    assert explained.features == ("a", "b", "c", "town", "own")
    assert explained.values.shape == (3, 5)


def test_a_card_that_hides_a_feature_is_refused_with_the_reason():
    """A model that reads what its card calls unused is not explained from its graph."""
    model = graph_of([linear_node([1, 2], "X", "score")], {"X": 2}, ["score"])
    features = [number("f0", tensor="X", column=0), number("f1", tensor="X", column=1, used=False)]
    card = card_of(model, features, score="score", column=0, kind="quantity")
    explainer = Explainer(card, model, columns(np.eye(2)))
    assert explainer.fallback_reason == "the model reads f1: not used, says the card"
    assert explainer.method == "coalitions"


def fallback_reason(nodes, width=3, kind="quantity", constants=()):
    model = graph_of(nodes, {"X": width}, ["score"], constants=constants)
    card = card_of(model, one_tensor(width), score="score", column=0, kind=kind)
    dice = np.random.default_rng(0)
    explainer = Explainer(card, model, columns(dice.normal(size=(20, width))))
    return explainer.fallback_reason


def test_mixed_columns_are_refused():
    """A Normalizer or a product of two features before the estimator mixes them: no closed form."""
    mixing = helper.make_node("Normalizer", ["X"], ["N"], domain="ai.onnx.ml", norm="L2")
    reason = fallback_reason([mixing, linear_node([1, 2, 3], "N", "score")])
    assert reason == "operator Normalizer may mix features"
    nodes = [
        helper.make_node("Gather", ["X", "turned"], ["T"], axis=1),
        helper.make_node("Mul", ["X", "T"], ["P"]),
        linear_node([1, 2, 3], "P", "score"),
    ]
    reason = fallback_reason(nodes, constants=[("turned", np.array([1, 2, 0]))])
    assert reason == "Mul mixes f0 and f1"


def test_rows_that_move_are_refused():
    """A Reshape that moves values between rows is not taken for a one-hot's."""
    nodes = [
        helper.make_node("Reshape", ["X", "to"], ["R"]),
        helper.make_node("Reshape", ["R", "back"], ["B"]),
        linear_node([1, 2, 3, 4], "B", "score"),
    ]
    shapes = [("to", np.array([-1, 2])), ("back", np.array([-1, 4]))]
    assert fallback_reason(nodes, 4, constants=shapes) == "Reshape to [-1, 2] moves rows"


def test_two_estimators_are_refused():
    """A sum of two estimators is not read as one of them."""
    nodes = [
        linear_node([1, 2, 3], "X", "A"),
        linear_node([3, 2, 1], "X", "B"),
        helper.make_node("Add", ["A", "B"], ["score"]),
    ]
    assert fallback_reason(nodes) == "2 estimators make the score"


@pytest.mark.parametrize(
    ("operator", "constant", "reason"),
    [
        ("Add", [2], "operator Add may mix features"),
        ("Mul", [1, 2], "Mul behind the estimator is not by one constant"),
        ("Pow", [2], "operator Pow may mix features"),
    ],
)
def test_post_processing_is_refused(operator, constant, reason):
    """Arithmetic behind the estimator changes the score, and is not overlooked."""
    nodes = [
        linear_node([1, 2, 3], "X", "A"),
        helper.make_node(operator, ["A", "by"], ["score"]),
    ]
    assert fallback_reason(nodes, constants=[("by", np.float32(constant))]) == reason


@pytest.mark.parametrize(("operator", "factor"), [("Mul", 0.5), ("Div", 4.0), ("Mul", 1.0)])
def test_a_constant_factor_is_part_of_the_score(operator, factor):
    """LightGBM's exporter multiplies or divides what the trees add up to: attributions follow."""
    nodes = [
        linear_node([1, -2, 3], "X", "A"),
        helper.make_node(operator, ["A", "by"], ["score"]),
    ]
    model = graph_of(nodes, {"X": 3}, ["score"], constants=[("by", np.float32([factor]))])
    card = card_of(model, one_tensor(3), score="score", column=0, kind="quantity")
    rows = columns(np.random.default_rng(0).normal(size=(30, 3)))
    explainer = Explainer(card, model, rows)
    assert explainer.fallback_reason is None
    values, base = Oracle(card, model, "output").shapley(rows, explainer._background)
    explained = explainer.explain(rows)
    np.testing.assert_allclose(explained.values, values, atol=FLOAT32)
    assert explained.base == pytest.approx(base, abs=FLOAT32)


def test_a_reading_that_onnxruntime_contradicts_is_not_believed():
    """onnxruntime leaves out the LOGISTIC of a LinearRegressor: a reading with it is refused."""
    nodes = [linear_node([0.1, 0.1, 0.1], "X", "score", "LOGISTIC")]
    model = graph_of(nodes, {"X": 3}, ["score"])
    card = card_of(model, one_tensor(3), score="score", column=0)
    explainer = Explainer(card, model, columns(np.eye(3)))
    assert explainer.fallback_reason.startswith("what was read differs from onnxruntime by")
    assert explainer.method == "coalitions"


def test_a_sigmoid_behind_the_estimator_is_its_margin():
    """Score columns picked by Slice and a Sigmoid of its own are still the linear margin."""
    pick = [("start", np.array([0])), ("end", np.array([1])), ("axis", np.array([1]))]
    nodes = [
        linear_node([1, -2, 0.5], "X", "A"),
        helper.make_node("Slice", ["A", "start", "end", "axis"], ["S"]),
        helper.make_node("Sigmoid", ["S"], ["score"]),
    ]
    model = graph_of(nodes, {"X": 3}, ["score"], constants=pick)
    card = card_of(model, one_tensor(3), score="score", column=0)
    rows = columns(np.random.default_rng(0).normal(size=(30, 3)))
    explainer = Explainer(card, model, rows)
    explained = explainer.explain(rows)
    assert (explained.method, explained.space) == ("linear", "margin")
    values, _ = Oracle(card, model, "margin").shapley(rows, explainer._background)
    np.testing.assert_allclose(explained.values, values, atol=FLOAT32)


def wide_neural(features=10):
    dice = np.random.default_rng(2)
    matrix = dice.normal(size=(200, features)).astype(np.float32)
    estimator = MLPClassifier((5,), max_iter=60, random_state=0)
    target = matrix[:, 0] * matrix[:, 1] + matrix[:, 2] > 0
    model = export(estimator, matrix, target, [("X", FloatTensorType([None, features]))])
    return card_of(model, one_tensor(features)), model, columns(matrix)


def test_permutations_state_their_error_and_repeat():
    """Nine features or more are estimated: near the definition by the stated error, additive,
    the same again in another batch."""
    card, model, rows = wide_neural()
    background = part(rows, slice(0, 20))
    explainer = Explainer(card, model, background)
    explained = explainer.explain(part(rows, slice(20, 28)))
    assert explained.method == "permutations"
    assert explained.seed is not None
    assert "MatMul" in explainer.fallback_reason
    values, base = Oracle(card, model, "margin").shapley(part(rows, slice(20, 28)), background)
    errors = np.abs(explained.values - values)
    assert explained.base == pytest.approx(base, abs=FLOAT32)
    assert np.sqrt(np.mean((errors / np.maximum(explained.standard_errors, 1e-9)) ** 2)) < 1.5
    assert errors.max() < 0.3 * np.abs(values).max()
    assert np.abs(explained.residuals).max() < FLOAT32
    again = Explainer(card, model, background).explain(part(rows, slice(25, 26)))
    assert again.values.tobytes() == explained.values[5].tobytes()
    assert again.seed == explained.seed


def test_a_saturated_score_is_no_broken_explanation_and_a_wrong_sum_is_one():
    """`additive` forgives what float32 cannot say, and nothing else."""
    nodes = [linear_node([9, 9, 9], "X", "A"), helper.make_node("Sigmoid", ["A"], ["score"])]
    model = graph_of(nodes, {"X": 3}, ["score"])
    card = card_of(model, one_tensor(3), score="score", column=0)
    explainer = Explainer(card, model, columns(np.random.default_rng(0).normal(size=(20, 3)) / 9))
    rows = columns(np.array([[0.1, 0.1, 0], [5.0, 5, 5], [-5, -5, -5]]))
    explained = explainer.explain(rows)
    assert explained.method == "linear"
    assert explained.additive.all()
    wrong = replace(explained, residuals=explained.residuals + 0.02)
    assert wrong.additive.tolist() == [False, True, True]


def test_a_score_that_is_no_probability_is_refused():
    """A card that calls a score beyond 0 to 1 a probability is wrong: no log-odds are made up."""
    model = graph_of([linear_node([1, 2, 3], "X", "score")], {"X": 3}, ["score"])
    card = card_of(model, one_tensor(3), score="score", column=0)
    with pytest.raises(ValueError, match="calls the score a probability"):
        Explainer(card, model, columns(3 * np.eye(3)))


def test_no_rows_are_refused():
    """An explanation of nothing is an error, not an empty answer."""
    card, model, rows = wide_neural()
    explainer = Explainer(card, model, part(rows, slice(0, 2)))
    with pytest.raises(ValueError, match="no rows"):
        explainer.explain(part(rows, slice(0, 0)))


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_mortgage_models_equal_the_definition(version):
    """Each shipped mortgage version is explained exactly, from its own card and background."""
    folder = MORTGAGE / version
    card = Card.model_validate(yaml.safe_load((folder / "card.yaml").read_text()))
    model = (folder / "model.onnx").read_bytes()
    table = pyarrow.parquet.read_table(MORTGAGE / "background.parquet")
    rows = {}
    for feature in card.features:
        kind = object if feature.type == "category" else np.float64
        rows[feature.name] = np.array(table[feature.name].to_pylist(), kind)
    explainer = Explainer(card, model, rows)
    assert explainer.fallback_reason is None
    asked = part(rows, slice(0, 3))
    explained = explainer.explain(asked)
    small = part(explainer._background, slice(0, 50))
    values, base = Oracle(card, model, explained.space).shapley(asked, small)
    np.testing.assert_allclose(explained.values, values, atol=FLOAT32)
    assert explained.base == pytest.approx(base, abs=FLOAT32)
    assert explained.additive.all()


def test_what_cannot_be_built_is_not_tried_for_each_exchange(tmp_path, monkeypatch):
    """The same failure again, at once; what was not whole is looked at again."""
    built = []

    def building(*made_of):
        built.append(made_of)
        return Explainer(*made_of)

    monkeypatch.setattr("gateway.explain.worker.Explainer", building)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    artifacts = Artifacts(tmp_path / "state")
    card = Card.model_validate(yaml.safe_load((MORTGAGE / "v1" / "card.yaml").read_text()))
    background = artifacts.add_file(MORTGAGE / "background.parquet")
    artifact = artifacts.add_folder(tmp_path)
    model = SimpleNamespace(background=background)
    version = Version("v1", (), artifact, card, None, None)
    explanations = Explanations(artifacts)
    away = artifacts.root / "away"
    artifacts.path(artifact).rename(away)
    for _ in range(2):
        with pytest.raises(ValueError, match="its files are not those"):
            explanations.explainer(model, version)
    away.rename(artifacts.path(artifact))
    for _ in range(3):
        with pytest.raises(Exception, match="protobuf|parsing|Protobuf"):
            explanations.explainer(model, version)
    assert len(built) == 1
