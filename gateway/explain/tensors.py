"""From the columns of a card to the input tensors of an onnxruntime session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card, Feature
from gateway.explain.attribution import Columns

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class SessionInput(Protocol):
    """What `InferenceSession.get_inputs()` tells of one input."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...


def feeds(
    card: Card, session_inputs: Sequence[SessionInput], rows: Columns
) -> dict[str, NDArray[Any]]:
    """Input name -> tensor [n, columns] in the session's type.

    A missing category travels as the empty string, a missing number as NaN. ValueError if the card
    leaves an input or a column of it empty, a feature has no values, or a type cannot hold them.
    """
    return {
        entry.name: _tensor(entry, carried_by(card, entry.name), rows) for entry in session_inputs
    }


def carried_by(card: Card, tensor: str) -> tuple[Feature, ...]:
    """The features in the columns of an input tensor, first column first."""
    carried = sorted(
        (feature for feature in card.features if feature.carrier == tensor),
        key=lambda feature: feature.column or 0,
    )
    if not carried:
        raise ValueError(f"input {tensor}: no feature of the card is carried by it")
    if [feature.column or 0 for feature in carried] != list(range(len(carried))):
        raise ValueError(f"input {tensor}: the card's columns are not 0 to {len(carried) - 1}")
    return tuple(carried)


def _tensor(entry: SessionInput, carried: Sequence[Feature], rows: Columns) -> NDArray[Any]:
    if entry.type not in _DTYPES:
        raise ValueError(f"input {entry.name}: {entry.type} is not supported")
    columns = [_cast(feature, rows, _DTYPES[entry.type]) for feature in carried]
    if len(columns) == 1:
        return columns[0].reshape(-1, 1)
    return np.stack(columns, axis=1)


def _cast(feature: Feature, rows: Columns, dtype: Any) -> NDArray[Any]:
    if feature.name not in rows:
        raise ValueError(f"feature {feature.name}: no values")
    values = np.asarray(rows[feature.name])
    if dtype is np.object_:
        if feature.type != "category":
            raise ValueError(f"feature {feature.name}: a {feature.type} in a tensor of strings")
        texts = np.empty(len(values), np.object_)
        texts[:] = ["" if value is None else str(value) for value in values]
        return texts
    if feature.type == "category":
        raise ValueError(f"feature {feature.name}: a category in a tensor of numbers")
    if not np.issubdtype(dtype, np.floating) and not np.isfinite(values).all():
        raise ValueError(f"feature {feature.name}: a missing value in {np.dtype(dtype)}")
    with np.errstate(over="ignore"):
        return values.astype(dtype)
