"""A version that is served elsewhere, known by its card alone: decided, monitored, and a sample of
its decisions explained by calls that are in nobody's statistics."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import numpy as np
import onnxruntime
import orjson
import yaml
from gateway_process import KEY, ROOT, body

MODEL = """
  served:
    path: /served
    versions: {{one: {{upstream: "{upstream}", card: {card}}}}}
    rules: [{{name: all, split: {{one: 100%}}}}]
    explain: {{background: models/mortgage/background.parquet, remote: {{share: 100%, timeout: 20s,
               rows_a_second: 1000000}}}}
"""


class Served(BaseHTTPRequestHandler):
    """Mortgage v1 by v2; `server.marks` says who asked for how many rows."""

    def do_GET(self):
        kinds = {"tensor(float)": "FP32", "tensor(string)": "BYTES"}
        inputs = [{"name": each.name, "datatype": kinds[each.type], "shape": [-1, 1]}
                  for each in self.server.session.get_inputs()]  # fmt: skip
        self._say({"inputs": inputs, "outputs": []})

    def do_POST(self):
        sent = orjson.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        fed = {each["name"]: np.array(each["data"], object if each["datatype"] == "BYTES"
                                      else np.float32).reshape(-1, 1) for each in sent}  # fmt: skip
        (scores,) = self.server.session.run(["score"], fed)
        self.server.marks.append((self.headers["x-headworks-traffic"], len(scores)))
        self._say({"outputs": [{"name": "score", "datatype": "FP32", "shape": list(scores.shape),
                                "data": scores.ravel().tolist()}]})  # fmt: skip

    def _say(self, document):
        said = orjson.dumps(document)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *said):
        pass


def card_alone(folder):
    """v1's card without a model, of the model `served`."""
    card = yaml.safe_load((ROOT / "models" / "mortgage" / "v1" / "card.yaml").read_text())
    del card["artifact"]
    card |= {"model": "served", "version": "one"}
    (folder / "served.yaml").write_text(yaml.safe_dump(card))
    return folder / "served.yaml"


def test_a_version_known_by_its_card_is_explained_by_calls(make_gateway, tmp_path):
    """Outcome, reasons and attributions that add up to the score answered; the calls are marked,
    and what is counted and listed is the one exchange that was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    server.session = onnxruntime.InferenceSession(ROOT / "models/mortgage/v1/model.onnx")
    server.marks = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    card = card_alone(tmp_path)
    upstream = f"http://127.0.0.1:{server.server_port}"
    gateway = make_gateway(
        edit=lambda text: text.rstrip("\n") + MODEL.format(upstream=upstream, card=card)
    )
    try:
        gateway.start()
        sent = body(dir=0.9, hir=0.6, lvr=1.2, ccs=6.0, mcs=4.0, pbcr="yes")
        url = f"http://{gateway.data}/served/v2/models/served/infer"
        identity = httpx2.post(url, content=sent, headers=KEY).headers["x-headworks-id"]
        gateway.wait_settled()
        found = gateway.api(f"/api/v1/decisions/{identity}")
        explanation = found["explanation"]
        assert found["decision"]["outcome"] == "deny"
        assert explanation["method"] == "permutations", explanation
        assert explanation["additive"]
        assert len(explanation["reasons"]) == 4
        assert explanation["calls"] > 1
        asked = [rows for mark, rows in server.marks if mark == "explain"]
        assert [rows for mark, rows in server.marks if mark is None] == [1]
        assert len(asked) == explanation["calls"] - 1  # one more asked for the metadata
        listed = gateway.api("/api/v1/decisions", model="served")["decisions"]
        assert [row["id"] for row in listed] == [f"{identity}/0"]
        counts = gateway.api("/api/v1/monitor/served")["counts"]
        assert [row["decisions"] for row in counts] == [1]
        again = httpx2.post(f"http://{gateway.admin}/api/v1/decisions/{identity}/reproduce").json()
        assert again["answer"] == {"result": "cannot",
                                   "why": "no artifact of this version is held"}  # fmt: skip
    finally:
        server.shutdown()
