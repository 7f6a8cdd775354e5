"""Open Inference Protocol v2 over REST: paths, tensors, answers. Pure; bytes in, values out.

Reads JSON tensors (flat or nested `data`) and the binary tensor extension in requests. Numbers a
model cannot mean are refused: JSON has no NaN; a binary NaN is a missing value; infinities are
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson

from gateway.card import Card

ERROR_TYPE = b"application/json"
INFERENCE_HEADER = b"inference-header-content-length"
ELEMENTS_MAX = 16_000_000
NAME_MAX = 256

DTYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip


class Unreadable(ValueError):
    """The bytes are no request or answer of this protocol; the words say why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for. `operation`: infer, metadata, ready, or the rest of the path."""

    model: str
    version: str | None
    operation: str


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | np.ndarray[Any, Any]

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1


@dataclass(frozen=True, slots=True)
class Request:
    id: str | None
    inputs: Mapping[str, Tensor]

    @property
    def rows(self) -> int:
        return max((tensor.rows for tensor in self.inputs.values()), default=0)


def locate(path: str) -> Target | None:
    """`path` is the raw path, still quoted: names may hold quoted slashes.

    An upstream may read `%69nfer`, `./infer` or `/infer` as `infer`, so quoted operations are told
    by what they mean and paths with empty or dot segments are nobody's: an inference that is not
    recorded as one would be neither explained nor watched.
    """
    if not path.startswith("/v2/models/"):
        return None
    parts = [unquote(part) for part in path[11:].removesuffix("/").split("/")]
    if any(part in ("", ".", "..") for part in parts):
        return None
    model, version, rest = parts[0], None, parts[1:]
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    operation = "/".join(rest) or "metadata"
    return Target(model, version, operation)


def without_version(path: str) -> str:
    """The path an upstream knows: our version names are ours alone."""
    parts = path.split("/")
    if len(parts) > 5 and unquote(parts[4]) == "versions":
        del parts[4:6]
    return "/".join(parts)


METHODS = {"infer": "POST", "metadata": "GET", "ready": "GET"}


def error_body(message: str) -> bytes:
    return orjson.dumps({"error": message})


def read_request(body: bytes, header_length: bytes | None = None) -> Request:
    document, binary = _document(body, header_length)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Unreadable("inputs: a list of tensors is wanted")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Unreadable(f"id: a string is wanted, not {_kind(identity)}")
    return Request(identity, _tensors("inputs", inputs, binary))


def read_outputs(body: bytes, header_length: bytes | None = None) -> Mapping[str, Tensor]:
    document, binary = _document(body, header_length)
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        raise Unreadable("outputs: a list of tensors is wanted")
    return _tensors("outputs", outputs, binary)


def _document(body: bytes, header_length: bytes | None) -> tuple[dict[str, Any], memoryview]:
    end = len(body)
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 12:
            raise Unreadable(
                f"Inference-Header-Content-Length: {header_length[:20]!r} is no length"
            )
        end = int(header_length)
        if not 0 < end <= len(body):
            raise Unreadable(
                f"Inference-Header-Content-Length: {end}, but the body has {len(body)} bytes"
            )
    try:
        document = orjson.loads(memoryview(body)[:end])
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Unreadable(f"an object is wanted, not {_kind(document)}")
    return document, memoryview(body)[end:]


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean",
             type(None): "null", int: "a number", float: "a number"}  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


def _short(value: object) -> str:
    """A value as a refusal quotes it: what was sent may be as long as a body."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _tensors(where: str, items: list[Any], binary: memoryview) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    offset = 0
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise Unreadable(f"{where}[{number}]: a tensor object is wanted, not {_kind(item)}")
        name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
        if not isinstance(name, str) or not name:
            raise Unreadable(f"{where}[{number}].name: a string is wanted, not {_kind(name)}")
        if len(name) > NAME_MAX:
            raise Unreadable(f"{where}[{number}].name: at most {NAME_MAX} characters are taken")
        if name in found:
            raise Unreadable(f"tensor {name!r} stands twice")
        if not isinstance(datatype, str) or datatype not in DTYPES:
            raise Unreadable(
                f"tensor {name!r}: datatype {_short(datatype)} is none of {', '.join(DTYPES)}"
            )
        size = _elements(name, shape)
        shape = tuple(shape or ())
        parameters = item.get("parameters")
        binary_size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        data: Any
        if binary_size is not None:
            if type(binary_size) is not int or not 0 <= binary_size <= len(binary) - offset:
                raise Unreadable(
                    f"tensor {name!r}: binary_data_size {_short(binary_size)} is no size in bounds"
                )
            raw = binary[offset : offset + binary_size]
            offset += binary_size
            data = _from_binary(name, datatype, raw, size)
        else:
            data = _flat(name, item.get("data"), size, len(shape))
        found[name] = Tensor(name, datatype, shape, data)
    if offset != len(binary):
        raise Unreadable(f"{len(binary) - offset} bytes stand behind the last binary tensor")
    return found


def _elements(name: str, shape: Any) -> int:
    """The number of elements that `shape` says; bounded."""
    if not isinstance(shape, list) or len(shape) > 8:  # before it is multiplied: it may be long
        raise Unreadable(f"tensor {name!r}: shape: a list of at most 8 sizes is wanted")
    if any(type(n) is not int or n < 0 for n in shape):
        raise Unreadable(f"tensor {name!r}: shape {_short(shape)} is no list of sizes")
    size = math.prod(shape)
    if size > ELEMENTS_MAX:
        raise Unreadable(f"tensor {name!r}: shape {shape} is too large")
    return size


def _flat(name: str, sent: Any, size: int, depth: int) -> list[Any]:
    data: list[Any] = sent
    if not isinstance(data, list):
        raise Unreadable(f"tensor {name!r}: data: a list is wanted, not {_kind(data)}")
    for _ in range(depth - 1):
        if not data or not isinstance(data[0], list):
            break
        if not all(isinstance(item, list) for item in data):
            raise Unreadable(f"tensor {name!r}: data is nested unevenly")
        data = [value for item in data for value in item]
    if len(data) != size:
        raise Unreadable(f"tensor {name!r}: data has {len(data)} elements, its shape says {size}")
    return data


def _from_binary(name: str, datatype: str, raw: memoryview, size: int) -> Any:
    if datatype != "BYTES":
        dtype = np.dtype(DTYPES[datatype]).newbyteorder("<")
        if len(raw) != size * dtype.itemsize:
            raise Unreadable(
                f"tensor {name!r}: {len(raw)} bytes, its shape and type say {size * dtype.itemsize}"
            )
        return np.frombuffer(raw, dtype)
    found: list[bytes] = []
    at = 0
    while at + 4 <= len(raw) and len(found) < size:
        length = int.from_bytes(raw[at : at + 4], "little")
        found.append(bytes(raw[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(raw) or len(found) != size:
        raise Unreadable(f"tensor {name!r}: its bytes are not {size} counted strings")
    return found


def write_outputs(
    model: str, version: str | None, identity: str | None, outputs: Mapping[str, Any]
) -> bytes:
    """A JSON answer; `outputs`: name -> numpy array of a type in `DTYPES`."""
    document: dict[str, Any] = {"model_name": model}
    if version is not None:
        document["model_version"] = version
    if identity is not None:
        document["id"] = identity
    document["outputs"] = [
        {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype),
         "data": array.ravel().tolist() if array.dtype == object else array.ravel()}
        for name, array in outputs.items()
    ]  # fmt: skip
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def datatype_of(dtype: Any) -> str:
    for name, kind in DTYPES.items():
        if dtype == kind:
            return name
    return "BYTES"


def read_columns(
    card: Card, body: bytes, header_length: bytes | None = None
) -> dict[str, list[Any]]:
    """Feature name -> one value a row (None = missing), in card order; Unreadable if one lacks."""
    request = read_request(body, header_length)
    rows = request.rows
    columns: dict[str, list[Any]] = {}
    for feature in card.features:
        tensor = request.inputs.get(feature.carrier)
        if tensor is None:
            raise Unreadable(f"tensor {feature.carrier!r} is missing")
        width = math.prod(tensor.shape[1:])
        column = feature.column or 0
        if tensor.rows != rows or column >= width:
            raise Unreadable(f"tensor {feature.carrier!r}: shape {list(tensor.shape)} does not fit")
        values = tensor.data[column::width] if width else []
        columns[feature.name] = [_value(feature.type, value) for value in values]
    return columns


def _value(kind: str, value: Any) -> Any:
    if kind == "category":
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, str) else None if value is None else str(value)
    if isinstance(value, (bool, int, float, np.generic)):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def read_scores(card: Card, body: bytes, header_length: bytes | None = None) -> list[float]:
    """One score a row, as the answer's text says it."""
    score = card.outputs.score
    tensor = read_outputs(body, header_length).get(score.tensor)
    if tensor is None:
        raise Unreadable(f"output {score.tensor!r} is missing")
    width = math.prod(tensor.shape[1:])
    if score.column >= max(width, 1):
        raise Unreadable(f"output {score.tensor!r}: shape {list(tensor.shape)} has no such column")
    values = [_score(value) for value in tensor.data[score.column :: max(width, 1)]]
    if None in values:
        raise Unreadable(f"output {score.tensor!r}: finite numbers are wanted")
    return [value for value in values if value is not None]


def _score(value: object) -> float | None:
    """None: no number, or one that no outcome follows from."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
