"""The common request to a version in the process, one row of JSON tensors, read into arrays: pure.

Only what the general way (`protocol/v2.py`, then `Session.feeds`) takes is taken here, with the
same bits. Of anything else nothing is said: the general way reads it, or says what is wrong with
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from gateway.protocol.tensor import DTYPES

BOUNDS: Final = {"FP32": 3.4e38, "FP64": 1e308, "INT64": 2**63}
"""Numbers lie between the bound and its negative, both left out, so that none becomes an infinity
or overflows."""
KINDS: Final[Mapping[str, frozenset[type]]] = {
    "FP32": frozenset((float, int)), "FP64": frozenset((float, int)),
    "INT64": frozenset((int,)), "BYTES": frozenset((str,)),
}  # fmt: skip
KEYS: Final = 4
"""Name, datatype, shape and data: a tensor that says more is left to the general way."""


class Group:
    """Inputs of one type and shape: their arrays are made at once."""

    __slots__ = ("bound", "dtype", "kinds", "names", "places", "shape")

    def __init__(self, datatype: str, shape: list[int]) -> None:
        self.dtype, self.kinds, self.bound = (
            DTYPES[datatype], KINDS[datatype], BOUNDS.get(datatype)
        )  # fmt: skip
        self.shape = (-1, *shape)
        self.names: list[str] = []
        self.places: list[int] = []

    def arrays(self, data: list[list[Any]]) -> Any:
        """One a name; None where a value is not of the type. `data`: of all inputs, by place."""
        values = list(chain.from_iterable([data[place] for place in self.places]))
        if not self.kinds.issuperset(map(type, values)):
            return None
        if self.bound is not None and not -self.bound < min(values) <= max(values) < self.bound:
            return None
        return np.array(values, self.dtype).reshape(self.shape)


class Asked:
    """The arrays by name, and the request's own id."""

    __slots__ = ("feeds", "id")

    def __init__(self, feeds: dict[str, Any], identity: str | None) -> None:
        self.feeds, self.id = feeds, identity


class SingleRow:
    """Reads requests for one graph."""

    def __init__(self, types: Mapping[str, str], dims: Mapping[str, list[Any]]) -> None:
        """By input: its datatype, and its sizes (no int: any)."""
        self._names = list(dims) if all(_fits(types[name], dims[name]) for name in dims) else []
        shapes = [[1, *dims[name][1:]] for name in self._names]
        self._datatypes = [types[name] for name in self._names]
        self._shapes = orjson.dumps(shapes)
        self._lengths = [math.prod(shape) for shape in shapes]
        self._lists, self._keys = [list] * len(shapes), [KEYS] * len(shapes)
        groups: dict[tuple[Any, ...], Group] = {}
        for place, (datatype, shape) in enumerate(zip(self._datatypes, shapes)):
            group = groups.setdefault((datatype, *shape), Group(datatype, shape))
            group.names.append(self._names[place])
            group.places.append(place)
        self._groups = list(groups.values())

    def read(self, body: bytes) -> Asked | None:
        """None: not of this kind."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(document) is not dict or type(document.get("inputs")) is not list:
            return None
        identity = document.get("id")
        if len(document) != (1 if identity is None else 2):
            return None
        if not self._names or not (identity is None or type(identity) is str):
            return None
        try:
            feeds = self._feeds(document["inputs"])
        except (KeyError, TypeError):  # no object, a name that is none or unknown
            return None
        return None if feeds is None else Asked(feeds, identity)

    def _feeds(self, inputs: list[Any]) -> dict[str, Any] | None:
        names = [item["name"] for item in inputs]
        if names != self._names:
            known = dict(zip(names, inputs))
            if len(inputs) != len(self._names):
                return None
            inputs = [known[name] for name in self._names]
        data = [item["data"] for item in inputs]
        if (
            [len(item) for item in inputs] != self._keys
            or [item["datatype"] for item in inputs] != self._datatypes
            or orjson.dumps([item["shape"] for item in inputs]) != self._shapes
            or list(map(type, data)) != self._lists
            or list(map(len, data)) != self._lengths
        ):
            return None
        feeds: dict[str, Any] = {}
        for group in self._groups:
            arrays = group.arrays(data)
            if arrays is None:
                return None
            feeds.update(zip(group.names, arrays))
        return feeds


def _fits(datatype: str, sizes: list[Any]) -> bool:
    """Whether a row of it has one shape, and a type that is read here."""
    batch = bool(sizes) and (sizes[0] == 1 or not isinstance(sizes[0], int))
    fixed = all(isinstance(size, int) and size > 0 for size in sizes[1:])
    return datatype in KINDS and batch and fixed
