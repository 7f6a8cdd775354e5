"""Tensors as the Open Inference Protocol carries them, by JSON, by bytes or by gRPC. Pure.

Whatever is sent, `Unreadable` is the only error and memory stays in proportion to the bytes sent:
shapes are bounded before they are multiplied, and counted strings are counted while they are cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

ELEMENTS_MAX = 16_000_000
NAME_MAX = 256

DTYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
    "BF16": np.float32,
}  # fmt: skip
"""numpy has no BF16: its two bytes are the upper ones of an FP32, and are widened when read."""
_NAMES = {np.dtype(found): name for name, found in DTYPES.items() if name != "BF16"}


class Unreadable(ValueError):
    """The bytes are no request or answer of this protocol; the words say why."""


class Opaque(Unreadable):
    """What it is about is not in the bytes."""


Fault = Literal["missing", "wrong_type", "out_of_range"]


class BadScores(Unreadable):
    """An answer not all of whose rows have a score: by row the score, and what is wrong else."""

    def __init__(
        self, words: str, scores: Sequence[float | None], faults: Sequence[Fault | None]
    ) -> None:
        super().__init__(words)
        self.scores, self.faults = scores, faults


class Tensor(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | np.ndarray[Any, Any]

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean",
             type(None): "null", int: "a number", float: "a number"}  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


def short(value: object) -> str:
    """A value as a refusal quotes it: what was sent may be as long as a body."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_name(where: str, name: Any, datatype: Any, known: Mapping[str, Any]) -> None:
    """A tensor's name and type; Unreadable where they are none, too long, or stand twice."""
    if not isinstance(name, str) or not name:
        raise Unreadable(f"{where}.name: a string is wanted, not {kind(name)}")
    if len(name) > NAME_MAX:
        raise Unreadable(f"{where}.name: at most {NAME_MAX} characters are taken")
    if name in known:
        raise Unreadable(f"tensor {name!r} stands twice")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise Unreadable(
            f"tensor {name!r}: datatype {short(datatype)} is none of {', '.join(DTYPES)}"
        )


def elements(name: str, shape: Any) -> int:
    """The number of elements that `shape` says; bounded."""
    if not isinstance(shape, list) or len(shape) > 8:  # before it is multiplied: it may be long
        raise Unreadable(f"tensor {name!r}: shape: a list of at most 8 sizes is wanted")
    for n in shape:
        if type(n) is not int or n < 0:
            raise Unreadable(f"tensor {name!r}: shape {short(shape)} is no list of sizes")
    size = math.prod(shape)
    if size > ELEMENTS_MAX:
        raise Unreadable(f"tensor {name!r}: shape {shape} is too large")
    return size


def flat(name: str, sent: Any, size: int, depth: int) -> list[Any]:
    """JSON `data`, flat or nested as deep as the shape, as one list of `size` values."""
    if not isinstance(sent, list):
        raise Unreadable(f"tensor {name!r}: data: a list is wanted, not {kind(sent)}")
    data = sent
    for _ in range(depth - 1):
        if not data or not isinstance(data[0], list):
            break
        if not all(isinstance(item, list) for item in data):
            raise Unreadable(f"tensor {name!r}: data is nested unevenly")
        data = [value for item in data for value in item]
    if len(data) != size:
        raise Unreadable(f"tensor {name!r}: data has {len(data)} elements, its shape says {size}")
    return data


def item_size(datatype: str) -> int:
    """Bytes of one element; not of BYTES, whose elements say it themselves."""
    return 2 if datatype == "BF16" else np.dtype(DTYPES[datatype]).itemsize


def from_binary(name: str, datatype: str, raw: memoryview, size: int) -> Any:
    """`size` little-endian elements without padding, or counted strings."""
    if datatype == "BYTES":
        return _counted(name, raw, size)
    if len(raw) != size * item_size(datatype):
        wanted = size * item_size(datatype)
        raise Unreadable(f"tensor {name!r}: {len(raw)} bytes, its shape and type say {wanted}")
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, np.dtype(DTYPES[datatype]).newbyteorder("<"))


def _counted(name: str, raw: memoryview, size: int) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at + 4 <= len(raw) and len(found) < size:
        length = int.from_bytes(raw[at : at + 4], "little")
        found.append(bytes(raw[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(raw) or len(found) != size:
        raise Unreadable(f"tensor {name!r}: its bytes are not {size} counted strings")
    return found


def to_binary(array: Any) -> bytes:
    """An output's bytes: little-endian, row-major; strings counted."""
    if array.dtype.kind != "O":
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return little.tobytes()
    pieces = []
    for value in array.ravel():
        text = value if isinstance(value, bytes) else str(value).encode()
        pieces.append(len(text).to_bytes(4, "little") + text)
    return b"".join(pieces)


def datatype_of(dtype: Any) -> str:
    return _NAMES.get(dtype, "BYTES")
