"""gRPC through a whole `headworks serve`: NVIDIA's client, several workers, port 0."""

import os
import signal
import time

import numpy as np
import pytest
from gateway_process import FORM, KEY
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

ONE = KEY | {"x-applicant": "always the same"}
"""Whose version stays the same."""


def infer(client: InferenceServerClient, rows: int = 1):
    tensors = []
    for name, value in FORM.items():
        string = isinstance(value, str)
        tensor = InferInput(name, [rows, 1], "BYTES" if string else "FP32")
        tensor.set_data_from_numpy(np.full((rows, 1), value, object if string else np.float32))
        tensors.append(tensor)
    return client.infer("mortgage", tensors, headers=ONE, client_timeout=20)


def patiently(client: InferenceServerClient):
    """An answer as soon as there is one: a worker that was killed needs a moment."""
    until = time.monotonic() + 30
    while True:
        try:
            return infer(client)
        except InferenceServerException:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_all_workers_answer_on_one_port_that_was_free(make_gateway):
    """`listen.grpc` with port 0: status says which it became; it is the same for every worker,
    after a kill -9 and after a reload that changes the largest message; each call is a decision."""
    settings = {"listen.grpc": "127.0.0.1:0", "workers": "2"}
    gateway = make_gateway(settings=settings).start()
    address = gateway.api("/api/v1/status")["listen"]["grpc"]
    assert not address.endswith(":0")
    until = time.monotonic() + 30
    with InferenceServerClient(address) as client:
        score = patiently(client).as_numpy("score")
        for worker in ("worker-0", "worker-1"):
            os.kill(gateway.child(worker), signal.SIGKILL)
            assert patiently(client).as_numpy("score") == score
        with pytest.raises(InferenceServerException, match="unauthenticated|UNAUTHENTICATED"):
            client.is_server_ready()
    path = gateway.folder / "headworks.yaml"
    text = path.read_text()
    assert text.count("    protocol: v2\n") == 1
    limited = "    protocol: v2\n    limits: {request: 32KiB}\n"
    path.write_text(text.replace("    protocol: v2\n", limited))
    assert gateway.run("reload").returncode == 0
    status = "none"
    with InferenceServerClient(address) as client:
        while "RESOURCE_EXHAUSTED" not in status and time.monotonic() < until:
            try:
                infer(client, 2000)
                time.sleep(0.1)
            except InferenceServerException as refused:
                status = refused.status()
        assert "RESOURCE_EXHAUSTED" in status
        assert patiently(client).as_numpy("score") == score
    gateway.wait_settled()
    found = gateway.api("/api/v1/decisions", limit=50)["decisions"]
    assert len(found) >= 4
    assert {row["status"] for row in found} == {200}
    assert gateway.stop() == 0
