"""`headworks check --probe`: upstreams are asked what they take, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from tritonclient.grpc import service_pb2

from gateway.check import check
from gateway.probe import upstream_misfits

MODELS = Path(__file__).parents[1] / "models" / "mortgage"
METADATA = {"name": "m", "inputs": [{"name": "x"}], "outputs": [{"name": "predict"}]}


@pytest.fixture
def url() -> Iterator[str]:
    class Upstream(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in ("/v2/models/mortgage", "/ping")
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(orjson.dumps(METADATA))

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", ["has no input 'ccs'", "has no output 'score'"]),
        ("mapping: {layout: matrix, output: predict}, ", []),
        ("mapping: {layout: matrix, input: y, output: predict}, ", ["has no input 'y'"]),
    ],
)
def test_what_an_upstream_lacks_is_said(
    tmp_path: Path, url: str, more: str, words: list[str]
) -> None:
    """Card, mapping and metadata are held against each other."""
    found = misfits(
        tmp_path, f"{more}versions: {{v1: {{upstream: '{url}', artifact: {MODELS}/v1}}}}"
    )
    assert all(any(word in item for item in found) for word in words)
    assert bool(found) == bool(words)


def test_who_does_not_answer_is_said(tmp_path: Path, url: str) -> None:
    """A refused connection and a wrong status, each naming the version."""
    found = misfits(tmp_path, "protocol: v1, versions: {v1: {upstream: 'http://127.0.0.1:1'}}")
    assert "does not answer" in found[0]
    found = misfits(tmp_path, f"protocol: openai, versions: {{v1: {{upstream: '{url}'}}}}")
    assert "status 404" in found[0]
    assert [] == misfits(tmp_path, f"protocol: mlflow, versions: {{v1: {{upstream: '{url}'}}}}")


def test_what_is_said_is_said_of_its_line(tmp_path: Path) -> None:
    """Each problem stands at the line of the server that has it, one of several too."""
    path = tmp_path / "headworks.yaml"
    path.write_text(
        "models:\n"
        "  a:\n"
        "    versions:\n"
        "      v1:\n"
        "        endpoints:\n"
        "          - http://127.0.0.1:1\n"
        "          - http://127.0.0.1:2\n"
        "      v2: {upstream: 'http://127.0.0.1:3'}\n"
        "    rules: [{name: a, split: {v1: }}]\n"
    )
    found = upstream_misfits(check(path))
    assert [(item["line"], item["key"]) for item in found] == [
        (6, "models.a.versions.v1.endpoints.0"),
        (7, "models.a.versions.v1.endpoints.1"),
        (8, "models.a.versions.v2.upstream"),
    ]


def test_a_grpc_address_is_asked_too(tmp_path: Path, url: str) -> None:
    """Nobody there, a server that does not have the model, and one that has."""

    def ready(message: bytes, _: Any) -> bytes:
        name = service_pb2.ModelReadyRequest.FromString(message).name
        told: bytes = service_pb2.ModelReadyResponse(ready=name == "mortgage").SerializeToString()
        return told

    methods = {"ModelReady": grpc.unary_unary_rpc_method_handler(ready)}
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for name, at, words in (
            ("mortgage", port, ""),
            ("other", port, "model 'other' is not ready there"),
            ("mortgage", 1, "does not answer: UNAVAILABLE"),
        ):
            path = tmp_path / "headworks.yaml"
            version = f"{{upstream: '{url}', grpc: '127.0.0.1:{at}'}}"
            rules = "rules: [{name: a, split: {v1: }}]"
            path.write_text(f"models:\n  {name}: {{versions: {{v1: {version}}}, {rules}}}\n")
            found = [item for item in upstream_misfits(check(path)) if item["key"][-4:] == "grpc"]
            assert [words in item["allowed"] for item in found] == [True] * bool(words)
    finally:
        server.stop(0).wait()


def misfits(folder: Path, model: str) -> list[str]:
    path = folder / "headworks.yaml"
    path.write_text(f"models:\n  mortgage: {{{model}, rules: [{{name: a, split: {{v1: }}}}]}}\n")
    checked = check(path)
    assert not checked.problems
    return [item["allowed"] for item in upstream_misfits(checked)]
