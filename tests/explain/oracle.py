"""Brute-force Shapley values through onnxruntime, and the cards and graphs the tests use."""

import hashlib
from math import factorial

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from gateway.card import Card
from gateway.explain.attribution import in_space


def card_of(model, features, *, score="probabilities", column=1, outcome=None, kind="probability"):
    return Card(
        format=1,
        model="m",
        version="v1",
        summary="A model of a test.",
        artifact={"sha256": hashlib.sha256(model).hexdigest()},
        features=features,
        outputs={
            "score": {"tensor": score, "column": column, "kind": kind, "meaning": "a score"},
            "outcome": outcome,
        },
        training={"data": {}, "code_commit": "", "configuration": {}, "seed": 0},
        metrics={},
    )


def number(name, **more):
    return {
        "name": name,
        "type": "number",
        "meaning": f"meaning of {name}",
        "range": (-9, 9),
    } | more


def category(name, *categories):
    return {"name": name, "type": "category", "meaning": f"about {name}", "categories": categories}


def one_tensor(count):
    """Features f0, f1, ... as the columns of one tensor X."""
    return [number(f"f{i}", tensor="X", column=i) for i in range(count)]


def columns(matrix):
    return {f"f{i}": matrix[:, i].astype(np.float64) for i in range(matrix.shape[1])}


def part(rows, chosen):
    return {name: values[chosen] for name, values in rows.items()}


class Oracle:
    """Scores by a session of its own, fed by code of its own; all coalitions, the definition."""

    def __init__(self, card, model, space):
        self.card, self.space = card, space
        self.session = onnxruntime.InferenceSession(model)

    def worth(self, rows):
        fed = {}
        for entry in self.session.get_inputs():
            kind = object if "string" in entry.type else np.float32
            carried = [f for f in self.card.features if (f.tensor or f.name) == entry.name]
            carried.sort(key=lambda f: f.column or 0)
            fed[entry.name] = np.array([rows[f.name] for f in carried], kind).T
        score = self.card.outputs.score
        answer = self.session.run([score.tensor], fed)[0]
        return in_space(
            self.space, answer.reshape(len(answer), -1)[:, score.column].astype(np.float64)
        )

    def shapley(self, rows, background):
        """Values [n, used features] and base, straight from Shapley's definition."""
        used = [feature.name for feature in self.card.used]
        count, size = len(used), len(background[used[0]])
        length = len(rows[used[0]])
        worths = {}
        for coalition in range(2**count):
            mixed = {}
            for name in rows:
                inside = name not in used or coalition >> used.index(name) & 1
                own, other = np.repeat(rows[name], size), np.tile(background[name], length)
                mixed[name] = own if inside else other
            worths[coalition] = self.worth(mixed).reshape(length, size).mean(axis=1)
        values = np.zeros((length, count))
        for i in range(count):
            for coalition in worths:
                if not coalition >> i & 1:
                    s = coalition.bit_count()
                    share = factorial(s) * factorial(count - s - 1) / factorial(count)
                    values[:, i] += share * (worths[coalition | 1 << i] - worths[coalition])
        return values, worths[0].mean()


def graph_of(nodes, inputs, outputs, opset=17, ml=3, constants=()):
    """A model with float inputs {name: columns} and float outputs, as bytes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, w]) for n, w in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def linear_node(weights, source, target, post_transform="NONE"):
    return helper.make_node(
        "LinearRegressor",
        [source],
        [target],
        domain="ai.onnx.ml",
        coefficients=[float(w) for w in weights],
        intercepts=[0.25],
        post_transform=post_transform,
    )
