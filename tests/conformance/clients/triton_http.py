"""tritonclient.http: binary, JSON, gzip, deflate, metadata, index, errors. Arguments: host:port."""

import sys

import numpy as np
import tritonclient
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1])
rows = np.array([[0.1, 0.2], [0.3, 0.4]], np.float64)


def tensors(binary):
    tensor = triton.InferInput("x", rows.shape, "FP64")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return [tensor]


outputs = [triton.InferRequestedOutput("predict", binary_data=False)]
for request, response in ((None, None), ("gzip", None), ("gzip", "gzip"), ("deflate", None)):
    try:
        answer = client.infer("iris", tensors(False), outputs=outputs, request_id="a",
                              request_compression_algorithm=request,
                              response_compression_algorithm=response)  # fmt: skip
        print(answer.as_numpy("predict"))
    except Exception as error:  # MLServer does not take deflate
        print(request, type(error).__name__)
print(client.is_server_live(), client.is_server_ready(), client.is_model_ready("iris"))
print(client.get_server_metadata()["name"], client.get_model_metadata("iris")["name"])
try:
    print(client.get_model_repository_index())
except Exception as error:  # MLServer wants a body here, the client sends none
    print(type(error).__name__)
for name in ("iris",):
    try:
        wrong = triton.InferInput("x", [1], "BYTES")
        wrong.set_data_from_numpy(np.array([b"x"], object), binary_data=False)
        client.infer(name, [wrong], request_id="c")
    except Exception as error:
        print(type(error).__name__)
print("tritonclient", getattr(tritonclient, "__version__", ""), file=sys.stderr)
