"""From a leaf to rows of the catalog: pure."""

from __future__ import annotations

from typing import Any

import orjson

Row = tuple[str, tuple[Any, ...]]


def rows_of(number: int, leaf: dict[str, Any]) -> list[Row]:
    kind, record = leaf["kind"], leaf["record"]
    if kind == "exchange":
        return _exchange(number, leaf, record)
    if kind == "feedback":
        return _labels(number, record)
    if kind == "labelled":
        model = record["model"]
        return [("labelled", (number, model, *counted)) for counted in record["counts"]]
    if kind == "not_copied":
        place = (number, record["at"], record["model"])
        return [("not_copied", (*place, *dropped)) for dropped in record["drops"]]
    if kind == "compared":
        place = (number, record["at"], record["model"])
        return [("segments", (*place, *counted)) for counted in record["counts"]] + [
            ("likeness", (*place, *sums)) for sums in record["likeness"]
        ]
    text = orjson.dumps(record).decode()
    if kind == "explanation":
        method, why = record.get("method"), record.get("not_explained")
        return [("explanations", (record["exchange"], number, method, why, text))]
    if kind == "window":
        report = record["report"]
        model, version, arm, place = report["id"].split("/")
        row = (report["id"], number, model, version, arm, int(place), report["first_leaf"],
               report["last_leaf"], report["state"], text)  # fmt: skip
        return [("windows", row)]
    if kind == "alert" and "alert" in record:
        alert = record["alert"]
        told = (number, record["ordinal"], alert["id"], alert["model"], record["at"],
               record["event"], int(record["sent"]), alert["state"], text)  # fmt: skip
        return [("alerts", told)]
    name = str(record.get("id") or record.get("name") or leaf.get("source", kind))
    return [("events", (number, kind, name, text))]


def _labels(number: int, record: dict[str, Any]) -> list[Row]:
    """One row a line; which one is in force is asked, since a later leaf may say another."""
    return [
        ("labels", (identity, row, number, place, orjson.dumps(value).decode(), observed, source))
        for place, (identity, row, value, observed, source) in enumerate(record["labels"])
    ]


def _exchange(number: int, leaf: dict[str, Any], record: dict[str, Any]) -> list[Row]:
    identity, arrived, primary = record["id"], record["at"], record.get("primary")
    decisions = leaf.get("decisions", ())
    model, version, arm = record.get("model"), record.get("version"), record.get("arm")
    status = record["status"]
    exchange = (
        identity, number, arrived, model, version, arm, record.get("rule"), record.get("bucket"),
        record.get("caller"), record.get("operation"), status, record.get("error"),
        len(decisions), record["timings"]["total_us"], primary, record.get("revision"),
        record.get("artifact"), leaf.get("unreadable"),
    )  # fmt: skip
    rows: list[Row] = [("exchanges", exchange)]
    for place, decision in enumerate(decisions):
        row = (identity, place, number, arrived, model, version, arm, record.get("rule"), status,
               decision["score"], decision["outcome"], primary)  # fmt: skip
        rows.append(("decisions", row))
    if (comparison := leaf.get("comparison")) is not None:
        rows += _comparison(number, record, comparison)
    return rows


def _comparison(number: int, record: dict[str, Any], told: dict[str, Any]) -> list[Row]:
    noise, of, rows = int(told.get("noise", False)), told.get("of", {}), told.get("rows", 0)
    compared = "agree" in told
    differing = told.get("disagree", int(not told["agree"])) if compared else None
    listed = told.get("differing", ()) if told.get("kind") in ("decision", "number") else ()
    worst = max(listed, key=lambda row: row[1], default=(0,))[0]
    place = (number, record["at"], record["model"], record["version"])
    found: list[Row] = [("comparisons", (
        record["id"], number, record["at"], record["model"], record.get("rule"),
        record.get("caller"), record["version"], record.get("primary"), of.get("version"),
        of.get("arm"), noise, told.get("kind"), int(told["agree"]) if compared else None,
        told.get("severity"), told.get("reason"), told.get("direction"), told.get("not_compared"),
        rows, differing, worst,
    ))]  # fmt: skip
    for sort in ("reason", "direction"):
        counts = told.get(f"{sort}s") or ({told[sort]: 1} if sort in told else {})
        for word, count in counts.items():
            found.append(("compared_words", (*place, noise, sort, word, count)))
    for version, (n10, n01) in told.get("triples", {}).items():
        found.append(("triples", (number, record["at"], record["model"], version, n10, n01)))
    return found
