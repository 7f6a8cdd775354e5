"""KServe's own model server with one model, `iris`: V1, V2 and gRPC.
Arguments: HTTP port, gRPC port."""

import sys

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput


class Iris(Model):
    """Sums of rows: what matters is the server around it."""

    def __init__(self):
        super().__init__("iris")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            if "instances" not in payload:
                raise InvalidInput("'instances' is missing")
            return {"predictions": [sum(row) for row in payload["instances"]]}
        rows = payload.inputs[0].as_numpy()
        output = InferOutput("predict", [len(rows)], "FP64")
        binary = bool(payload.use_binary_outputs)
        output.set_data_from_numpy(rows.sum(axis=1).astype("float64"), binary_data=binary)
        return InferResponse(payload.id, "iris", [output], use_binary_outputs=binary,
                             requested_outputs=payload.request_outputs)  # fmt: skip

    async def explain(self, payload, headers=None):
        return {"explanations": [{"rows": len(payload["instances"])}]}


if __name__ == "__main__":
    server = ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]),
                         enable_latency_logging=False)  # fmt: skip
    server.start([Iris()])
