"""A detector of another family takes its time, or breaks: nobody waits, what it says comes in
order, and what it cannot say is told."""

import os
import signal
import stat
import sys
import time
from dataclasses import replace

import numpy as np
import orjson
import pytest
from test_windows import place, run, stream  # noqa: F401

from gateway.detectors import foreign as foreign_process
from gateway.detectors.environment import Family
from gateway.detectors.foreign import Broken, Foreign, Specification
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

ANSWERING = """#!{python}
import json, sys
for line in iter(sys.stdin.buffer.readline, b""):
    asked = json.loads(line)
    sys.stdin.buffer.read(asked.get("bytes", 0))
    with open({said!r}, "a") as said:
        print(asked["op"], asked.get("key"), file=said)
    print({answers!r}.get(asked["op"], "{{}}"), flush=True)
"""

DEAF = """#!{python}
import sys, time
sys.stdin.buffer.readline()
print('{{"version": "0"}}', flush=True)
time.sleep(3600)
"""


def family(folder, script, **parts):
    """A family whose interpreter is a script."""
    python = folder / "python"
    python.write_text(script.format(python=sys.executable, **parts))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return Foreign(Family(python=str(python), version=""))


@pytest.fixture
def slow(tmp_path):
    """A family that speaks the protocol and answers once its gate is there."""
    gate = tmp_path / "gate"
    made = family(tmp_path, SLOW, gate=str(gate))
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


def test_what_is_killed_at_work_is_told_and_started_again(place, slow):  # noqa: F811
    """The window that was with it has no verdict, and the report says why; all else in it is
    judged. The next window is asked of a new process."""
    foreign, gate = slow
    artifacts, model = judged(place)
    windows, decisions = Windows(artifacts, {}, foreign), stream(model, 900)
    run(windows, model, decisions[:300])
    while not foreign._made:  # it was started, greeted, and has made the detector
        time.sleep(0.01)
    os.kill(foreign._process.pid, signal.SIGKILL)
    windows.family.settle()
    (second,) = reports(run(windows, model, decisions[300:600]))
    told = second["family"]["verdict"]
    assert (told["window"][-1], told["why"]) == ("1", "judge: it was ended by signal 9")
    assert (second["judged"], second["family"]["state"]) == (True, "not_enough_data")
    gate.touch()
    windows.family.settle()
    (third,) = reports(run(windows, model, decisions[600:]))
    assert (third["family"]["verdict"]["window"][-1], third["family"]["state"]) == ("2", "watch")
    windows.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("[]", "judge: its answer is no object but []"),
        ("{}", "its answer is none: KeyError('p_values')"),
        ("what", "judge: unexpected character"),
        ('{"p_values": 1}', "its answer is none: TypeError"),
    ],
)
def test_an_answer_that_is_none_is_told(place, tmp_path, answer, why):  # noqa: F811
    """And the window's report has everything else."""
    answers = {"hello": '{"version": "0"}', "judge": answer}
    foreign = family(tmp_path, ANSWERING, said=os.devnull, answers=answers)
    artifacts, model = judged(place)
    windows, decisions = Windows(artifacts, {}, foreign), stream(model, 600)
    run(windows, model, decisions[:300])
    windows.family.settle()
    (second,) = reports(run(windows, model, decisions[300:]))
    assert second["family"]["verdict"]["why"].startswith(why)
    assert second["judged"]
    windows.close()


def test_what_reads_nothing_is_ended_in_time(tmp_path, monkeypatch):
    """A reference that no pipe holds: the process is given up like one that does not answer."""
    monkeypatch.setattr(foreign_process, "MAKE_S", 0.2)
    foreign = family(tmp_path, DEAF)
    rows = np.zeros((100_000, 1))
    with pytest.raises(Broken, match=r"make: no answer in 0\.2 s"):
        foreign.judge(Specification("k", "KSDrift", 0.01, rows), rows, 1)
    assert foreign._process is None


def test_it_holds_so_many_detectors_at_most(tmp_path, monkeypatch):
    """The one that was not asked for longest goes, and is made anew when it is asked again."""
    monkeypatch.setattr(foreign_process, "MADE_MAX", 2)
    said = tmp_path / "said"
    foreign = family(tmp_path, ANSWERING, said=str(said), answers={"hello": '{"version": "0"}'})
    for key in ("a", "b", "a", "c", "b"):
        foreign.judge(Specification(key, "KSDrift", 0.01, np.zeros((2, 1))), np.zeros((2, 1)), 1)
    asked = [line for line in said.read_text().splitlines() if line[:5] in ("make ", "drop ")]
    assert asked == ["make a", "make b", "drop b", "make c", "drop a", "make b"]
    foreign.close()


def test_what_cannot_be_made_is_tried_once(tmp_path):
    """It would be refused again; another detector is made all the same."""
    said = tmp_path / "said"
    answers = {"hello": '{"version": "0"}', "make": '{"error": "too few streams"}'}
    foreign = family(tmp_path, ANSWERING, said=str(said), answers=answers)
    for key in ("a", "a", "b", "a"):
        with pytest.raises(Broken, match="too few streams"):
            foreign.judge(Specification(key, "KSDrift", 0.01, np.zeros((2, 1))), np.eye(1), 1)
    assert said.read_text().split("\n")[1:-1] == ["make a", "make b"]
    foreign.close()
