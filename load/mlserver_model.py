"""Models for MLServer, the peer: one that computes nothing, and the mortgage model by onnxruntime.

Runs in MLServer's own environment (`load/peers.py`); nothing else of this project is imported.
"""

import os

import numpy as np
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


def answer(name: str, value: float) -> InferenceResponse:
    output = ResponseOutput(name="p", shape=[1], datatype="FP64", data=[value])
    return InferenceResponse(model_name=name, outputs=[output])


class Empty(MLModel):
    """What MLServer itself costs."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return answer(self.name, 0.5)


class Onnx(MLModel):
    """One intra-op thread, sequential, as the gateway runs it."""

    async def load(self) -> bool:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = os.environ["BENCHMARK_MODEL"]
        self.session = onnxruntime.InferenceSession(path, options)
        self.wanted = {wanted.name for wanted in self.session.get_inputs()}
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {}
        for tensor in payload.inputs:
            if tensor.name in self.wanted:
                kind = object if tensor.datatype == "BYTES" else np.float32
                values = np.array(list(tensor.data), dtype=kind)
                feeds[tensor.name] = values.reshape(tensor.shape)
        score = self.session.run(None, feeds)[0]
        return answer(self.name, float(score[0, 0]))
