"""Files of labels: three formats say the same, and what is wrong is named."""

from __future__ import annotations

import csv
from datetime import UTC, datetime

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.feedback import Label, read_label
from gateway.outbound.labels import lines_of

NOW = 1_795_000_000_000_000_000
ID = "01939b1e-7000-7000-8000-00000000000{}"
MOMENT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
TOLD = [
    Label(ID.format(1), 0, 1, 1_772_368_200_000_000_000, "bureau"),
    Label(ID.format(2), 3, 0, 1_772_368_200_000_000_000, "bureau"),
    Label(ID.format(3), 0, None, 1_772_368_200_000_000_000, "bureau"),
]
ROWS = [
    {"id": label.id, "row": label.row, "label": label.value,
     "observed_at": MOMENT.isoformat(), "source": label.source}
    for label in TOLD
]  # fmt: skip


def read(path) -> list[Label]:
    return [read_label(orjson.loads(line), NOW, "file") for line in lines_of(path, NOW)]


def test_three_formats_say_the_same(tmp_path):
    """JSON lines, CSV with `null`, Parquet with times as timestamps and nulls."""
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(orjson.dumps, ROWS)) + b"\n\n")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(row | {"label": orjson.dumps(row["label"]).decode()} for row in ROWS)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    columns["observed_at"] = pa.array([MOMENT] * 3, pa.timestamp("us", "UTC"))
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert read(tmp_path / name) == TOLD, name


def test_files_of_other_programs(tmp_path):
    """A byte order mark before JSON, truths as Python and spreadsheets write them into CSV, and
    times in nanoseconds, as pandas keeps them."""
    line = orjson.dumps({"id": ID.format(1), "label": 1})
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line)
    assert [label.value for label in read(tmp_path / "a.jsonl")] == [1, 1]
    cells = ("True", "FALSE", "true", "deny", "1.0")
    lines = "".join(f"{ID.format(1)},{cell}\r\n" for cell in cells)
    (tmp_path / "a.csv").write_text("\ufeffid,label\r\n" + lines, encoding="utf-8", newline="")
    assert [label.value for label in read(tmp_path / "a.csv")] == [True, False, True, "deny", 1.0]
    moments = pa.array([1_772_368_200_123_456_789, None], pa.timestamp("ns", "UTC"))
    columns = {"id": [ID.format(1), ID.format(2)], "label": [1, 0], "observed_at": moments}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert [label.observed for label in read(tmp_path / "a.parquet")] == [
        1_772_368_200_123_456_000, NOW
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "", "there is no label"),
        ("a.jsonl", '{"id": "x", "label": 1}', "label 1: id='x'"),
        ("a.jsonl", f'{{"id": "{ID.format(1)}", "label": 1}}\n{{"id": oops', "label 2: '{"),
        ("a.csv", "id,label,why\n", "column 'why': unknown"),
        ("a.csv", "id,value\n", "column 'value': unknown"),
        ("a.csv", "id\n", "column 'label' is missing"),
        ("a.csv", f"id,label\n{ID.format(1)},1\n{ID.format(2)},\n", "label 2: label: is missing"),
        ("a.csv", f"id,label\n{ID.format(1)},1,2\n", "'(more)': unknown"),
        ("a.csv", f'id,label\n{ID.format(1)},"1\n', "unexpected end"),
        ("a.parquet", "no parquet", "a.parquet"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, text, said):
    """File, label, field and value."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="label|column") as error:
        list(lines_of(tmp_path / name, NOW))
    assert said in str(error.value)
