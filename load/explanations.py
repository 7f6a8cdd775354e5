"""Explanations a second, by method: 12 features, 50 background rows, batches of 256, one thread.

    python -m load.explanations [--seconds 2]

Rates are by a second of processor time of the one thread, whatever else the machine does.
Models and rows are made from one seed. `boxes` is the tree method with its tables switched off;
`forest` is 20 trees of depth 8, which mixes tables and boxes. `inline` is what that setting adds to
an answer of the mortgage model v2: the inner tensor by onnxruntime, attributions, reasons.
"""

import argparse
import hashlib
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import yaml
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from gateway.attribution.plan import write_plan
from gateway.card import Card
from gateway.dataplane.inline import Inline
from gateway.explain import treeshap
from gateway.explain.explainer import Explainer
from gateway.explain.worker import as_columns, read_parquet

FEATURES, BATCH, SEED = 12, 256, 7
MORTGAGE = Path(__file__).parents[1] / "models" / "mortgage"


def card_of(model: bytes, features: int) -> Card:
    return Card.model_validate(
        {
            "format": 1,
            "model": "benchmark",
            "version": "v1",
            "summary": "A seeded model of the benchmark.",
            "artifact": {"sha256": hashlib.sha256(model).hexdigest()},
            "features": [
                {
                    "name": f"f{i}",
                    "type": "number",
                    "meaning": "a number",
                    "range": (-9, 9),
                    "tensor": "X",
                    "column": i,
                }
                for i in range(features)
            ],
            "outputs": {
                "score": {"tensor": "probabilities", "column": 1, "meaning": "probability"},
                "outcome": {
                    "below": "approve",
                    "at_or_above": "deny",
                    "adverse": "deny",
                    "threshold": 0.5,
                },
            },
            "training": {"data": {}, "code_commit": "", "configuration": {}, "seed": SEED},
            "metrics": {},
        }
    )


def measure(name: str, estimator: object, features: int, batches: tuple[int, ...], seconds: float):
    dice = np.random.default_rng(SEED)
    matrix = dice.normal(size=(4000, features)).astype(np.float32)
    noise = dice.normal(size=4000) / 2
    target = matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + noise > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(matrix, target)
        model = to_onnx(
            estimator,
            initial_types=[("X", FloatTensorType([None, features]))],
            options={id(estimator): {"zipmap": False}},
        ).SerializeToString()
    columns = {f"f{i}": matrix[:, i].astype(np.float64) for i in range(features)}
    begun = time.perf_counter()
    explainer = Explainer(card_of(model, features), model, columns)
    built = time.perf_counter() - begun
    figures = []
    for size in batches:
        rows = {key: values[:size] for key, values in columns.items()}
        explained = explainer.explain(rows)
        assert explained.additive.all()
        done, until, begun = 0, time.perf_counter() + seconds / len(batches), time.process_time()
        while time.perf_counter() < until:
            explainer.explain(rows)
            done += size
        figures.append(f"{done / (time.process_time() - begun):>9,.0f}/s at {size}")
    print(f"{name:14} {explained.method:12} built in {built:5.2f} s  {'  '.join(figures)}")


def measure_inline(seconds: float) -> None:
    """One denied row at a time, by the worker's own code: processor time, and the wall's median."""
    card = Card.model_validate(yaml.safe_load((MORTGAGE / "v2" / "card.yaml").read_text()))
    rows = as_columns(card, read_parquet(MORTGAGE / "background.parquet"))
    explainer = Explainer(card, (MORTGAGE / "v2" / "model.onnx").read_bytes(), rows)
    scores = explainer.scores(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan"
        write_plan(path, explainer.plan)
        inline = Inline(path, card, {"rows_at_most": 256, "reasons": 4}, 10.0)
    row = int(np.argmax(scores))
    fed = {name: values[row : row + 1].reshape(1, 1) for name, values in rows.items()}
    fed = {name: x if x.dtype == object else x.astype(np.float32) for name, x in fed.items()}
    walls, begun = [], time.process_time()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        given = inline.explain(fed, [float(scores[row])], 0)
        walls.append(time.perf_counter() - started)
    spent = (time.process_time() - begun) / len(walls)
    assert given.codes
    print(f"{'inline, v2':14} {'trees':12} {spent * 1e6:.0f} us of processor an answer, "
          f"p50 {sorted(walls)[len(walls) // 2] * 1e6:.0f} us, "
          f"p99 {sorted(walls)[len(walls) * 99 // 100] * 1e6:.0f} us")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each method")
    seconds = parser.parse_args().seconds
    boosting = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=SEED)
    deeper = GradientBoostingClassifier(n_estimators=100, max_depth=5, random_state=SEED)
    forest = RandomForestClassifier(n_estimators=20, max_depth=8, random_state=SEED)
    neural = MLPClassifier((8,), max_iter=30, random_state=SEED)
    both = (1, BATCH)
    measure("logistic", LogisticRegression(), FEATURES, both, seconds)
    measure("100 x depth 3", boosting, FEATURES, both, seconds)
    measure("100 x depth 5", deeper, FEATURES, both, seconds)
    measure("forest", forest, FEATURES, (BATCH,), seconds)
    tables, treeshap.TABLE_BYTES_AT_MOST = treeshap.TABLE_BYTES_AT_MOST, 0
    measure("boxes", boosting, FEATURES, (BATCH,), seconds)
    treeshap.TABLE_BYTES_AT_MOST = tables
    measure("neural, 8", neural, 8, (16,), seconds)
    measure("neural, 12", neural, FEATURES, (16,), seconds)
    measure_inline(seconds)


if __name__ == "__main__":
    main()
