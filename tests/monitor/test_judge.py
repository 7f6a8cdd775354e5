import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.card import Card
from gateway.monitor.alerts import Alerts
from gateway.monitor.flaws import inspected, level_of
from gateway.monitor.judge import judge
from gateway.monitor.reference import Reference
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window, WindowSettings

CARD = Card.model_validate(
    {
        "format": 1,
        "model": "mortgage",
        "version": "v1",
        "summary": "Denies or approves.",
        "artifact": {"sha256": "0" * 64},
        "features": [
            {"name": "lvr", "type": "number", "meaning": "loan to value", "range": [-9, 9]},
            {"name": "ccs", "type": "integer", "meaning": "credit score", "range": [1, 6]},
            {"name": "dmi", "type": "category", "meaning": "denied", "categories": ["no", "yes"]},
            {
                "name": "note",
                "type": "category",
                "meaning": "not read",
                "categories": ["a"],
                "used": False,
            },
        ],
        "outputs": {
            "score": {"tensor": "p", "meaning": "probability of denial"},
            "outcome": {
                "below": "approve",
                "at_or_above": "deny",
                "adverse": "deny",
                "threshold": 0.8,
            },
        },
        "training": {"data": {}, "code_commit": "0", "configuration": {}, "seed": 1},
        "metrics": {},
    }
)
SETTINGS = WindowSettings(at_most_ns=600_000_000_000, groups=("race",))


def columns(dice, n, shift=0.0):
    return {
        "lvr": dice.normal(shift, 1, n),
        "ccs": dice.integers(1, 7, n).astype(float),
        "dmi": np.where(dice.random(n) < 0.1, "yes", "no").astype(object),
    }


def reference(seed=1, n=5000):
    dice = np.random.default_rng(seed)
    return Reference.of(CARD, columns(dice, n), dice.random(n), "d" * 64)


def window_of(values, scores, races=None):
    window = Window("mortgage", "v1", "stable")
    rows = zip(*(values[name].tolist() for name in ("lvr", "ccs", "dmi")), scores.tolist())
    for i, (lvr, ccs, dmi, score) in enumerate(rows):
        outcome = CARD.outputs.outcome.of(score)
        groups = {} if races is None else {"race": races[i]}
        window.add(Decision(i, i, f"id{i}", score, outcome, (lvr, ccs, dmi, "a"), groups))
    return window


def drawn(seed, n=500, shift=0.0):
    dice = np.random.default_rng(seed)
    return window_of(columns(dice, n, shift), dice.random(n))


def feature(report, name):
    return next(f for f in report.features if f.name == name)


REFERENCE = reference()


def run(windows, start=None):
    state, reports = start or SeriesState(), []
    for window in windows:
        report, state = judge(window, REFERENCE, CARD, SETTINGS, state)
        reports.append(report)
    return reports, state


def test_a_window_like_the_reference_is_ok():
    """No drift, no fault: one sentence says so, and the id names the series and its number."""
    (report,), state = run([drawn(5)])
    assert (report.state, report.id, state.number) == ("ok", "mortgage/v1/stable/1", 1)
    assert report.words == ("Nothing stands out in 500 decisions.",)
    assert (report.first_leaf, report.last_leaf, report.closed_by) == (0, 499, "count")


def test_a_shift_is_a_watch_and_then_a_drift():
    """0.5 sigma at n = 500: watched once, an alarm in the second window, resolved in the third."""
    reports, state = run([drawn(2, shift=0.5), drawn(3, shift=0.5), drawn(4)])
    assert [r.state for r in reports] == ["watch", "drift", "ok"]
    assert [r.opened for r in reports] == [(), ("feature/lvr",), ()]
    assert (reports[2].resolved, state.alarms) == (("feature/lvr",), ())
    (told,) = reports[1].words
    assert told.startswith("`lvr` is higher than in the reference: median 0.")
    assert told.endswith("then; seen in two windows running.")


def test_more_denials_are_told_with_the_score():
    """Scores moved up raise score and outcome together, each in its own words."""
    dice = np.random.default_rng(8)
    moved = [window_of(columns(dice, 500), dice.random(500) ** 0.5) for _ in range(2)]
    report = run(moved)[0][1]
    assert (report.score.state, report.outcome.state, report.state) == ("drift",) * 3
    assert any(w.startswith("`deny` was the outcome of 3") for w in report.words)


def test_a_fault_suppresses_the_drift_of_its_feature():
    """Both are shown, the fault alarms and the drift does not, in any number of windows."""
    windows = []
    for seed in (2, 3, 4):
        window = drawn(seed, shift=0.5)
        window.decisions = [
            replace(d, values=(None, *d.values[1:])) if i % 5 == 0 else d
            for i, d in enumerate(window.decisions)
        ]
        windows.append(window)
    reports, state = run(windows)
    lvr = feature(reports[-1], "lvr")
    assert lvr.drift.suppressed_by == ("missing",)
    assert lvr.drift.significant
    assert (lvr.state, state.alarms, state.running) == ("fault", ("quality/lvr/missing",), {})


def with_missing(seed, count):
    window = drawn(seed)
    window.decisions[:count] = [
        replace(one, values=(None, *one.values[1:])) for one in window.decisions[:count]
    ]
    return window


def test_a_fault_that_may_be_chance_waits_for_the_next_window():
    """Five missing of 500 where the reference has none: watched, then a fault; fifty at once. One
    good window in between begins anew, one that is too small to judge does not."""
    reports, state = run([with_missing(2, 5), with_missing(3, 5), drawn(4), with_missing(5, 5)])
    assert [feature(one, "lvr").state for one in reports] == ["watch", "fault", "ok", "watch"]
    assert [one.opened for one in reports] == [(), ("quality/lvr/missing",), (), ()]
    assert SeriesState.from_json(json.loads(json.dumps(state.to_json()))) == state
    few = drawn(6, n=20)
    (_, last), _ = run([few, with_missing(7, 5)], state)
    assert feature(last, "lvr").state == "fault"
    (once,), _ = run([with_missing(2, 50)])
    assert once.opened == ("quality/lvr/missing",)


def test_rows_that_repeat_are_a_fault_in_the_second_window():
    """200 of 500 applications sent again: a sign first, an alert in the second window, over after
    two without; retries of a few are nothing."""
    alerts, state, told = Alerts({}), SeriesState(), []
    for seed, share in enumerate([0.0, 0.05, 0.4, 0.4, 0.4, 0.0, 0.0]):
        dice = np.random.default_rng(seed)
        values, scores, kept = columns(dice, 500), dice.random(500), int(500 * (1 - share))
        again = np.arange(500) % kept
        rows = {name: column[again] for name, column in values.items()}
        window = window_of(rows, scores[again])
        report, state = judge(window, REFERENCE, CARD, SETTINGS, state)
        state_told = None if report.duplicates is None else report.duplicates.state
        happened = [one.event for one in alerts.take_window(report)
                    if one.alert.cause == "duplicates"]  # fmt: skip
        told.append((state_told, happened))
    assert told == [
        (None, []), (None, []), ("watch", []), ("fault", ["opened"]), ("fault", []),
        (None, []), (None, ["resolved"]),
    ]  # fmt: skip


def test_faults_share_their_level_among_features_and_kinds():
    """Four features and the score, five kinds: 0.01 / 25 each. The reference has three of the
    features: eleven tests that are counted share what they have, in three parts."""
    window = with_missing(2, 4)
    columns = window.columns(CARD, REFERENCE)
    assert level_of(CARD, 0.01) == 0.01 / 25
    found = inspected(columns, REFERENCE, 0.01 / 25)["lvr"][0]
    assert found.state == "fault"
    for part, state in ((0.999, "watch"), (1.001, "fault")):
        told = inspected(columns, REFERENCE, found.chance * 3 / 11 * part)["lvr"][0]
        assert told.state == state


def test_few_decisions_are_never_ok():
    """Under the minimum nothing is judged, no statistics of few people are told, no alarm moves."""
    _, alarmed = run([drawn(2, shift=0.5), drawn(3, shift=0.5)])
    (report,), state = run([drawn(4, n=99)], alarmed)
    assert (report.state, report.closed_by) == ("not_enough_data", "time")
    assert {f.state for f in report.features} == {"not_enough_data", "no_reference"}
    assert feature(report, "lvr").after.quantiles is None
    assert (state.alarms, state.running) == (alarmed.alarms, alarmed.running)
    assert report.words[0].startswith("Only 99 decisions")


def test_fair_groups_do_not_make_a_small_window_ok():
    """Groups are judged on many windows, yet `ok` ones leave a small window not_enough_data."""
    dice = np.random.default_rng(6)
    races = ["black" if i % 2 else "white" for i in range(500)]
    full, small = (window_of(columns(dice, n), dice.random(n) * 0.9, races[:n]) for n in (500, 20))
    report = run([full, full, full, full, small])[0][-1]
    assert {group.state for group in report.bias[0].groups} == {"ok"}
    assert report.state == "not_enough_data"


def test_a_biased_series_breaches_in_its_second_window():
    """Half the approvals: pending at first, then a breach, which is the gravest state."""
    dice = np.random.default_rng(6)
    windows = []
    for _ in range(2):
        races = ["black" if i % 2 else "white" for i in range(500)]
        scores = dice.random(500) ** np.where(np.arange(500) % 2, 0.35, 1.6)
        windows.append(window_of(columns(dice, 500), scores, races))
    reports, state = run(windows)
    black = [next(g for g in r.bias[0].groups if g.value == "black") for r in reports]
    assert [(g.state, g.breach_pending) for g in black] == [("watch", True), ("breach", False)]
    assert (reports[1].state, "bias/race/black" in state.alarms) == ("breach", True)
    assert "compliant" not in json.dumps(reports[1].to_json()).lower()


def test_group_counts_roll_over_ten_thousand_decisions():
    """Bias forgets a window after twenty later ones of 500; small ones are put together."""
    window = drawn(5)
    (*_, report), state = run([window] * 25)
    assert (len(state.blocks), report.bias[0].decisions) == (20, 10_000)
    (*_, report), state = run([drawn(5, n=100)] * 25)
    assert (len(state.blocks), report.bias[0].decisions) == (5, 2_500)
    assert SeriesState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_a_model_without_a_reference_score_is_judged_by_its_inputs():
    """Score and outcome say `no_reference` and do not keep the window from being ok."""
    rows = columns(np.random.default_rng(1), 5000)
    bare = Reference.of(CARD, rows, None, "d" * 64)
    report, _ = judge(drawn(5), bare, CARD, SETTINGS, SeriesState())
    assert (report.score.state, report.outcome.state, report.state) == (
        "no_reference",
        "no_reference",
        "ok",
    )


def test_a_reference_without_a_used_feature_is_refused():
    """The error names the column; an unused one may be absent."""
    rows = columns(np.random.default_rng(1), 100)
    del rows["ccs"]
    with pytest.raises(ValueError, match="no column for ccs"):
        Reference.of(CARD, rows, None, "d" * 64)


def test_an_empty_window_is_refused():
    """There is nothing to judge in no decisions."""
    with pytest.raises(ValueError, match="nothing to judge"):
        judge(Window("m", "v", "a"), REFERENCE, CARD, SETTINGS, SeriesState())


def test_nothing_a_caller_sent_is_repeated():
    """An unknown category and a string for a number reach the report as counts only."""
    window = drawn(5)
    window.decisions[0] = replace(window.decisions[0], values=("Jane", 2, "Doe", "Roe"))
    (report,), state = run([window])
    told = json.dumps([report.to_json(), state.to_json()])
    assert [name for name in ("Jane", "Doe", "Roe") if name in told] == []
    assert feature(report, "lvr").quality[0].kind == "wrong_type"


values = st.tuples(
    st.one_of(st.none(), st.floats(-10, 10), st.text(max_size=1)),
    st.one_of(st.none(), st.integers(0, 7)),
    st.sampled_from(["no", "yes", "?", None]),
    st.sampled_from(["a", None]),
)
decisions = st.lists(
    st.builds(
        Decision,
        leaf=st.integers(0, 9),
        at=st.integers(0, 9),
        id=st.just("id"),
        score=st.one_of(st.none(), st.floats(0, 1)),
        outcome=st.sampled_from(["approve", "deny", None]),
        values=values,
        groups=st.dictionaries(st.just("race"), st.sampled_from(["black", "white"])),
    ),
    min_size=1,
    max_size=30,
)
SMALL = WindowSettings(count=30, at_most_ns=10, minimum=5, groups=("race",))


@settings(max_examples=60, deadline=None)
@given(decisions, st.randoms(use_true_random=False))
def test_order_within_a_window_changes_nothing(rows, dice):
    """Reports differ in the first and last names only, states not at all; JSON keeps both whole."""
    before = SeriesState(running={"feature/lvr": 1, "score": 2}, alarms=("score",))
    ordered = sorted(rows, key=lambda row: row.at)[:1] + rows
    shuffled = [ordered[0], *dice.sample(rows, len(rows))]
    pair = []
    for order in (ordered, shuffled, ordered):
        window = Window("m", "v", "a")
        window.decisions = order
        pair.append(judge(window, REFERENCE, CARD, SMALL, before))
    (one, after), (two, same), (again, _) = pair
    assert after == same == SeriesState.from_json(json.loads(json.dumps(after.to_json())))
    assert one.to_json() == again.to_json()
    assert replace(one, last_leaf=0) == replace(two, last_leaf=0)
    assert json.loads(json.dumps(one.to_json(), allow_nan=False)) == one.to_json()


@pytest.mark.timeout(900)
def test_false_alarms_are_rare():
    """2,000 windows without drift, over 20 references: few look odd, at most two alarm."""
    odd = alarms = 0
    for seed in range(20):
        sample = reference(seed + 100, n=2500)
        dice = np.random.default_rng(seed)
        pool = window_of(columns(dice, 15_000), dice.random(15_000)).decisions
        state = SeriesState()
        for start in range(0, 15_000, 150):
            window = Window("m", "v", "a")
            window.decisions = pool[start : start + 150]
            report, state = judge(window, sample, CARD, SETTINGS, state)
            drifts = [f.drift for f in report.features] + [report.score.drift, report.outcome.drift]
            odd += any(drift.significant for drift in drifts)
            alarms += len(report.opened)
    assert 3 <= odd <= 40
    assert alarms <= 2
