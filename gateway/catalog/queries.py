"""What people ask of the catalog; each answer is one plain document for API, command and page."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.clock import isoformat

LIMIT_MAX = 1000
COLUMNS = ("id", "row", "leaf", "arrived", "model", "version", "arm", "rule", "status", "score",
           "outcome", "primary_id")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filters:
    """All that is given must hold. Times in nanoseconds since 1970."""

    model: str | None = None
    version: str | None = None
    arm: str | None = None
    rule: str | None = None
    outcome: str | None = None
    status: int | None = None
    since: int | None = None
    until: int | None = None
    window: str | None = None
    limit: int = 50


def decisions(cursor: Any, filters: Filters) -> list[dict[str, Any]]:
    """The newest decisions first. With a status, exchanges without a decision are rows as well."""
    conditions, values = _conditions(filters)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    source = "decisions" if filters.status in (None, 200) else _REFUSED
    text = (
        f'SELECT id, "row", leaf, arrived, model, version, arm, rule, status, score, outcome, '
        f"primary_id "
        f'FROM {source} d {where} ORDER BY leaf DESC, "row" LIMIT ?'
    )
    rows = cursor.execute(text, [*values, min(filters.limit, LIMIT_MAX)]).fetchall()
    return [_decision(row) for row in rows]


_REFUSED = """(SELECT id, 0 AS "row", leaf, arrived, model, version, arm, rule, status,
NULL AS score, error AS outcome, primary_id FROM exchanges WHERE row_count = 0)"""


def _conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    conditions, values = [], []
    for name in ("model", "version", "arm", "rule", "outcome", "status"):
        if (value := getattr(filters, name)) is not None:
            conditions.append(f"{name} = ?")
            values.append(value)
    for name, sign in (("since", ">="), ("until", "<")):
        if (value := getattr(filters, name)) is not None:
            conditions.append(f"arrived {sign} ?")
            values.append(value)
    if filters.window is not None:
        conditions.append(_IN_WINDOW)
        values.append(filters.window)
    return conditions, values


_IN_WINDOW = """EXISTS (SELECT 1 FROM windows w WHERE w.name = ? AND w.model = d.model
AND w.version = d.version AND w.arm = d.arm AND d.leaf BETWEEN w.first_leaf AND w.last_leaf
AND (d.leaf > w.first_leaf OR d."row" >=
  split_part(json_extract_string(w.document, '$.report.first_id'), '/', 2)::INTEGER)
AND (d.leaf < w.last_leaf OR d."row" <=
  split_part(json_extract_string(w.document, '$.report.last_id'), '/', 2)::INTEGER))"""
"""The first and the last leaf of a window may hold rows of its neighbours too."""


def _decision(row: tuple[Any, ...]) -> dict[str, Any]:
    found = dict(zip(COLUMNS, row))
    found["id"] = f"{found['id']}/{found.pop('row')}"
    found["at"] = isoformat(found.pop("arrived"))
    primary = found.pop("primary_id")
    found["primary"] = str(primary) if primary else None
    return found


SHADOW = ("id", "version", "status", "score", "outcome", "agree", "noise")


@dataclass(frozen=True, slots=True)
class Found:
    """One exchange's places in the ledger, and the documents that name it."""

    leaf: int
    explanation: dict[str, Any] | None
    explanation_leaf: int
    shadows: list[dict[str, Any]]
    windows: list[dict[str, Any]]
    withheld: bool


def exchange(cursor: Any, identity: str) -> Found | None:
    """By id, without its row. ValueError where that is no id."""
    key = uuid.UUID(identity)
    row = cursor.execute(
        "SELECT leaf, model, version, arm FROM exchanges WHERE id = ?", [key]
    ).fetchone()
    if row is None:
        return None
    leaf, model, version, arm = row
    explained = cursor.execute(
        "SELECT document, leaf FROM explanations WHERE id = ?", [key]
    ).fetchone()
    shadows = cursor.execute(
        "SELECT e.id, e.version, e.status, d.score, d.outcome, c.agree = 1, c.noise = 1 "
        'FROM exchanges e LEFT JOIN decisions d ON d.id = e.id AND d."row" = 0 '
        "LEFT JOIN comparisons c ON c.id = e.id WHERE e.primary_id = ?", [key]
    ).fetchall()  # fmt: skip
    windows = cursor.execute(
        "SELECT name, state FROM windows WHERE model = ? AND version = ? AND arm = ? "
        "AND first_leaf <= ? AND last_leaf >= ?", [model, version, arm, leaf, leaf]
    ).fetchall()  # fmt: skip
    withheld = cursor.execute(
        "SELECT count(*) FROM events WHERE kind = 'withheld' AND name = ?", [identity]
    ).fetchone()
    return Found(
        leaf,
        orjson.loads(explained[0]) if explained else None,
        explained[1] if explained else -1,
        [dict(zip(SHADOW, map(_plain, row)))
         for row in shadows],
        [{"name": name, "state": state} for name, state in windows],
        bool(withheld and withheld[0]),
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, uuid.UUID) else value


def monitor(cursor: Any, model: str) -> list[dict[str, Any]]:
    """The newest window of each series of a model, and its alarms that are open."""
    rows = cursor.execute(
        "SELECT version, arm, arg_max(document, number), max(number) FROM windows "
        "WHERE model = ? GROUP BY version, arm ORDER BY version, arm", [model]
    ).fetchall()  # fmt: skip
    return [
        {"version": version, "arm": arm, "windows": number,
         "latest": orjson.loads(document)["report"]}
        for version, arm, document, number in rows
    ]  # fmt: skip


def window(cursor: Any, name: str) -> tuple[int, dict[str, Any]] | None:
    """The leaf and the report of a closed window."""
    row = cursor.execute("SELECT leaf, document FROM windows WHERE name = ?", [name]).fetchone()
    return None if row is None else (int(row[0]), orjson.loads(row[1])["report"])


def pairs(cursor: Any, model: str) -> list[dict[str, Any]]:
    """The newest report of each pair of versions of a model."""
    rows = cursor.execute(
        "SELECT arg_max(document, leaf), json_extract_string(document, '$.name') AS pair "
        "FROM events WHERE kind = 'paired' AND json_extract_string(document, '$.model') = ? "
        "GROUP BY pair ORDER BY pair", [model]
    ).fetchall()  # fmt: skip
    return [orjson.loads(document)["report"] for document, _ in rows]


def first_leaf(cursor: Any, model: str, since: int) -> int | None:
    """The first leaf of a model's exchanges that arrived from `since` (ns) on."""
    row = cursor.execute(
        "SELECT min(leaf) FROM exchanges WHERE model = ? AND arrived >= ?", [model, since]
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def told_since(cursor: Any, model: str, leaf: int) -> dict[str, list[Any]]:
    """States of the windows that began at a leaf or later, and what happened to alerts since."""
    windows = cursor.execute(
        "SELECT state, name FROM windows WHERE model = ? AND first_leaf >= ?", [model, leaf]
    ).fetchall()
    events = cursor.execute(
        "SELECT event FROM alerts WHERE model = ? AND leaf >= ?", [model, leaf]
    ).fetchall()
    return {"windows": windows, "events": [event for (event,) in events]}


def counts(cursor: Any, model: str) -> list[dict[str, Any]]:
    """Answers by version and arm, with outcomes and the share explained."""
    rows = cursor.execute(
        "SELECT d.version, d.arm, count(*), avg(d.score), "
        "  count(*) FILTER (e.method IS NOT NULL), "
        "  count(*) FILTER (e.id IS NULL) "
        "FROM decisions d LEFT JOIN explanations e ON e.id = d.id "
        "WHERE d.model = ? GROUP BY d.version, d.arm ORDER BY d.version, d.arm", [model]
    ).fetchall()  # fmt: skip
    outcomes = cursor.execute(
        "SELECT version, arm, outcome, count(*) FROM decisions WHERE model = ? "
        "GROUP BY ALL ORDER BY ALL", [model]
    ).fetchall()  # fmt: skip
    return [
        {"version": version, "arm": arm, "decisions": count, "mean_score": mean,
         "explained": explained, "waiting_for_explanation": waiting,
         "outcomes": {outcome: n for v, a, outcome, n in outcomes if (v, a) == (version, arm)}}
        for version, arm, count, mean, explained, waiting in rows
    ]  # fmt: skip


def agreement(cursor: Any, model: str) -> list[dict[str, Any]]:
    """Shadows against the answers that were given, on the same requests."""
    rows = cursor.execute(
        "SELECT p.version, p.arm, s.version, count(*), "
        "  count(*) FILTER (p.outcome IS NOT DISTINCT FROM s.outcome), avg(abs(p.score - s.score)) "
        'FROM decisions s JOIN decisions p ON p.id = s.primary_id AND p."row" = s."row" '
        "WHERE s.model = ? AND s.version != p.version GROUP BY ALL ORDER BY ALL", [model]
    ).fetchall()  # fmt: skip
    return [
        {"primary": primary, "arm": arm, "shadow": shadow, "decisions": count, "same_outcome": same,
         "mean_score_difference": difference}
        for primary, arm, shadow, count, same, difference in rows
    ]  # fmt: skip


def errors(cursor: Any) -> list[dict[str, Any]]:
    rows = cursor.execute(
        "SELECT error, count(*) FROM exchanges WHERE error IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [{"code": code, "exchanges": count} for code, count in rows]


def happenings(cursor: Any) -> dict[str, dict[str, Any]]:
    """What happened last to each alert, by its id."""
    rows = cursor.execute(
        'SELECT key, event, "at" FROM alerts '
        "QUALIFY row_number() OVER (PARTITION BY key ORDER BY leaf DESC, ordinal DESC) = 1"
    ).fetchall()
    return {key: {"event": event, "at": isoformat(moment)} for key, event, moment in rows}


def unsent(
    cursor: Any, behind: tuple[int, int], at_most: int = 50
) -> list[tuple[tuple[int, int], int, dict[str, Any]]]:
    """What is to be told of alerts behind a place: place, when it happened (ns), the record."""
    rows = cursor.execute(
        'SELECT leaf, ordinal, "at", document FROM alerts '
        "WHERE sent = 1 AND (leaf > ? OR (leaf = ? AND ordinal > ?)) "
        "ORDER BY leaf, ordinal LIMIT ?",
        [behind[0], behind[0], behind[1], at_most],
    ).fetchall()
    return [((leaf, ordinal), at, orjson.loads(text)) for leaf, ordinal, at, text in rows]
