"""kserve.InferenceRESTClient, V2: JSON and binary both ways, readiness, refusals. Arguments:
host:port."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def story():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    url = f"http://{sys.argv[1]}"
    for kind, name in ((np.float64, "FP64"), (np.float32, "FP32"), (np.float16, "FP16")):
        for binary in (False, True):
            tensor = InferInput("x", [2, 2], name)
            rows = np.array([[0.1, 0.2], [0.3, 0.4]], kind)
            if name == "FP16" and not binary:
                continue
            tensor.set_data_from_numpy(rows, binary_data=binary)
            for outputs in (None, [RequestedOutput("predict", {"binary_data": binary})]):
                sent = InferRequest("iris", [tensor], request_id="a", request_outputs=outputs)
                answer = await client.infer(url, sent, model_name="iris")
                print(name, binary, answer.outputs[0].as_numpy().tolist(), answer.id)
    for ask in (client.is_server_ready(url), client.is_server_live(url),
                client.is_model_ready(url, "iris")):  # fmt: skip
        print(await ask)
    for path in ("/v2", "/v2/models/iris"):
        print((await client._client.get(url + path)).text)
    # Answered with 500, after which the server closes the connection.
    wrong = InferRequest("iris", [InferInput("x", [1], "BYTES", ["x"])], request_id="b")
    try:
        print(await client.infer(url, wrong, model_name="iris"))
    except httpx.HTTPStatusError as error:
        print(str(error).partition(" for url")[0])


asyncio.run(story())
