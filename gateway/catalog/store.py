"""The catalog: DuckDB tables derived from the ledger, rebuilt from it at any time.

Rows and the leaf number they reach are written in one transaction; applying a leaf twice changes
nothing because leaves at or below `reached` are not applied. There is no primary key (zone maps on
time-ordered ids find a row in milliseconds) and there are no input values: they stay encrypted
beside the ledger and are joined in memory when somebody asks for one decision.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

FORMAT = 4
MEMORY_LIMIT = "64MB"
"""DuckDB's cache and work area; what does not fit is read again or spilled beside the file. It is
full after some 150,000 exchanges: the analyst's memory is flat from there on."""

TABLES: Mapping[str, Sequence[tuple[str, str]]] = {
    "exchanges": (
        ("id", "UUID"), ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"),
        ("version", "VARCHAR"), ("arm", "VARCHAR"), ("rule", "VARCHAR"), ("bucket", "INTEGER"),
        ("caller", "VARCHAR"), ("operation", "VARCHAR"), ("status", "INTEGER"),
        ("error", "VARCHAR"), ("row_count", "INTEGER"), ("total_us", "BIGINT"),
        ("primary_id", "UUID"), ("revision", "VARCHAR"), ("artifact", "VARCHAR"),
        ("unreadable", "VARCHAR"),
    ),
    "decisions": (
        ("id", "UUID"), ("row", "INTEGER"), ("leaf", "BIGINT"), ("arrived", "BIGINT"),
        ("model", "VARCHAR"), ("version", "VARCHAR"), ("arm", "VARCHAR"),
        ("rule", "VARCHAR"), ("status", "INTEGER"), ("score", "DOUBLE"), ("outcome", "VARCHAR"),
        ("primary_id", "UUID"),
    ),
    "explanations": (
        ("id", "UUID"), ("leaf", "BIGINT"), ("method", "VARCHAR"), ("not_explained", "VARCHAR"),
        ("document", "VARCHAR"),
    ),
    "labels": (
        ("id", "UUID"), ("row", "INTEGER"), ("leaf", "BIGINT"), ("place", "INTEGER"),
        ("value", "VARCHAR"), ("observed", "BIGINT"), ("source", "VARCHAR"),
    ),
    "labelled": (
        ("leaf", "BIGINT"), ("model", "VARCHAR"), ("version", "VARCHAR"), ("arm", "VARCHAR"),
        ("day", "VARCHAR"), ("key", "VARCHAR"), ("value", "VARCHAR"), ("decided", "INTEGER"),
        ("actual", "INTEGER"), ("count", "INTEGER"), ("score", "DOUBLE"),
    ),
    "comparisons": (
        ("id", "UUID"), ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"),
        ("rule", "VARCHAR"), ("caller", "VARCHAR"), ("version", "VARCHAR"), ("primary_id", "UUID"),
        ("of_version", "VARCHAR"), ("of_arm", "VARCHAR"), ("noise", "INTEGER"),
        ("kind", "VARCHAR"), ("agree", "INTEGER"), ("severity", "DOUBLE"), ("reason", "VARCHAR"),
        ("direction", "VARCHAR"), ("why", "VARCHAR"), ("row_count", "INTEGER"),
        ("disagree", "INTEGER"), ("worst_row", "INTEGER"),
    ),
    "compared_words": (
        ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"), ("version", "VARCHAR"),
        ("noise", "INTEGER"), ("sort", "VARCHAR"), ("word", "VARCHAR"), ("count", "INTEGER"),
    ),
    "triples": (
        ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"), ("version", "VARCHAR"),
        ("n10", "INTEGER"), ("n01", "INTEGER"),
    ),
    "not_copied": (
        ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"), ("rule", "VARCHAR"),
        ("version", "VARCHAR"), ("reason", "VARCHAR"), ("count", "INTEGER"),
    ),
    "segments": (
        ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"), ("version", "VARCHAR"),
        ("key", "VARCHAR"), ("value", "VARCHAR"), ("n", "INTEGER"), ("disagree", "INTEGER"),
    ),
    "likeness": (
        ("leaf", "BIGINT"), ("arrived", "BIGINT"), ("model", "VARCHAR"), ("version", "VARCHAR"),
        ("n", "INTEGER"), ("top", "DOUBLE"), ("signs", "DOUBLE"), ("ranks", "DOUBLE"),
    ),
    "alerts": (
        ("leaf", "BIGINT"), ("ordinal", "INTEGER"), ("key", "VARCHAR"), ("model", "VARCHAR"),
        ("at", "BIGINT"), ("event", "VARCHAR"), ("sent", "INTEGER"), ("state", "VARCHAR"),
        ("document", "VARCHAR"),
    ),
    "windows": (
        ("name", "VARCHAR"), ("leaf", "BIGINT"), ("model", "VARCHAR"), ("version", "VARCHAR"),
        ("arm", "VARCHAR"), ("number", "INTEGER"), ("first_leaf", "BIGINT"),
        ("last_leaf", "BIGINT"), ("state", "VARCHAR"), ("document", "VARCHAR"),
    ),
    "events": (
        ("leaf", "BIGINT"), ("kind", "VARCHAR"), ("name", "VARCHAR"), ("document", "VARCHAR"),
    ),
}  # fmt: skip
ARROW = {"UUID": pa.uuid(), "BIGINT": pa.int64(), "INTEGER": pa.int32(), "VARCHAR": pa.string(),
         "DOUBLE": pa.float64()}  # fmt: skip


class Catalog:
    """One file, one process. `path` None: in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection = _open(path)
        self._lending = threading.Lock()  # DuckDB refuses to close while a cursor is being made
        if not self._has_tables():
            self._create()
        row = self._connection.execute("SELECT format, reached, state FROM meta").fetchone()
        assert row is not None
        if row[0] != FORMAT:
            raise ValueError(f"catalog format {row[0]}, and {FORMAT} is wanted: it is made again")
        self.reached: int = row[1]
        self.state: dict[str, Any] = orjson.loads(row[2])
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}

    def _has_tables(self) -> bool:
        found = self._connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_name = 'meta'"
        ).fetchone()
        return bool(found and found[0])

    def _create(self) -> None:
        self._connection.execute("BEGIN")
        for name, columns in TABLES.items():
            text = ", ".join(f'"{column}" {kind}' for column, kind in columns)
            self._connection.execute(f"CREATE TABLE {name} ({text})")
        self._connection.execute(
            "CREATE TABLE meta (format INTEGER, reached BIGINT, state VARCHAR)"
        )
        self._connection.execute("INSERT INTO meta VALUES (?, -1, '{}')", [FORMAT])
        self._connection.execute("COMMIT")

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        """Queue a row for the next `commit`."""
        self._rows[table].append(row)

    def commit(self, reached: int, state: dict[str, Any]) -> None:
        """Rows, the leaf they reach and the monitor's state: all or nothing."""
        self._connection.execute("BEGIN")
        try:
            for name, rows in self._rows.items():
                if rows:
                    self._insert(name, rows)
            text = orjson.dumps(state, option=orjson.OPT_SORT_KEYS).decode()
            self._connection.execute("UPDATE meta SET reached = ?, state = ?", [reached, text])
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        finally:
            for rows in self._rows.values():
                rows.clear()
        self.reached, self.state = reached, state

    def _insert(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        columns = TABLES[name]
        arrays = [_array(values, kind) for values, (_, kind) in zip(zip(*rows), columns)]
        batch = pa.table(dict(zip([column for column, _ in columns], arrays)))
        self._connection.register("batch", batch)
        try:
            self._connection.execute(f"INSERT INTO {name} SELECT * FROM batch")
        finally:
            self._connection.unregister("batch")

    def cursor(self) -> Any:
        """A connection of its own for one request's reading."""
        with self._lending:
            cursor = self._connection.cursor()
        if self._path is not None:
            cursor.execute("USE catalog")
        return cursor

    def close(self) -> None:
        with self._lending:
            self._connection.close()


def _array(values: Sequence[Any], kind: str) -> Any:
    if kind == "UUID":
        raw = [bytes.fromhex(value.replace("-", "")) if value else None for value in values]
        return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(raw, pa.binary(16)))
    return pa.array(values, ARROW[kind])


def _open(path: Path | None) -> Any:
    """The one place that opens the file: row groups of 16,384 are not remembered in it."""
    config = {"threads": "1", "memory_limit": MEMORY_LIMIT}
    connection = duckdb.connect(":memory:", config=config)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        quoted = str(path).replace("'", "''")
        connection.execute(f"SET temp_directory = '{quoted}.spill'")
        connection.execute(f"ATTACH '{quoted}' AS catalog (ROW_GROUP_SIZE 16384)")
        connection.execute("USE catalog")
    return connection


def open_catalog(path: Path) -> tuple[Catalog, str | None]:
    """The catalog, and why it was begun anew, if so: being derived, damage costs time only."""
    try:
        return Catalog(path), None
    except (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException,
            duckdb.CatalogException, ValueError) as error:  # fmt: skip
        if "lock" in str(error).lower() or "space" in str(error).lower():
            raise  # somebody else has it, or the disk is full: it is not damaged
        for suffix in ("", ".wal"):
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.rename(file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.set-aside"))
        return Catalog(path), str(error)
