"""alibi-detect in its own interpreter: installed from the lock, asked over a pipe, equal to ours.

The long tests take an environment from HEADWORKS_ALIBI (a folder) or make one, 1.1 GB.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from scipy import stats
from test_windows import place, run, stream  # noqa: F401

from gateway.detectors import environment
from gateway.detectors.environment import (
    LOCK,
    SERVER,
    CannotInstall,
    Family,
    adopt,
    find,
    install,
)
from gateway.detectors.foreign import STARTS_MAX, Broken, Foreign, Specification, opened
from gateway.monitor import twosample
from gateway.monitor.worker import Windows

KEPT = """
import json, sys
sys.path.insert(0, {folder!r})
import numpy as np
import alibi_server

def drawn(n, share):
    rows = np.random.random((n, 1))
    return (rows < share).astype(float) if "FET" in {detector!r} else rows / share

np.random.seed(1)
asked = {{"detector": {detector!r},
         "arguments": {{"ert": 50, "window_sizes": [10, 20], "n_bootstraps": 1000}}}}
made = alibi_server.made(asked, drawn(300, 0.5))
np.random.seed(2)
rows = np.concatenate([drawn(300, 0.5), drawn(100, 0.6)])
np.random.seed(3)
ours = alibi_server.fed(made, rows)["alarms"]
kept = [len(made.xs), len(made.test_stats)]
made.reset_state()
np.random.seed(3)
plain = []
for place, row in enumerate(rows):
    if made.predict(row)["data"]["is_drift"]:
        plain.append(place)
        made.reset_state()
print(json.dumps([ours, plain, *kept]))
"""
"""In its interpreter: what `fed` says of a stream, and what a detector says that is left alone."""

ALONE = """
import numpy as np
from alibi_detect.cd import CVMDrift
dice = np.random.default_rng(5)
alone = CVMDrift(dice.poisson(2.0, (2000, 1)), p_val=0.05)
windows = [dice.poisson(2.0, (500, 1)) for _ in range(10)]
print(sum(alone.predict(rows)["data"]["is_drift"] for rows in windows), "of 10")
"""
"""In its interpreter: windows of the reference's law that its own CVMDrift calls a drift."""

NOTHING = Family(python="/nowhere/python", version="0")


def test_the_lock_is_the_last_free_release_with_hashes():
    """Each line pins one wheel; what 0.11.4 cannot stand is not in it."""
    lines = LOCK.read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines)
    assert all("--hash=sha256:" in line for line in lines)
    assert pins["alibi-detect"] == environment.FREE_RELEASE
    assert (pins["numpy"] < "1.25", pins["scipy"] < "1.12") == (True, True)


def test_what_is_missing_is_said(tmp_path):
    """No such Python, or one of another version: nothing is made and nothing pointed to."""
    with pytest.raises(CannotInstall, match=r"needs Python 3\.11: nopython is not there"):
        install(tmp_path, None, "nopython", None)
    with pytest.raises(CannotInstall, match="nowhere"):
        adopt(tmp_path, "/nowhere/python", licensed=False)
    assert find(tmp_path) is None
    assert opened(tmp_path) is None


def test_it_is_heard_by_a_process_with_many_files_open():
    """`select` would refuse a descriptor above 1023."""
    with ExitStack() as files:
        for _ in range(1100):
            files.enter_context(open(os.devnull))
        with pytest.raises(Broken, match="alibi_detect"):
            Foreign(Family(python=sys.executable, version="")).hello()


def test_an_interpreter_without_it_says_so():
    """Ours has no alibi-detect: an error in words, and no further starts after some."""
    foreign = Foreign(Family(python=sys.executable, version=""))
    with pytest.raises(Broken, match="alibi_detect"):
        foreign.hello()
    assert foreign._process is None
    with pytest.raises(Broken, match="alibi_detect"):
        foreign.judge(Specification("k", "KSDrift", 0.01, np.zeros((2, 1))), np.zeros((2, 1)), 1)
    assert foreign._process is None
    foreign = Foreign(NOTHING)
    for _ in range(STARTS_MAX):
        with pytest.raises(Broken, match="nowhere"):
            foreign.hello()
    with pytest.raises(Broken, match="broke 5 times"):
        foreign.hello()


def test_a_window_is_judged_without_it(place):  # noqa: F811
    """The report says why the detector said nothing; everything else is judged."""
    artifacts, model = place
    named = replace(model, monitor=model.monitor | {"detector": "alibi.TabularDrift"})
    windows, decisions = Windows(artifacts, {}, Foreign(NOTHING)), stream(model, 600)
    told = run(windows, named, decisions[:300])
    windows.family.settle()
    told += run(windows, named, decisions[300:])
    _, report = [one for one in told if isinstance(one, dict)]
    assert report["family"]["state"] == "not_enough_data"
    assert "nowhere" in report["family"]["verdict"]["why"]
    assert report["judged"]


def test_the_command_says_what_is_installed(tmp_path):
    """`detectors list` of a fresh state: nothing, and exit code 1."""
    (tmp_path / "headworks.yaml").write_text(
        "models: {m: {protocol: openai, versions: {v: {upstream: 'http://a'}}, "
        "rules: [{name: r, split: {v: 100%}}]}}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "detectors", "list"], cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, "not installed" in done.stdout) == (1, True), done.stderr


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alibi")
    if "HEADWORKS_ALIBI" in os.environ:
        python = Path(os.environ["HEADWORKS_ALIBI"], "bin", "python")
        found = adopt(folder, str(python), licensed=False)
    else:
        found = install(folder, None, None, None)
    assert (found.version, find(folder)) == (environment.FREE_RELEASE, found)
    made = opened(folder)
    assert made is not None
    yield made
    made.close()


def judged(foreign, detector, reference, rows, **asked):
    made = Specification(f"{detector}{asked}", detector, 0.05, reference, **asked)
    return foreign.judge(made, rows, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_our_tests_are_its_tests_figure_by_figure(foreign, shift):
    """Distances and p-values of KS, Cramer-von Mises and chi-squared, with and without a shift:
    alibi-detect has them in single precision."""
    dice = np.random.default_rng(3)
    then, now = dice.normal(size=(2000, 3)), dice.normal(shift, 1, size=(400, 3))
    ks, cvm = (judged(foreign, name, then, now) for name in ("KSDrift", "CVMDrift"))
    for column in range(3):
        a, b = np.sort(then[:, column]), np.sort(now[:, column])
        distance = twosample.kolmogorov_smirnov(a, b)
        p_value = twosample.kolmogorov_smirnov_p_value(distance, a.size, b.size)
        assert ks["distances"][column] == pytest.approx(distance, rel=1e-5)
        clear = p_value >= twosample.CLEAR  # decides nothing, and is to three places only
        near = {"abs": 5e-4} if clear else {"rel": 1e-4, "abs": 1e-9}
        assert ks["p_values"][column] == pytest.approx(p_value, **near)
        statistic, p_value = twosample.cramer_von_mises(a, b)
        assert cvm["distances"][column] == pytest.approx(statistic, rel=1e-5)
        assert cvm["p_values"][column] == pytest.approx(p_value, rel=1e-4, abs=1e-6)
    kinds, more = dice.integers(0, 3, (2000, 1)), dice.integers(0, 3, (400, 1))
    more[: int(100 * shift)] = 0
    chi = judged(foreign, "ChiSquareDrift", kinds.astype(float), more.astype(float))
    found = twosample.independence(
        np.bincount(kinds[:, 0], minlength=3), np.bincount(more[:, 0], minlength=3)
    )
    assert chi["p_values"][0] == pytest.approx(found.p_value, rel=1e-4, abs=1e-9)
    assert chi["distances"][0] == pytest.approx(found.statistic, rel=1e-4)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("detector", "arguments"),
    [
        ("KSDrift", {}), ("CVMDrift", {}), ("FETDrift", {}), ("ClassifierDrift", {}),
        ("FETDriftOnline", {"ert": 100, "window_sizes": (20,), "n_bootstraps": 1000}),
        ("CVMDriftOnline", {"ert": 100, "window_sizes": (20,), "n_bootstraps": 1000}),
    ],
)  # fmt: skip
def test_each_detector_sees_a_change_over_the_pipe(foreign, detector, arguments):
    """And a second one with the same reference sees none in rows of the reference's own law."""
    dice = np.random.default_rng(3)
    flags = detector.startswith("FET")

    def drawn(n, moved):
        if flags:
            return (dice.random((n, 1)) < (0.6 if moved else 0.3)).astype(float)
        return dice.normal(1.0 if moved else 0.0, 1, (n, 1))

    reference = drawn(1000, moved=False)
    said = judged(foreign, detector, reference, drawn(300, moved=True), arguments=arguments)
    assert said["is_drift"]
    if not detector.endswith("Online"):
        calm = judged(foreign, detector, reference, reference[::3], arguments=arguments)
        assert not calm["is_drift"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_count_is_no_drift(foreign):
    """Alone CVMDrift calls any two samples of a count a drift: over the pipe no more than one in
    twenty windows of the same law, give or take chance, and one of another is."""
    done = subprocess.run([foreign._family.python, "-c", ALONE], capture_output=True, text=True)
    assert done.stdout == "10 of 10\n", done.stderr
    dice = np.random.default_rng(5)
    then, alike = dice.poisson(2.0, (2000, 1)), dice.poisson(2.0, (40, 500, 1))
    asked = Specification("counts", "CVMDrift", 0.05, then.astype(float))
    said = [foreign.judge(asked, now.astype(float), seed) for seed, now in enumerate(alike)]
    assert sum(one["is_drift"] for one in said) <= stats.binom.isf(1e-4, 40, 0.05)
    assert foreign.judge(asked, dice.poisson(2.6, (500, 1)).astype(float), 1)["is_drift"]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("detector", ["MMDDrift", "LSDDDrift"])
def test_those_of_torch_see_a_change_and_judge_alike_each_time(foreign, detector):
    """Where torch is installed beside it; their permutations are seeded by the window."""
    dice = np.random.default_rng(6)
    then, now = dice.normal(size=(200, 3)), dice.normal(0.1, 1, (200, 3))
    if subprocess.run(
        [foreign._family.python, "-c", "import torch"], capture_output=True
    ).returncode:
        pytest.skip("torch is not installed there")
    first = judged(foreign, detector, then, now)
    assert judged(foreign, detector, then, now)["p_values"] == first["p_values"]
    assert judged(foreign, detector, then, now + 1)["is_drift"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_an_infinite_odds_ratio_is_no_broken_answer(foreign):
    """A flag that all rows of a window have: alibi-detect's distance is infinite."""
    reference = (np.arange(1000) % 3 == 0).astype(float)[:, None]
    said = judged(foreign, "FETDrift", reference, np.ones((300, 1)))
    assert (said["is_drift"], said["distances"]) == (True, [None])


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("detector", ["CVMDriftOnline", "FETDriftOnline"])
def test_an_online_detector_alarms_as_if_it_kept_all(foreign, detector):
    """What it forgets it would never have read: the same alarms at the same places, and no more
    than its largest window is kept."""
    script = KEPT.format(folder=str(SERVER.parent), detector=detector)
    done = subprocess.run([foreign._family.python, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, plain, rows, statistics = orjson.loads(done.stdout)
    assert ours == plain
    assert len(ours) > 3
    assert (rows <= 20, statistics <= 1) == (True, True)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_windows_are_judged_by_it(place, foreign):  # noqa: F811
    """A feature that moves in the first window: watch, then drift, named in words."""
    artifacts, model = place
    named = replace(model, monitor=model.monitor | {"detector": "alibi.TabularDrift"})
    windows, decisions = Windows(artifacts, {}, foreign), stream(model, 1200, moved=0.12)
    told = []
    for start in range(0, 1200, 300):
        told += run(windows, named, decisions[start : start + 300])
        windows.family.settle()
    reports = [one for one in told if isinstance(one, dict)]
    states = [one["family"]["state"] for one in reports]
    assert states == ["not_enough_data", "watch", "drift", "drift"]
    assert "detector" in reports[2]["opened"]
    assert any("`alibi.TabularDrift` sees drift in `lvr`" in w for w in reports[2]["words"])
    assert len(reports[2]["family"]["verdict"]["p_values"]) == 11
