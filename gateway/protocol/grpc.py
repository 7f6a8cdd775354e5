"""Open Inference Protocol v2 over gRPC: `inference.GRPCInferenceService`, unary. Pure.

Messages pass as bytes; they are read here only to find the model they name, to answer from a model
in the process, and later, off the data path, for features and scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gateway.card import Card
from gateway.protocol import v2
from gateway.protocol.dialect import SHARED_MEMORY, Target
from gateway.protocol.message import Message
from gateway.protocol.protobuf import (
    COUNTED,
    FIXED32,
    FIXED64,
    VARINT,
    counted,
    encode,
    fields,
    packed,
    signed,
    spans,
    text,
    varints,
)
from gateway.protocol.row import Columns, Mapped
from gateway.protocol.tensor import (
    Opaque,
    Tensor,
    Unreadable,
    check_name,
    datatype_of,
    elements,
    from_binary,
    to_binary,
)

NAME = "grpc"
SERVICE = "/inference.GRPCInferenceService/"
ERROR_TYPE = b"text/plain"
METHODS: Mapping[str, str] = {"infer": "POST", "ready": "POST", "metadata": "POST",
                              "control": "POST"}  # fmt: skip
INFERENCES = frozenset(("infer",))
CALLS = {"ModelInfer": "infer", "ModelReady": "ready", "ModelMetadata": "metadata",
         "RepositoryModelLoad": "control", "RepositoryModelUnload": "control"}  # fmt: skip
OF_A_MODEL = frozenset(("ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig",
                        "ModelStatistics"))  # fmt: skip

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 0, 3, 4, 5, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 13, 14, 16
STATUS = {0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409,
          11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401}  # fmt: skip
"""What a record's status is for each gRPC code."""
CODES = {400: INVALID_ARGUMENT, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: NOT_FOUND,
         405: UNIMPLEMENTED, 413: RESOURCE_EXHAUSTED, 429: RESOURCE_EXHAUSTED,
         431: RESOURCE_EXHAUSTED, 499: 1, 500: INTERNAL, 501: UNIMPLEMENTED,
         502: UNAVAILABLE, 503: UNAVAILABLE, 504: DEADLINE_EXCEEDED}  # fmt: skip
"""The gRPC code that says one of our refusals."""

_CONTENTS: Mapping[str, tuple[int, Any]] = {
    "BOOL": (1, np.bool_), "INT8": (2, np.int8), "INT16": (2, np.int16), "INT32": (2, np.int32),
    "INT64": (3, np.int64), "UINT8": (4, np.uint8), "UINT16": (4, np.uint16),
    "UINT32": (4, np.uint32), "UINT64": (5, np.uint64), "FP32": (6, "<f4"), "FP64": (7, "<f8"),
}  # fmt: skip


def locate(path: str) -> Target | None:
    """The model stands in the message."""
    if not path.startswith(SERVICE):
        return None
    call = path[len(SERVICE) :]
    return Target(None, None, CALLS.get(call, call if call in OF_A_MODEL else f"server/{call}"))


def names_model(operation: str) -> bool:
    """Whether the message of such a call says which model it is about."""
    return operation in ("infer", "ready", "metadata") or operation in OF_A_MODEL


def error_body(code: str, status: int, message: str) -> bytes:
    return message.encode()


def asked(body: bytes) -> tuple[str | None, str | None]:
    """Fields 1 and 2 of each request that names a model. Unreadable where it is none."""
    name = version = ""
    for number, wire, value in fields(memoryview(body)):
        if number == 1:
            name = text(number, wire, value)
        elif number == 2:
            version = text(number, wire, value)
    return name, version or None


def without_version(body: bytes) -> bytes:
    """The message an upstream knows: our version names are ours alone."""
    view = memoryview(body)
    return b"".join(view[begin:end] for number, _, _, begin, end in spans(view) if number != 2)


def not_copied(request: bytes, idempotent: bool) -> str | None:
    return "payload_opaque" if SHARED_MEMORY in request else None


def sequence_of(body: bytes) -> str | None:
    """The same as `v2.sequence_of`: a sequence is one, by whichever protocol it is spoken."""
    try:
        for number, wire, value in fields(memoryview(body)):
            if number == 4 and (found := _sequence(counted(number, wire, value))) is not None:
                return found
    except Unreadable:
        pass
    return None


def _sequence(entry: memoryview) -> str | None:
    """Of one entry of the parameters' map: an integer that is not 0, or a text, by its type."""
    name, found = "", None
    for number, wire, value in fields(entry):
        if number == 1:
            name = text(number, wire, value)
        elif number == 2:
            for kind, coding, said in fields(counted(number, wire, value)):
                if kind in (2, 5) and coding == VARINT:
                    found = str(signed(said) if kind == 2 else said) if said else None
                elif kind == 3:
                    found = text(kind, coding, said)
    return found or None if name == "sequence_id" else None


def only_ready(body: bytes) -> bool:
    """Whether a RepositoryIndexRequest asks for ready models only."""
    told = [value for number, wire, value in fields(memoryview(body)) if (number, wire) == (2, 0)]
    return bool(told and told[-1])


def read_request(body: bytes) -> v2.Request:
    """A ModelInferRequest."""
    identity, inputs, outputs, raw = "", [], {}, []
    for number, wire, value in fields(memoryview(body)):
        if number == 3:
            identity = text(number, wire, value)
        elif number == 5:
            inputs.append(counted(number, wire, value))
        elif number == 6:
            outputs[_name(counted(number, wire, value))] = True
        elif number == 7:
            raw.append(counted(number, wire, value))
    if not inputs:
        raise Unreadable("inputs: a list of tensors is wanted")
    return v2.Request(identity or None, _tensors("inputs", inputs, raw), outputs or None, True)


def _name(data: memoryview) -> str:
    return next((text(n, wire, value) for n, wire, value in fields(data) if n == 1), "")


def read_outputs(body: bytes) -> dict[str, Tensor]:
    """The outputs of a ModelInferResponse."""
    outputs, raw = [], []
    for number, wire, value in fields(memoryview(body)):
        if number == 5:
            outputs.append(counted(number, wire, value))
        elif number == 6:
            raw.append(counted(number, wire, value))
    return _tensors("outputs", outputs, raw)


def _tensors(where: str, items: list[memoryview], raw: list[memoryview]) -> dict[str, Tensor]:
    """Tensors with their own contents, or all of them with raw ones, in the same order."""
    if raw and len(raw) != len(items):
        raise Unreadable(f"{where}: {len(items)} tensors, but {len(raw)} raw contents")
    found: dict[str, Tensor] = {}
    for place, item in enumerate(items):
        name, datatype, shape, contents = _tensor_fields(item)
        check_name(f"{where}[{place}]", name, datatype, found)
        size = elements(name, shape)
        data: Any
        if raw:
            if contents is not None:
                raise Unreadable(f"tensor {name!r}: contents beside raw contents")
            data = from_binary(name, datatype, raw[place], size)
        else:
            data = _typed(name, datatype, memoryview(b"") if contents is None else contents, size)
        found[name] = Tensor(name, datatype, tuple(shape), data)
    return found


def _tensor_fields(item: memoryview) -> tuple[str, str, list[int], memoryview | None]:
    name = datatype = ""
    shape: list[int] = []
    contents = None
    for number, wire, value in fields(item):
        if number == 1:
            name = text(number, wire, value)
        elif number == 2:
            datatype = text(number, wire, value)
        elif number == 3:
            sizes = [value] if wire == VARINT else varints(counted(3, wire, value))[:9].tolist()
            shape += [signed(size) for size in sizes][: 9 - len(shape)]
        elif number == 4 and SHARED_MEMORY in bytes(value if wire == COUNTED else b""):
            raise Opaque(f"payload_opaque: tensor {name!r} lies in shared memory")
        elif number == 5:
            contents = counted(number, wire, value)
    return name, datatype, shape, contents


def _typed(name: str, datatype: str, contents: memoryview, size: int) -> Any:
    if datatype == "BYTES":
        strings = [bytes(counted(n, w, value)) for n, w, value in fields(contents) if n == 8]
        if len(strings) != size:
            raise Unreadable(f"tensor {name!r}: {len(strings)} elements, its shape says {size}")
        return strings
    if datatype not in _CONTENTS:
        raise Unreadable(f"tensor {name!r}: {datatype} is taken as raw contents only")
    wanted, dtype = _CONTENTS[datatype]
    pieces = [_numbers(wire, value, dtype) for n, wire, value in fields(contents) if n == wanted]
    data = np.concatenate(pieces) if pieces else np.zeros(0, dtype)
    if len(data) != size:
        raise Unreadable(f"tensor {name!r}: {len(data)} elements, its shape says {size}")
    return data


def _numbers(wire: int, value: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Packed numbers, or a single one."""
    if wire == VARINT:
        return np.array([value], np.uint64).astype(dtype)
    if dtype in ("<f4", "<f8"):
        if wire not in (COUNTED, FIXED32, FIXED64) or len(value) % np.dtype(dtype).itemsize:
            raise Unreadable("not protobuf: packed numbers of another size")
        return np.frombuffer(value, dtype)
    return varints(counted(0, wire, value)).astype(dtype)


def write_outputs(
    model: str, version: str | None, identity: str | None, outputs: Mapping[str, Any]
) -> bytes:
    """A ModelInferResponse with raw contents; `outputs`: name -> numpy array."""
    pieces = [encode(1, model)]
    if version is not None:
        pieces.append(encode(2, version))
    if identity is not None:
        pieces.append(encode(3, identity))
    for name, array in outputs.items():
        told = encode(1, name) + encode(2, datatype_of(array.dtype))
        pieces.append(encode(5, told + packed(3, list(array.shape))))
    pieces += [encode(6, to_binary(array)) for array in outputs.values()]
    return b"".join(pieces)


def write_metadata(told: Mapping[str, Any]) -> bytes:
    """A ModelMetadataResponse of what `/v2/models/{m}` says."""
    pieces = [encode(1, told["name"])]
    pieces += [encode(2, version) for version in told.get("versions", ())]
    pieces.append(encode(3, told["platform"]))
    for number, key in ((4, "inputs"), (5, "outputs")):
        for item in told[key]:
            said = encode(1, item["name"]) + encode(2, item["datatype"])
            pieces.append(encode(number, said + packed(3, item["shape"])))
    return b"".join(pieces)


def write_flag(value: bool) -> bytes:
    """ServerLiveResponse, ServerReadyResponse, ModelReadyResponse."""
    return encode(1, True) if value else b""


def write_server(name: str, version: str, extensions: list[str]) -> bytes:
    """A ServerMetadataResponse."""
    return b"".join((encode(1, name), encode(2, version), *(encode(3, e) for e in extensions)))


def write_index(entries: Iterable[tuple[str, str, str, str]]) -> bytes:
    """A RepositoryIndexResponse of models, versions, states and reasons."""
    return b"".join(
        encode(1, b"".join(encode(place, said) for place, said in enumerate(entry, 1) if said))
        for entry in entries
    )


def count_rows(mapping: Mapped, request: Message) -> int:
    return read_request(request.body).rows


def read_columns(card: Card, mapping: Mapped, request: Message) -> Columns:
    return v2.columns_of(card, mapping, read_request(request.body))


def read_scores(card: Card, mapping: Mapped, response: Message) -> list[float]:
    return v2.scores_of_tensors(card, mapping, read_outputs(response.body))


def read_rows(response: Message) -> list[Any]:
    return v2.rows_of_tensors(read_outputs(response.body))
