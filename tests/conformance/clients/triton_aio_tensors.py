"""tritonclient.http.aio, in its binary encoding: types, both codings, sequences, errors, Triton's
other paths. Arguments: host:port."""

import asyncio
import sys

import ml_dtypes
import numpy as np
import tritonclient.http.aio as triton
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

KINDS = (np.bool_, np.int8, np.uint64, np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


def tensor(name, values, binary=True):
    made = InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    return made.set_data_from_numpy(values, binary_data=binary)


async def story():
    async with triton.InferenceServerClient(sys.argv[1]) as client:
        for kind in KINDS:
            values = np.arange(6).astype(kind).reshape(2, 3)
            for sent, got in ((None, None), ("gzip", "deflate"), ("deflate", "gzip")):
                answer = await client.infer(
                    "echo", [tensor("x", values)], request_id="a",
                    request_compression_algorithm=sent, response_compression_algorithm=got,
                )  # fmt: skip
                assert answer.as_numpy("OUT_x").tobytes() == values.tobytes()
                print(np.dtype(kind), sent, got, answer.get_response())
        words = tensor("x", np.array([b"", b"\x00\xff", b"abc"], object))
        print((await client.infer("echo", [words])).as_numpy("OUT_x").tolist())
        outputs = [InferRequestedOutput("OUT_y", binary_data=False)]
        pair = [tensor("x", values), tensor("y", np.ones((1, 2), np.int32), binary=False)]
        print((await client.infer("echo", pair, outputs=outputs)).get_response())
        for step in range(3):
            answer = await client.infer("sum", [tensor("x", np.array([step], np.int32))],
                                        sequence_id="s", sequence_start=step == 0,
                                        sequence_end=step == 2)  # fmt: skip
            print(answer.as_numpy("TOTAL").tolist())
        print(await client.get_model_config("echo"), await client.get_model_repository_index())
        print(await client.is_server_ready(), await client.get_model_metadata("echo"))
        try:
            await client.infer("sum", [tensor("x", np.ones(1, np.int32))])
        except InferenceServerException as error:
            print(error.status(), error.message())


asyncio.run(story())
