"""From a sealed exchange to the record of its explanation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.artifacts import Artifacts
from gateway.attribution.plan import write_plan
from gateway.attribution.reasons import Reason, reasons
from gateway.card import Card
from gateway.explain.attribution import Attributions, Columns
from gateway.explain.counterfactuals import Counterfactual, counterfactuals
from gateway.explain.explainer import Explainer
from gateway.explain.remote import Remote
from gateway.table import Model, Table, Version

EXPLAINERS_MAX = 64
IN_CLEAR = ("method", "space", "background", "background_rows", "seed", "budget", "calls",
            "largest_residual", "largest_standard_error", "fallback", "not_explained")  # fmt: skip
log = logging.getLogger("headworks.explain")


def in_clear(said: dict[str, Any]) -> dict[str, Any]:
    """What a leaf tells of an explanation: how it was made and which reasons were given. The
    numbers are sealed: a linear model's attributions give its inputs back."""
    told = {key: said[key] for key in IN_CLEAR if key in said}
    if "rows" in said:
        told["codes"] = [[reason["code"] for reason in row["reasons"]] for row in said["rows"]]
        told["changes_found"] = [len(row.get("counterfactuals", ())) for row in said["rows"]]
    return told


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


@dataclass(frozen=True, slots=True)
class Asked:
    """One exchange that wants an explanation: its rows as columns, and what became of each."""

    model: Model
    version: Version
    rows: dict[str, list[Any]]
    scores: list[float]
    outcomes: list[str | None]
    given: bool = True
    """False: the answer went to nobody (a shadow's), and nobody asks what would have changed it."""
    exchange: str = ""


class Explanations:
    """Explainers by what they are made of, built when first needed."""

    def __init__(self, artifacts: Artifacts, remote: Remote | None = None) -> None:
        """`remote`: by whom versions that are not held are asked; None: they are not."""
        self._artifacts, self._remote = artifacts, remote
        self._explainers: dict[tuple[str, str], Explainer | Exception] = {}

    def explainer(self, model: Model, version: Version) -> Explainer | None:
        """None: nothing is held that could be explained, or no background is declared. What could
        not be built is not tried again; what was not whole is."""
        if version.artifact is None or version.card is None or model.background is None:
            return None
        key = (version.artifact, model.background)
        found = self._explainers.get(key)
        if found is None:
            if len(self._explainers) >= EXPLAINERS_MAX:
                self._explainers.pop(next(iter(self._explainers)))
            artifact = self._artifacts.whole(version.artifact) / "model.onnx"
            background = self._artifacts.whole_file(model.background)
            found = self._explainers[key] = _built(version.card, artifact, background)
        if isinstance(found, Exception):
            raise found
        return found

    def plan(self, table: Table) -> None:
        """Write the plan of each version that gives reasons in its answers, if it has none yet."""
        for model in table.models.values():
            for version in model.versions.values():
                if not model.explain.get("inline") or version.endpoints:
                    continue
                if version.artifact is None or model.background is None:
                    continue
                path = self._artifacts.plan(version.artifact, model.background)
                if path.exists():
                    continue
                try:
                    explainer = self.explainer(model, version)
                    assert explainer is not None
                    write_plan(path, explainer.plan)
                except Exception:
                    log.exception("%s/%s gives no reasons in its answers", model.name, version.name)

    def explain(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """A record for each: attributions of each row, or why there are none.

        Exchanges of one version are explained together: a row's attributions do not depend on the
        rows beside it, and a batch costs a tenth. If one of them fails, each is tried alone.
        """
        said: dict[int, dict[str, Any]] = {}
        groups: dict[Explainer, list[int]] = {}
        for place, one in enumerate(asked):
            means = self._means(one)
            if isinstance(means, Explainer):
                groups.setdefault(means, []).append(place)
            else:
                said[place] = means
        for explainer, places in groups.items():
            together = [asked[place] for place in places]
            said |= zip(places, _explain_together(explainer, together))
        return [said[place] for place in range(len(asked))]

    def _means(self, asked: Asked) -> dict[str, Any] | Explainer:
        """The explainer that is to answer, or what is said where none does."""
        model, version = asked.model, asked.version
        if model.explain["method"] == "off":
            return {"not_explained": "off"}
        if len(asked.outcomes) > model.explain["rows_at_most"]:
            return {"not_explained": "batch_limit"}
        try:
            if version.artifact is None:
                return self._by_calls(asked)
            return self.explainer(model, version) or {"not_explained": "no_background"}
        except Exception as error:
            # An artifact or a background that cannot be read must not stop the fold.
            return _failed(error)

    def _by_calls(self, asked: Asked) -> dict[str, Any]:
        model, version = asked.model, asked.version
        if self._remote is None:
            return {"not_explained": "no_artifact"}
        if (why := self._remote.refusal(model, version, asked.exchange)) is not None:
            return {"not_explained": why}
        assert version.card is not None
        assert model.background is not None
        card, path = version.card, self._artifacts.whole_file(model.background)
        try:
            found, cost = self._remote.explain(
                model, version, lambda: as_columns(card, read_parquet(path)),
                as_columns(card, asked.rows), np.array(asked.scores),
            )  # fmt: skip
        except OSError as error:
            return {"not_explained": "remote_failed", "why": str(error)[:200]}
        told = describe(found, 0, asked)
        return told | cost | {"fallback": "the model is served elsewhere"}


def _built(card: Card, artifact: Path, background: Path) -> Explainer | Exception:
    """What cannot be built from the same bytes once cannot be built again."""
    try:
        columns = as_columns(card, read_parquet(background))
        return Explainer(card, artifact.read_bytes(), columns)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return error.with_traceback(None)


def _failed(error: Exception) -> dict[str, Any]:
    return {"not_explained": "failed", "why": f"{type(error).__name__}: {error}"[:200]}


def _explain_together(explainer: Explainer, asked: list[Asked]) -> list[dict[str, Any]]:
    card = asked[0].version.card
    assert card is not None
    rows = {
        feature.name: [value for one in asked for value in one.rows[feature.name]]
        for feature in card.features
    }
    try:
        answered = np.array([score for one in asked for score in one.scores])
        found = explainer.explain(as_columns(card, rows), answered)
        return _records(explainer, card, asked, found)
    except Exception as error:
        if len(asked) == 1:
            return [_failed(error)]
        return [record for one in asked for record in _explain_together(explainer, [one])]


def _records(
    explainer: Explainer, card: Card, asked: list[Asked], found: Attributions
) -> list[dict[str, Any]]:
    records, start = [], 0
    for one in asked:
        record = describe(found, start, one)
        if one.given:
            tell_counterfactuals(explainer, card, one, record["rows"])
        if explainer.fallback_reason is not None:
            record["fallback"] = explainer.fallback_reason
        records.append(record)
        start += len(one.outcomes)
    return records


def tell_counterfactuals(
    explainer: Explainer, card: Card, asked: Asked, rows: list[dict[str, Any]]
) -> None:
    """To each row of an adverse outcome: what would have changed it, or why nothing is told."""
    words = card.outputs.outcome
    if words is None or words.adverse not in asked.outcomes:
        return
    columns = as_columns(card, asked.rows)
    for place, row in enumerate(rows):
        if row["outcome"] == words.adverse:
            own = {name: values[place] for name, values in columns.items()}
            row |= _changes_told(explainer, card, own)


def _changes_told(explainer: Explainer, card: Card, own: dict[str, Any]) -> dict[str, Any]:
    """Attributions that were found stay told, whatever becomes of the search."""
    try:
        found, why = counterfactuals(card, own, explainer.scores)
        told = [describe_change(card, one) for one in found]
    except Exception:
        log.exception("no counterfactual")
        return {"counterfactuals": [], "no_counterfactual": "failed"}
    return {"counterfactuals": told} | ({"no_counterfactual": why} if why is not None else {})


def describe_change(card: Card, found: Counterfactual) -> dict[str, Any]:
    """Where the change leads, as data and as a sentence; where it came from is the person's."""
    told = []
    for name, value in found.changes.items():
        feature = card.feature(name)
        shown = value if isinstance(value, str) else f"{value:g}"
        unit = f" {feature.unit}" if feature.unit not in ("", "ratio", "score") else ""
        told.append(f"{feature.meaning[0].lower()}{feature.meaning[1:]} ({name}) at {shown}{unit}")
    text = f"With {' and '.join(told)}, all else as it was, the outcome would be {found.outcome}."
    return {"changes": dict(found.changes), "outcome": found.outcome, "score": found.score,
            "text": text}  # fmt: skip


def _text(card: Card, reason: Reason, rows: dict[str, list[Any]], row: int) -> str:
    """The card's sentence; of a value that was not sent it would say what nobody knows."""
    value = rows[reason.feature][row]
    if value is None or value != value:
        return f"{card.feature(reason.feature).meaning} ({reason.feature}) is missing."
    return reason.text


def describe(found: Attributions, start: int, asked: Asked) -> dict[str, Any]:
    """The record of an exchange's rows, which in `found` are those from `start` on."""
    rows = []
    card, additive = asked.version.card, found.additive
    assert card is not None
    at_most = asked.model.explain["reasons"]
    for place, outcome in enumerate(asked.outcomes, start):
        told = reasons(card, found.features, found.values[place], outcome or "", at_most)
        row: dict[str, Any] = {
            "values": found.values[place].tolist(),
            "prediction": float(found.predictions[place]),
            "residual": float(found.residuals[place]),
            "additive": bool(additive[place]),
            "outcome": outcome,
            "reasons": [
                {"code": reason.code, "text": _text(card, reason, asked.rows, place - start),
                 "feature": reason.feature, "attribution": reason.attribution}
                for reason in told
            ],
        }  # fmt: skip
        if found.standard_errors is not None:
            row["standard_errors"] = found.standard_errors[place].tolist()
        rows.append(row)
    part = slice(start, start + len(rows))
    errors = found.standard_errors
    return {
        "method": found.method,
        "space": found.space,
        "features": list(found.features),
        "base": found.base,
        "background": found.background,
        "background_rows": found.background_rows,
        "seed": found.seed,
        "budget": found.budget,
        "largest_residual": float(np.abs(found.residuals[part]).max()),
        "largest_standard_error": None if errors is None else float(errors[part].max()),
        "rows": rows,
    }
