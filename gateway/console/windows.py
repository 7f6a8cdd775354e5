"""One closed window, for the API: what it was of, what was said of it, where its decisions are."""

from __future__ import annotations

from typing import Any

from gateway.catalog import queries
from gateway.clock import isoformat


def window(cursor: Any, name: str) -> dict[str, Any] | None:
    """By its id, `<model>/<version>/<arm>/<number>`; None: no such window has closed."""
    found = queries.window(cursor, name)
    if found is None:
        return None
    leaf, report = found
    model, version, arm, number = name.split("/")
    return {
        "id": name,
        "model": model,
        "version": version,
        "arm": arm,
        "number": int(number),
        "artifact": report.get("artifact"),
        "leaf": leaf,
        "first_decision": report["first_id"],
        "last_decision": report["last_id"],
        "opened_at": isoformat(report["opened_at"]),
        "closed_at": isoformat(report["closed_at"]),
        "counts": {"decisions": report["n"], "outcomes": outcomes(report)},
        "state": report["state"],
        "verdicts": report.get("verdicts"),
        "words": report["words"],
        "decisions": f"/api/v1/decisions?window={name}",
        "report": report,
    }


def outcomes(report: dict[str, Any]) -> dict[str, int] | None:
    """How many decisions had the adverse outcome and how many another; None: there is none."""
    told = report["outcome"]
    if told is None:
        return None
    return {told["adverse"]: told["count"], "other": told["n"] - told["count"]}
