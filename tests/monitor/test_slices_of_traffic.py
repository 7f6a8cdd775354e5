"""Slices: parts of the traffic, each against its own past, in one correction."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from gateway.monitor.alerts import Alerts
from gateway.monitor.judge import judge
from gateway.monitor.reference import Reference
from gateway.monitor.sightings import sightings
from gateway.monitor.slices import VALUES_AT_MOST
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window
from tests.monitor.test_judge import CARD, SETTINGS, columns, reference

REFERENCE = reference()
SLICED = replace(SETTINGS, count=500, groups=(), slices=("channel",), baseline="rolling")
SHARES = {"branch": 0.86, "web": 0.13, "agent": 0.01}


def window(dice, n=500, moved=None, lost=None):
    """Decisions of three channels; `moved`: the one (or `any`) whose lvr is higher by one, `lost`:
    whose ccs is missing."""
    rows = {name: values.tolist() for name, values in columns(dice, n).items()}
    named = dice.choice(list(SHARES), n, p=list(SHARES.values())).tolist()
    found = Window("mortgage", "v1", "stable")
    for place, channel in enumerate(named):
        values = [rows["lvr"][place], rows["ccs"][place], rows["dmi"][place], "a"]
        values[0] += 1.0 if moved in (channel, "any") else 0.0
        values[1] = None if channel == lost else values[1]
        score = float(dice.random())
        found.add(
            Decision(place, place, f"id{place}/0", score, CARD.outputs.outcome.of(score),
                     tuple(values), {"channel": channel})
        )  # fmt: skip
    return found


def run(windows, settings=SLICED, state=None):
    state, reports = state or SeriesState(), []
    for one in windows:
        report, state = judge(one, REFERENCE, CARD, settings, state)
        reports.append(report)
    return reports, state


def of(report, value):
    (found,) = [one for one in report.slices if one.value == value]
    return found


@pytest.fixture(scope="module")
def before():
    dice = np.random.default_rng(1)
    return run([window(dice) for _ in range(24)])


def test_parts_that_stay_as_they_were_are_ok(before):
    """After their first windows they are compared and nothing is raised; the rare one is added up
    until it is large enough, and says `not_enough_data` until then."""
    reports, _ = before
    last = [report for report in reports if of(report, "branch").compared][-1]
    assert of(last, "branch").state == "ok"
    assert of(last, "branch").compared == 8
    assert [of(report, "agent").state for report in reports] == ["not_enough_data"] * 24
    assert of(reports[-1], "agent").n > of(reports[0], "agent").n
    assert not [cause for report in reports for cause in report.opened if "slice/" in cause]


def test_a_part_that_moved_is_found_and_named(before):
    """An eighth of the traffic moves, which all of it does not show: its slice opens an alert at
    its second window, the others do not, and no decision is named as one of it; resolved later."""
    _, state = before
    dice = np.random.default_rng(3)
    alerts, happened, reports = Alerts({}), [], []
    for moved in ["web"] * 5 + [None] * 12:
        (report,), state = run([window(dice, moved=moved)], SLICED, state)
        reports.append(report)
        happened += alerts.take_window(report)
    cause = "slice/channel/web/feature/lvr"
    assert [(one.event, one.alert.cause) for one in happened] == [
        ("opened", cause), ("resolved", cause)
    ]  # fmt: skip
    (opened,) = [report for report in reports if cause in report.opened]
    assert opened.id.endswith(("/28", "/29"))
    assert "Where channel is `web`" in " ".join(opened.words)
    sighting = {one.cause: one for one in sightings(opened)}[cause]
    assert sighting.evidence["decisions"] == list(opened.examples)
    assert opened.state == "drift"


def test_what_all_the_traffic_shows_is_told_as_that(before):
    """Every part moves: the feature opens, and its slices are held back."""
    _, state = before
    dice = np.random.default_rng(4)
    reports, _ = run([window(dice, moved="any") for _ in range(6)], SLICED, state)
    opened = [cause for report in reports for cause in report.opened]
    assert "feature/lvr" in opened
    assert not [cause for cause in opened if cause.startswith("slice/")]
    assert of(reports[-1], "branch").drifts["feature/lvr"].suppressed_by


def test_missing_values_of_one_part_are_told_as_quality(before):
    """An eighth of the traffic loses a feature: its slice says so, and the others show nothing."""
    _, state = before
    dice = np.random.default_rng(4)
    reports, _ = run([window(dice, lost="web") for _ in range(4)], SLICED, state)
    web = [of(report, "web") for report in reports]
    assert any("quality/ccs" in one.drifts and one.drifts["quality/ccs"].significant for one in web)
    assert not any(of(report, "branch").drifts for report in reports)


def test_values_are_bounded_and_the_rest_counted():
    """Values beyond the limit are one slice, `(other)`, whose decisions are counted."""
    dice = np.random.default_rng(5)
    many = window(dice)
    many.decisions = [
        replace(one, groups={"channel": f"c{place % 40}"} if place % 3 else {})
        for place, one in enumerate(many.decisions)
    ]
    (report,), state = run([many])
    assert len(report.slices) == VALUES_AT_MOST + 1
    assert sum(one.n for one in report.slices) == 500
    assert of(report, "(other)").n > 150
    assert of(report, "unknown").n == 167
    again, _ = run([many], SLICED, state)
    assert len(again[0].slices) == VALUES_AT_MOST + 1


def test_the_state_comes_back_to_the_bit(before):
    """Through JSON and on: the same reports as without."""
    _, state = before
    back = SeriesState.from_json(orjson.loads(orjson.dumps(state.to_json())))
    assert back == state
    told = [run([window(np.random.default_rng(6), moved="web")], SLICED, one) for one in
            (state, back)]  # fmt: skip
    assert told[0] == told[1]


def test_without_keys_there_are_none():
    """No key, no slice, nothing in the state."""
    (report,), state = run([window(np.random.default_rng(7))], replace(SLICED, slices=()))
    assert report.slices == ()
    assert state.slices.slices == {}


def test_without_a_reference_a_part_has_its_past_all_the_same():
    """Nobody gave a sample: slices are counted in places that the card gives, and compared."""
    dice = np.random.default_rng(8)
    state, reports = SeriesState(), []
    for _ in range(8):
        report, state = judge(window(dice), Reference.absent(CARD), CARD, SLICED, state)
        reports.append(report)
    assert of(reports[-1], "branch").compared > 0
    assert of(reports[-1], "branch").state == "ok"
