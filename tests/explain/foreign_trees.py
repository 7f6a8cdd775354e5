"""Run by an interpreter of its own: trains, exports to ONNX, and asks shap.

    python foreign_trees.py FOLDER SEED

For each case a folder with `model.onnx`, and `case.npz`: `background`, `rows`, and what shap's
interventional TreeExplainer says of them: `values`, `base`. Numbers are multiples of 1/64, so that
they are the same in float32 and float64, on whichever side of a threshold.
"""

import sys
import warnings
from pathlib import Path

import lightgbm
import numpy as np
import onnxmltools
import shap
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsType
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeRegressor

FEATURES, TRAINED, BACKGROUND, ROWS = 8, 1000, 50, 100


def cases(seed: int):
    """Name, estimator, whether rows have missing values; sizes drawn from the seed."""
    dice = np.random.default_rng(seed)
    trees, depth = int(dice.integers(5, 80)), int(dice.integers(2, 7))
    small = {"n_estimators": trees, "max_depth": depth, "random_state": seed}
    light = {"n_estimators": trees, "num_leaves": 31, "verbose": -1, "random_state": seed}
    hist = {"max_iter": trees, "max_leaf_nodes": 31, "random_state": seed}
    yield "lightgbm classifier", lightgbm.LGBMClassifier(**light), True
    yield "lightgbm regressor", lightgbm.LGBMRegressor(**light), True
    yield "lightgbm regressor, deep", lightgbm.LGBMRegressor(**light | {"num_leaves": 127}), False
    yield "xgboost classifier", xgboost.XGBClassifier(**small), True
    yield "xgboost regressor", xgboost.XGBRegressor(**small), True
    yield "hist classifier", HistGradientBoostingClassifier(**hist), True
    yield "hist regressor", HistGradientBoostingRegressor(**hist), True
    yield "boosting classifier", GradientBoostingClassifier(**small), False
    yield "boosting regressor", GradientBoostingRegressor(**small), False
    yield "forest classifier", RandomForestClassifier(**small), False
    yield "forest regressor", RandomForestRegressor(**small), False
    yield "extra trees", ExtraTreesRegressor(**small), False
    yield "one tree", DecisionTreeRegressor(max_depth=10, random_state=seed), False


def export(estimator) -> bytes:
    if isinstance(estimator, lightgbm.LGBMModel):
        types = [("X", ToolsType([None, FEATURES]))]
        return onnxmltools.convert_lightgbm(estimator, initial_types=types, zipmap=False
                                            ).SerializeToString()  # fmt: skip
    if isinstance(estimator, xgboost.XGBModel):
        types = [("X", ToolsType([None, FEATURES]))]
        return onnxmltools.convert_xgboost(estimator, initial_types=types).SerializeToString()
    types = [("X", FloatTensorType([None, FEATURES]))]
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    return to_onnx(estimator, initial_types=types, options=options).SerializeToString()


def asked(estimator, background, rows):
    """shap's values [n, features] and base, of the second class where there are two."""
    explainer = shap.TreeExplainer(estimator, background, feature_perturbation="interventional")
    values = np.asarray(explainer.shap_values(rows, check_additivity=False))
    base = np.atleast_1d(explainer.expected_value)
    return (values[..., 1] if values.ndim == 3 else values), float(base[-1])


def with_categories(folder: Path, matrix, target) -> None:
    """shap cannot: the test asks the definition. Codes 0 to 9 in the last of five columns."""
    matrix = matrix[:, :5].copy()
    matrix[:, 4] = np.arange(len(matrix)) * 7 % 10
    target = target + 2 * np.isin(matrix[:, 4], (1, 4, 8))
    model = lightgbm.LGBMRegressor(n_estimators=30, verbose=-1)
    model.fit(matrix, target, categorical_feature=[4])
    types = [("X", ToolsType([None, 5]))]
    exported = onnxmltools.convert_lightgbm(model, initial_types=types).SerializeToString()
    (folder / "model.onnx").write_bytes(exported)
    np.savez(folder / "case.npz", background=matrix[:20], rows=matrix[20:60])


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    dice = np.random.default_rng(seed)
    whole = np.round(dice.normal(size=(TRAINED, FEATURES)) * 64) / 64
    target = whole[:, 0] + whole[:, 1] * whole[:, 2] + dice.normal(size=TRAINED) / 3
    holes = whole.copy()
    holes[dice.random(holes.shape) < 0.15] = np.nan
    (folder / "categories").mkdir()
    with_categories(folder / "categories", holes, target)
    for name, estimator, missing in cases(seed):
        matrix = holes if missing else whole
        classes = (target > 0).astype(int)
        estimator.fit(matrix, classes if hasattr(estimator, "predict_proba") else target)
        background, rows = matrix[:BACKGROUND], matrix[BACKGROUND : BACKGROUND + ROWS]
        values, base = asked(estimator, background, rows)
        place = folder / name
        place.mkdir()
        (place / "model.onnx").write_bytes(export(estimator))
        np.savez(place / "case.npz", background=background, rows=rows, values=values, base=base)


warnings.simplefilter("ignore")
main()
