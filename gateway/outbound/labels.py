"""Labels from a file to a gateway: JSON lines, CSV or Parquet, by the file's ending.

The whole file is read and checked before the first label is sent. Sending it again is harmless: the
same label of the same decision told twice changes nothing.
"""

from __future__ import annotations

import csv
from codecs import BOM_UTF8 as BOM
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson

from gateway.feedback import PATH, batches, read_label
from gateway.tls import pinned_context

COLUMNS = ("id", "row", "label", "observed_at", "source")
TRUTHS = ("true", "false")
ROWS_AT_ONCE = 10_000
PATIENCE_S = 30.0


class NotTaken(Exception):
    """The gateway refused, or none answers; the labels before were taken."""


def lines_of(path: Path, now_ns: int) -> Iterator[bytes]:
    """The file's labels as JSON lines. ValueError names file, place, field and value."""
    found = {".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower(), _lines)
    good = 0
    try:
        for told in found(path):
            read_label(told, now_ns, "file")
            good += 1
            yield orjson.dumps(told)
    except ValueError as error:
        raise ValueError(f"{path}, label {good + 1}: {error}") from None
    if not good:
        raise ValueError(f"{path}: there is no label in it")


def _lines(path: Path) -> Iterator[object]:
    with path.open("rb") as file:
        for place, line in enumerate(file):
            text = (line if place else line.removeprefix(BOM)).strip()
            if not text:
                continue
            try:
                yield orjson.loads(text)
            except ValueError:
                raise ValueError(f"{text.decode(errors='replace')[:80]!r} is not JSON") from None


def _csv(path: Path) -> Iterator[object]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="(more)", strict=True)
        _check_columns(reader.fieldnames or ())
        try:
            for row in reader:
                told: dict[str, Any] = {name: text for name, text in row.items() if text}
                for name in ("row", "label"):
                    if name in told:
                        told[name] = _typed(told[name])
                yield told
        except csv.Error as error:
            raise ValueError(str(error)) from None


def _typed(text: str) -> object:
    """A cell as JSON would have it: a number, true, false (True and FALSE too, as Python and
    spreadsheets write them), null; everything else is a word."""
    if text.lower() in TRUTHS:
        return text.lower() == "true"
    try:
        found: object = orjson.loads(text)
    except ValueError:
        return text
    return found


def _parquet(path: Path) -> Iterator[object]:
    from pyarrow import ArrowInvalid, parquet, schema, timestamp, types

    try:
        file = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(str(error)) from None
    with file:
        _check_columns(file.schema_arrow.names)
        read_as = schema(
            (column.name, timestamp("us", column.type.tz))  # nanoseconds are no Python time
            if types.is_timestamp(column.type) else column
            for column in file.schema_arrow
        )  # fmt: skip
        for batch in file.iter_batches(ROWS_AT_ONCE):
            for row in batch.cast(read_as, safe=False).to_pylist():
                told = {key: value for key, value in row.items()
                        if value is not None or key == "label"}  # fmt: skip
                if isinstance(moment := told.get("observed_at"), datetime):
                    told["observed_at"] = moment.isoformat()
                yield told


def _check_columns(names: Iterable[str]) -> None:
    names = list(names)
    if unknown := [name for name in names if name not in COLUMNS]:
        raise ValueError(f"column {unknown[0][:40]!r}: unknown; known: {', '.join(COLUMNS)}")
    if missing := [name for name in ("id", "label") if name not in names]:
        raise ValueError(f"column {missing[0]!r} is missing")


def send(
    address: str, cert: str | None, token: str | None, model: str | None, lines: Iterable[bytes]
) -> int:
    """Give the labels to the data port at `address`; how many were taken, each durably."""
    scheme, verify = ("https", pinned_context(cert)) if cert is not None else ("http", True)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    given = {"model": model} if model else {}
    taken = 0
    with httpx2.Client(
        base_url=f"{scheme}://{address}", headers=headers, timeout=PATIENCE_S, verify=verify
    ) as client:
        for body in batches(lines):
            try:
                answer = client.post(PATH, content=body, params=given)
                told = answer.json()
            except (httpx2.HTTPError, ValueError) as error:
                raise NotTaken(f"{client.base_url}: {error}; {taken} labels were taken") from None
            if answer.status_code != 202:
                raise NotTaken(f"{told.get('error', told)}; {taken} labels were taken")
            taken += told["labels"]
    return taken
