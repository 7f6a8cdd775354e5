"""Feedback on its way in: who may tell it, how much of it, what its record has. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl

import orjson

from gateway.dataplane.account import Account
from gateway.errors import Refusal
from gateway.exchange import Reply
from gateway.feedback import LABELS_AT_MOST, read_lines
from gateway.table import Table


def admit(account: Account) -> None:
    """Refuse what is no feedback of a caller who may give it."""
    if account.method != "POST":
        raise Refusal("method_not_allowed", f"{account.method} is not taken here; POST is")
    assert account.caller is not None
    if "feedback" not in account.caller.may:
        words = f"caller {account.caller.name!r} may not give feedback"
        raise Refusal("feedback_not_allowed", words)


def take_labels(account: Account, table: Table) -> Reply:
    """Read the body into the account's record, and say what will be true once that is durable."""
    model = _model(account.query, table)
    assert account.caller is not None
    try:
        labels = read_lines(account.request, account.wall_ns, account.caller.name)
    except ValueError as error:
        raise Refusal("bad_feedback", str(error)) from None
    if len(labels) > LABELS_AT_MOST:
        words = f"{len(labels)} labels; at most {LABELS_AT_MOST} are taken in one request"
        raise Refusal("request_too_large", words)
    account.kind = "feedback"
    account.extra = {"labels": [label.to_json() for label in labels]}
    if model is not None:
        account.extra["model"] = model
    told = orjson.dumps({"id": account.id, "labels": len(labels)})
    return Reply(202, [(b"content-type", b"application/json")], told)


def _model(query: str, table: Table) -> str | None:
    """`?model=`: in whose log the leaf is kept, and for how long; without one: in root."""
    asked = parse_qsl(query, keep_blank_values=True)
    for name, _ in asked:
        if name != "model":
            raise Refusal("bad_feedback", f"parameter {name[:40]!r}: unknown; known: model")
    if not asked:
        return None
    model = asked[-1][1]
    if model not in table.models:
        raise Refusal("unknown_model", f"model {model[:64]!r} is none of {', '.join(table.models)}")
    return model
