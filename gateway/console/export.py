"""A model's decisions of one day as a Parquet file: values only where they are asked for.

The `export` leaf is durable before the file is begun: whoever erases a person is told of the
exports with values that held them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.catalog.store import Catalog
from gateway.console.decision import judged_by, values_of
from gateway.console.governed import check_purpose
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.table import TableStore

ROWS_AT_ONCE = 10_000
COLUMNS = ("id", "row", "arrived", "version", "arm", "rule", "status", "score", "outcome",
           "primary_id", "leaf")  # fmt: skip


def day_range(day: str) -> tuple[int, int]:
    """A UTC day in nanoseconds since 1970. ValueError names what was sent."""
    try:
        start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise ValueError(f"day={str(day)[:40]!r}: a day as 2026-11-23 is wanted") from None
    ends = (start.timestamp(), (start + timedelta(days=1)).timestamp())
    return int(ends[0]) * 10**9, int(ends[1]) * 10**9


def read_export(body: bytes, models: list[dict[str, Any]]) -> dict[str, Any]:
    """model, day, values, purpose, folder. ValueError names what was sent."""
    try:
        told = orjson.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ValueError("a JSON object is wanted")
    names = [model["name"] for model in models]
    if told.get("model") not in names:
        raise ValueError(f"model={str(told.get('model'))[:40]!r}: one of {', '.join(names)}")
    day_range(told.get("day", ""))
    folder = told.get("folder")
    if not isinstance(folder, str) or not Path(folder).is_absolute() or not Path(folder).is_dir():
        raise ValueError(f"folder={str(folder)[:80]!r}: an absolute path of a folder is wanted")
    values = told.get("values", False)
    if not isinstance(values, bool):
        raise ValueError(f"values={str(values)[:40]!r}: true or false is wanted")
    return told | {"values": values, "purpose": check_purpose(told.get("purpose"))}


def write_export(
    catalog: Catalog, tables: TableStore, bodies: BodyReader, state: Path, path: Path,
    model: str, day: str, values: bool,
) -> dict[str, Any]:  # fmt: skip
    """Write the file; its rows and its SHA-256."""
    rows = 0
    writer: pq.ParquetWriter | None = None
    for batch in _batches(catalog, model, day):
        table = _table(batch)
        if values:
            table = table.append_column("values", _values(batch, tables, bodies, state))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        rows += len(batch)
    if writer is not None:
        writer.close()
        path.chmod(0o600)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if writer is not None else None
    return {"file": str(path) if writer is not None else None, "rows": rows, "sha256": digest}


def _batches(catalog: Catalog, model: str, day: str) -> Iterator[list[tuple[Any, ...]]]:
    start, end = day_range(day)
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    with closing(catalog.cursor()) as cursor:
        cursor.execute(
            f"SELECT {names} FROM decisions WHERE model = ? AND arrived >= ? AND arrived < ? "
            'ORDER BY leaf, "row"', [model, start, end]
        )  # fmt: skip
        while batch := cursor.fetchmany(ROWS_AT_ONCE):
            yield batch


def _table(batch: list[tuple[Any, ...]]) -> pa.Table:
    columns = {name: list(column) for name, column in zip(COLUMNS, zip(*batch))}
    columns["id"] = [str(value) for value in columns["id"]]
    columns["primary_id"] = [str(value) if value else None for value in columns["primary_id"]]
    kinds = {"row": pa.int32(), "arrived": pa.timestamp("ns", "UTC"), "status": pa.int32(),
             "score": pa.float64(), "leaf": pa.int64()}  # fmt: skip
    return pa.table(
        {name: pa.array(column, kinds.get(name, pa.string())) for name, column in columns.items()}
    )


def _values(
    batch: list[tuple[Any, ...]], tables: TableStore, bodies: BodyReader, state: Path
) -> pa.Array:
    """A row's features as JSON text; null where they were erased or cannot be read."""
    found: dict[int, dict[str, list[Any]] | None] = {}
    for leaf_number in sorted({row[-1] for row in batch}):
        for number, text in LedgerReader(state, leaf_number).read(1):
            if number == leaf_number:
                leaf = orjson.loads(text)
                found[number] = values_of(bodies, leaf, *judged_by(tables, leaf["record"]))
    texts = []
    for _, row, *_, leaf_number in batch:
        columns = found.get(leaf_number)
        told = {name: column[row] for name, column in columns.items()} if columns else None
        texts.append(orjson.dumps(told).decode() if told else None)
    return pa.array(texts, pa.string())
