"""An alert at a real gateway: raised by traffic, seen by people, over when traffic is well."""

import base64
import hmac
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx2
import numpy as np
import orjson
import pyarrow.parquet as parquet
import pytest
from gateway_process import KEY, ROOT, GatewayProcess, body

WINDOW = 100
FEATURES = (
    "dir",
    "hir",
    "lvr",
    "ccs",
    "mcs",
    "uria",
    "condominium",
    "pbcr",
    "dmi",
    "self",
    "single",
)


SECRET = b"a secret of the test"


class Receiver(ThreadingHTTPServer):
    """A webhook that fails the first time and then keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.refused, self.taken = 0, []


class Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        if not self.server.refused:
            self.server.refused += 1
            self.send_response(503)
        else:
            self.server.taken.append((dict(self.headers), sent))
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def receiver():
    made = Receiver()
    thread = Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, receiver):
    folder = tmp_path_factory.mktemp("alerts")
    (folder / "secret").write_bytes(SECRET + b"\n")
    hook = f"alerts: {{webhook: {{url: 'http://127.0.0.1:{receiver.server_port}/hook', "
    made = GatewayProcess(
        folder,
        edit=lambda text: (
            hook
            + "secret: 'file:secret'}}\n"
            + text.replace("count: 500", f"count: {WINDOW}").replace(
                "split: {v1: 95%, v2: 5%}, shadow: {v3: 100%}", "split: {v1: 100%}"
            )
        ),
    ).start()
    yield made
    made.kill_all()


def send(gateway, windows: int, seed: int, **changes) -> None:
    """So many windows of people drawn from the reference itself, changed as told."""
    table = parquet.read_table(ROOT / "models" / "mortgage" / "reference.parquet")
    rows = table.to_pylist()
    dice = np.random.default_rng(seed)
    with httpx2.Client(headers=KEY, timeout=30) as client:
        for place in dice.integers(0, len(rows), windows * WINDOW):
            values = {name: value for name, value in rows[place].items() if name in FEATURES}
            sent = body(**{n: v for n, v in values.items() if v is not None} | changes)
            client.post(f"http://{gateway.data}/v2/models/mortgage/infer", content=sent)
    gateway.wait_settled()


def alert(gateway, cause: str, **parameters):
    found = gateway.api("/api/v1/alerts", **parameters)["alerts"]
    return next((one for one in found if one["cause"] == cause), None)


def wait(holds):
    for _ in range(200):
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come true in time")


def test_an_alert_is_raised_seen_muted_and_over(gateway):
    """A stuck feature: one alert however many windows; what people say is a leaf and changes it;
    a restart in between changes nothing; two windows of people as they were end it."""
    send(gateway, 1, 0)
    assert alert(gateway, "quality/lvr/stuck") is None
    send(gateway, 3, 1, lvr=0.8)
    told = alert(gateway, "quality/lvr/stuck")
    assert (told["state"], told["severity"], told["windows"]) == ("open", "critical", 3)
    assert told["raising"] == ["stable"]
    assert len(told["evidence"]["decisions"]) == 5
    assert told["evidence"]["before"]["quantiles"]["p5"] < 0.8
    shown = gateway.run("alerts")
    assert (shown.returncode, "quality/lvr/stuck" in shown.stdout) == (1, True)

    done = gateway.run("alerts", "acknowledge", told["id"])
    assert done.returncode == 0, done.stderr
    wait(lambda: alert(gateway, "quality/lvr/stuck")["state"] == "acknowledged")
    done = gateway.run("alerts", "mute", told["id"], "--reason", "a test", "--for", "1h")
    assert done.returncode == 0, done.stderr
    # What happened last is told once its own leaf is sealed, a moment after the state.
    wait(lambda: alert(gateway, "quality/lvr/stuck")["last"]["event"] == "muted")
    before = alert(gateway, "quality/lvr/stuck")
    gateway.stop()
    gateway.start()
    gateway.wait_settled()
    assert alert(gateway, "quality/lvr/stuck") == before

    send(gateway, 2, 2)
    assert alert(gateway, "quality/lvr/stuck") is None
    over = alert(gateway, "quality/lvr/stuck", resolved="true")
    assert (over["state"], over["number"], over["last"]["event"]) == ("resolved", 1, "resolved")


def test_a_caller_whose_requests_are_refused_is_an_alert(gateway):
    """A form without a feature gets 400 from a model in the process; the fifth is told."""
    short = orjson.loads(body())
    short["inputs"].pop()
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    for number in range(5):
        assert alert(gateway, "quality/schema") is None
        heads = KEY | {"x-population": "held-out", "x-applicant": f"short-{number}"}
        answer = httpx2.post(url, content=orjson.dumps(short), headers=heads)
        assert answer.headers["x-headworks-error"] == "bad_tensor"
        gateway.wait_settled()
    told = wait(lambda: alert(gateway, "quality/schema"))
    assert (told["state"], told["evidence"]["exchanges"]["unreadable"]) == ("open", 5)


def test_the_webhook_is_told_once_and_signed(gateway, receiver):
    """What opened and what was not muted, under ids of its own, though the first try failed; the
    end of the muted alert is not sent."""
    send(gateway, 1, 3, dmi="perhaps")
    wait(lambda: any(b"quality/dmi" in sent for _, sent in receiver.taken))
    ids = [headers["webhook-id"] for headers, _ in receiver.taken]
    assert len(ids) == len(set(ids))
    told = [orjson.loads(sent) for _, sent in receiver.taken]
    stuck = [one["event"] for one in told if one["alert"]["cause"] == "quality/lvr/stuck"]
    assert stuck == ["opened"]
    for headers, sent in receiver.taken:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + sent
        expected = base64.b64encode(hmac.digest(SECRET, signed, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    assert receiver.refused == 1


@pytest.mark.parametrize(
    ("path", "sent", "status", "said"),
    [
        ("acknowledge", {}, 400, "alert"),
        ("acknowledge", {"alert": "mortgage/v1:nothing"}, 404, "mortgage/v1:nothing"),
        ("mute", {"alert": "x", "for": "soon", "reason": "y"}, 400, "for='soon'"),
        ("mute", {"alert": "x", "for": "31d", "reason": "y"}, 400, "for='31d'"),
        ("mute", {"alert": "x", "for": "1h"}, 400, "reason"),
    ],
)
def test_what_is_wrong_is_named(gateway, path, sent, status, said):
    """Field and value; and nothing is recorded."""
    before = gateway.api("/api/v1/status")["governor"]["leaves"]
    answer = httpx2.post(f"http://{gateway.admin}/api/v1/alerts/{path}", json=sent, timeout=30)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert gateway.api("/api/v1/status")["governor"]["leaves"] - before <= 1  # a heartbeat


def test_a_window_names_its_decisions_and_they_it(gateway):
    """All of them and no others, from the first to the last that its report names."""
    (series,) = gateway.api("/api/v1/monitor/mortgage")["series"]
    report = series["latest"]
    found = gateway.api("/api/v1/decisions", window=report["id"], limit="1000")["decisions"]
    assert (len(found), found[-1]["id"], found[0]["id"]) == (
        report["n"], report["first_id"], report["last_id"]
    )  # fmt: skip
    told = gateway.api(f"/api/v1/decisions/{report['first_id']}")
    assert report["id"] in [one["name"] for one in told["windows"]]
    assert gateway.api("/api/v1/decisions", window="mortgage/v1/stable/999")["decisions"] == []
    window = gateway.api(f"/api/v1/windows/{report['id']}")
    assert window["report"] == report
    assert (window["first_decision"], window["counts"]["decisions"]) == (
        report["first_id"], report["n"]
    )  # fmt: skip
    assert window["artifact"] == report["artifact"] != ""
    assert sum(window["counts"]["outcomes"].values()) == report["n"]
    assert "decisions?window=" in window["decisions"]
    path = f"http://{gateway.admin}/api/v1/windows/mortgage/v1/stable/999"
    assert (httpx2.get(path).status_code, "999" in httpx2.get(path).json()["error"]) == (404, True)
    said = subprocess.run(gateway.command("monitor", report["id"]), capture_output=True, text=True)
    assert f"decisions --window {report['id']}" in " ".join(said.stdout.split()), said


def test_a_backtest_says_what_other_settings_would_have_said(gateway):
    """The same windows by the settings in force; other ones by others; the reading is a leaf."""
    path = f"http://{gateway.admin}/api/v1/monitor/mortgage/backtest"
    same = httpx2.post(path, json={"since": "1h"}, timeout=60).json()
    assert same["would"]["windows"] == same["was"]["windows"]
    assert same["would"]["decisions"] == 7 * WINDOW
    stuck = [one for one in same["would"]["happenings"] if "quality/lvr/stuck" in one["alert"]]
    assert [one["event"] for one in stuck] == ["opened", "resolved"]
    done = gateway.run("monitor", "backtest", "mortgage", "--since", "1h", "--json",
                       "--try", "window.count=350", "--try", "drift.running=1")  # fmt: skip
    other = orjson.loads(done.stdout)
    assert sum(other["would"]["windows"].values()) == 2
    assert other["settings"] == {"window": {"count": 350}, "drift": {"running": 1}}
    shown = gateway.run("monitor", "backtest", "mortgage", "--since", "1h")
    assert (shown.returncode, "as it was said" in shown.stdout) == (0, True), shown.stderr


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"set": {"drift.alpha": "7"}}, "drift.alpha=7"),
        ({"set": {"drift.alpah": "0.1"}}, "drift.alpah"),
        ({"set": {"reference": "x.parquet"}}, "reference=x.parquet"),
        ({"since": "soon"}, "since='soon'"),
        ({"until": "1d"}, "{since, set}"),
    ],
)
def test_a_backtest_of_wrong_settings_is_refused(gateway, sent, said):
    """The key and its value; nothing is read."""
    path = f"http://{gateway.admin}/api/v1/monitor/mortgage/backtest"
    answer = httpx2.post(path, json=sent, timeout=30)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text


def test_alerts_of_a_wrong_filter_are_refused(gateway):
    """The parameter and its value; of a model that there is not, none is no good news."""
    told = gateway.api("/api/v1/alerts", resolved="maybe")
    assert "resolved='maybe'" in told["error"]
    told = gateway.run("alerts", "--model", "mortage")
    assert (told.returncode, told.stdout) == (1, "")
    assert "model 'mortage' is none of mortgage" in told.stderr
