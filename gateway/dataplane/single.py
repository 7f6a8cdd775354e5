"""The common request to a version in the process, one row of JSON tensors, read into arrays: pure.

Only what the general way (`protocol/v2.py`, then `Session.feeds`) takes is taken here, with the
same bits. Of anything else nothing is said: the general way reads it, or says what is wrong with
it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np
import orjson

from gateway.protocol.tensor import DTYPES

KINDS: Final[Mapping[str, frozenset[type]]] = {
    "FP32": frozenset((float, int)), "FP64": frozenset((float, int)),
    "INT64": frozenset((int,)), "BYTES": frozenset((str,)),
}  # fmt: skip
CODES: Final = {"FP32": "f", "FP64": "d", "INT64": "q"}
"""As `struct` writes them: rounded as numpy does, and an error instead of an infinity."""
FIELDS: Final = itemgetter("name", "datatype", "shape", "data")
KEYS: Final = 4
"""A tensor that says more than those is left to the general way."""


class Group:
    """Inputs of one type and shape: one block of memory, written at once for each request."""

    __slots__ = ("_flat", "_kinds", "_pack", "arrays", "places")

    def __init__(self, datatype: str, shape: Sequence[int], places: list[int]) -> None:
        self.places, self._kinds = places, KINDS[datatype]
        self.arrays = np.zeros((len(places), *shape), DTYPES[datatype])
        self._flat: Any = self.arrays.reshape(-1)
        code = CODES.get(datatype)
        self._pack = struct.Struct(f"={self.arrays.size}{code}").pack_into if code else None

    def fill(self, data: Sequence[list[Any]]) -> bool:
        """False where a value is not of the type. `data`: of all inputs, by place."""
        values = list(chain.from_iterable([data[place] for place in self.places]))
        if not self._kinds.issuperset(map(type, values)):
            return False
        if self._pack is None:
            for place, value in enumerate(values):
                self._flat[place] = value
            return True
        try:
            self._pack(self._flat, 0, *values)
        except (struct.error, OverflowError):
            return False
        return True


class Asked:
    """The arrays by name, which hold the row until the next one is read; the request's own id."""

    __slots__ = ("feeds", "id")

    def __init__(self, feeds: dict[str, Any], identity: str | None) -> None:
        self.feeds, self.id = feeds, identity


class SingleRow:
    """Reads requests for one graph, in one thread: always into the same arrays."""

    def __init__(self, types: Mapping[str, str], dims: Mapping[str, list[Any]]) -> None:
        """By input: its datatype, and its sizes (no int: any)."""
        names = list(dims) if all(_fits(types[name], dims[name]) for name in dims) else []
        shapes = [[1, *dims[name][1:]] for name in names]
        self._names, self._datatypes = tuple(names), tuple(types[name] for name in names)
        self._shapes = orjson.dumps(shapes)
        self._lengths = [math.prod(shape) for shape in shapes]
        self._lists, self._keys = [list] * len(shapes), [KEYS] * len(shapes)
        alike: dict[tuple[Any, ...], list[int]] = {}
        for place, (datatype, shape) in enumerate(zip(self._datatypes, shapes)):
            alike.setdefault((datatype, *shape), []).append(place)
        self._groups = [Group(kind[0], kind[1:], places) for kind, places in alike.items()]
        self._feeds: dict[str, Any] = {}
        for group in self._groups:
            self._feeds.update(zip([names[place] for place in group.places], group.arrays))

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
            taken = self._take(document["inputs"])
        except (KeyError, TypeError):  # no object, a name that is none or unknown
            return None
        return Asked(self._feeds, identity) if taken else None

    def _take(self, inputs: list[Any]) -> bool:
        if list(map(len, inputs)) != self._keys:
            return False
        rows = list(map(FIELDS, inputs))
        if tuple([row[0] for row in rows]) != self._names:
            known = {row[0]: row for row in rows}
            rows = [known[name] for name in self._names]
        _, datatypes, shapes, data = zip(*rows)
        if (
            datatypes != self._datatypes
            or orjson.dumps(shapes) != self._shapes
            or list(map(type, data)) != self._lists
            or list(map(len, data)) != self._lengths
        ):
            return False
        return all(group.fill(data) for group in self._groups)


def _fits(datatype: str, sizes: list[Any]) -> bool:
    """Whether a row of it has one shape, and a type that is read here."""
    batch = bool(sizes) and (sizes[0] == 1 or not isinstance(sizes[0], int))
    fixed = all(isinstance(size, int) and size > 0 for size in sizes[1:])
    return datatype in KINDS and batch and fixed
