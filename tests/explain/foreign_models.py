"""Run by an interpreter of its own: what shap's ExactExplainer says of the committed models.

    python foreign_models.py FOLDER     (with an .npz a version: `test_foreign_trees.py`)

The model is a function there: shap asks it about every coalition of features, each filled up from
each background row (an independent masker), in log-odds.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import shap


def main() -> None:
    for file in sorted(Path(sys.argv[1]).glob("*.npz")):
        asked = np.load(file)
        session = onnxruntime.InferenceSession(str(asked["model"]))
        names, texts = asked["names"].tolist(), set(asked["texts"].tolist())
        fixed = asked["fixed"].tolist()

        def margin(matrix, session=session, names=names, texts=texts, fixed=fixed):
            fed = {}
            for place, name in enumerate(names):
                column = matrix[:, place : place + 1]
                fed[name] = (
                    np.where(column == 1, "yes", "no").astype(object)
                    if name in texts else column.astype(np.float32)
                )  # fmt: skip
            for name in fixed:
                fed[name] = np.full((len(matrix), 1), "no", object)
            p = session.run(["score"], fed)[0][:, 0].astype(np.float64)
            return np.log(p) - np.log1p(-p)

        masker = shap.maskers.Independent(asked["background"], max_samples=10**6)
        explained = shap.explainers.ExactExplainer(margin, masker)(asked["rows"])
        np.savez(file.with_suffix(".shap"), values=explained.values, base=explained.base_values)


main()
