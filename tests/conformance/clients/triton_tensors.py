"""tritonclient.http, in its binary encoding: every type both ways and in both codings, several
tensors, empty ones, raw bodies, sequences, shared memory, Triton's other paths. Arguments:
host:port."""

import hashlib
import http.client
import json
import sys

import ml_dtypes
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

client = triton.InferenceServerClient(sys.argv[1])
dice = np.random.default_rng(4)
KINDS = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
         np.float16, np.float32, np.float64, ml_dtypes.bfloat16)  # fmt: skip
JSON_HAS_NOT = (np.float16, ml_dtypes.bfloat16)
CODINGS = ((None, None), ("gzip", None), ("deflate", "gzip"), (None, "deflate"))


def array(kind, shape):
    """Any bytes that the type can be, NaN and infinities too."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    raw = dice.bytes(size)
    if kind is np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, kind).reshape(shape)


def tensor(name, values, binary=True):
    made = triton.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    return made.set_data_from_numpy(values, binary_data=binary)


def show(what, answer, *names):
    digests = [hashlib.sha256(answer.as_numpy(f"OUT_{name}").tobytes()).hexdigest()[:12]
               if answer.as_numpy(f"OUT_{name}").dtype != object
               else answer.as_numpy(f"OUT_{name}").tolist() for name in names]  # fmt: skip
    print(what, digests, answer.get_response())


for kind in KINDS:
    values = array(kind, (3, 5))
    for sent, got in CODINGS:
        answer = client.infer("echo", [tensor("x", values)], request_compression_algorithm=sent,
                              response_compression_algorithm=got)  # fmt: skip
        assert answer.as_numpy("OUT_x").tobytes() == values.tobytes()
        show(f"{np.dtype(kind)} {sent} {got}", answer, "x")
    if kind not in JSON_HAS_NOT:
        values = np.ones((2, 2), kind)
        for binary_in, binary_out in ((True, False), (False, True), (False, False)):
            outputs = [triton.InferRequestedOutput("OUT_x", binary_data=binary_out)]
            answer = client.infer("echo", [tensor("x", values, binary_in)], outputs=outputs)
            show(f"{np.dtype(kind)} json", answer, "x")

words = np.array([b"", b"\x00\xff\xfe", "näh".encode(), b"x" * 7000], object).reshape(2, 2)
show("bytes", client.infer("echo", [tensor("x", words)], request_id="b"), "x")
many = [tensor(f"t{n}", array(kind, (n, 2))) for n, kind in enumerate(KINDS)]
outputs = [triton.InferRequestedOutput(f"OUT_t{n}", binary_data=n % 2 == 0 or KINDS[n] in
                                       JSON_HAS_NOT) for n in (8, 0, 2, 9, 12)]  # fmt: skip
answer = client.infer("echo", many, outputs=outputs, request_id="é/1", priority=2,
                      parameters={"some": "thing"})  # fmt: skip
show("several", answer, "t8", "t0", "t2", "t9", "t12")
large = array(np.float32, (1500, 1000))
show("large", client.infer("echo", [tensor("x", large)]), "x")
for step in range(3):
    sent = tensor("x", np.array([step + 1], np.int32))
    answer = client.infer("sum", [sent], sequence_id=77, sequence_start=step == 0,
                          sequence_end=step == 2)  # fmt: skip
    print("sum", answer.as_numpy("TOTAL").tolist())

for body in (b"", b"raw\x00\xff" * 9):
    line = http.client.HTTPConnection(sys.argv[1])
    line.request("POST", "/v2/models/echo/infer", body, {"Inference-Header-Content-Length": "0"})
    answer = line.getresponse()
    print("raw", answer.status, answer.getheader("inference-header-content-length"), answer.read())
    line.close()

client.register_system_shared_memory("region", "/key", 64)
print(client.get_system_shared_memory_status("region"))
client.unregister_system_shared_memory("region")
print(client.get_model_config("echo"), client.get_model_repository_index())
print(client.get_inference_statistics("echo"), client.get_inference_statistics())
print(client.get_trace_settings("echo"), client.get_trace_settings(), client.get_log_settings())
print(client.get_server_metadata(), client.is_model_ready("echo"))
print(client.get_model_metadata("echo", headers={"X-Some": "thing"}, query_params={"a": "b c"}))
for path, text in (("generate", "a b"), ("generate_stream", "a b c")):
    line = http.client.HTTPConnection(sys.argv[1])
    line.request("POST", f"/v2/models/echo/{path}", json.dumps({"text_input": text}))
    print(path, line.getresponse().read())
    line.close()
for wrong in (lambda: client.infer("sum", [tensor("x", np.ones(1, np.int32))]),
              lambda: client.infer("echo", [tensor("x", np.ones(1, np.int32))],
                                   query_params={"q": 1}, sequence_id="s")):  # fmt: skip
    try:
        show("right", wrong(), "x")
    except triton.InferenceServerException as error:
        print(error.status(), error.message())
