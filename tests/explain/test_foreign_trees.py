"""What real exporters write, held against shap: LightGBM, XGBoost, scikit-learn."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from oracle import Oracle, card_of, columns, one_tensor

from gateway.card import Card
from gateway.explain.explainer import Explainer
from gateway.explain.worker import as_columns, read_parquet

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "explain"
MORTGAGE = HERE.parents[1] / "models" / "mortgage"
PACKAGES = ["lightgbm", "xgboost", "onnxmltools", "shap", "scikit-learn", "skl2onnx",
            "onnxruntime", "protobuf<6"]  # fmt: skip
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


def encoded(card, rows) -> np.ndarray:
    """Columns as numbers; `yes` is 1."""
    return np.stack([np.where(rows[f.name] == "yes", 1.0, 0.0) if f.type == "category"
                     else rows[f.name] for f in card.used], axis=1)  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(900)
def test_committed_models_are_explained_as_shap_does(interpreter, tmp_path):
    """The mortgage models as functions, all coalitions, all background rows: within 1e-6."""
    asked = {}
    for version in ("v1", "v2", "v3"):
        card = Card.model_validate(yaml.safe_load((MORTGAGE / version / "card.yaml").read_text()))
        rows = as_columns(card, read_parquet(MORTGAGE / "background.parquet"))
        explainer = Explainer(card, (MORTGAGE / version / "model.onnx").read_bytes(), rows)
        unread = [feature.name for feature in card.features if not feature.used]
        some = {name: values[::20] for name, values in rows.items()}
        some |= {name: np.full(len(some[name]), "no", object) for name in unread}
        asked[version] = explainer.explain(some)
        np.savez(
            tmp_path / f"{version}.npz", model=str(MORTGAGE / version / "model.onnx"),
            names=[f.name for f in card.used], fixed=unread,
            texts=[f.name for f in card.used if f.type == "category"],
            background=encoded(card, explainer._background), rows=encoded(card, some),
        )  # fmt: skip
    script = str(HERE / "foreign_models.py")
    subprocess.run([interpreter, script, str(tmp_path)], check=True, timeout=800)
    found = {}
    for version, explained in asked.items():
        told = np.load(tmp_path / f"{version}.shap.npz")
        scale = 1 + np.abs(told["values"]).sum(axis=1).max()
        found[version] = float(np.abs(explained.values - told["values"]).max() / scale)
        assert explained.base == pytest.approx(float(told["base"][0]), abs=1e-6 * scale)
    print({version: f"{furthest:.1e}" for version, furthest in found.items()})
    assert max(found.values()) <= 1e-6, found
