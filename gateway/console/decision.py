"""One decision, whole: what was asked and answered, why, by which version, and what came after."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import orjson

from gateway.card import Card
from gateway.catalog import queries
from gateway.console.trace import trace_of, words_of
from gateway.journal.record import Part, decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.protocol.flaw import Flaw, shown
from gateway.protocol.reader import reader_of
from gateway.protocol.tensor import Unreadable
from gateway.table import Model, TableStore

PREDICTIONS_MAX = 256
UNREADABLE = {
    "erased": "its key was destroyed, as an erasure or the end of retention asks; nobody can read "
    "it any more, and what the leaf says in clear stays",
    "damaged": "its key is damaged; a backup of the keys may have it",
}


def split_id(text: str) -> tuple[str, int]:
    """`<exchange id>/<row>`; `/0` may be left out. ValueError says what was sent."""
    identity, _, row = text.partition("/")
    try:
        found = str(uuid.UUID(identity)), int(row or 0)
    except ValueError:
        found = ("", -1)
    if found[1] < 0:
        raise ValueError(f"{text[:80]!r} is no decision id")
    return found


def show(
    cursor: Any, tables: TableStore, bodies: BodyReader, state: Path, text: str,
    revealed: bool = False,
) -> dict[str, Any] | None:  # fmt: skip
    """None: there is no such decision (yet). `revealed`: with what people sent; a leaf that says
    who reads it and why is durable by then."""
    identity, row = split_id(text)
    found = queries.exchange(cursor, identity)
    if found is None:
        return None
    leaf = leaf_at(state, found.leaf)
    if leaf is None:
        return None
    record = leaf["record"]
    decisions = decisions_in(bodies, leaf)
    if row >= max(len(decisions), 1):
        return None
    model, card = judged_by(tables, record)
    document: dict[str, Any] = {
        "id": f"{identity}/{row}",
        "leaf": found.leaf,
        "decision": decisions[row] if decisions else None,
        "unreadable": leaf.get("unreadable"),
        "withheld": found.withheld,
        "record": record,
        "explanation": _explanation(with_numbers(bodies, state, found), row),
        "trace": trace_of(leaf, model),
        "shadows": found.shadows,
        "comparison": leaf.get("comparison"),
        "windows": found.windows,
        "body": leaf.get("body"),
    }
    document["revealed"] = revealed
    hidden: dict[str, Any] = {"context": None, "features": None, "predictions": None}
    document |= _inside(bodies, leaf, model, card, row) if revealed else hidden
    document["words"] = words(document, card)
    return document


def leaf_at(state: Path, number: int) -> dict[str, Any] | None:
    """None: its log was dropped as its retention says."""
    for found, text in LedgerReader(state, number).read(1):
        leaf: dict[str, Any] = orjson.loads(text)
        return leaf if found == number else None
    return None


def decisions_in(bodies: BodyReader, leaf: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = leaf.get("decisions", [])
    if (place := leaf.get("decisions_at")) is not None:
        try:
            found = orjson.loads(bodies.read(leaf["record"]["id"], place))
        except (ValueError, OSError):
            return []
    return found


def with_numbers(bodies: BodyReader, state: Path, found: queries.Found) -> dict[str, Any] | None:
    """The explanation with its numbers, which lie under the same keys as what was asked."""
    if found.explanation is None or not found.explanation.get("sealed"):
        return found.explanation
    leaf = leaf_at(state, found.explanation_leaf)
    if leaf is None or leaf.get("body") is None:
        why = leaf.get("unreadable") if leaf is not None else "retired"
        return found.explanation | {"not_explained": why or "unreadable"}
    try:
        context, *_ = decode_parts(bodies.read(leaf["record"]["id"], leaf["body"]))
    except (ValueError, OSError) as error:
        return found.explanation | {"not_explained": getattr(error, "reason", "unreadable")}
    return found.explanation | dict(orjson.loads(context)["explanation"])


def judged_by(tables: TableStore, record: dict[str, Any]) -> tuple[Model | None, Card | None]:
    """The model and the card that were in force, as far as the exchange came."""
    revision, name, version = (record.get(key) for key in ("revision", "model", "version"))
    if not (revision and name and version):
        return None, None
    model = tables.load(revision).models[name]
    return model, model.versions[version].card


def _explanation(document: dict[str, Any] | None, row: int) -> dict[str, Any] | None:
    if document is None or "rows" not in document:
        return document
    told = {key: value for key, value in document.items() if key != "rows"}
    mine = document["rows"][row]
    told |= {key: mine[key] for key in mine if key != "values"}
    told["attributions"] = dict(zip(document["features"], mine["values"]))
    return told


def _inside(
    bodies: BodyReader, leaf: dict[str, Any], model: Model | None, card: Card | None, row: int
) -> dict[str, Any]:
    """The personal parts: context, and the row's feature values where they can be read."""
    if leaf.get("body") is None:
        return {"context": None, "features": None, "predictions": None}
    try:
        context, request, response = decode_parts(bodies.read(leaf["record"]["id"], leaf["body"]))
    except (ValueError, OSError) as error:
        nothing = {"context": None, "features": None, "predictions": None}
        return nothing | {"body_error": UNREADABLE.get(getattr(error, "reason", ""), str(error))}
    told = orjson.loads(context)
    inside: dict[str, Any] = {
        "context": told,
        "features": None,
        "predictions": _predictions(leaf, model, response, told, row),
        "request": {"length": request.length, "sha256": request.sha256.hex(),
                    "truncated": request.truncated},
        "response": {"length": response.length, "sha256": response.sha256.hex(),
                     "truncated": response.truncated},
    }  # fmt: skip
    if card is not None and leaf.get("decisions"):
        try:
            reader = reader_of(leaf["record"], model)
            columns = reader.columns(card, request.kept, told["request_headers"])
            inside["features"] = {name: shown(column[row]) for name, column in columns.items()}
        except (Unreadable, IndexError) as error:
            inside["body_error"] = str(error)
    return inside


def _predictions(
    leaf: dict[str, Any], model: Model | None, response: Part, context: dict[str, Any], row: int
) -> list[Any] | None:
    """What the version said in one form for all protocols: of the row, where the leaf tells rows
    apart, else of all of them. None: it was no inference, or cannot be read."""
    record = leaf["record"]
    reader = reader_of(record, model)
    if record["status"] != 200 or record.get("operation") not in reader.dialect.INFERENCES:
        return None
    try:
        rows = reader.rows(response.kept, context["response_headers"])
    except Unreadable:
        return None
    told_apart = leaf.get("decisions") is not None or leaf.get("decisions_at") is not None
    return rows[row : row + 1] if told_apart else rows[:PREDICTIONS_MAX]


def values_of(
    bodies: BodyReader, leaf: dict[str, Any], model: Model | None, card: Card | None
) -> dict[str, list[Any]] | None:
    """An exchange's feature columns as sent; None where they were erased or cannot be read."""
    if card is None or leaf.get("body") is None:
        return None
    try:
        context, request, _ = decode_parts(bodies.read(leaf["record"]["id"], leaf["body"]))
        headers = orjson.loads(context)["request_headers"]
        columns = reader_of(leaf["record"], model).columns(card, request.kept, headers)
    except (ValueError, OSError, Unreadable):
        return None
    return {name: [None if isinstance(value, Flaw) else value for value in column]
            for name, column in columns.items()}  # fmt: skip


def parts_of(cursor: Any, bodies: BodyReader, state: Path, text: str) -> bytes | None:
    """The exchange's sealed parts as the journal had them; None where they are not there."""
    found = queries.exchange(cursor, split_id(text)[0])
    leaf = leaf_at(state, found.leaf) if found is not None else None
    if leaf is None or leaf.get("body") is None:
        return None
    try:
        return bodies.read(leaf["record"]["id"], leaf["body"])
    except (ValueError, OSError):
        return None


def words(document: dict[str, Any], card: Card | None) -> list[str]:
    """The decision told to somebody who knows the business, not the program."""
    record, decision = document["record"], document["decision"]
    told = [
        f"At {record['wall']} {record['caller'] or 'somebody unknown'} asked model "
        f"{record.get('model') or '(unknown)'}; the answer had status {record['status']}."
    ]
    if record["error"]:
        told.append(_failed(record))
    if client := record.get("client"):
        told.append(f"The client left ({client['left']}) with {client['sent']} bytes of it.")
    if record.get("arm"):
        bucket = (document.get("context") or {}).get("bucket")
        place = "" if bucket is None else f", bucket {bucket} of 1,000,000"
        did = "was chosen" if record["error"] and record["status"] >= 400 else "answered"
        told.append(
            f"Version {record['version']} {did} as {record['arm']}, by rule "
            f"{record['rule']!r}{place} by {record['unit']}."
        )
    if document["withheld"]:
        told.append("The record became durable too late: the answer was withheld.")
    if decision is not None and card is not None and card.outputs.outcome is not None:
        outcome = card.outputs.outcome
        side = "at or above" if decision["score"] >= outcome.threshold else "below"
        told.append(
            f"Outcome: {decision['outcome']}. The score, {card.outputs.score.meaning}, is "
            f"{decision['score']:.4g}, {side} the threshold {outcome.threshold:g}."
        )
    if decision is not None:
        told += _reasons(document["explanation"])
    if why := document.get("body_error"):
        told.append(f"What was asked and answered is not shown: {why}.")
    if document["trace"] is not None:
        told += words_of(document["trace"])
    for shadow in document["shadows"]:
        how = "was asked again, for its noise" if shadow["noise"] else "saw it in shadow"
        told.append(
            f"Version {shadow['version']} {how}: "
            f"{shadow['outcome'] or 'status ' + str(shadow['status'])}."
        )
    if document["comparison"] is not None:
        told.append(_compared(document["comparison"]))
    return told


def _failed(record: dict[str, Any]) -> str:
    """A stream that began well cannot be refused any more."""
    how = "The gateway refused it" if record["status"] >= 400 else "The answer was cut short"
    return f"{how}: {record['error']}."


def _compared(told: dict[str, Any]) -> str:
    """Of a shadow's answer: how it compares with the one that was given."""
    if why := told.get("not_compared"):
        return f"It is not compared with the answer that was given: {why}."
    of = f"the answer that version {told['of']['version']} gave"
    note = f" ({told['reason'].replace('_', ' ')})" if "reason" in told else ""
    if told["agree"]:
        return f"It agrees with {of}{note}."
    flip = f" from {told['direction'].replace('>', ' to ')}" if "direction" in told else ""
    rows = f" in {told['disagree']} of {told['rows']} decisions" if told["rows"] != 1 else ""
    return f"It differs from {of}{rows}{note}{flip}; severity {told['severity']:.3f} of 1."


def _reasons(explanation: dict[str, Any] | None) -> list[str]:
    if explanation is None:
        return ["It is not explained yet."]
    if why := explanation.get("not_explained"):
        detail = f" ({explanation['why']})" if explanation.get("why") else ""
        return [f"It is not explained: {UNREADABLE.get(why, why)}{detail}."]
    told = [f"Reason: {reason['text']}" for reason in explanation.get("reasons", [])]
    told += [one["text"] for one in explanation.get("counterfactuals", ())]
    if why := explanation.get("no_counterfactual"):
        told.append(f"What would have changed it is not told: {why}.")
    return told
