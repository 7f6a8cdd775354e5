"""A fitted pipeline as an ONNX graph with one output, `score`: FP32 [None, 1], P(denied).

Every graph declares all eleven columns of the form, each FP32 or string of shape [None, 1], whether
the version reads them or not: one request fits every version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from form import NAMES, NUMERIC, Columns
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.pipeline import Pipeline

OPSET = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8
SCORE = "score"
DENIED = 1
"""The column of the probabilities that belongs to `denied`; classes are [False, True]."""


def export(pipeline: Pipeline, name: str) -> bytes:
    """The pipeline as ONNX; the same fitted figures give the same bytes."""
    kinds = [
        (column, FloatTensorType([None, 1]) if column in NUMERIC else StringTensorType([None, 1]))
        for column in NAMES
    ]
    options = {id(pipeline.steps[-1][1]): {"zipmap": False, "output_class_labels": False}}
    converted = convert_sklearn(
        pipeline, name, kinds, target_opset=OPSET, options=options, naming=""
    )
    model = helper.make_model(
        _scoring(converted.graph, name),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSET.items()],
        ir_version=IR_VERSION,
        producer_name="headworks-models",
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _scoring(graph: onnx.GraphProto, name: str) -> onnx.GraphProto:
    """The graph cut to what the score needs, with every column of the form as an input."""
    inputs = [
        helper.make_tensor_value_info(
            column, TensorProto.FLOAT if column in NUMERIC else TensorProto.STRING, [None, 1]
        )
        for column in NAMES
    ]
    output = helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, [None, 1])
    probabilities = graph.output[1].name
    column = helper.make_tensor("denied_column", TensorProto.INT64, [1], [DENIED])
    gather = helper.make_node(
        "Gather", [probabilities, column.name], [SCORE], name="ScoreGather", axis=1
    )
    nodes = _needed([*graph.node, gather])
    for node in nodes:
        _round_leaves(node)
    read = {tensor for node in nodes for tensor in node.input}
    constants = [tensor for tensor in [*graph.initializer, column] if tensor.name in read]
    return helper.make_graph(nodes, name, inputs, [output], constants)


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that the score depends on, in their order; nodes come sorted."""
    wanted, kept = {SCORE}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _round_leaves(node: onnx.NodeProto) -> None:
    """Leaves and base to six decimals, so that a machine's last bit changes no byte."""
    for attribute in node.attribute:
        if attribute.name in ("class_weights", "base_values"):
            attribute.floats[:] = [round(x, 6) + 0.0 for x in attribute.floats]


def score(model: bytes, forms: Columns) -> npt.NDArray[np.float32]:
    """What the gateway's runtime answers for these forms, all in one batch; shape (rows,)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {
        name: values.astype(np.float32 if name in NUMERIC else object).reshape(-1, 1)
        for name, values in forms.items()
    }
    return np.asarray(session.run([SCORE], feed)[0]).ravel()
