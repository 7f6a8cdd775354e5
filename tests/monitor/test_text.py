"""Plain features of text through the same windows, without a card and without a sample."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow
import pyarrow.parquet as parquet
import pytest

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.monitor.alerts import Alerts
from gateway.monitor.report import WindowReport
from gateway.monitor.window import Decision
from gateway.monitor.worker import Windows
from gateway.protocol.textfeatures import CARD, NAMES
from gateway.table import compile_table, make_document

TEXT = """
models:
  chat:
    protocol: openai
    versions: {{one: {{upstream: "http://127.0.0.1:1"}}}}
    rules: [{{name: all, split: {{one: 100%}}}}]
    monitor: {{window: {{count: 300}}{more}}}
"""
LENGTH = NAMES.index("answer_length")


def made(folder: Path, more: str = ""):
    (folder / "headworks.yaml").write_text(TEXT.format(more=more))
    checked = check(folder / "headworks.yaml")
    assert checked.problems == []
    artifacts = Artifacts(folder / "state")
    document = make_document(checked, artifacts, author="ana", reason="first", now_ns=1)
    return artifacts, compile_table(orjson.dumps(document)).models["chat"]


def rows(seed: int, n: int, longer: float = 1.0):
    """Answers `longer` times as long as they were."""
    dice = np.random.default_rng(seed)
    prompt, answer = dice.lognormal(6, 1, n), dice.lognormal(5, 0.8, n) * longer
    found = []
    for asked, said in zip(prompt.tolist(), answer.tolist()):
        finish = "length" if dice.random() < 0.1 else "stop"
        heat = 0.7 if dice.random() < 0.5 else None
        found.append((int(asked), int(dice.integers(1, 6)), int(said), int(asked / 4),
                      int(said / 4), finish, "no", 0, heat))  # fmt: skip
    return found


def fold(artifacts, model, told_rows, restart_at=None):
    """Reports and what happened to alerts; the analyst's state goes through JSON at a restart."""
    version = replace(model.versions["one"], card=CARD)
    windows, alerts, reports, events = Windows(artifacts, {}), Alerts({}), [], []
    decisions = [Decision(at, at, f"id{at}/0", None, None, row, {})
                 for at, row in enumerate(told_rows)]  # fmt: skip
    for decision in decisions:
        if decision.leaf == restart_at:
            state = orjson.loads(orjson.dumps(windows.to_json()))
            windows = Windows(artifacts, state)
            begun = windows.replay_from()
            for former in decisions[begun : decision.leaf] if begun is not None else ():
                windows.replay(model, version, "stable", former)
        for told in windows.add(model, version, "stable", decision):
            if isinstance(told, WindowReport):
                reports.append(told.to_json())
                events += alerts.take_window(told)
            else:
                events += alerts.take_sighting(told)
    return reports, [(one.event, one.alert.cause) for one in events]


def test_longer_answers_open_an_alert_and_steady_ones_none(tmp_path):
    """Against the windows before: half as long again, from the eleventh window on."""
    artifacts, model = made(tmp_path)
    steady = rows(1, 3000)
    reports, events = fold(artifacts, model, [*steady, *rows(2, 1200)])
    assert len(reports) == 14
    assert {report["state"] for report in reports[3:]} == {"ok"}
    assert reports[3]["words"] == ["Nothing stands out in 300 decisions."]
    assert (reports[0]["state"], reports[0]["words"]) == (
        "not_enough_data",
        ["There is nothing yet that these 300 decisions could be compared with."],
    )
    assert events == []

    reports, events = fold(artifacts, model, [*steady, *rows(2, 1200, longer=1.6)])
    assert set(events) == {("opened", "baseline/feature/answer_length"),
                           ("opened", "baseline/feature/completion_tokens")}  # fmt: skip
    states = [one["baseline"]["drifts"]["feature/answer_length"]["state"] for one in reports[9:13]]
    assert states == ["ok", "watch", "drift", "drift"]
    assert any("`answer_length` is distributed differently than in the windows before" in sentence
               for sentence in reports[11]["words"])  # fmt: skip
    after = next(one for one in reports[11]["features"] if one["name"] == "answer_length")["after"]
    assert after["quantiles"]["p50"] > 200


def test_another_way_to_end_opens_an_alert(tmp_path):
    """A third of the answers filtered: the finish, and the refusals that it makes."""
    artifacts, model = made(tmp_path)
    moved = [(*row[:5], "content_filter", "yes", *row[7:]) if at % 3 == 0 else row
             for at, row in enumerate(rows(2, 900))]  # fmt: skip
    _, events = fold(artifacts, model, [*rows(1, 1800), *moved])
    assert set(events) == {("opened", "baseline/feature/finish"),
                           ("opened", "baseline/feature/refusal")}  # fmt: skip


@pytest.mark.parametrize("at", [300, 3400])
def test_a_restart_changes_nothing(tmp_path, at):
    """At a window's end and in the middle of one."""
    artifacts, model = made(tmp_path)
    told = [*rows(1, 3000), *rows(2, 900, longer=1.6)]
    assert fold(artifacts, model, told, restart_at=at) == fold(artifacts, model, told)


def test_with_a_sample_all_that_watches_a_card_watches_text(tmp_path):
    """Drift, quality and the detectors, of the columns that the sample has."""
    sample = dict(zip(NAMES, zip(*rows(5, 3000))))
    del sample["temperature"]
    parquet.write_table(pyarrow.table({name: list(v) for name, v in sample.items()}),
                        tmp_path / "sample.parquet")  # fmt: skip
    artifacts, model = made(tmp_path, ", reference: sample.parquet")
    shifted = rows(2, 900, longer=1.6)
    broken = [(*row[:3], None, *row[4:]) for row in shifted]
    reports, events = fold(artifacts, model, [*rows(1, 900), *broken])
    assert [one["state"] for one in reports[:3]] == ["ok"] * 3
    causes = {cause for event, cause in events if event == "opened"}
    assert {"feature/answer_length", "quality/prompt_tokens/missing",
            "sequence/feature/answer_length"} <= causes  # fmt: skip
    assert not any("temperature" in cause or "messages" in cause for cause in causes)
    features = {one["name"]: one for one in reports[4]["features"]}
    assert features["answer_length"]["drift"]["comparison"]["psi"] > 0.1
    assert features["temperature"]["state"] == "no_reference"


def test_without_either_reference_text_is_not_watched(tmp_path):
    """No sample and no baseline: no window, and no body is read."""
    artifacts, model = made(tmp_path, ", baseline: none")
    assert fold(artifacts, model, rows(1, 600)) == ([], [])
