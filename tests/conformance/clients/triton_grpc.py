"""tritonclient.grpc: what came back, message by message, as hex. Arguments: host:port."""

import sys

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])
rows = np.array([[0.1, 0.2], [0.3, 0.4]], np.float64)
tensor = triton.InferInput("x", rows.shape, "FP64")
tensor.set_data_from_numpy(rows)
for algorithm in (None, "gzip", "deflate"):
    answer = client.infer("iris", [tensor], request_id="a", compression_algorithm=algorithm)
    print(answer.get_response().SerializeToString(deterministic=True).hex())
print(client.get_model_metadata("iris").SerializeToString(deterministic=True).hex())
print(client.get_server_metadata().SerializeToString(deterministic=True).hex())
print(client.is_server_live(), client.is_server_ready(), client.is_model_ready("iris"))
print(client.get_model_repository_index().SerializeToString(deterministic=True).hex())
wrong = triton.InferInput("x", [1], "BYTES")
wrong.set_data_from_numpy(np.array([b"x"], object))
try:
    client.infer("iris", [wrong], request_id="b")
except Exception as error:
    print(error.status(), error.message())
