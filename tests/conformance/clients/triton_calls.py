"""tritonclient.grpc: raw contents of every type, sequences, a message of 40 MB, metadata, errors.
Arguments: host:port."""

import hashlib
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

client = triton.InferenceServerClient(sys.argv[1])
dice = np.random.default_rng(4)
KINDS = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
         np.float16, np.float32, np.float64, ml_dtypes.bfloat16)  # fmt: skip


def tensor(name, values):
    made = triton.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    return made.set_data_from_numpy(values)


def show(answer):
    message = answer.get_response().SerializeToString(deterministic=True)
    print(len(message), hashlib.sha256(message).hexdigest() if len(message) > 400 else message)


for number, kind in enumerate(KINDS):
    raw = dice.bytes(6 * np.dtype(kind).itemsize)
    raw = bytes(byte & 1 for byte in raw) if kind is np.bool_ else raw
    values = np.frombuffer(raw, kind).reshape(2, 3)
    coding = (None, "gzip", "deflate")[number % 3]
    answer = client.infer("echo", [tensor("x", values), tensor("y", values[:0])], request_id="i",
                          compression_algorithm=coding, parameters={"some": 1})  # fmt: skip
    assert answer.as_numpy("OUT_x").tobytes() == values.tobytes()
    show(answer)
words = np.array([b"", b"\x00\xff", "näh".encode()], object)
show(client.infer("echo", [tensor("x", words)]))
show(client.infer("echo", [tensor("x", np.zeros((10, 1000, 1000), np.float32))]))
for step in range(3):
    show(client.infer("sum", [tensor("x", np.array([step], np.int32))], sequence_id=5,
                      sequence_start=step == 0, sequence_end=step == 2))  # fmt: skip
for told in (
    client.get_model_metadata("echo"),
    client.get_server_metadata(),
    client.get_model_repository_index(),
    client.get_inference_statistics("echo"),
):
    print(told.SerializeToString(deterministic=True))
print(client.is_server_live(), client.is_server_ready(), client.is_model_ready("echo"))
for wrong in (lambda: client.infer("sum", [tensor("x", np.ones(1, np.int32))]),
              lambda: client.get_model_config("echo")):  # fmt: skip
    try:
        print(wrong())
    except triton.InferenceServerException as error:
        print(error.status(), error.message())
