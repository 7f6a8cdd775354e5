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
import pytest
from test_windows import place, run, stream  # noqa: F401

from gateway.detectors import environment
from gateway.detectors.environment import LOCK, CannotInstall, Family, adopt, find, install
from gateway.detectors.foreign import STARTS_MAX, Broken, Foreign, Specification, opened
from gateway.monitor import twosample
from gateway.monitor.worker import Windows

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
        assert ks["p_values"][column] == pytest.approx(p_value, rel=1e-4, abs=1e-9)
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
