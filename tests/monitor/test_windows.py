"""The fold of decisions into windows: restarts in the middle of one, detectors included."""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
import pyarrow.parquet as parquet
import pytest

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.explain.worker import Explanations
from gateway.monitor.inference import Inference
from gateway.monitor.judge import judge
from gateway.monitor.report import WindowReport
from gateway.monitor.window import Decision
from gateway.monitor.worker import Windows
from gateway.table import compile_table, make_document

MODELS = Path(__file__).parents[2] / "models" / "mortgage"
TEXT = f"""
models:
  mortgage:
    versions: {{v1: {{artifact: {MODELS}/v1}}}}
    rules: [{{name: all, split: {{v1: 100%}}}}]
    explain: {{background: {MODELS}/background.parquet}}
    monitor: {{reference: {MODELS}/reference.parquet, window: {{count: 300}}, groups: [race]}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    (folder / "headworks.yaml").write_text(TEXT)
    checked = check(folder / "headworks.yaml")
    assert checked.problems == []
    artifacts = Artifacts(folder / "state")
    document = make_document(checked, artifacts, author="ana", reason="first", now_ns=1)
    return artifacts, compile_table(orjson.dumps(document)).models["mortgage"]


def stream(model, n, moved=0.0):
    """Decisions drawn from the reference; `lvr` moved by so much from the 200th on."""
    card = model.versions["v1"].card
    people = parquet.read_table(MODELS / "reference.parquet").to_pylist()
    dice = np.random.default_rng(4)
    found = []
    for at, place in enumerate(dice.integers(0, len(people), n).tolist()):
        values = [people[place][feature.name] for feature in card.features]
        lvr = [feature.name for feature in card.features].index("lvr")
        if at >= 200:
            values[lvr] += moved
        score = float(dice.random())
        outcome = card.outputs.outcome.of(score)
        found.append(Decision(at, at, f"id{at}/0", score, outcome, tuple(values), {"race": "x"}))
    return found


def plain(told):
    return [one.to_json() if isinstance(one, WindowReport) else one for one in told]


def run(windows, model, decisions):
    told = []
    for decision in decisions:
        told += windows.add(model, model.versions["v1"], "stable", decision)
    return plain(told)


@pytest.mark.parametrize("at", [1, 300, 455])
def test_a_restart_says_what_would_have_been_said(place, at):
    """Reports, confirmed alarms and the state afterwards are the same, wherever it happened."""
    artifacts, model = place
    decisions = stream(model, 900, moved=0.12)
    whole = Windows(artifacts, {})
    expected = run(whole, model, decisions)
    assert any(isinstance(one, dict) for one in expected)
    assert any(not isinstance(one, dict) for one in expected)

    before = Windows(artifacts, {})
    told = run(before, model, decisions[:at])
    after = Windows(artifacts, orjson.loads(orjson.dumps(before.to_json())))
    begun = after.replay_from()
    for decision in decisions[begun if begun is not None else at : at]:
        after.replay(model, model.versions["v1"], "stable", decision)
    told += run(after, model, decisions[at:])
    assert expected == told
    assert whole.to_json() == after.to_json()


@pytest.mark.parametrize("at", [300, 455])
def test_a_window_that_cannot_be_judged_was_heard_all_the_same(place, monkeypatch, at):
    """The first window's judging fails: the detectors go on, and after a restart as well."""
    artifacts, model = place
    decisions = stream(model, 900, moved=0.12)

    def judging(window, *of):
        if window.decisions[0].leaf == 0:
            raise ValueError("no")
        return judge(window, *of)

    monkeypatch.setattr("gateway.monitor.worker.judge", judging)
    whole = Windows(artifacts, {})
    expected = run(whole, model, decisions)
    assert whole.unjudged == 1
    before = Windows(artifacts, {})
    told = run(before, model, decisions[:at])
    after = Windows(artifacts, orjson.loads(orjson.dumps(before.to_json())))
    for decision in decisions[300:at]:
        after.replay(model, model.versions["v1"], "stable", decision)
    told += run(after, model, decisions[at:])
    assert expected == told
    assert whole.to_json() == after.to_json()


def test_a_shift_is_confirmed_before_two_windows_are_full(place):
    """The alert's sighting names the decision; windows say the same afterwards, in words."""
    artifacts, model = place
    told = run(Windows(artifacts, {}), model, stream(model, 900, moved=0.12))
    sightings = [one for one in told if not isinstance(one, dict)]
    seen = next(one for one in sightings if one.cause == "sequence/feature/lvr")
    assert (seen.raised, seen.window) == (True, "mortgage/v1/stable/2")
    report = [one for one in told if isinstance(one, dict)][1]
    found = next(one for one in report["sequences"] if one["cause"] == "feature/lvr")
    assert (found["state"], "sequence/feature/lvr" in report["opened"]) == ("drift", True)
    assert found["ids"]
    assert any("standard deviations" in sentence for sentence in report["words"])


def test_detectors_may_be_off(place):
    """`run: 0`: no sequence is in the report, and nothing is confirmed."""
    artifacts, model = place
    off = replace(model, monitor=model.monitor | {"drift": {"sequential": {"run": 0}}})
    told = run(Windows(artifacts, {}), off, stream(model, 300, moved=0.12))
    assert [one["sequences"] for one in told] == [[]]


def explained(explanations, model, decisions):
    """As the analyst's fold makes them: exchanges of a chunk are explained together."""
    version = model.versions["v1"]
    asked = [
        Inference(
            model, version, {f.name: [v] for f, v in zip(version.card.features, one.values)},
            [one.groups], [one.score], [one.outcome], given=False,
        )
        for one in decisions
    ]  # fmt: skip
    said = explanations.explain([one.asked() for one in asked])
    return [
        made
        for one, found, told in zip(decisions, asked, said)
        for made in found.decisions(one.leaf, leaf_of(one), told)
    ]


def leaf_of(one):
    decided = [{"score": one.score, "outcome": one.outcome}]
    return {"record": {"at": one.at, "id": one.id.partition("/")[0]}, "decisions": decided}


@pytest.mark.parametrize("at", [1, 300, 455])
def test_attributions_are_judged_the_same_after_a_restart(place, at):
    """Explained in a batch when they came, and one by one when the open window is filled again:
    the reports are equal to the bit, and the moved feature is told as that."""
    artifacts, model = place
    raw = stream(model, 900, moved=0.12)
    explanations = Explanations(artifacts)
    decisions = explained(explanations, model, raw)
    assert None not in [one.attributions for one in decisions]
    whole = Windows(artifacts, {}, explanations=explanations)
    expected = run(whole, model, decisions)
    reports = [one for one in expected if isinstance(one, dict)]
    assert [one["attributions"]["n"] for one in reports] == [300, 300, 300]
    last = {one["name"]: one["drift"] for one in reports[-1]["attributions"]["features"]}
    assert (last["lvr"]["state"], last["lvr"]["suppressed_by"]) == ("watch", ["feature/lvr"])
    assert last["ccs"]["state"] == "ok"
    assert [[one["key"], one["value"]] for one in reports[-1]["slices"]] == [["race", "x"]]

    before = Windows(artifacts, {}, explanations=explanations)
    told = run(before, model, decisions[:at])
    anew = Explanations(artifacts)
    after = Windows(artifacts, orjson.loads(orjson.dumps(before.to_json())), explanations=anew)
    begun = after.replay_from()
    for one in raw[begun if begun is not None else at : at]:
        (again,) = explained(anew, model, [one])
        after.replay(model, model.versions["v1"], "stable", again)
    told += run(after, model, decisions[at:])
    assert expected == told
    assert whole.to_json() == after.to_json()


def test_another_background_closes_the_window(place):
    """Attributions against two backgrounds do not stand in one window."""
    artifacts, model = place
    quiet = replace(model, monitor=model.monitor | {"drift": {"sequential": {"run": 0}}})
    windows = Windows(artifacts, {})
    decisions = stream(model, 151)
    assert run(windows, quiet, decisions[:150]) == []
    (report,) = run(windows, replace(quiet, background="0" * 64), decisions[150:])
    assert report["n"] == 150
    assert (report["closed_at"], report["closed_by"]) == (decisions[149].at, "cut")


@pytest.mark.parametrize("restart", [False, True])
def test_another_artifact_under_the_same_name_starts_anew(place, restart):
    """What was learned of the old one is forgotten with its last window: detectors, baseline,
    slices, windows running, groups. Numbers go on, and the first report of the new one says so."""
    artifacts, model = place
    known = model.monitor | {"baseline": "rolling"}
    first = replace(model, monitor=known)
    version = replace(model.versions["v1"], artifact=other_artifact(artifacts))
    second = replace(first, versions={"v1": version})
    windows = Windows(artifacts, {})
    run(windows, first, stream(model, 600))
    (before,) = windows.to_json().values()
    assert before["state"]["baseline"]["slots"]
    assert before["state"]["blocks"]
    assert before["state"]["sequence"]["seen"] == 600
    if restart:
        windows = Windows(artifacts, orjson.loads(orjson.dumps(windows.to_json())))
    said = run(windows, second, stream(model, 600))
    third, fourth = (one for one in said if isinstance(one, dict))
    assert [one["id"][-1] for one in (third, fourth)] == ["3", "4"]
    assert [one["anew"] for one in (third, fourth)] == [True, False]
    assert third["artifact"] == fourth["artifact"] == version.artifact
    assert third["words"][0].startswith(f"The first window of artifact {version.artifact[:12]}")
    (after,) = windows.to_json().values()
    assert after["state"]["sequence"]["seen"] == 600
    assert sum(slot["n"] for slot in after["state"]["baseline"]["slots"].values()) < 600
    assert sum(sum(block["race"]["x"]) for block in after["state"]["blocks"]) == 600


def other_artifact(artifacts):
    """The same model under another digest: a card with one more space is another artifact."""
    with TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(MODELS / "v1", Path(folder) / "v1"))
        card = copied / "card.yaml"
        card.write_text(card.read_text() + "\n")
        return artifacts.add_folder(copied)


@pytest.mark.parametrize(
    ("feature", "value", "begins"),
    [("lvr", 0.95, 200), ("lvr", 0.95, 330), ("single", "yes", 240), ("single", "no", 360),
     ("pbcr", "no", 320), ("mcs", 1.0, 280), ("ccs", 1.0, 200)],
)  # fmt: skip
def test_a_stuck_feature_is_told_before_its_drift(place, feature, value, begins):
    """Stuck in the midst of a window: its detector alarms, which is kept back until the window's
    quality is known, also while there are too few to call it stuck, of a value that is frequent
    anyway or in a new window. No drift of the feature is ever told, only that it is stuck."""
    artifacts, model = place
    decisions = stream(model, 1200)
    at_place = [f.name for f in model.versions["v1"].card.features].index(feature)
    stuck = [
        one
        if at < begins
        else replace(one, values=(*one.values[:at_place], value, *one.values[at_place + 1 :]))
        for at, one in enumerate(decisions)
    ]
    told = run(Windows(artifacts, {}), model, stuck)
    sightings = {one.cause for one in told if not isinstance(one, dict)}
    assert f"sequence/feature/{feature}" not in sightings
    reports = [one for one in told if isinstance(one, dict)]
    opened = {cause for one in reports for cause in one["opened"]}
    assert f"quality/{feature}/stuck" in opened
    assert not {f"sequence/feature/{feature}", f"feature/{feature}"} & opened
    alarms = [
        a
        for one in reports
        for s in one["sequences"]
        for a in s["alarms"]
        if s["cause"] == f"feature/{feature}"
    ]
    assert any(alarm["confirmed"] for alarm in alarms)


def test_what_is_kept_back_is_told_at_the_windows_end(place):
    """A shift among whose values five in a row are equal is no stuck feature: it is told."""
    artifacts, model = place
    decisions = stream(model, 900, moved=0.12)
    lvr = [f.name for f in model.versions["v1"].card.features].index("lvr")
    same = [
        replace(one, values=(*one.values[:lvr], 0.9, *one.values[lvr + 1 :]))
        if 200 <= at < 595 and at % 10 >= 4
        else one
        for at, one in enumerate(decisions)
    ]
    told = run(Windows(artifacts, {}), model, same)
    reports = [one for one in told if isinstance(one, dict)]
    assert any("sequence/feature/lvr" in one["opened"] for one in reports)


def test_the_idlest_series_makes_room(place, monkeypatch):
    """With room for two, the third closes the open window of the one that is idle longest, also
    behind a restart; who begins again counts on, so no window's id comes twice."""
    artifacts, model = place
    monkeypatch.setattr("gateway.monitor.worker.SERIES_MAX", 2)
    version, decisions = model.versions["v1"], stream(model, 700)
    start, hour = decisions[0].at, 3600 * 10**9

    def put(windows, arm, some, at):
        told = [one for d in some for one in windows.add(model, version, arm, replace(d, at=at))]
        return [(one.id, one.n) for one in told if isinstance(one, WindowReport)]

    windows = Windows(artifacts, {})
    assert put(windows, "stable", decisions[:310], start) == [("mortgage/v1/stable/1", 300)]
    assert put(windows, "canary", decisions[310:320], start + hour // 2) == []
    assert put(windows, "control", decisions[320:330], start + hour - 1) == []
    assert (windows.room.refused, windows.room.gone) == (10, 0)
    kept = orjson.loads(orjson.dumps(windows.to_json()))
    windows = Windows(artifacts, kept)
    for decision in decisions[300:310]:
        windows.replay(model, version, "stable", replace(decision, at=start))
    for decision in decisions[310:320]:
        windows.replay(model, version, "canary", replace(decision, at=start + hour // 2))
    assert put(windows, "control", decisions[330:340], start + hour) == [
        ("mortgage/v1/stable/2", 10)
    ]
    assert put(windows, "stable", decisions[340:350], start + 2 * hour) == [
        ("mortgage/v1/canary/1", 10)
    ]
    assert windows.room.gone == 2
    assert sorted(windows.to_json()) == ["let_go", "mortgage/v1/control", "mortgage/v1/stable"]
    assert put(windows, "stable", decisions[350:640], start + 2 * hour) == [
        ("mortgage/v1/stable/3", 300)
    ]


def test_decisions_of_too_many_series_are_counted(place, monkeypatch):
    """A series beyond the limit has no window; those there are go on."""
    artifacts, model = place
    monkeypatch.setattr("gateway.monitor.worker.SERIES_MAX", 1)
    windows = Windows(artifacts, {})
    decisions = stream(model, 302)
    version = model.versions["v1"]
    assert not windows.add(model, version, "stable", decisions[0])
    for decision in decisions[1:3]:
        assert not windows.add(model, version, "canary", decision)
    assert windows.room.refused == 2
    told = run(windows, model, decisions[3:])
    assert [one["n"] for one in told if isinstance(one, dict)] == [300]
