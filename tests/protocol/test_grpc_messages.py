"""Messages read and written by number, held against NVIDIA's own stubs, both ways."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as stubs

from gateway.protocol import grpc
from gateway.protocol.protobuf import encode_varint, varints
from gateway.protocol.tensor import DTYPES, Unreadable, to_binary

FIELD = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=3)


@st.composite
def arrays(draw: Any) -> tuple[str, np.ndarray[Any, Any]]:
    """A type and an array of it, small enough to be drawn element by element."""
    datatype = draw(st.sampled_from(sorted(FIELD)))
    shape = draw(SHAPES)
    size = math.prod(shape)
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        element: Any = st.binary(max_size=6)
    elif datatype == "BOOL":
        element = st.booleans()
    elif datatype.startswith("FP"):
        element = st.floats(allow_nan=False, width=int(datatype[2:]))
    else:
        bounds = np.iinfo(dtype)  # type: ignore[type-var]
        element = st.integers(int(bounds.min), int(bounds.max))
    values = draw(st.lists(element, min_size=size, max_size=size))
    array = np.empty(size, dtype)
    array[:] = values
    return datatype, array.reshape(shape)


def request_of(tensors: list[tuple[str, Any]], *, raw: bool) -> stubs.ModelInferRequest:
    sent = stubs.ModelInferRequest(model_name="m", model_version="v", id="i")
    for place, (datatype, array) in enumerate(tensors):
        item = sent.inputs.add(name=f"t{place}", datatype=datatype, shape=list(array.shape))
        if raw:
            sent.raw_input_contents.append(to_binary(array))
        else:
            getattr(item.contents, FIELD[datatype]).extend(array.ravel().tolist())
    sent.outputs.add(name="score")
    return sent


@given(st.lists(arrays(), min_size=1, max_size=3), st.booleans())
def test_a_request_is_read_as_the_stubs_wrote_it(tensors: list[tuple[str, Any]], raw: bool) -> None:
    """Typed and raw contents of every type, shapes, outputs and id."""
    found = grpc.read_request(request_of(tensors, raw=raw).SerializeToString())
    assert (found.id, found.outputs) == ("i", {"score": True})
    for (datatype, array), tensor in zip(tensors, found.inputs.values(), strict=True):
        assert (tensor.datatype, tensor.shape) == (datatype, array.shape)
        assert np.array_equal(np.asarray(tensor.data, array.dtype), array.ravel())


@given(st.lists(arrays(), min_size=1, max_size=3))
def test_the_stubs_read_what_is_written(tensors: list[tuple[str, Any]]) -> None:
    """Answers are raw contents that the published messages take."""
    outputs = {f"o{place}": array for place, (_, array) in enumerate(tensors)}
    written = grpc.write_outputs("m", "v", "i", outputs)
    told = stubs.ModelInferResponse.FromString(written)
    assert (told.model_name, told.model_version, told.id) == ("m", "v", "i")
    for (datatype, array), item, raw in zip(tensors, told.outputs, told.raw_output_contents):
        assert (item.datatype, tuple(item.shape)) == (datatype, array.shape)
        assert raw == to_binary(array)
    assert grpc.read_outputs(written).keys() == outputs.keys()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_unreadable(sent: bytes) -> None:
    """Strangers' bytes raise nothing else."""
    for read in (grpc.asked, grpc.read_request, grpc.read_outputs, grpc.without_version,
                 grpc.only_ready, grpc.sequence_of):  # fmt: skip
        with suppress(Unreadable):
            read(sent)


@given(st.lists(arrays(), min_size=1, max_size=2), st.data())
def test_a_damaged_message_is_read_or_unreadable(tensors: list[Any], data: Any) -> None:
    """The same close to a right message: one byte changed or the end lost."""
    sent = bytearray(request_of(tensors, raw=data.draw(st.booleans())).SerializeToString())
    sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Unreadable):
        grpc.read_request(bytes(sent[: data.draw(st.integers(1, len(sent)))]))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_packed_numbers_are_read_all_at_once(values: list[int]) -> None:
    """The vectorised reader says what one by one would."""
    assert varints(memoryview(b"".join(map(encode_varint, values)))).tolist() == values


def test_an_upstream_never_sees_our_version() -> None:
    """Every field but the version is passed byte for byte, unknown ones too."""
    sent = request_of([("FP32", np.ones(2, np.float32))], raw=True)
    whole = sent.SerializeToString() + b"\xf8\x3f\x01"
    assert grpc.asked(whole) == ("m", "v")
    sent.model_version = ""
    assert grpc.without_version(whole) == sent.SerializeToString() + b"\xf8\x3f\x01"


def test_metadata_is_what_the_stubs_read() -> None:
    """Names, types, shapes with free sizes."""
    told = {
        "name": "m", "versions": ["v1"], "platform": "p",
        "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}], "outputs": [],
    }  # fmt: skip
    found = stubs.ModelMetadataResponse.FromString(grpc.write_metadata(told))
    assert (found.name, list(found.versions), found.platform) == ("m", ["v1"], "p")
    assert list(found.inputs[0].shape) == [-1, 2]
    assert stubs.ServerReadyResponse.FromString(grpc.write_flag(True)).ready


@given(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(lambda value: ("int64_param", value)),
        st.integers(0, 2**64 - 1).map(lambda value: ("uint64_param", value)),
        st.text(max_size=20).map(lambda value: ("string_param", value)),
    )
)
def test_a_sequence_is_told_by_its_parameter(told: tuple[str, Any]) -> None:
    """Whatever its kind, as text; 0 and an empty text are no sequence, nor is another parameter."""
    kind, value = told
    sent = request_of([("FP32", np.ones(2, np.float32))], raw=True)
    setattr(sent.parameters["priority"], kind, value)
    assert grpc.sequence_of(sent.SerializeToString()) is None
    setattr(sent.parameters["sequence_id"], kind, value)
    sent.parameters["sequence_start"].bool_param = True
    expected = str(value) if value not in (0, "") else None
    assert grpc.sequence_of(sent.SerializeToString()) == expected


@given(st.booleans())
def test_the_index_is_asked_and_answered(ready: bool) -> None:
    """The request's flag, and entries that the stubs read."""
    sent = stubs.RepositoryIndexRequest(repository_name="r", ready=ready)
    assert grpc.only_ready(sent.SerializeToString()) is ready
    entries = [("m", "v1", "READY", ""), ("n", "v2", "UNAVAILABLE", "gone")]
    told = stubs.RepositoryIndexResponse.FromString(grpc.write_index(entries))
    assert [(m.name, m.version, m.state, m.reason) for m in told.models] == entries


def test_shared_memory_is_opaque() -> None:
    """A region's name is no tensor: the reader says so."""
    sent = request_of([("FP32", np.ones(2, np.float32))], raw=True)
    del sent.raw_input_contents[:]
    sent.inputs[0].parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(Unreadable, match="payload_opaque"):
        grpc.read_request(sent.SerializeToString())
    assert grpc.not_copied(sent.SerializeToString(), True) == "payload_opaque"
