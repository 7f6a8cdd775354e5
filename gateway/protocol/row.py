"""Rows of JSON to the canonical form: a column a feature, a score a row. Pure.

The canonical form of every protocol: feature name -> one value a row (None: missing), numbers as
float, categories as text, in the card's order. What is of another type than the card says is kept
apart from what is missing: a `Flaw` in place of a number, a `Converted` text in place of a
category. Where the wire is ambiguous the model's `mapping` says what is meant; nothing is guessed
that could be wrong: it is Unreadable, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gateway.card import Card
from gateway.protocol.flaw import INFINITE, NO_NUMBER, Converted
from gateway.protocol.tensor import BadScores, Fault, Unreadable, kind, short

Columns = dict[str, list[Any]]
Mapped = Mapping[str, Any]
NO_MAPPING: Mapped = {}


def value_of(feature_type: str, value: Any) -> Any:
    """One value as explanations and windows take it; true and false count as 1 and 0."""
    if isinstance(value, list) and len(value) == 1:  # a record may hold each value in a list
        value = value[0]
    if value is None or (isinstance(value, float) and value != value):
        return None
    if feature_type == "category":
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, str) else Converted(value)
    if isinstance(value, (bool, int, float, np.generic)):
        try:
            number = float(value)
        except OverflowError:
            return INFINITE
        return INFINITE if math.isinf(number) else number
    return NO_NUMBER


def columns_of_rows(card: Card, mapping: Mapped, rows: Any) -> Columns:
    """`rows`: a list of objects (records), of lists (a matrix), or of values (one feature)."""
    if not isinstance(rows, list) or not rows:
        raise Unreadable(f"a list of rows is wanted, not {kind(rows) if rows != [] else 'none'}")
    if all(isinstance(row, dict) for row in rows):
        return columns_of_records(card, rows)
    if all(isinstance(row, list) for row in rows):
        return columns_of_matrix(card, mapping.get("order") or (), rows)
    if len(card.features) == 1 and not any(isinstance(row, (dict, list)) for row in rows):
        return columns_of_matrix(card, (), [[row] for row in rows])
    raise Unreadable("rows are neither all objects nor all lists")


def columns_of_records(card: Card, rows: Sequence[dict[str, Any]]) -> Columns:
    """A row may lack a feature (it is missing there), but not every row."""
    columns: Columns = {}
    for feature in card.features:
        if not any(feature.name in row for row in rows):
            raise Unreadable(f"feature {feature.name!r} is in no row")
        columns[feature.name] = [value_of(feature.type, row.get(feature.name)) for row in rows]
    return columns


def columns_of_matrix(card: Card, order: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
    """`order`: the features' names from the first column on; empty: all of the card's, in order."""
    names = tuple(order) or tuple(feature.name for feature in card.features)
    widths = {len(row) for row in rows}
    if widths != {len(names)}:
        raise Unreadable(
            f"rows have {short(sorted(widths))} columns; {len(names)} are wanted, or mapping.order"
        )
    places = {name: place for place, name in enumerate(names)}
    columns: Columns = {}
    for feature in card.features:
        place = places.get(feature.name)
        if place is None:
            raise Unreadable(f"feature {feature.name!r} is not in mapping.order")
        columns[feature.name] = [value_of(feature.type, row[place]) for row in rows]
    return columns


def columns_of_columns(card: Card, named: dict[str, Any]) -> Columns:
    """An object of lists, one a feature."""
    columns: Columns = {}
    for feature in card.features:
        column = named.get(feature.name)
        if not isinstance(column, list):
            raise Unreadable(f"feature {feature.name!r}: a list is wanted, not {kind(column)}")
        columns[feature.name] = [value_of(feature.type, value) for value in column]
    if len({len(column) for column in columns.values()}) > 1:
        raise Unreadable("columns are of different lengths")
    return columns


def length_of(rows: Any) -> int:
    """How many rows a list of them, or an object of columns, has."""
    if isinstance(rows, dict):
        rows = next(iter(rows.values()), None)
    if not isinstance(rows, list):
        raise Unreadable(f"rows: a list is wanted, not {kind(rows)}")
    return len(rows)


def score_of(value: object) -> float | None:
    """None: no number, or one that no outcome follows from."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def fault_of(value: object) -> Fault:
    """What is wrong with a value that is no score."""
    if isinstance(value, (float, np.floating)) and value != value:
        return "missing"
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return "out_of_range"
    return "missing" if value is None else "wrong_type"


def checked_scores(
    values: Sequence[Any] | np.ndarray[Any, Any], words: Callable[[int], str]
) -> list[float]:
    """One finite score a row; `words` of the first row that has none."""
    scores = [score_of(value) for value in values]
    if None not in scores:
        return [score for score in scores if score is not None]
    faults = [fault_of(v) if s is None else None for v, s in zip(values, scores)]
    raise BadScores(words(scores.index(None)), scores, faults)


def scores_of(card: Card, mapping: Mapped, predictions: Any) -> list[float]:
    """A number a row; of a list its column, of an object its key, both as the card or mapping say.

    An object of lists (`{"score": [..]}`) is read by its key first.
    """
    name = mapping.get("output") or card.outputs.score.tensor
    column = mapping.get("column")
    column = card.outputs.score.column if column is None else column
    if isinstance(predictions, dict):
        predictions = predictions.get(name)
    if not isinstance(predictions, list):
        raise Unreadable(f"predictions: a list is wanted, not {kind(predictions)}")
    values = []
    for value in predictions:
        if isinstance(value, dict):
            value = value.get(name)
        if isinstance(value, list):
            value = value[column] if column < len(value) else None
        values.append(value)
    return checked_scores(
        values, lambda at: f"predictions[{at}]: {short(predictions[at])} holds no finite score"
    )


def pointed(document: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points at; Unreadable where nothing is there."""
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and len(key) < 9 and int(key) < len(found):
            found = found[int(key)]
        else:
            raise Unreadable(f"nothing is at {pointer[:80]!r}")
    return found
