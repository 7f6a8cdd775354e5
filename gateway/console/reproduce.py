"""An exchange scored and explained once more, for whoever doubts its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from gateway.artifacts import Artifacts
from gateway.catalog import queries
from gateway.console.decision import decisions_in, judged_by, leaf_at, with_numbers
from gateway.explain.reproduction import answer_again, cannot, explanation_again
from gateway.explain.worker import Asked, Explanations
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.protocol.reader import reader_of
from gateway.protocol.tensor import Unreadable
from gateway.table import TableStore


def reproduce(
    found: queries.Found, tables: TableStore, bodies: BodyReader, state: Path, identity: str
) -> dict[str, Any]:
    """What the same artifact says on the same input, and whether that is what the record says."""
    leaf = leaf_at(state, found.leaf)
    record = leaf["record"] if leaf is not None else {}
    document = {"id": identity, "leaf": found.leaf, "model": record.get("model"),
                "version": record.get("version")}  # fmt: skip
    asked = _asked(tables, bodies, leaf) if leaf is not None else "its log is dropped"
    if isinstance(asked, str):
        return document | {"answer": cannot(asked), "explanation": cannot(asked)}
    artifacts = Artifacts(state)
    if (answer := answer_again(asked, artifacts, record))["result"] == "cannot":
        return document | {"answer": answer, "explanation": answer}
    recorded = with_numbers(bodies, state, found)
    explanation = explanation_again(asked, recorded, Explanations(artifacts))
    return document | {"answer": answer, "explanation": explanation}


def _asked(tables: TableStore, bodies: BodyReader, leaf: dict[str, Any]) -> Asked | str:
    """The exchange's rows as they were sent, or why they cannot be scored again."""
    record = leaf["record"]
    model, card = judged_by(tables, record)
    if not (decisions := decisions_in(bodies, leaf)):
        return f"it holds no decision: {leaf.get('unreadable') or record['error'] or 'no scores'}"
    if model is None or card is None or model.versions[record["version"]].artifact is None:
        return "no artifact of this version is held"
    if leaf.get("body") is None:
        return "its body was not kept"
    try:
        context, request, _ = decode_parts(bodies.read(record["id"], leaf["body"]))
        if request.truncated:
            return f"of its body {len(request.kept)} of {request.length} bytes were kept"
        headers = orjson.loads(context)["request_headers"]
        rows = reader_of(record, model).columns(card, request.kept, headers)
    except (Unreadable, ValueError, OSError) as error:
        return f"its body cannot be read: {getattr(error, 'reason', None) or error}"
    version = model.versions[record["version"]]
    scores = [decision["score"] for decision in decisions]
    outcomes = [decision["outcome"] for decision in decisions]
    if any(len(column) != len(scores) for column in rows.values()):
        return f"{len(scores)} rows were answered, and other numbers sent"
    return Asked(model, version, rows, scores, outcomes, record["arm"] != "shadow")
