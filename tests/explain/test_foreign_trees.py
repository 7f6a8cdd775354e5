"""What real exporters write, held against shap: LightGBM, XGBoost, scikit-learn."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from oracle import Oracle, card_of, columns, one_tensor

from gateway.explain.explainer import Explainer

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "explain"
PACKAGES = ["lightgbm", "xgboost", "onnxmltools", "shap", "scikit-learn", "skl2onnx",
            "protobuf<6"]  # fmt: skip
"""skl2onnx 1.20 exports no histogram boosting under protobuf 6."""
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def interpreter() -> str:
    if not (CACHE / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE)], check=True)
        pip = [str(CACHE / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        (CACHE / "made").touch()
    return str(CACHE / "bin" / "python")


def explainer_of(model: bytes, background: np.ndarray) -> Explainer:
    outputs = [output.name for output in onnx.load_model_from_string(model).graph.output]
    features = one_tensor(background.shape[1])
    carrier = onnx.load_model_from_string(model).graph.input[0].name
    features = [feature | {"tensor": carrier} for feature in features]
    if len(outputs) == 2:
        card = card_of(model, features, score=outputs[1], column=1)
    else:
        card = card_of(model, features, score=outputs[0], column=0, kind="quantity")
    return Explainer(card, model, columns(background))


def check_categories(place: Path, case) -> None:
    """LightGBM's sets of categories are chains of BRANCH_EQ: as Shapley's definition has it."""
    model = (place / "model.onnx").read_bytes()
    explainer = explainer_of(model, case["background"])
    assert explainer.fallback_reason is None
    rows = columns(case["rows"])
    values, _ = Oracle(explainer._card, model, "output").shapley(rows, explainer._background)
    np.testing.assert_allclose(explainer.explain(rows).values, values, atol=1e-5)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_values_are_those_of_shap(interpreter, tmp_path, seed):
    """Each exporter's graph is read as trees, missing values and all, and each attribution is
    within 1e-6 of shap's (relative to what is summed); the base too."""
    script = str(HERE / "foreign_trees.py")
    subprocess.run([interpreter, script, str(tmp_path), str(seed)], check=True, timeout=800,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    found = {}
    for place in sorted(tmp_path.iterdir()):
        case = np.load(place / "case.npz")
        if place.name == "categories":
            check_categories(place, case)
            continue
        explainer = explainer_of((place / "model.onnx").read_bytes(), case["background"])
        assert explainer.fallback_reason is None, f"{place.name}: {explainer.fallback_reason}"
        explained = explainer.explain(columns(case["rows"]))
        assert explained.method == "trees"
        assert explained.additive.all(), place.name
        scale = 1 + np.abs(case["values"]).sum(axis=1).max()
        found[place.name] = float(np.abs(explained.values - case["values"]).max()) / scale
        assert abs(explained.base - case["base"]) <= 1e-6 * scale, place.name
    print({name: f"{furthest:.1e}" for name, furthest in found.items()})
    assert len(found) == 13
    assert max(found.values()) <= 1e-6, found
