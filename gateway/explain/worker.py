"""From a sealed exchange to the record of its explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.artifacts import Artifacts
from gateway.card import Card
from gateway.explain.attribution import Attributions, Columns
from gateway.explain.explainer import Explainer
from gateway.explain.reasons import reasons
from gateway.table import Model, Version

EXPLAINERS_MAX = 64


def as_columns(card: Card, values: dict[str, list[Any]]) -> Columns:
    """Lists as they came off the wire -> arrays as explainers and monitors take them."""
    columns: dict[str, NDArray[Any]] = {}
    for feature in card.features:
        column = values[feature.name]
        if feature.type == "category":
            columns[feature.name] = np.array(column, dtype=object)
        else:
            numbers = [np.nan if value is None else value for value in column]
            columns[feature.name] = np.array(numbers, dtype=np.float64)
    return columns


def read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet

    found: dict[str, list[Any]] = pyarrow.parquet.read_table(path).to_pydict()
    return found


class Explanations:
    """Explainers by what they are made of, built when first needed."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._explainers: dict[tuple[str, str], Explainer] = {}

    def explainer(self, model: Model, version: Version) -> Explainer | None:
        """None: nothing is held that could be explained, or no background is declared."""
        if version.artifact is None or version.card is None or model.background is None:
            return None
        key = (version.artifact, model.background)
        found = self._explainers.get(key)
        if found is None:
            if len(self._explainers) >= EXPLAINERS_MAX:
                self._explainers.pop(next(iter(self._explainers)))
            artifact = self._artifacts.path(version.artifact) / "model.onnx"
            background = read_parquet(self._artifacts.file(model.background))
            columns = as_columns(version.card, background)
            found = Explainer(version.card, artifact.read_bytes(), columns)
            self._explainers[key] = found
        return found

    def explain(
        self, model: Model, version: Version, rows: dict[str, list[Any]], outcomes: list[str | None]
    ) -> dict[str, Any]:
        """The record: method, background and attributions of each row, or why there are none."""
        if model.explain["method"] == "off":
            return {"not_explained": "off"}
        if len(outcomes) > model.explain["rows_at_most"]:
            return {"not_explained": "batch_limit"}
        explainer = self.explainer(model, version)
        if explainer is None:
            return {"not_explained": "no_artifact" if version.artifact is None else "no_background"}
        assert version.card is not None
        found = explainer.explain(as_columns(version.card, rows))
        record = describe(version.card, found, outcomes, model.explain["reasons"])
        if explainer.fallback_reason is not None:
            record["fallback"] = explainer.fallback_reason
        return record


def describe(
    card: Card, found: Attributions, outcomes: list[str | None], reasons_at_most: int
) -> dict[str, Any]:
    rows = []
    for place, outcome in enumerate(outcomes):
        told = reasons(card, found.features, found.values[place], outcome or "", reasons_at_most)
        row: dict[str, Any] = {
            "values": [float(value) for value in found.values[place]],
            "prediction": float(found.predictions[place]),
            "residual": float(found.residuals[place]),
            "additive": bool(found.additive[place]),
            "outcome": outcome,
            "reasons": [
                {"code": reason.code, "text": reason.text, "feature": reason.feature,
                 "attribution": reason.attribution}
                for reason in told
            ],
        }  # fmt: skip
        if found.standard_errors is not None:
            row["standard_errors"] = [float(value) for value in found.standard_errors[place]]
        rows.append(row)
    return {
        "method": found.method,
        "space": found.space,
        "features": list(found.features),
        "base": found.base,
        "background": found.background,
        "background_rows": found.background_rows,
        "seed": found.seed,
        "rows": rows,
    }
