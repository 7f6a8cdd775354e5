"""kserve.InferenceRESTClient: v2 infer, readiness, errors. Arguments: host:port."""

import asyncio
import sys

from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


async def story():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    url = f"http://{sys.argv[1]}"
    tensor = InferInput("x", [2, 2], "FP64", [[0.1, 0.2], [0.3, 0.4]])
    sent = InferRequest("iris", [tensor], request_id="a")
    answer = await client.infer(url, sent, model_name="iris")
    print(answer.to_dict()[0] if isinstance(answer.to_dict(), tuple) else answer.to_dict())
    for ask in (client.is_server_live(url), client.is_model_ready(url, "iris")):
        try:
            print(await ask)
        except Exception as error:  # MLServer's health answers have no body
            print(type(error).__name__)
    wrong = InferRequest("iris", [InferInput("x", [1], "BYTES", ["x"])], request_id="b")
    try:
        await client.infer(url, wrong, model_name="iris")
    except Exception as error:
        print(type(error).__name__, getattr(error, "status_code", ""))


asyncio.run(story())
