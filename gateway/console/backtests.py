"""A model's past judged by other settings, for the API."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from gateway.artifacts import Artifacts
from gateway.catalog import queries
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.monitor.backtest import read_changes, run_backtest
from gateway.table import TableStore


def read_asked(body: bytes) -> tuple[str | None, dict[str, Any]]:
    """`since` and the changed settings. ValueError names what was sent."""
    try:
        told = orjson.loads(body or b"{}")
    except ValueError:
        raise ValueError("the body is no JSON") from None
    if not isinstance(told, dict) or not told.keys() <= {"since", "set"}:
        raise ValueError("the body is {since, set}")
    since, pairs = told.get("since"), told.get("set") or {}
    if since is not None and not isinstance(since, str):
        raise ValueError(f"since={since!r}: a duration or a time is wanted")
    if not isinstance(pairs, dict) or not all(isinstance(v, str) for v in pairs.values()):
        raise ValueError('set: texts by key, as {"drift.alpha": "0.05"}')
    return since, read_changes(pairs)


def backtest(
    cursor: Any, state: Path, tables: TableStore, bodies: BodyReader, model: str, since: int,
    changes: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """`would`: with the changes; `was`: what the ledger has since then."""
    first = queries.first_leaf(cursor, model, since)
    document: dict[str, Any] = {"model": model, "first_leaf": first, "settings": changes}
    was = queries.told_since(cursor, model, first if first is not None else 0)
    document["was"] = {"windows": dict(Counter(state for state, _ in was["windows"])),
                       "events": dict(Counter(was["events"]))}  # fmt: skip
    if first is None:
        return document | {"would": None}
    reader = LedgerReader(state, first)
    try:
        told = run_backtest(Artifacts(state), tables, reader, bodies, model, changes)
    finally:
        reader.close()
    return document | {"would": told.to_json()}
