"""Explanations a second, by method: 12 features, 50 background rows, batches of 256, one thread.

    python load/explanations.py [--seconds 2]

Models and rows are made from one seed. `boxes` is the tree method with its tables switched off;
`forest` is 20 trees of depth 8, which mixes tables and boxes.
"""

import argparse
import hashlib
import time
import warnings

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from gateway.card import Card
from gateway.explain import treeshap
from gateway.explain.explainer import Explainer

FEATURES, BATCH, SEED = 12, 256, 7


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
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds / len(batches):
            explainer.explain(rows)
            done += size
        figures.append(f"{done / (time.perf_counter() - begun):>9,.0f}/s at {size}")
    print(f"{name:14} {explained.method:12} built in {built:5.2f} s  {'  '.join(figures)}")


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


if __name__ == "__main__":
    main()
