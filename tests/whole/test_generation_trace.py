"""A generated answer is told by what decided it, from the leaf to the command."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import orjson

from gateway.ledger.log import LedgerReader

SECRET = "the prompt of ann"
ANSWER = {
    "choices": [{"message": {"content": SECRET}, "finish_reason": "length",
                 "logprobs": {"content": [{"token": SECRET, "logprob": -0.25}]}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
}  # fmt: skip
MODEL = """
  chat:
    protocol: openai
    path: /llm
    versions: {{one: {{upstream: "{upstream}"}}}}
    rules: [{{name: all, split: {{one: 100%}}, priority: batch}}]
"""


class Generator(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = orjson.dumps(ANSWER)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


def test_what_decided_a_generated_answer_is_shown(make_gateway):
    """Route, policies, settings, finish, usage, log-probabilities: in the API and in words; the
    leaf has the settings and the sums, and no word of prompt or answer."""
    server = HTTPServer(("127.0.0.1", 0), Generator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    upstream = f"http://127.0.0.1:{server.server_port}"
    gateway = make_gateway(edit=lambda text: text.rstrip("\n") + MODEL.format(upstream=upstream))
    try:
        gateway.start()
        sent = {"model": "chat", "messages": [{"role": "user", "content": SECRET}],
                "temperature": 0, "max_tokens": 4, "logprobs": True}  # fmt: skip
        url = f"http://{gateway.data}/llm/v1/chat/completions"
        headers = {"authorization": "Bearer demo-key"}
        identity = httpx2.post(url, json=sent, headers=headers).headers["x-headworks-id"]
        gateway.wait_settled()
        found = gateway.api(f"/api/v1/decisions/{identity}")
        trace = found["trace"]
        assert (trace["route"]["rule"], trace["route"]["version"]) == ("all", "one")
        assert (trace["route"]["arm"], trace["policies"]["priority"]) == ("stable", "batch")
        assert trace["asked"] == {"temperature": 0, "max_tokens": 4, "logprobs": True,
                                  "messages": 1}  # fmt: skip
        assert (trace["completion"]["finish"], trace["completion"]["usage"]) == (
            "length", "measured")  # fmt: skip
        assert trace["logprobs"] == {"tokens": 1, "mean": -0.25, "least": -0.25}
        printed = gateway.run("decisions", identity).stdout
        assert "temperature 0" in printed
        assert "it ended with 'length'; 4 tokens, measured" in printed
        state = gateway.folder / "state"
        (leaf,) = [text for _, text in LedgerReader(state, 0).read(10**6)
                   if b'"protocol":"openai"' in text]  # fmt: skip
        assert orjson.loads(leaf)["trace"] == {"asked": trace["asked"],
                                               "logprobs": trace["logprobs"]}  # fmt: skip
        assert SECRET.encode() not in leaf
    finally:
        server.shutdown()
