"""An upstream that answers badly: what lacks a score, and what is rounded, is told at a gateway."""

import threading
import time
from http.server import ThreadingHTTPServer

import httpx2
import numpy as np
import onnxruntime
import orjson
import pyarrow.parquet as parquet
from gateway_process import FORM, KEY, ROOT
from test_remote_explanations import Served, card_alone

ROWS = 100
MODEL = """
  served:
    path: /served
    versions: {{one: {{upstream: "{upstream}", card: {card}}}}}
    rules: [{{name: all, split: {{one: 100%}}}}]
    monitor: {{reference: models/mortgage/reference.parquet, window: {{count: 100}}}}
"""


class Spoiling(Served):
    """As it should, but for what `server.spoil` makes of the scores."""

    def _say(self, document):
        for output in document["outputs"]:
            output["data"] = self.server.spoil(output["data"])
        super()._say(document)


def test_bad_answers_are_told_and_alerted(make_gateway, tmp_path):
    """A window as it should be; one in which twenty of a hundred scores are null, which is no
    decision and is in its window all the same; one of scores rounded to tenths."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Spoiling)
    server.session = onnxruntime.InferenceSession(ROOT / "models/mortgage/v1/model.onnx")
    server.marks, server.spoil = [], list
    threading.Thread(target=server.serve_forever, daemon=True).start()
    people = parquet.read_table(ROOT / "models/mortgage/reference.parquet").to_pylist()
    dice = np.random.default_rng(1)
    gateway = make_gateway(
        edit=lambda text: text.rstrip("\n") + MODEL.format(
            upstream=f"http://127.0.0.1:{server.server_port}", card=card_alone(tmp_path)
        )
    )  # fmt: skip

    def send():
        chosen = [people[place] for place in dice.integers(0, len(people), ROWS).tolist()]
        inputs = [{"name": name, "shape": [ROWS, 1], "data": [one[name] for one in chosen],
                   "datatype": "BYTES" if isinstance(FORM[name], str) else "FP32"}
                  for name in FORM]  # fmt: skip
        url = f"http://{gateway.data}/served/v2/models/served/infer"
        answer = httpx2.post(url, content=orjson.dumps({"inputs": inputs}), headers=KEY, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-headworks-id"]

    def window(number):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = gateway.api(f"/api/v1/windows/served/one/stable/{number}")
            if "verdicts" in found:
                return found
            time.sleep(0.1)
        raise AssertionError(found)

    try:
        gateway.start()
        send()
        server.spoil = lambda data: [None if at < 20 else one for at, one in enumerate(data)]
        spoiled = send()
        server.spoil = lambda data: [round(one, 1) for one in data]
        send()
        first, second, third = map(window, (1, 2, 3))
        assert not [cause for cause in first["verdicts"] if cause.startswith("quality/score")]
        assert second["verdicts"]["quality/score/missing"] == "fault"
        (finding,) = second["report"]["score"]["quality"]
        assert (finding["count"], finding["n"], second["counts"]["decisions"]) == (20, 100, 100)
        assert finding["ids"][0] == f"{spoiled}/0"
        assert third["verdicts"]["quality/score/rounded"] == "fault"
        gateway.wait_settled()
        alerts = {one["cause"]: one for one in gateway.api("/api/v1/alerts")["alerts"]}
        assert {"quality/score/missing", "quality/score/rounded"} <= alerts.keys()
        assert alerts["quality/score/missing"]["evidence"]["decisions"][0] == f"{spoiled}/0"
    finally:
        server.shutdown()
