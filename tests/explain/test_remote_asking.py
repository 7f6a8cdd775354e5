"""Versions that are not held, explained by calls to a real server, within a budget."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from oracle import card_of, number

from gateway.explain.remote import Remote, draw
from gateway.outbound.scoring import Scores
from gateway.telemetry.metrics import Metrics

DENY = {"below": "approve", "at_or_above": "deny", "adverse": "deny", "threshold": 0.5}
NAMES = ("a", "b", "c")
CARD = card_of(b"", [number(name) for name in NAMES], score="score", column=0, outcome=DENY)
WEIGHTS = np.array([1.0, -2.0, 0.5])


class Served(BaseHTTPRequestHandler):
    """A logistic model by v2; `server.seen` are the rows and headers of each call."""

    def do_GET(self):
        inputs = [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in NAMES]
        self._say({"ready": True} if self.server.silent else {"inputs": inputs, "outputs": []})

    def do_POST(self):
        told = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        matrix = np.array([tensor["data"] for tensor in told["inputs"]]).T
        self.server.seen.append((len(matrix), self.headers["x-headworks-traffic"]))
        scores = 1 / (1 + np.exp(-(matrix @ WEIGHTS)))
        tensor = {"name": "score", "datatype": "FP64", "shape": [len(matrix), 1],
                  "data": scores.tolist()}  # fmt: skip
        self._say({"outputs": [tensor]}, self.server.status)

    def _say(self, document, status=200):
        body = orjson.dumps(document)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    found.seen, found.status, found.silent = [], 200, False
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()


class World:
    def __init__(self, server, tmp_path, **settings):
        remote = {"share": 1_000_000, "rows_a_second": 1000, "timeout": 5.0} | settings
        self.now = 10**9
        self.model = SimpleNamespace(
            name="m", protocol="v2", mapping={"layout": "columns"}, background="b",
            explain={"remote": remote},
        )  # fmt: skip
        self.version = SimpleNamespace(
            name="v", endpoints=(f"http://127.0.0.1:{server.server_port}",), card=CARD, tls=None,
            auth=None,
        )  # fmt: skip
        self.scores = Scores(Metrics("test", tmp_path))
        self.remote = Remote(self.scores, lambda: self.now)

    def refusal(self, exchange="x"):
        return self.remote.refusal(self.model, self.version, exchange)

    def explain(self, rows):
        answered = 1 / (1 + np.exp(-(np.stack([rows[n] for n in NAMES], axis=1) @ WEIGHTS)))
        return self.remote.explain(
            self.model, self.version, lambda: rows_of(0, 60), rows, answered
        )  # fmt: skip


def rows_of(seed, count):
    matrix = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return {name: matrix[:, place].astype(np.float64) for place, name in enumerate(NAMES)}


def test_scores_are_asked_marked_and_exact(server, tmp_path):
    """All coalitions by calls of 256 rows at most, each marked: a logistic model's attributions in
    the margin are its weights times the distance from the background's mean."""
    world = World(server, tmp_path)
    rows = rows_of(1, 2)
    found, cost = world.explain(rows)
    assert (found.method, found.space) == ("coalitions", "margin")
    background = world.remote._explainers["m", "v", "b"][1]._background
    means = np.array([background[name].mean() for name in NAMES])
    expected = WEIGHTS * (np.stack([rows[name] for name in NAMES], axis=1) - means)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.additive.all()
    assert {mark for _, mark in server.seen} == {"explain"}
    assert max(size for size, _ in server.seen) <= 256
    assert cost["calls"] == len(server.seen) + 1


def test_the_budget_holds(server, tmp_path):
    """After rows were asked nothing is asked until they are paid for, or four times the time that
    it took is over, whichever is later."""
    world = World(server, tmp_path)
    assert world.refusal() is None
    world.explain(rows_of(1, 1))
    asked = sum(size for size, _ in server.seen)
    assert world.refusal() == "remote_budget"
    world.now += int(asked / 1000 * 1e9) - 10**6
    assert world.refusal() == "remote_budget"
    world.now += 2 * 10**6
    assert world.refusal() is None


def test_an_upstream_that_fails_is_left_alone(server, tmp_path):
    """Status 500: an OSError that says so, and thirty seconds without a call."""
    world = World(server, tmp_path)
    server.status = 500
    with pytest.raises(OSError, match="status 500"):
        world.explain(rows_of(1, 1))
    assert world.refusal() == "remote_budget"
    world.now += 36 * 10**9
    server.status = 200
    assert world.refusal() is None
    assert world.explain(rows_of(1, 1))[0].additive.all()


def test_an_upstream_that_does_not_describe_itself_is_named(server, tmp_path):
    """Without the names of its inputs nothing can be asked: where they were looked for."""
    world = World(server, tmp_path)
    server.silent = True
    with pytest.raises(OSError, match=r"GET http://.*/v2/models/m says .* names no `inputs`"):
        world.explain(rows_of(1, 1))
    assert server.seen == []


def test_only_what_is_configured_and_drawn_is_asked(server, tmp_path):
    """Off without the setting; the share is drawn by id; credentials and other protocols are left
    out; nobody is called for any of it."""
    world = World(server, tmp_path, share=250_000)
    ids = [f"exchange {number}" for number in range(4000)]
    drawn = [identity for identity in ids if world.refusal(identity) is None]
    assert 850 <= len(drawn) <= 1150
    assert drawn == [identity for identity in ids if draw(identity) < 250_000]
    world.version.auth = {"header": "authorization"}
    assert world.refusal(drawn[0]) == "remote_credentials"
    world.model.protocol = "v1"
    assert world.refusal(drawn[0]) == "remote_protocol"
    world.model.explain = {"remote": None}
    assert world.refusal(drawn[0]) == "no_artifact"
    assert server.seen == []
