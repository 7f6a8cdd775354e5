"""Recorded requests against a draft of rules. Reading them is a leaf, one for the whole job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from gateway.exchange import Caller, Context
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.protocol.dialects import dialect_of
from gateway.routing.question import Question
from gateway.routing.trial import Recorded, tried
from gateway.table import Table

LAST_MAX = 100_000
CHUNK = 1000
EXAMPLES = 5


def newest(cursor: Any, last: int) -> list[int]:
    """Leaves of the last exchanges that a rule decided, in order."""
    rows = cursor.execute(
        "SELECT leaf FROM exchanges WHERE arm IS NOT NULL AND arm NOT IN ('shadow', 'explain') "
        "AND rule IS NOT NULL ORDER BY leaf DESC LIMIT ?", [last]
    ).fetchall()  # fmt: skip
    return sorted(leaf for (leaf,) in rows)


def try_draft(
    leaves: list[int], draft: Table, current: Table, state: Path, bodies: BodyReader
) -> dict[str, Any]:
    """How many would change version, stay, or are unknown and why, with examples of each change."""
    results: Counter[str] = Counter()
    because: Counter[str] = Counter()
    changes: dict[tuple[Any, ...], list[str]] = {}
    for leaf in _leaves(state, leaves):
        record = leaf["record"]
        model = draft.models.get(record.get("model"))
        if model is None:
            results["gone"] += 1
            continue
        try:
            recorded = _recorded(leaf, current, bodies)
        except (ValueError, KeyError, OSError) as error:
            results["unknown"] += 1
            because[f"not readable: {getattr(error, 'reason', None) or type(error).__name__}"] += 1
            continue
        outcome = tried(model, recorded)
        results[outcome.result] += 1
        if outcome.why is not None:
            because[outcome.why] += 1
        if outcome.result in ("change", "refused"):
            key = (model.name, recorded.rule, recorded.version, outcome.rule, outcome.version)
            changes.setdefault(key, []).append(recorded.id)
    return {
        "tried": sum(results.values()),
        **{name: results[name] for name in
           ("change", "stay", "unknown", "refused", "forced", "session", "gone")},
        "unknown_because": dict(because.most_common(20)),
        "changes": [
            {"model": model, "from": {"rule": rule, "version": version},
             "to": {"rule": to_rule, "version": to_version}, "count": len(ids),
             "examples": ids[-EXAMPLES:]}
            for (model, rule, version, to_rule, to_version), ids in
            sorted(changes.items(), key=lambda item: -len(item[1]))
        ],
    }  # fmt: skip


def _leaves(state: Path, wanted: list[int]) -> Iterator[dict[str, Any]]:
    """Read in one way through: what lies between is passed over unread."""
    if not wanted:
        return
    numbers, last = set(wanted), wanted[-1]
    with closing(LedgerReader(state, wanted[0])) as reader:
        while reader.next <= last:
            before = reader.next
            for number, text in reader.read(CHUNK):
                if number in numbers:
                    yield orjson.loads(text)
            if reader.next == before:
                return


def _recorded(leaf: Mapping[str, Any], current: Table, bodies: BodyReader) -> Recorded:
    """ValueError, with a reason, where its body was erased or retired."""
    record = leaf["record"]
    if leaf.get("body") is None:
        raise ValueError("no body")
    text, request, _ = decode_parts(bodies.read(record["id"], leaf["body"]))
    context = orjson.loads(text)
    first: dict[bytes, bytes] = {}
    for name, value in context["request_headers"]:
        first.setdefault(name.encode("latin-1"), value.encode("latin-1"))
    model = current.models.get(record["model"])
    assigned = record.get("assigned") or record
    caller = Caller(record.get("caller") or "anonymous", frozenset())
    groups = tuple(context.get("groups") or ())
    question = Question(
        record["method"], context["path"], first, caller, Context((), groups), request.kept,
        dialect_of(record["protocol"]), model.limits["hold"] if model else 1024**2,
    )  # fmt: skip
    return Recorded(
        record["id"], assigned["version"], record["rule"], assigned["arm"], record["unit"],
        question, model.dropped if model else frozenset(), not request.truncated,
    )  # fmt: skip
