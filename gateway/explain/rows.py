"""Rows of columns: count, take, and the bytes that name them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.card import Feature
from gateway.explain.attribution import Columns

_CANONICAL_NAN = struct.pack("<d", float("nan"))


def count(columns: Columns) -> int:
    """How many rows; ValueError if the columns disagree or there are none."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of one length expected, got lengths {sorted(lengths)}")
    return lengths.pop()


def take(columns: Columns, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(values)[rows] for name, values in columns.items()}


def canonical(features: Sequence[Feature], columns: Columns) -> list[bytes]:
    """One unambiguous byte string a row: equal iff the rows are equal in these features.

    A number is 8 bytes little-endian, every NaN the same; a category is its UTF-8 after a 4-byte
    length, a missing one the length 2**32 - 1.
    """
    parts = [_canonical(feature, columns[feature.name]) for feature in features]
    return [b"".join(row) for row in zip(*parts)]


def _canonical(feature: Feature, values: NDArray[Any]) -> list[bytes]:
    if feature.type == "category":
        return [_category(value) for value in values]
    numbers = np.asarray(values, np.float64).tolist()
    return [_CANONICAL_NAN if x != x else struct.pack("<d", x) for x in numbers]


def _category(value: object) -> bytes:
    if value is None:
        return b"\xff\xff\xff\xff"
    text = str(value).encode()
    return struct.pack("<I", len(text)) + text
