"""tritonclient.http.aio: JSON and binary, metadata, errors. Arguments: host:port."""

import asyncio
import sys

import numpy as np
import tritonclient.http.aio as triton
from tritonclient.http import InferInput, InferRequestedOutput


async def story():
    async with triton.InferenceServerClient(sys.argv[1]) as client:
        rows = np.array([[0.1, 0.2]], np.float64)
        for binary in (False,):
            tensor = InferInput("x", rows.shape, "FP64")
            tensor.set_data_from_numpy(rows, binary_data=binary)
            outputs = [InferRequestedOutput("predict", binary_data=binary)]
            try:
                await client.infer("iris", [tensor], outputs=outputs, request_id="a")
                print("answered")
            except Exception as error:
                print(type(error).__name__)
        print(await client.is_server_ready(), (await client.get_model_metadata("iris"))["name"])


asyncio.run(story())
