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
    monitor: {{window: {{count: 50}}}}
"""


class Generator(BaseHTTPRequestHandler):
    """The same answer to all; where a stream is wanted, a text as long as asked for."""

    def do_POST(self):
        asked = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        kind, body = "application/json", orjson.dumps(ANSWER)
        if asked.get("stream"):
            text = {"delta": {"content": "x" * asked["max_tokens"]}, "finish_reason": "stop"}
            kind = "text/event-stream"
            body = b"data: " + orjson.dumps({"choices": [text]}) + b"\n\ndata: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", kind)
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


def test_longer_answers_open_an_alert(make_gateway):
    """Streams, judged against the windows before by their plain features; the window's leaf has
    counts and quantiles, and no word of prompt or answer."""
    server = HTTPServer(("127.0.0.1", 0), Generator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    upstream = f"http://127.0.0.1:{server.server_port}"
    gateway = make_gateway(edit=lambda text: text.rstrip("\n") + MODEL.format(upstream=upstream))
    try:
        gateway.start()
        url = f"http://{gateway.data}/llm/v1/chat/completions"
        with httpx2.Client(headers={"authorization": "Bearer demo-key"}) as client:
            for at in range(300):
                sent = {"model": "chat", "messages": [{"role": "user", "content": SECRET}],
                        "stream": True}  # fmt: skip
                sent["max_tokens"] = at % 50 + (400 if at >= 200 else 40)
                assert client.post(url, json=sent).status_code == 200
        gateway.wait_settled()
        (series,) = gateway.api("/api/v1/monitor/chat")["series"]
        assert (series["version"], series["windows"], series["latest"]["state"]) == (
            "one", 6, "drift")  # fmt: skip
        (alert,) = [one for one in gateway.api("/api/v1/alerts")["alerts"]
                    if one["model"] == "chat"]  # fmt: skip
        assert (alert["cause"], alert["state"]) == ("baseline/feature/answer_length", "open")
        assert httpx2.get(f"http://{gateway.admin}/models/chat").status_code == 200
        printed = gateway.run("monitor", "chat").stdout
        assert "`answer_length`: median 424.5" in printed
        assert "`finish`: stop 100.0%" in printed
        told = [text for _, text in LedgerReader(gateway.folder / "state", 0).read(10**6)
                if b'"kind":"window"' in text and b'"model":"chat"' in text]  # fmt: skip
        assert len(told) == 6
        assert not any(SECRET.encode() in text or b"xxxx" in text for text in told)
    finally:
        server.shutdown()
