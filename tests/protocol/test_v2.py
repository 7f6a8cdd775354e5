"""The v2 protocol read by somebody who does not trust it."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.card import Card
from gateway.protocol import v2
from gateway.protocol.dialect import Target
from gateway.protocol.message import Message
from gateway.protocol.row import NO_MAPPING
from gateway.protocol.tensor import DTYPES, Unreadable

CARD = Card.model_validate(
    yaml.safe_load((Path(__file__).parents[2] / "models/mortgage/v1/card.yaml").read_text())
)
TEXT = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]) | JSON,
        "datatype": st.sampled_from(sorted(DTYPES)) | JSON,
        "shape": st.lists(st.integers(0, 3), max_size=9) | JSON,
        "data": st.lists(st.floats(allow_nan=False) | st.lists(JSON, max_size=3), max_size=4)
        | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40) | JSON})
        | JSON,
    },
)


def body(**tensor: Any) -> bytes:
    """A request of one tensor `a`, FP32 [1], changed as told."""
    whole = {"name": "a", "datatype": "FP32", "shape": [1], "data": [1.0]} | tensor
    return orjson.dumps({"inputs": [whole]})


def scores_in(sent: bytes, length: bytes | None = None) -> list[float]:
    """The scores that a reader finds in an answer of these bytes."""
    headers = (
        {} if length is None else {"inference-header-content-length": length.decode("latin-1")}
    )
    return v2.read_scores(CARD, NO_MAPPING, Message(sent, headers))


@given(st.binary(max_size=200), st.none() | st.binary(max_size=14))
@example(b"[" * 10_000, None)
@example(b'{"inputs":' + b"[" * 10_000, None)
@example(b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":' + b"[" * 10_000, None)
@example(b'{"inputs":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, None)
@example(b"\xff\xfe{}", None)
@example(b"{}", b"9" * 12)
@example(b"", b"0")
def test_any_bytes_are_a_request_or_unreadable(sent: bytes, length: bytes | None) -> None:
    """No bytes whatever raise anything else, nor nesting that would exhaust the stack."""
    try:
        request = v2.read_request(sent, length)
    except Unreadable as error:
        words = str(error)
    else:
        words = ""
        assert request.inputs or request.raw == sent
    assert len(words) < 1000


@given(st.lists(TENSORS, max_size=3), st.binary(max_size=40), JSON)
def test_any_document_is_a_request_or_unreadable(
    tensors: list[dict[str, Any]], binary: bytes, identity: Any
) -> None:
    """Documents close to right ones are read or refused by name; what is read has its shape."""
    head = orjson.dumps({"id": identity, "inputs": tensors})
    for sent, length in ((head, None), (head + binary, str(len(head)).encode())):
        try:
            request = v2.read_request(sent, length)
        except Unreadable:
            continue
        for tensor in request.inputs.values():
            assert len(tensor.data) == math.prod(tensor.shape)


@given(st.lists(TENSORS, max_size=2), st.binary(max_size=40))
def test_any_answer_has_finite_scores_or_is_unreadable(
    tensors: list[dict[str, Any]], binary: bytes
) -> None:
    """A reader of answers never fails on what an upstream made up: a score is a finite number."""
    outputs = [{**tensor, "name": "score"} for tensor in tensors]
    head = orjson.dumps({"outputs": outputs})
    for sent, length in ((head, None), (head + binary, str(len(head)).encode()), (binary, None)):
        try:
            scores = scores_in(sent, length)
        except Unreadable:
            continue
        assert all(type(score) is float and math.isfinite(score) for score in scores)


@given(st.lists(TENSORS, max_size=3))
def test_any_request_has_columns_or_is_unreadable(tensors: list[dict[str, Any]]) -> None:
    """The same for the features that explanations and monitoring read."""
    named = [
        {**item, "name": feature.carrier}
        for item, feature in zip(tensors * len(CARD.features), CARD.features)
    ]
    try:
        columns = v2.read_columns(CARD, NO_MAPPING, Message(orjson.dumps({"inputs": named})))
    except Unreadable:
        return
    assert list(columns) == [feature.name for feature in CARD.features]
    assert len({len(values) for values in columns.values()}) == 1


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "an object is wanted, not a list"),
        (b"{}", "inputs: a list of tensors is wanted"),
        (b'{"inputs":[]}', "inputs: a list"),
        (b'{"inputs":[1]}', r"inputs\[0\]: a tensor object is wanted, not a number"),
        (b'{"inputs":[{}]}', r"inputs\[0\].name: a string is wanted, not null"),
        (body(name="a" * 257), r"inputs\[0\].name: at most 256"),
        (body(datatype="FP31"), "tensor 'a': datatype 'FP31' is none of BOOL"),
        (body(datatype="x" * 10_000), "tensor 'a': datatype .*\\.\\.\\. is none of"),
        (body(shape=[-1]), r"tensor 'a': shape \[-1\]"),
        (body(shape=[True]), r"tensor 'a': shape \[True\]"),
        (body(shape=[1.0]), r"tensor 'a': shape \[1.0\]"),
        (body(shape=[1] * 9), "tensor 'a': shape: a list of at most 8"),
        (body(shape=[4096, 4096]), "tensor 'a': shape .* is too large"),
        (body(shape=[2]), "tensor 'a': data has 1 elements, its shape says 2"),
        (body(data=1), "tensor 'a': data: a list is wanted, not a number"),
        (body(shape=[2, 1], data=[[1.0], 2.0]), "tensor 'a': data is nested unevenly"),
        (body(parameters={"binary_data_size": 4}), "tensor 'a': binary_data_size 4"),
        (body(parameters={"binary_data_size": "4"}), "tensor 'a': binary_data_size '4'"),
        (b'{"id":1,"inputs":[{}]}', "id: a string is wanted, not a number"),
        (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[NaN]}]}', "not JSON"),
        (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[1e999]}]}', "not JSON"),
        (b'{"id":"\xff","inputs":[{}]}', "not JSON"),
    ],
)
def test_a_refusal_says_where_and_what(sent: bytes, words: str) -> None:
    """The place, the tensor by name, what was sent and what is wanted."""
    with pytest.raises(Unreadable, match=words):
        v2.read_request(sent)


def test_a_tensor_stands_once() -> None:
    """Two tensors of one name would let readers disagree on which one counts."""
    tensor = {"name": "a", "datatype": "FP32", "shape": [1], "data": [1.0]}
    with pytest.raises(Unreadable, match="'a' stands twice"):
        v2.read_request(orjson.dumps({"inputs": [tensor, tensor]}))


@pytest.mark.timeout(5)
def test_a_shape_of_many_sizes_costs_nothing() -> None:
    """A million large sizes are refused before anybody multiplies them."""
    with pytest.raises(Unreadable, match="at most 8"):
        v2.read_request(body(shape=[2**63] * 1_000_000))


def test_flat_and_nested_data_are_the_same() -> None:
    """Row by row, as the protocol says."""
    flat = v2.read_request(body(shape=[2, 2], data=[1, 2, 3, 4])).inputs["a"]
    nested = v2.read_request(body(shape=[2, 2], data=[[1, 2], [3, 4]])).inputs["a"]
    assert flat == nested
    assert flat.rows == 2


def binary(raw: bytes, **tensor: Any) -> tuple[bytes, bytes]:
    item = {"name": "a", "datatype": "FP32", "shape": [1], **tensor}
    item["parameters"] = {"binary_data_size": len(raw)} | tensor.get("parameters", {})
    head = orjson.dumps({"inputs": [item]})
    return head + raw, str(len(head)).encode()


def test_binary_tensors_are_little_endian_rows() -> None:
    """Numbers as numpy reads them, strings each with four bytes of length."""
    sent = v2.read_request(*binary(struct.pack("<2f", 1.5, math.nan), shape=[2])).inputs["a"]
    np.testing.assert_array_equal(sent.data, [1.5, math.nan])
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (b"no", b"\xff"))
    assert v2.read_request(*binary(raw, shape=[2], datatype="BYTES")).inputs["a"].data == [
        b"no",
        b"\xff",
    ]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (binary(b"abc"), "3 bytes, its shape and type say 4"),
        (binary(b"abcd", parameters={"binary_data_size": 3}), "3 bytes, its shape"),
        (binary(b"\xff" * 4, datatype="BYTES"), "are not 1 counted strings"),
        (binary(b"\0" * 8, datatype="BYTES"), "are not 1 counted strings"),
        ((body(), b"5000"), "Inference-Header-Content-Length: 5000"),
        ((body(), b"-1"), "is no length"),
        ((body() + b"tail", str(len(body())).encode()), "4 bytes stand behind"),
    ],
)
def test_binary_lengths_must_fit(sent: tuple[bytes, bytes], words: str) -> None:
    """Every length is checked against another one; nothing is read past its end."""
    with pytest.raises(Unreadable, match=words):
        v2.read_request(*sent)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/models/m/infer", Target("m", None, "infer")),
        ("/v2/models/m", Target("m", None, "metadata")),
        ("/v2/models/m/", Target("m", None, "metadata")),
        ("/v2/models/m/ready", Target("m", None, "ready")),
        ("/v2/models/m/versions/v1/infer", Target("m", "v1", "infer")),
        ("/v2/models/m/versions/v1", Target("m", "v1", "metadata")),
        ("/v2/models/versions/infer", Target("versions", None, "infer")),
        ("/v2/models/a%2Fb/infer", Target("a/b", None, "infer")),
        ("/v2/models/m/trace/setting", Target("m", None, "trace/setting")),
    ],
)
def test_a_path_is_a_target(path: str, target: Target) -> None:
    """Model, version and operation by their places; names may be quoted."""
    assert v2.locate(path) == target


@pytest.mark.parametrize("path", ["/", "/v2/models/", "/v2/models", "/v1/models/m:predict", "*"])
def test_other_paths_are_nobodys(path: str) -> None:
    """What is not below /v2/models/<name> is no target."""
    assert v2.locate(path) is None


@pytest.mark.parametrize(
    "path",
    ["/v2/models/m/%69nfer", "/v2/models/m//infer", "/v2/models/m/./infer", "/v2/models/m/infer/"]
    + ["/v2/models/x/../m/infer", "/v2/models/m/%2e/infer", "/v2/models/m/version%73/v1/infer"],
)
def test_no_spelling_hides_an_inference(path: str) -> None:
    """What an upstream could read as an inference is one to us, or goes nowhere."""
    target = v2.locate(path)
    assert target is None or (target.model, target.operation) == ("m", "infer")


@pytest.mark.parametrize(
    ("path", "without"),
    [
        ("/v2/models/m/versions/v1/infer", "/v2/models/m/infer"),
        ("/v2/models/m/versions/v1", "/v2/models/m"),
        ("/v2/models/versions/infer", "/v2/models/versions/infer"),
        ("/v2/models/versions/versions/v1/infer", "/v2/models/versions/infer"),
        ("/v2/models/m/version%73/v1/infer", "/v2/models/m/infer"),
    ],
)
def test_an_upstream_never_sees_our_version(path: str, without: str) -> None:
    """Our version's name is taken out of the path and nothing else is."""
    assert v2.without_version(path) == without


def test_written_outputs_are_read_again() -> None:
    """Scores survive our own answer to the last bit of their FP32."""
    scores = np.array([[0.1], [1 / 3]], np.float32)
    answer, _ = v2.write_outputs(
        "m", None, "i", {"score": scores, "label": np.array(["a", "b"], object)}
    )
    assert scores_in(answer) == [pytest.approx(float(s), rel=1e-7) for s in scores.ravel()]
    assert np.array(scores_in(answer), np.float32).tolist() == scores.ravel().tolist()
    assert orjson.loads(answer)["id"] == "i"
    assert "model_version" not in orjson.loads(answer)


@pytest.mark.parametrize("value", ["{}", "[1]", "null", "true", '"1"', "[[]]"])
def test_a_score_that_is_no_number_is_unreadable(value: str) -> None:
    """Whatever stands where the score is wanted, the reader says so and goes on."""
    item = f'{{"name":"score","datatype":"FP32","shape":[1],"data":[{value}]}}'
    answer = f'{{"outputs":[{item}]}}'
    with pytest.raises(Unreadable, match="finite numbers are wanted"):
        scores_in(answer.encode())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_binary_score_that_is_not_finite_is_unreadable(value: float) -> None:
    """No outcome follows from NaN or an infinity."""
    item = {
        "name": "score",
        "datatype": "FP32",
        "shape": [1],
        "parameters": {"binary_data_size": 4},
    }
    head = orjson.dumps({"outputs": [item]})
    with pytest.raises(Unreadable, match="finite"):
        scores_in(head + struct.pack("<f", value), str(len(head)).encode())
