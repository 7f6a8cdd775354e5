"""The scenarios: what is asked, and what a right answer looks like.

Pure. Each scenario is one fixed request, so that every peer and every round is asked the same
bytes; the origin (`load/origin.py`) has one fixed answer to it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

CHUNKS = 200
"""Events of one SSE answer, the closing `[DONE]` not counted."""
CONCURRENCY = (1, 32, 256)
JSON_TYPE = "application/json"
KEY = "benchmark-key"
CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One request. `marker` is in each right answer, whoever relays it."""

    name: str
    title: str
    path: str
    body: bytes
    marker: bytes
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False


def infer_path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _tensor(size: int) -> bytes:
    """A v2 JSON request of `size` bytes, give or take six."""
    count = 1
    while True:
        data = [0.125] * count
        document = {"inputs": [{"name": "input-0", "shape": [1, count], "datatype": "FP64",
                                "data": data}]}  # fmt: skip
        body = json.dumps(document, separators=(",", ":")).encode()
        if len(body) >= size:
            return body
        count += max(1, (size - len(body)) // 6)


def _binary(size: int) -> tuple[bytes, int]:
    """A v2 request with one binary FP32 tensor of `size` bytes, and the length of its JSON."""
    count = size // 4
    document = {"inputs": [{"name": "input-0", "shape": [1, count], "datatype": "FP32",
                            "parameters": {"binary_data_size": 4 * count}}]}  # fmt: skip
    head = json.dumps(document, separators=(",", ":")).encode()
    return head + struct.pack("<f", 0.125) * count, len(head)


def _chat(stream: bool) -> bytes:
    words = [
        {"role": "system", "content": "You judge loan applications and say why."},
        {"role": "user", "content": "Debt to income 0.30, loan to value 0.80. Approve? " * 6},
    ]
    document = {"model": "chat", "messages": words, "max_tokens": 200, "temperature": 0}
    if stream:
        document["stream"] = True
    return json.dumps(document, separators=(",", ":")).encode()


def _form() -> bytes:
    form = {
        "dir": 0.3,
        "hir": 0.25,
        "lvr": 0.8,
        "ccs": 2.0,
        "mcs": 2.0,
        "uria": 3.2,
        "condominium": 0.0,
        "pbcr": "no",
        "dmi": "no",
        "self": "no",
        "single": "no",
    }
    inputs = [
        {
            "name": name,
            "shape": [1, 1],
            "data": [value],
            "datatype": "BYTES" if isinstance(value, str) else "FP32",
        }
        for name, value in form.items()
    ]
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()


def _all() -> Mapping[str, Scenario]:
    binary, head = _binary(1 << 20)
    outputs = b'"outputs"'
    listed = (
        Scenario("json-200", "v2 JSON, 200 B", infer_path("tabular"), _tensor(200), outputs),
        Scenario("json-16k", "v2 JSON, 16 KB", infer_path("tabular"), _tensor(16_384), outputs),
        Scenario("binary-1m", "v2 binary tensor, 1 MB", infer_path("tabular"), binary, outputs,
                 "application/octet-stream", (("inference-header-content-length", str(head)),)),
        Scenario("chat", "OpenAI chat body", CHAT_PATH, _chat(False), b'"choices"'),
        Scenario("sse", f"SSE, {CHUNKS} chunks", CHAT_PATH, _chat(True), b"[DONE]", stream=True),
        Scenario("onnx", "ONNX in the process", infer_path("mortgage"), _form(), outputs),
    )  # fmt: skip
    return {scenario.name: scenario for scenario in listed}


SCENARIOS: Mapping[str, Scenario] = _all()


def small_answer() -> bytes:
    return (b'{"model_name":"tabular","outputs":[{"name":"p","shape":[1],"datatype":"FP64",'
            b'"data":[0.5]}]}')  # fmt: skip


def large_answer() -> bytes:
    return b'{"model_name":"tabular","outputs":[{"name":"p","shape":[1,2720],"datatype":"FP64",' \
           b'"data":[' + b"0.125," * 2719 + b"0.125]}]}"  # fmt: skip


def chat_answer() -> bytes:
    document = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "chat",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "Approve: both ratios are low."}}],
        "usage": {"prompt_tokens": 120, "completion_tokens": 8, "total_tokens": 128},
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":")).encode()


def events() -> list[bytes]:
    """The SSE answer, one element an event; the last one ends it."""

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        document = {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "chat",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }  # fmt: skip
        return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"

    middle = [event({"content": f" word{number}"}, None) for number in range(CHUNKS - 2)]
    first = event({"role": "assistant", "content": ""}, None)
    return [first, *middle, event({}, "stop"), b"data: [DONE]\n\n"]


def request_bytes(scenario: Scenario, path: str, host: str, headers: Mapping[str, str]) -> bytes:
    """The whole request as it goes over the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        f"content-type: {scenario.content_type}",
        "accept: */*",
        "user-agent: headworks-load",
        f"content-length: {len(scenario.body)}",
    ]
    lines += [f"{name}: {value}" for name, value in (*scenario.headers, *headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + scenario.body
