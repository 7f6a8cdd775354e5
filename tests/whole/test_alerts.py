"""An alert at a real gateway: raised by traffic, seen by people, over when traffic is well."""

import time

import httpx2
import numpy as np
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


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    made = GatewayProcess(
        tmp_path_factory.mktemp("alerts"),
        edit=lambda text: text.replace("count: 500", f"count: {WINDOW}").replace(
            "split: {v1: 95%, v2: 5%}, shadow: {v3: 100%}", "split: {v1: 100%}"
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
    wait(lambda: alert(gateway, "quality/lvr/stuck")["muted_by"])
    before = alert(gateway, "quality/lvr/stuck")
    gateway.stop()
    gateway.start()
    gateway.wait_settled()
    assert alert(gateway, "quality/lvr/stuck") == before

    send(gateway, 2, 2)
    assert alert(gateway, "quality/lvr/stuck") is None
    over = alert(gateway, "quality/lvr/stuck", resolved="true")
    assert (over["state"], over["number"], over["last"]["event"]) == ("resolved", 1, "resolved")


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


def test_alerts_of_a_wrong_filter_are_refused(gateway):
    """The parameter and its value."""
    told = gateway.api("/api/v1/alerts", resolved="maybe")
    assert "resolved='maybe'" in told["error"]
