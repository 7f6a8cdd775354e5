"""Models in the worker: what is sent is held against the graph, tensor by tensor."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import FEATURES, MODELS, applicants

from gateway.card import Card
from gateway.check import check
from gateway.dataplane.inprocess import Session
from gateway.errors import Refusal
from gateway.protocol import v2

CARDS = check(MODELS.parents[1] / "headworks.yaml").cards


def session(version: str = "v1", card: Card | None = None) -> Session:
    folder = MODELS / version
    return Session(folder, "mortgage", version, card or CARDS["mortgage", version])


LOGISTIC = session()


def answer(body: bytes, header: bytes | None = None) -> Any:
    request = v2.read_request(body, header)
    written, _ = v2.write_outputs("mortgage", "v1", request.id, LOGISTIC.run(request))
    return orjson.loads(written)


def tensor(name: str, /, **changes: Any) -> bytes:
    kind = "BYTES" if name == "pbcr" else "FP32"
    data = ["no"] if kind == "BYTES" else [0.5]
    item = {"name": name, "shape": [1, 1], "datatype": kind, "data": data} | changes
    return applicants(**{name: item})


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_every_version_scores_people(version: str) -> None:
    """One probability a row, in the shape of the graph, under the request's id."""
    request = v2.read_request(applicants(3))
    outputs = session(version).run(request)
    told = orjson.loads(v2.write_outputs("mortgage", None, request.id, outputs)[0])
    assert told["id"] == "ours"
    assert "model_version" not in told
    (output,) = told["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("score", [3, 1], "FP32")
    assert len(set(output["data"])) == 1
    assert 0 < output["data"][0] < 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (applicants(dir=None), r"tensor 'dir' is missing; expected: FP32 \[rows, 1\]"),
        (tensor("dir", name="dirt"), "tensor 'dirt' is unknown; expected: dir, hir"),
        (tensor("dir", shape=[1]), r"tensor 'dir': sent FP32 \[1\], expected FP32 \[1, 1\]"),
        (tensor("dir", shape=[1, 2], data=[1, 2]), r"'dir': sent FP32 \[1, 2\], expected FP32"),
        (tensor("dir", datatype="FP64"), r"tensor 'dir': sent FP64 \[1, 1\], expected FP32"),
        (tensor("dir", datatype="BYTES", data=["1"]), "'dir': sent BYTES"),
        (tensor("dir", shape=[2, 1], data=[1, 2]), r"sent FP32 \[1, 1\], expected FP32 \[2, 1\]"),
        (tensor("dir", data=["0.5"]), "tensor 'dir': '0.5' is not FP32"),
        (tensor("dir", data=[None]), "tensor 'dir': 'None' is not FP32"),
        (tensor("dir", data=[True]), "tensor 'dir': 'True' is not FP32"),
        (tensor("dir", data=[{}]), "tensor 'dir': '{}' is not FP32"),
        (tensor("dir", data=[1e39]), "tensor 'dir': an infinite value is not taken"),
        (tensor("pbcr", data=[1]), "tensor 'pbcr': '1' is not BYTES"),
        (applicants(0), r"expected FP32 \[rows, 1\]"),
    ],
)
def test_a_refusal_names_tensor_sent_and_expected(body: bytes, words: str) -> None:
    """A developer sees from the answer alone what to change."""
    with pytest.raises(Refusal, match=words) as caught:
        answer(body)
    assert (caught.value.code, caught.value.status) == ("bad_tensor", 400)


def binary(value: float) -> tuple[bytes, bytes]:
    item = {"name": "dir", "datatype": "FP32", "shape": [1, 1]}
    head = applicants(dir={**item, "parameters": {"binary_data_size": 4}})
    return head + struct.pack("<f", value), str(len(head)).encode()


def test_binary_and_json_say_the_same() -> None:
    """The binary extension changes the way, not the score."""
    by_json = answer(tensor("dir", data=[0.75]))
    assert answer(*binary(0.75))["outputs"] == by_json["outputs"]


def scored_or_failed(body: bytes, header: bytes | None = None) -> str:
    """`scored` for a probability, else the refusal's code."""
    try:
        score = answer(body, header)["outputs"][0]["data"][0]
    except Refusal as refusal:
        return refusal.code
    return "scored" if 0 <= score <= 1 else f"score {score}"


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinity_is_refused_by_name(value: float) -> None:
    """No person has an infinite ratio."""
    with pytest.raises(Refusal, match="tensor 'dir': an infinite value is not taken"):
        answer(*binary(value))


def test_a_missing_value_is_the_models_to_judge() -> None:
    """NaN reaches the model; a score that is not finite is then the model's failure."""
    assert scored_or_failed(*binary(math.nan)) in ("scored", "model_failed")


@given(
    st.lists(st.floats(0, 3, width=32), min_size=1, max_size=4),
    st.sampled_from(["dir", "hir", "lvr"]),
)
def test_rows_of_a_batch_are_scored_like_single_ones(values: list[float], name: str) -> None:
    """A person's score does not depend on whose row is beside."""
    rows = len(values)
    item = {"name": name, "shape": [rows, 1], "datatype": "FP32", "data": values}
    together = answer(applicants(rows, **{name: item}))["outputs"][0]["data"]
    alone = [answer(tensor(name, data=[value]))["outputs"][0]["data"][0] for value in values]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_metadata_is_the_graphs() -> None:
    """Names, types and shapes of all tensors, with -1 for the rows."""
    told = LOGISTIC.metadata(["v1"])
    assert {item["name"] for item in told["inputs"]} == set(FEATURES)
    assert {"name": "dir", "datatype": "FP32", "shape": [-1, 1]} in told["inputs"]
    assert [item["name"] for item in told["outputs"]] == ["score"]


def test_a_card_that_is_not_the_graphs_is_refused() -> None:
    """Both directions: an input without a feature, a feature without an input, a wrong score."""
    card = CARDS["mortgage", "v1"]
    fewer = card.model_copy(update={"features": card.features[1:]})
    with pytest.raises(ValueError, match="input 'dir' is not on the card"):
        session(card=fewer)
    renamed = card.features[0].model_copy(update={"name": "age"})
    with pytest.raises(ValueError, match="feature tensor 'age' is no input"):
        session(card=card.model_copy(update={"features": (*card.features, renamed)}))
    score = card.outputs.score.model_copy(update={"tensor": "risk"})
    outputs = card.outputs.model_copy(update={"score": score})
    with pytest.raises(ValueError, match="score tensor 'risk' is no output"):
        session(card=card.model_copy(update={"outputs": outputs}))


def test_a_graph_of_types_that_are_not_served_is_refused(tmp_path: Path) -> None:
    """BF16 and what is no tensor are told before serving, whichever side they are on."""
    bf16, floats = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    nodes = [
        onnx.helper.make_node("Cast", ["dir"], ["score"], to=floats),
        onnx.helper.make_node("SequenceConstruct", ["score"], ["listed"]),
    ]
    listed = onnx.helper.make_tensor_sequence_value_info("listed", floats, None)
    graph = onnx.helper.make_graph(
        nodes, "g",
        [onnx.helper.make_tensor_value_info("dir", bf16, [None, 1])],
        [onnx.helper.make_tensor_value_info("score", floats, [None, 1]), listed],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx"
    )
    card = CARDS["mortgage", "v1"]
    with pytest.raises(ValueError, match="input 'dir', a tensor.bfloat16., is not served in the"):
        Session(tmp_path, "m", "v1", card.model_copy(update={"features": card.features[:1]}))


def test_a_bf16_tensor_is_refused_by_its_type() -> None:
    """As bytes, which can be read, and as JSON: no graph in the process takes it."""
    item = {"name": "dir", "shape": [1, 1], "datatype": "BF16", "data": [0.5]}
    with pytest.raises(Refusal, match=r"'dir': sent BF16 \[1, 1\], expected FP32 \[1, 1\]"):
        answer(applicants(dir=item))
    del item["data"]
    body = applicants(dir=item | {"parameters": {"binary_data_size": 2}})
    with pytest.raises(Refusal, match="'dir': sent BF16"):
        answer(body + b"\x00\x3f", b"%d" % len(body))


def test_a_category_that_the_model_cannot_take_is_the_caller_s_mistake() -> None:
    """400 naming the tensor, what was sent and what the card allows; not a failure of the model."""
    request = v2.read_request(tensor("pbcr", data=["perhaps"]))
    with pytest.raises(Refusal) as refused:
        LOGISTIC.run(request)
    assert refused.value.status == 400
    assert "'pbcr': sent 'perhaps', expected one of no, yes" in refused.value.message
