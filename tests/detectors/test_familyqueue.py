"""A detector of another family takes its time: nobody waits, and what it says comes in order."""

import stat
import sys
import time
from dataclasses import replace

import orjson
import pytest
from test_windows import place, run, stream  # noqa: F401

from gateway.detectors.environment import Family
from gateway.detectors.foreign import Foreign
from gateway.monitor.worker import Windows

SLOW = """#!{python}
import json, os, sys, time
for line in iter(sys.stdin.buffer.readline, b""):
    asked = json.loads(line)
    sys.stdin.buffer.read(asked.get("bytes", 0))
    answer = {{"version": "0.11.4"}}
    if asked["op"] == "judge":
        while not os.path.exists({gate!r}):
            time.sleep(0.01)
        answer = {{"is_drift": True, "p_values": [asked["seed"] / 1000], "distances": [],
                   "threshold": 0.05}}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def slow(tmp_path):
    """A family that speaks the protocol and answers once its gate is there."""
    gate, python = tmp_path / "gate", tmp_path / "python"
    python.write_text(SLOW.format(python=sys.executable, gate=str(gate)))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    made = Foreign(Family(python=str(python), version=""))
    yield made, gate
    made.close()


def reports(told):
    return [one for one in told if isinstance(one, dict)]


def judged(place):  # noqa: F811
    artifacts, model = place
    return artifacts, replace(model, monitor=model.monitor | {"detector": "alibi.TabularDrift"})


def test_nobody_waits_and_verdicts_come_in_order(place, slow):  # noqa: F811
    """Three windows close while the first is with the detector: two are not judged by it, counted
    and said. Its verdict is in the report after it, of the window it is of; then the next one's."""
    foreign, gate = slow
    artifacts, model = judged(place)
    windows, decisions = Windows(artifacts, {}, foreign), stream(model, 1800)
    held = [one["family"]["verdict"] for one in reports(run(windows, model, decisions[:900]))]
    assert [one["window"][-1] for one in held] == ["1", "2", "3"]
    assert held[0]["why"] == "it is with the detector now"
    assert all("not judged in time: mortgage/v1/stable/1" in one["why"] for one in held[1:])
    assert ([one["unjudged"] for one in held], windows.family.dropped) == ([0, 1, 2], 2)
    gate.touch()
    said = []
    for start in (900, 1200, 1500):
        windows.family.settle()
        said += reports(run(windows, model, decisions[start : start + 300]))
    found = [one["family"]["verdict"] for one in said]
    assert [(one["window"][-1], one["p_values"]) for one in found] == [
        ("1", [0.001]), ("4", [0.004]), ("5", [0.005])
    ]  # fmt: skip
    assert [one["family"]["state"] for one in said] == ["watch", "drift", "drift"]
    assert any("of window mortgage/v1/stable/4" in sentence for sentence in said[1]["words"])
    windows.close()


def test_a_window_that_was_with_it_at_a_restart_is_told(place, slow):  # noqa: F811
    """Its verdict never comes: the next report says so and counts it, and the next one is asked."""
    foreign, gate = slow
    artifacts, model = judged(place)
    decisions = stream(model, 900)
    before = Windows(artifacts, {}, foreign)
    run(before, model, decisions[:300])
    told = orjson.loads(orjson.dumps(before.to_json()))
    before.close()
    gate.touch()
    after = Windows(artifacts, told, Foreign(foreign._family))
    (second,) = reports(run(after, model, decisions[300:600]))
    found = second["family"]["verdict"]
    assert (found["window"][-1], found["unjudged"]) == ("1", 1)
    assert "the analyst ended before" in found["why"]
    after.family.settle()
    (third,) = reports(run(after, model, decisions[600:900]))
    assert third["family"]["verdict"]["window"] == "mortgage/v1/stable/2"
    after.close()


def test_ending_does_not_wait_for_it(place, slow):  # noqa: F811
    """The process is ended with the analyst, whatever it was doing."""
    foreign, _ = slow
    artifacts, model = judged(place)
    windows = Windows(artifacts, {}, foreign)
    run(windows, model, stream(model, 300))
    while foreign._process is None:
        time.sleep(0.01)
    windows.close()
    windows.family.settle()
    assert foreign._process is None
