"""kserve.InferenceGRPCClient: typed and raw contents, readiness, refusals. Arguments: host:port."""

import asyncio
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def story():
    client = InferenceGRPCClient(sys.argv[1])
    for raw in (False, True):
        tensor = InferInput("x", [2, 2], "FP64")
        tensor.set_data_from_numpy(np.array([[0.1, 0.2], [0.3, 0.4]]), binary_data=raw)
        answer = await client.infer(InferRequest("iris", [tensor], request_id="a"))
        print(raw, answer.outputs[0].as_numpy().tolist(), answer.id, answer.model_name)
    print(await client.is_server_live(), await client.is_server_ready())
    print(await client.is_model_ready("iris"))
    wrong = InferRequest("iris", [InferInput("x", [1], "BYTES", ["x"])], request_id="b")
    try:
        print(await client.infer(wrong))
    except grpc.RpcError as error:
        print(error.code(), error.details())


asyncio.run(story())
