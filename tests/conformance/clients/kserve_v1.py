"""kserve.InferenceRESTClient, V1: predict, explain, readiness, refusals. Arguments: host:port."""

import asyncio
import sys

import httpx
from kserve import InferenceRESTClient
from kserve.inference_client import RESTConfig


async def story():
    client = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    url = f"http://{sys.argv[1]}"
    rows = {"instances": [[0.1, 0.2], [3, 4]], "parameters": {"some": "thing"}}
    print(await client.infer(url, rows, model_name="iris"))
    print(await client.explain(url, "iris", rows))
    print(await client.is_server_live(url), await client.is_model_ready(url, "iris"))
    print((await client._client.get(f"{url}/v1/models")).text)
    # The last one is answered with 500, after which the server closes the connection.
    for wrong in (client.infer(url, {"rows": []}, model_name="iris"),
                  client.infer(url, {"instances": [1]}, model_name="iris")):  # fmt: skip
        try:
            print(await wrong)
        except httpx.HTTPStatusError as error:
            print(str(error).partition(" for url")[0])


asyncio.run(story())
