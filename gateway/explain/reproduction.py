"""The same artifact on the same input again: does it say what the record says?

Four results, for the answer and for its explanation: `equal` in each bit, `within` 1e-6 with the
same outcome, `different` and where, or `cannot` and why. An exchange's rows are scored together, as
they were: another batch may change the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime
import orjson

from gateway.artifacts import FILES, Artifacts, file_digest, folder_digest
from gateway.card import Card
from gateway.explain.attribution import Floats
from gateway.explain.scorer import Scorer
from gateway.explain.worker import Asked, Explanations, as_columns

Result: TypeAlias = Literal["equal", "within", "different", "cannot"]
WITHIN = 1e-6
ROWS_SHOWN = 20
"""Differences listed; their number is told in any case."""
HERE = {
    "name": "onnxruntime", "version": onnxruntime.__version__,
    "provider": "CPUExecutionProvider", "threads": 1, "batch": False,
}  # fmt: skip


def cannot(why: str) -> dict[str, Any]:
    return {"result": "cannot", "why": why}


def answer_again(asked: Asked, artifacts: Artifacts, record: Mapping[str, Any]) -> dict[str, Any]:
    """Score the exchange's rows with the artifact that the record names."""
    card, digest = asked.version.card, asked.version.artifact
    assert card is not None
    assert digest is not None
    folder = artifacts.path(digest)
    if not folder.exists():
        return cannot(f"artifact {digest} is no longer held")
    assert card.artifact is not None
    if folder_digest(folder) != digest or file_digest(folder / FILES[1]) != card.artifact.sha256:
        return cannot(f"artifact {digest}: its files are not those of its digest")
    scorer = Scorer(card, (folder / FILES[1]).read_bytes())
    scores = scorer.scores(as_columns(card, asked.rows))
    told = compare(card, np.array(asked.scores), asked.outcomes, scores, scorer.score_type)
    ran = record.get("runtime")
    if ran is None:
        told["note"] = "an upstream answered; this is the artifact that it is said to serve"
    elif ran != HERE:
        told["note"] = "the runtime is not the one that answered"
    return told | {"artifact": digest, "runtime": {"recorded": ran, "here": HERE}}


def compare(
    card: Card,
    answered: Floats,
    outcomes: Sequence[str | None],
    scores: Floats,
    score_type: Any = np.float64,
) -> dict[str, Any]:
    """Recorded scores and outcomes beside those of now, all [n].

    A recorded score is the shortest text that reads back as the model's, so bits are compared in
    the model's type; the outcome of equal bits goes by the text, as it did.
    """
    recorded = answered.astype(score_type).astype(np.float64)
    if len(recorded) != len(scores):
        return {"result": "different", "rows": len(recorded), "rows_again": len(scores)}
    words = card.outputs.outcome
    read = np.where(recorded == scores, answered, scores)
    again = [words.of(float(score)) if words is not None else None for score in read]
    differing: list[dict[str, Any]] = [
        {"row": row, "recorded": float(recorded[row]), "again": float(scores[row]),
         "difference": float(scores[row] - recorded[row]),
         "outcome": outcomes[row], "outcome_again": again[row]}
        for row in range(len(scores))
        if recorded[row] != scores[row] or outcomes[row] != again[row]
    ]  # fmt: skip
    result: Result = "equal" if not differing else "within"
    if any(
        row["outcome"] != row["outcome_again"] or not abs(row["difference"]) <= WITHIN
        for row in differing
    ):
        result = "different"
    return {"result": result, "rows": len(scores), "differing": len(differing),
            "where": differing[:ROWS_SHOWN]}  # fmt: skip


def explanation_again(
    asked: Asked, recorded: Mapping[str, Any] | None, explanations: Explanations
) -> dict[str, Any]:
    """Explain anew, with an explainer of its own, and hold the record against it."""
    if recorded is None:
        return cannot("it is not explained yet")
    if (why := recorded.get("not_explained")) is not None:
        return cannot(f"it is not explained: {why}")
    (again,) = explanations.explain([asked])
    if (why := again.get("not_explained")) is not None:
        return cannot(f"it is not explained again: {again.get('why', why)}")
    said = {key: recorded[key] for key in again if key in recorded}
    return compare_explanations(said, orjson.loads(orjson.dumps(again)))


def compare_explanations(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of an explanation, each word of it, beside what is said now; both as
    read from JSON. What is said now and was not then (a later format) is no difference."""
    made = {key: again[key] for key in ("method", "background", "seed", "budget") if key in again}
    where: list[str] = []
    furthest = _differences(recorded, again, "", where)
    result: Result = "equal" if not where else "within" if furthest <= WITHIN else "different"
    return made | {"result": result, "differing": len(where), "where": where[:ROWS_SHOWN],
                   "furthest": furthest if np.isfinite(furthest) else None}  # fmt: skip


def _differences(one: Any, other: Any, at: str, where: list[str]) -> float:
    """Collects the places that are not equal; how far numbers are apart, inf for anything else."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() <= other.keys():
        pairs = [(one[key], other[key], f"{at}.{key}".lstrip(".")) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(x, y, f"{at}[{place}]") for place, (x, y) in enumerate(zip(one, other))]
    elif type(one) is type(other) and one == other:
        return 0.0
    else:
        where.append(at)
        return abs(other - one) if isinstance(one, float) and isinstance(other, float) else np.inf
    return max((_differences(x, y, deeper, where) for x, y, deeper in pairs), default=0.0)
