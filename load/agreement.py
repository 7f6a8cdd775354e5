"""Our figures beside fairlearn's and shap's, each asked in an interpreter of its own.

The tests that hold them together (`tests/explain/test_foreign_trees.py`,
`tests/monitor/test_fairlearn.py`) go by a few seeds; here sizes are drawn from many, and what is
furthest is shown. The environment is made where it is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gateway.card import Card
from gateway.explain.explainer import Explainer
from gateway.monitor import bias
from gateway.monitor.outcomes import judge_outcomes
from load.pages import Table
from load.trial import ROOT

PACKAGES = ("lightgbm", "xgboost", "onnxmltools", "shap", "scikit-learn", "skl2onnx",
            "onnxruntime", "protobuf<6", "fairlearn")  # fmt: skip
FOLDER = ROOT / ".cache" / "agreement"
TREES = ROOT / "tests" / "explain" / "foreign_trees.py"
PATIENCE_S = 1800.0
FAIRLEARN = """
import json, sys
import numpy as np
from fairlearn.metrics import (MetricFrame, demographic_parity_difference,
    demographic_parity_ratio, equal_opportunity_difference, equalized_odds_difference,
    false_positive_rate, selection_rate, true_positive_rate)
found = []
for told in json.load(sys.stdin):
    good, favoured, group = (np.array(told[key]) for key in ("good", "favoured", "group"))
    asked = dict(y_true=good, y_pred=favoured, sensitive_features=group)
    frame = MetricFrame(metrics={"rate": selection_rate, "opportunity": true_positive_rate,
                                 "mistaken": false_positive_rate}, **asked)
    found.append({
        **{name: dict(values) for name, values in frame.by_group.to_dict().items()},
        "ratio": demographic_parity_ratio(**asked),
        "difference": demographic_parity_difference(**asked),
        "equal opportunity": equal_opportunity_difference(**asked),
        "equalised odds": equalized_odds_difference(**asked)})
json.dump(found, sys.stdout)
"""
Figures = dict[str, Any]


def interpreter(folder: Path | None) -> str:
    """Of an environment with both; made where there is none."""
    place = folder or FOLDER
    if not (place / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        (place / "made").touch()
    return str(place / "bin" / "python")


def fairlearn(scale: float, folder: Path | None) -> list[Table]:
    """Figures of groups, of people drawn by dice: groups, sizes and shares differ by seed."""
    seeds = max(3, round(100 * scale))
    people = [_people(seed) for seed in range(seeds)]
    asked = json.dumps([{name: values.tolist() for name, values in one.items()} for one in people])
    done = subprocess.run([interpreter(folder), "-c", FAIRLEARN], input=asked, text=True,
                          capture_output=True, check=True, timeout=PATIENCE_S)  # fmt: skip
    furthest: dict[str, float] = defaultdict(float)
    compared: Counter[str] = Counter()
    for one, theirs in zip(people, json.loads(done.stdout), strict=True):
        ours = _ours(one)
        for name, told in theirs.items():
            pairs = [(ours[name][group], value) for group, value in told.items()] if isinstance(
                told, dict) else [(ours[name], told)]  # fmt: skip
            for mine, his in pairs:
                if mine is None:  # one group is too small for us to be compared
                    continue
                furthest[name] = max(furthest[name], abs(mine - his))
                compared[name] += 1
    names = {"rate": "rate of a group", "opportunity": "favoured among the good, of a group",
             "mistaken": "favoured among the others, of a group"}  # fmt: skip
    rows = [[names.get(name, name), f"{compared[name]:,}", f"{far:.1e}", "1e-9"]
            for name, far in furthest.items()]  # fmt: skip
    note = (f"{seeds} populations of 2,000 to 20,000 people in two to six groups, fairlearn's "
            "`MetricFrame` and four of its metrics of the same people. Where a group has fewer "
            "than 100 people, or 10 of either outcome, we give no figure of them all, and none is "
            "compared.")  # fmt: skip
    return [("Groups, beside fairlearn", note,
             ["figure", "compared", "furthest apart", "target"], rows)]  # fmt: skip


def _people(seed: int) -> dict[str, Any]:
    dice = np.random.default_rng([seed, 150])
    n, count = int(dice.integers(2_000, 20_001)), int(dice.integers(2, 7))
    group = dice.choice([f"g{i}" for i in range(count)], n, p=dice.dirichlet([8.0] * count))
    good = dice.random(n) < dice.uniform(0.2, 0.9)
    place = np.array([int(name[1:]) for name in group])
    score = good * dice.uniform(0.2, 1.5) + dice.normal(size=n) + dice.normal(size=count)[place] / 3
    favoured = score > dice.uniform(-0.5, 1.0)
    return {"good": good.astype(int), "favoured": favoured.astype(int), "group": group}


def _ours(people: dict[str, Any]) -> Figures:
    told = [people[name].tolist() for name in ("group", "favoured", "good")]
    block = bias.count_groups([({"g": g}, not f) for g, f in zip(*told[:2])], ("g",), ())
    groups = bias.judge_key("g", [block], {}, {}).groups
    cases = {case: (count, 0.0) for case, count in Counter(zip(*told)).items()}
    seen = {one.value: one.n for one in groups}
    found = judge_outcomes("v1", "stable", "g", seen, cases).groups
    gaps = [max(-(rate.difference or 0.0) for rate in rates) for rates in (
        [one.opportunity for one in found], [one.mistaken for one in found])]  # fmt: skip
    rivals = [one.rivalry for one in groups if one.rivalry is not None]
    small = any(one.state == "insufficient" for one in groups)
    few = [any(one.state == "insufficient" for one in rates) for rates in (
        [one.opportunity for one in found], [one.mistaken for one in found])]  # fmt: skip
    return {
        "rate": {one.value: one.rate for one in groups},
        "opportunity": {one.value: one.opportunity.share for one in found},
        "mistaken": {one.value: one.mistaken.share for one in found},
        "ratio": None if small else min(one.ratio for one in rivals),
        "difference": None if small else max(-one.difference for one in rivals),
        "equal opportunity": None if few[0] else gaps[0],
        "equalised odds": None if any(few) else max(gaps),
    }


def shap(scale: float, folder: Path | None) -> list[Table]:
    """Attributions of random ensembles as real exporters write them."""
    seeds = range(100, 100 + max(1, round(10 * scale)))
    furthest: dict[str, list[float]] = defaultdict(list)
    fallen: Counter[str] = Counter()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as place:
            subprocess.run(
                [interpreter(folder), str(TREES), place, str(seed)], check=True,
                timeout=PATIENCE_S, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            for case in sorted(Path(place).iterdir()):
                if "values" in (told := np.load(case / "case.npz")):
                    far = _apart((case / "model.onnx").read_bytes(), told)
                    fallen[case.name] += far is None
                    furthest[case.name] += [] if far is None else [far]
    rows = [[name, f"{len(far)}", f"{max(far):.1e}", f"{fallen[name]}", "1e-6"]
            for name, far in furthest.items()]  # fmt: skip
    note = (f"Sizes drawn from {len(seeds)} seeds: 5 to 80 trees, depth 2 to 6 or up to 127 "
            "leaves, eight features; 15 % of the values missing where the exporter can; 50 "
            "background rows, 100 rows each. shap: interventional `TreeExplainer`. Difference "
            "relative to 1 and the sum of a row's attributions.")  # fmt: skip
    return [("Attributions, beside shap", note,
             ["exported from", "ensembles", "furthest apart", "not read as trees", "target"],
             rows)]  # fmt: skip


def _apart(model: bytes, told: Any) -> float | None:
    """None where the graph is not read as trees."""
    graph = onnx.load_model_from_string(model).graph
    outputs, count = [output.name for output in graph.output], told["background"].shape[1]
    card = _card(model, graph.input[0].name, outputs, count)
    explainer = Explainer(card, model, _columns(told["background"]))
    if explainer.fallback_reason is not None:
        return None
    explained = explainer.explain(_columns(told["rows"]))
    scale = 1 + np.abs(told["values"]).sum(axis=1).max()
    base = abs(explained.base - float(told["base"]))
    return float(max(np.abs(explained.values - told["values"]).max(), base) / scale)


def _columns(matrix: Any) -> dict[str, Any]:
    return {f"f{i}": matrix[:, i].astype(np.float64) for i in range(matrix.shape[1])}


def _card(model: bytes, carrier: str, outputs: list[str], count: int) -> Card:
    features = [{"name": f"f{i}", "type": "number", "meaning": "a number", "range": (-9, 9),
                 "tensor": carrier, "column": i} for i in range(count)]  # fmt: skip
    score = {"tensor": outputs[-1], "column": len(outputs) - 1, "meaning": "a score",
             "kind": "probability" if len(outputs) == 2 else "quantity"}  # fmt: skip
    return Card.model_validate({
        "format": 1, "model": "m", "version": "v1", "summary": "A random ensemble.",
        "artifact": {"sha256": hashlib.sha256(model).hexdigest()}, "features": features,
        "outputs": {"score": score}, "metrics": {},
        "training": {"data": {}, "code_commit": "", "configuration": {}, "seed": 0},
    })  # fmt: skip
