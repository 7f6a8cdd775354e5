"""The common request to a version in the process, one row of JSON tensors, read into arrays: pure.

Only what the general way (`protocol/v2.py`, then `Session.feeds`) takes is taken here, with the
same bits. Of anything else nothing is said: the general way reads it, or says what is wrong with
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from gateway.protocol.tensor import DTYPES

BOUNDS: Final = {"FP32": 3.4e38, "FP64": 1e308, "INT64": 2**63, "BYTES": 0}
"""Types that are read here; numbers lie between the bound and its negative, both left out, so that
none becomes an infinity or overflows."""


@dataclass(frozen=True, slots=True)
class Place:
    """One input of the graph: what a tensor of one row says for it."""

    datatype: str
    shape: list[int]
    size: int
    group: int
    """Inputs of one type and shape are made at once, as one array."""


class Asked:
    """The arrays by name, and the request's own id."""

    __slots__ = ("feeds", "id")

    def __init__(self, feeds: dict[str, Any], identity: str | None) -> None:
        self.feeds, self.id = feeds, identity


class SingleRow:
    """Reads requests for one graph."""

    def __init__(self, types: Mapping[str, str], dims: Mapping[str, list[Any]]) -> None:
        """By input: its datatype, and its sizes (no int: any)."""
        self._places: dict[str, Place] = {}
        self._groups: list[tuple[Any, tuple[int, ...]]] = []
        fits = all(
            types[name] in BOUNDS
            and sizes
            and (sizes[0] == 1 or not isinstance(sizes[0], int))
            and all(isinstance(size, int) and size > 0 for size in sizes[1:])
            for name, sizes in dims.items()
        )
        for name, sizes in dims.items() if fits else ():
            shape = [1, *sizes[1:]]
            group = (DTYPES[types[name]], (-1, *shape))
            if group not in self._groups:
                self._groups.append(group)
            size = int(np.prod(shape))
            self._places[name] = Place(types[name], shape, size, self._groups.index(group))

    def read(self, body: bytes) -> Asked | None:
        """None: not of this kind."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(document) is not dict:
            return None
        inputs, identity = document.get("inputs"), document.get("id")
        known = 1 if identity is None else 2
        if len(document) != known or type(inputs) is not list or not self._places:
            return None
        if len(inputs) != len(self._places) or not (identity is None or type(identity) is str):
            return None
        feeds = self._feeds(inputs)
        return None if feeds is None else Asked(feeds, identity)

    def _feeds(self, inputs: list[Any]) -> dict[str, Any] | None:
        names: list[list[str]] = [[] for _ in self._groups]
        values: list[list[Any]] = [[] for _ in self._groups]
        for item in inputs:
            if type(item) is not dict or len(item) != 4:
                return None
            name: Any = item.get("name")
            data: Any = item.get("data")
            place = self._places.get(name) if type(name) is str else None
            if place is None or not _is_row(place, item, data):
                return None
            names[place.group].append(name)
            values[place.group].extend(data)
        feeds: dict[str, Any] = {}
        for number, (dtype, shape) in enumerate(self._groups):
            arrays = np.array(values[number], dtype).reshape(shape)
            feeds.update(zip(names[number], arrays))
        return feeds if len(feeds) == len(self._places) else None  # none stood twice


def _is_row(place: Place, item: dict[str, Any], data: Any) -> bool:
    shape = item.get("shape")
    if item.get("datatype") != place.datatype or shape != place.shape:
        return False
    for size in shape:
        if type(size) is not int:  # 1.0 and true equal 1
            return False
    if type(data) is not list or len(data) != place.size:
        return False
    bound = BOUNDS[place.datatype]
    for value in data:
        kind = type(value)
        if kind is float:
            if place.datatype == "INT64" or not -bound < value < bound:
                return False
        elif kind is int:
            if not -bound < value < bound:
                return False
        elif kind is not str or place.datatype != "BYTES":
            return False
    return True
