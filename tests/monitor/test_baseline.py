"""The reference that moves with the traffic: rolling, or the same hour of day or week."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from test_judge import CARD, REFERENCE, SETTINGS, columns

from gateway.modelsettings import DriftSettings
from gateway.monitor.baseline import HOUR_NS, Baseline, Placed, compare, counted, learn
from gateway.monitor.judge import judge
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window


def decisions(seed, n=500, shift=0.0, at=0, spread_hours=0.0):
    dice = np.random.default_rng(seed)
    values = columns(dice, n, shift)
    scores = dice.random(n)
    listed = zip(*(values[name].tolist() for name in ("lvr", "ccs", "dmi")), scores.tolist())
    step = int(spread_hours * HOUR_NS / n)
    return [
        Decision(i, at + i * step, f"id{i}", s, CARD.outputs.outcome.of(s), (a, b, c, "a"), {})
        for i, (a, b, c, s) in enumerate(listed)
    ]


def window_of(found):
    made = Window("mortgage", "v1", "stable")
    for decision in found:
        made.add(decision)
    return made


def reports(windows, kind):
    state, told = SeriesState(), []
    settings = replace(SETTINGS, baseline=kind)
    for found in windows:
        report, state = judge(window_of(found), REFERENCE, CARD, settings, state)
        state = SeriesState.from_json(json.loads(json.dumps(state.to_json())))
        told.append(report)
    return told


def test_traffic_unlike_the_training_sample_is_news_only_when_it_changes():
    """The frozen reference alarms for ever, the rolling one when something happens, and it learns:
    later the new is the normal."""
    steady = [decisions(seed, shift=1.0) for seed in range(6)]
    after = [decisions(10 + seed, shift=2.0) for seed in range(30)]
    told = reports([*steady, *after], "rolling")
    frozen = [next(f for f in one.features if f.name == "lvr").drift.state for one in told]
    moved = [one.baseline.drifts.get("feature/lvr") for one in told]
    states = [None if one is None else one.state for one in moved]
    assert frozen[1:] == ["drift"] * 35
    assert states[3:6] == ["ok"] * 3
    assert states[6:9] == ["watch", "drift", "drift"]
    assert states[-1] == "ok"
    assert "baseline/feature/lvr" in told[7].opened
    assert any("than in the windows before" in sentence for sentence in told[7].words)


def test_one_event_is_told_once():
    """What the frozen reference sees from the same window on suppresses the rolling one's."""
    told = reports([decisions(s) for s in range(4)] + [decisions(9, shift=1.0)] * 2, "rolling")
    moved = told[5].baseline.drifts["feature/lvr"]
    assert (moved.state, moved.suppressed_by) == ("drift", ("feature/lvr",))
    assert "feature/lvr" in told[5].opened
    assert "baseline/feature/lvr" not in told[5].opened


def test_a_season_is_compared_with_its_like():
    """A swing of a deviation over the day: no alarm against the same hour of the days before, and
    one when an hour is not like itself; the frozen reference only watches."""

    def day(number, extra=0.0):
        return [
            decisions(
                100 * number + hour, shift=np.sin(hour * np.pi / 12) + (extra if hour == 9 else 0),
                at=(24 * number + hour) * HOUR_NS, spread_hours=0.9,
            )
            for hour in range(0, 24, 3)
        ]  # fmt: skip

    told = reports([*day(0), *day(1), *day(2), *day(3), *day(4, 1.5)], "day")
    assert {alarm for one in told for alarm in one.opened} == set()
    assert "watch" in {f.drift.state for one in told for f in one.features}
    moved = told[-5].baseline.drifts["feature/lvr"]
    assert (moved.state, moved.comparison.effect > 0.3) == ("watch", True)
    calm = [one.baseline.drifts["feature/lvr"].state for one in told[24:32]]
    assert calm == ["ok"] * 8


def test_a_window_over_two_hours_is_compared_with_both():
    """Each slot's shares, mixed as the window mixes them; not known well enough: not compared."""
    base = Baseline()
    for number in range(3):
        for hour, shift in ((0, 0.0), (1, 3.0)):
            found = decisions(10 * number + hour, shift=shift, at=(24 * number + hour) * HOUR_NS)
            base = learn(base, REFERENCE, counted(Placed.of(found, CARD, REFERENCE), "day"), "day")
    at = 72 * HOUR_NS
    both = decisions(50, 250, 0.0, at) + decisions(51, 250, 3.0, at + HOUR_NS)
    rules = DriftSettings()
    fell = counted(Placed.of(both, CARD, REFERENCE), "day")
    found = compare(base, REFERENCE, fell, rules, 100)
    assert found["feature/lvr"].p_value > 0.01
    assert compare(Baseline(), REFERENCE, fell, rules, 100) == {}
    elsewhere = counted(Placed.of(decisions(52, at=at + 5 * HOUR_NS), CARD, REFERENCE), "day")
    assert compare(base, REFERENCE, elsewhere, rules, 100) == {}


@pytest.mark.parametrize("kind", ["rolling", "week"])
def test_a_baseline_is_read_as_it_was_written(kind):
    """Through JSON, to the bit."""
    base = Baseline()
    for number in range(5):
        found = decisions(number, at=number * 200 * HOUR_NS)
        base = learn(base, REFERENCE, counted(Placed.of(found, CARD, REFERENCE), kind), kind)
    assert Baseline.from_json(json.loads(json.dumps(asdict(base)))) == base
