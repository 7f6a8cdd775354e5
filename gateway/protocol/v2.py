"""Open Inference Protocol v2 over REST: paths, tensors, answers. Pure; bytes in, values out.

Reads JSON tensors (flat or nested `data`) and the binary tensor extension, and writes both. Numbers
a model cannot mean are refused: JSON has no NaN; a binary NaN is a missing value; infinities are
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson

from gateway.card import Card
from gateway.protocol.dialect import SHARED_MEMORY, Target
from gateway.protocol.message import Message
from gateway.protocol.row import Columns, Mapped, checked_scores, value_of
from gateway.protocol.tensor import (
    Opaque,
    Tensor,
    Unreadable,
    check_name,
    datatype_of,
    elements,
    flat,
    from_binary,
    item_size,
    kind,
    short,
    to_binary,
)

NAME = "v2"
ERROR_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"
INFERENCE_HEADER = b"inference-header-content-length"
METHODS: Mapping[str, str] = {"infer": "POST", "explain": "POST", "metadata": "GET", "ready": "GET",
                              "control": "POST"}  # fmt: skip
"""`control` (load, unload) changes what answers: it is for callers who may force."""
INFERENCES = frozenset(("infer",))
SERVER = ("/v2/repository", "/v2/models/stats", "/v2/systemsharedmemory", "/v2/cudasharedmemory",
          "/v2/trace", "/v2/logging")  # fmt: skip
"""Triton's paths that are about a whole server."""


@dataclass(frozen=True, slots=True)
class Request:
    """`outputs`: those asked for, and whether each as bytes; None: all. `raw`: the body is the
    only tensor."""

    id: str | None
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool] | None = None
    binary: bool = False
    raw: bytes | None = None
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        rows = 1
        if self.raw is None:
            rows = max([tensor.rows for tensor in self.inputs.values()], default=0)
        object.__setattr__(self, "rows", rows)


def locate(path: str) -> Target | None:
    """`path` is the raw path, still quoted: names may hold quoted slashes.

    An upstream may read `%69nfer`, `./infer` or `/infer` as `infer`, so quoted operations are told
    by what they mean and paths with empty or dot segments are nobody's: an inference that is not
    recorded as one would be neither explained nor watched.
    """
    if not path.startswith("/v2/models/") or path in ("/v2/models/stats", "/v2/models/stats/"):
        return _locate_server(path)
    parts = [unquote(part) for part in path[11:].removesuffix("/").split("/")]
    if any(part in ("", ".", "..") for part in parts):
        return None
    model, version, rest = parts[0], None, parts[1:]
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    operation = "/".join(rest) or "metadata"
    return Target(model, version, operation)


def _locate_server(path: str) -> Target | None:
    if not path.startswith(SERVER):
        return None
    parts = [unquote(part) for part in path[4:].removesuffix("/").split("/")]
    if any(part in ("", ".", "..") for part in parts):
        return None
    changing = parts[0] == "repository" and parts[-1] in ("load", "unload")
    return Target(None, None, "control" if changing else "server/" + "/".join(parts))


def without_version(path: str) -> str:
    """The path an upstream knows: our version names are ours alone."""
    parts = path.split("/")
    if len(parts) > 5 and unquote(parts[4]) == "versions":
        del parts[4:6]
    return "/".join(parts)


def error_body(code: str, status: int, message: str) -> bytes:
    return orjson.dumps({"error": message})


def asked(body: bytes) -> tuple[str | None, str | None]:
    return None, None


def not_copied(request: bytes, idempotent: bool) -> str | None:
    """A shadow has no such memory region: it could not read what is meant."""
    return "payload_opaque" if SHARED_MEMORY in request else None


def sequence_of(request: Message, at_most: int) -> str | None:
    """The `sequence_id` of a request whose parameters can be read, as text; None: no sequence.

    `at_most`: bytes of its body without its coding; a longer one is not looked into.
    """
    try:
        body = request.plain(at_most)
        if b'"sequence_id"' not in body:
            return None
        parameters = _document(body, header_length(request))[0].get("parameters")
    except Unreadable:
        return None
    sequence = parameters.get("sequence_id") if isinstance(parameters, dict) else None
    return str(sequence) if type(sequence) in (int, str) and sequence else None


def only_ready(body: bytes) -> bool:
    """Whether the repository's index is asked for ready models only; an empty body asks for all."""
    if not body:
        return False
    return _flag("index", _document(body, None)[0], "ready", False)


def read_request(body: bytes, header_length: bytes | None = None) -> Request:
    """Unreadable says what is no request; a header length of 0 makes the body the only tensor."""
    if header_length is not None and header_length.isdigit() and not int(header_length[:12]):
        return Request(None, {}, binary=True, raw=body)
    document, binary = _document(body, header_length)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Unreadable("inputs: a list of tensors is wanted")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Unreadable(f"id: a string is wanted, not {kind(identity)}")
    tensors = _tensors("inputs", inputs, binary)
    all_binary = _flag("parameters", document.get("parameters"), "binary_data_output", False)
    return Request(identity, tensors, _asked(document.get("outputs"), all_binary), all_binary)


def _flag(where: str, parameters: Any, name: str, default: bool) -> bool:
    value = parameters.get(name, default) if isinstance(parameters, dict) else default
    if not isinstance(value, bool):
        raise Unreadable(f"{where}.{name}: a boolean is wanted, not {kind(value)}")
    return value


def _asked(outputs: Any, all_binary: bool) -> dict[str, bool] | None:
    """Outputs by name; a list that is absent or empty asks for all."""
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list):
        raise Unreadable(f"outputs: a list is wanted, not {kind(outputs)}")
    found: dict[str, bool] = {}
    for number, item in enumerate(outputs):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            raise Unreadable(f"outputs[{number}].name: a string is wanted, not {kind(name)}")
        if name in found:
            raise Unreadable(f"output {short(name)} stands twice")
        parameters = item.get("parameters")
        for asked in ("classification", SHARED_MEMORY.decode()):
            if isinstance(parameters, dict) and asked in parameters:
                raise Unreadable(f"output {short(name)}: {asked} is not taken here")
        found[name] = _flag(f"outputs[{number}].parameters", parameters, "binary_data", all_binary)
    return found


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
        raise Unreadable(f"an object is wanted, not {kind(document)}")
    return document, memoryview(body)[end:]


def _tensors(where: str, items: list[Any], binary: memoryview) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    offset = 0
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise Unreadable(f"{where}[{number}]: a tensor object is wanted, not {kind(item)}")
        name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
        check_name(f"{where}[{number}]", name, datatype, found)
        assert isinstance(name, str)
        assert isinstance(datatype, str)
        parameters, binary_size = item.get("parameters"), None
        if isinstance(parameters, dict):
            if SHARED_MEMORY.decode() in parameters:
                raise Opaque(f"payload_opaque: tensor {name!r} lies in shared memory")
            binary_size = parameters.get("binary_data_size")
        size = elements(name, shape)
        shape = tuple(shape or ())
        data: Any
        if binary_size is not None:
            if type(binary_size) is not int or not 0 <= binary_size <= len(binary) - offset:
                raise Unreadable(
                    f"tensor {name!r}: binary_data_size {short(binary_size)} is no size in bounds"
                )
            raw = binary[offset : offset + binary_size]
            offset += binary_size
            data = from_binary(name, datatype, raw, size)
        else:
            data = flat(name, item.get("data"), size, len(shape))
        found[name] = Tensor(name, datatype, shape, data)
    if offset != len(binary):
        raise Unreadable(f"{len(binary) - offset} bytes stand behind the last binary tensor")
    return found


def raw_tensor(raw: bytes, name: str, datatype: str, dims: list[Any]) -> Tensor:
    """A raw body as the tensor that `dims` (-1: of any size) say; a batch of one row.

    Unreadable where its size does not say the shape: BYTES are one string, without its length.
    """
    shape = [1 if place == 0 and size == -1 else size for place, size in enumerate(dims)]
    if datatype == "BYTES":
        if any(size not in (1, -1) for size in shape):
            raise Unreadable(f"tensor {name!r}: a raw body of BYTES is one string")
        return Tensor(name, datatype, (1,) * len(shape), [raw])
    fixed = math.prod(size for size in shape if size != -1) * item_size(datatype)
    free = shape.count(-1)
    if free > 1 or not fixed or len(raw) % fixed or (not free and len(raw) != fixed):
        words = f"{len(raw)} bytes do not say a shape of {short(dims)} of {datatype}"
        raise Unreadable(f"tensor {name!r}: {words}")
    shape = [len(raw) // fixed if size == -1 else size for size in shape]
    size = elements(name, shape)
    data = from_binary(name, datatype, memoryview(raw), size)
    return Tensor(name, datatype, tuple(shape), data)


def write_outputs(
    model: str,
    version: str | None,
    identity: str | None,
    outputs: Mapping[str, Any],
    binary: Mapping[str, bool] | None = None,
) -> tuple[bytes, int | None]:
    """An answer, and the length of its JSON part where bytes follow it.

    `outputs`: name -> numpy array of a type in `DTYPES`; `binary`: which of them go as bytes.
    """
    document: dict[str, Any] = {"model_name": model}
    if version is not None:
        document["model_version"] = version
    if identity is not None:
        document["id"] = identity
    listed: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    for name, array in outputs.items():
        item: dict[str, Any] = {"name": name, "shape": list(array.shape),
                                "datatype": datatype_of(array.dtype)}  # fmt: skip
        if binary is not None and binary.get(name):
            pieces.append(to_binary(array))
            item["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            item["data"] = array.ravel().tolist() if array.dtype == object else array.ravel()
        listed.append(item)
    document["outputs"] = listed
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *pieces)), len(head)) if pieces else (head, None)


def header_length(message: Message) -> bytes | None:
    told = message.headers.get(INFERENCE_HEADER.decode())
    return None if told is None else told.encode("latin-1", "replace")


def count_rows(mapping: Mapped, request: Message) -> int:
    return read_request(request.plain(), header_length(request)).rows


def read_columns(card: Card, mapping: Mapped, request: Message) -> Columns:
    """Feature name -> one value a row (None = missing), in card order; Unreadable if one lacks."""
    if SHARED_MEMORY in request.body:
        raise Opaque("payload_opaque: tensors lie in shared memory")
    asked = read_request(request.plain(), header_length(request))
    return columns_of(card, mapping, asked)


def columns_of(card: Card, mapping: Mapped, asked: Request) -> Columns:
    """Each feature's column: in the tensor the card names, or in the one that is the matrix."""
    inputs = asked.inputs
    if asked.raw is not None:
        inputs = {"": _raw_matrix(card, mapping, asked.raw)}
    matrix = _matrix(mapping, inputs, raw=asked.raw is not None)
    order = tuple(mapping.get("order") or ()) or tuple(feature.name for feature in card.features)
    if matrix is not None and math.prod(matrix.shape[1:]) != len(order):
        words = f"shape {list(matrix.shape)}; {len(order)} columns are wanted, or mapping.order"
        raise Unreadable(f"tensor {matrix.name!r}: {words}")
    rows = max((tensor.rows for tensor in inputs.values()), default=0)
    columns: Columns = {}
    for feature in card.features:
        if matrix is None:
            tensor, column = inputs.get(feature.carrier), feature.column or 0
            if tensor is None:
                raise Unreadable(f"tensor {feature.carrier!r} is missing")
        elif feature.name in order:
            tensor, column = matrix, order.index(feature.name)
        else:
            raise Unreadable(f"feature {feature.name!r} is not in mapping.order")
        width = math.prod(tensor.shape[1:])
        if tensor.rows != rows or column >= width:
            raise Unreadable(f"tensor {tensor.name!r}: shape {list(tensor.shape)} does not fit")
        values = tensor.data[column::width] if width else []
        columns[feature.name] = [value_of(feature.type, value) for value in values]
    return columns


def _matrix(mapping: Mapped, inputs: Mapping[str, Tensor], *, raw: bool) -> Tensor | None:
    """The tensor that holds all features as a matrix, where the mapping says there is one."""
    if raw:
        return inputs[""]
    if mapping.get("layout") != "matrix":
        return None
    name = mapping.get("input")
    if name is None and len(inputs) == 1:
        return next(iter(inputs.values()))
    if not isinstance(name, str) or name not in inputs:
        raise Unreadable(f"tensor {name!r} is missing; mapping.input names the matrix")
    return inputs[name]


def _raw_matrix(card: Card, mapping: Mapped, raw: bytes) -> Tensor:
    datatype = mapping.get("datatype")
    if datatype is None:
        raise Unreadable("a raw body does not say its type; mapping.datatype does")
    order = mapping.get("order") or card.features
    return raw_tensor(raw, "", str(datatype), [-1, len(order)])


def read_scores(card: Card, mapping: Mapped, response: Message) -> list[float]:
    """One score a row, as the answer's text says it."""
    outputs = read_outputs(response.plain(), header_length(response))
    return scores_of_tensors(card, mapping, outputs)


def scores_of_tensors(card: Card, mapping: Mapped, outputs: Mapping[str, Tensor]) -> list[float]:
    """The score's column in the output that the mapping names, or the card."""
    name = mapping.get("output") or card.outputs.score.tensor
    column = mapping.get("column")
    column = card.outputs.score.column if column is None else column
    tensor = outputs.get(name)
    if tensor is None:
        raise Unreadable(f"output {name!r} is missing")
    width = math.prod(tensor.shape[1:])
    if column >= max(width, 1):
        raise Unreadable(f"output {name!r}: shape {list(tensor.shape)} has no such column")
    values = tensor.data[column :: max(width, 1)]
    return checked_scores(values, lambda _: f"output {name!r}: finite numbers are wanted")


def read_rows(response: Message) -> list[Any]:
    return rows_of_tensors(read_outputs(response.plain(), header_length(response)))


def rows_of_tensors(outputs: Mapping[str, Tensor]) -> list[Any]:
    """Name -> the row's values, one of them as it is; Unreadable where tensors differ in rows."""
    counts = {tensor.rows for tensor in outputs.values()}
    if len(counts) != 1:
        raise Unreadable(f"outputs have {short(sorted(counts))} rows")
    (rows,) = counts
    found: list[Any] = [{} for _ in range(rows)]
    for name, tensor in outputs.items():
        values = tensor.data.tolist() if isinstance(tensor.data, np.ndarray) else tensor.data
        values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
        width = math.prod(tensor.shape[1:])
        for place, row in enumerate(found):
            row[name] = values[place] if width == 1 else values[place * width : (place + 1) * width]
    return found
