"""Alerts: one object a cause, told once, calm before it is over."""

from __future__ import annotations

from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.alert import (
    CALM_WINDOWS,
    COOL_DOWN_NS,
    SILENT_NS,
    Alert,
    Sighting,
    acknowledge,
    fall_silent,
    is_sent,
    mute,
    see,
)

HOUR = 3600 * 10**9


def sighting(at: int, raised: bool | None, arm: str = "stable", severity="warning") -> Sighting:
    return Sighting("m", "v1", arm, "score", f"m/v1/{arm}/{at}", at, raised, severity)


def run(*seen: Sighting) -> tuple[Alert | None, list[str]]:
    alert, events = None, []
    for one in seen:
        alert, event = see(alert, one)
        events += [event] if event else []
    return alert, events


def test_many_windows_of_one_cause_are_one_alert():
    """Ten windows and two arms: one opening, one object."""
    alert, events = run(*(sighting(at, True, arm) for at in range(5) for arm in ("a", "b")))
    assert events == ["opened"]
    assert (alert.windows, alert.raising, alert.number) == (10, ("a", "b"), 1)


def test_a_window_that_raises_it_several_times_is_one():
    """A detector confirms again and again within a window: the alert counts windows."""
    seen = [
        replace(sighting(at, True), window=f"m/v1/stable/{at // 4}",
                evidence={"window": f"m/v1/stable/{at // 4}"})
        for at in range(8)
    ]  # fmt: skip
    alert, events = run(*seen)
    assert (events, alert.windows) == (["opened"], 2)


def test_it_is_over_after_two_calm_windows_of_every_arm_that_raised_it():
    """One calm window is not enough, nor the calm of one arm, nor that of an arm without it."""
    calm = [sighting(at, False, "b") for at in range(2, 9)]
    _, events = run(sighting(1, True, "a"), *calm)
    assert events == ["opened"]
    alert, events = run(sighting(1, True, "a"), sighting(2, True, "b"), sighting(3, False, "a"),
                        sighting(4, False, "b"), sighting(5, False, "b"),
                        sighting(6, False, "c"), sighting(7, False, "a"))  # fmt: skip
    assert events == ["opened", "resolved"]
    assert (alert.state, alert.resolved_at) == ("resolved", 7)
    assert CALM_WINDOWS == 2


def test_an_arm_that_never_raised_it_does_not_calm_it():
    """The canary drifted and had one calm window; ten of stable's say nothing about the canary."""
    begun = [sighting(1, True, "canary"), sighting(2, False, "canary")]
    others = [sighting(at, False, "stable") for at in range(3, 13)]
    assert run(*begun, *others)[1] == ["opened"]
    again = [sighting(13, True, "canary"), sighting(14, False, "canary")]
    assert run(*begun, *again, *others)[1] == ["opened"]
    assert run(*begun, *others, sighting(13, False, "canary"))[1] == ["opened", "resolved"]


def test_alerts_of_a_former_release_are_read():
    """`calm` was one number: what it counted is not known by arm, and is counted anew."""
    alert, _ = run(sighting(1, True))
    read = Alert.from_json(alert.to_json() | {"calm": 1})
    assert (read.state, read.raising, read.calm) == ("open", ("stable",), {})


def test_a_window_that_cannot_judge_says_nothing():
    """It does not count as calm, and opens nothing."""
    alert, events = run(sighting(0, None), sighting(1, True), *[sighting(2, None)] * 5)
    assert (alert.state, events) == ("open", ["opened"])


def test_what_flaps_is_told_once_and_what_comes_back_late_anew():
    """Within the cool-down the same alert reopens and nobody is told; after it a new number."""
    calm = [sighting(2, False), sighting(3, False)]
    alert, events = run(sighting(1, True), *calm, sighting(COOL_DOWN_NS, True))
    assert (events[-1], alert.number, alert.opened_at) == ("reopened", 1, 1)
    assert not is_sent("reopened", alert, 4)
    alert, events = run(sighting(1, True), *calm, sighting(COOL_DOWN_NS + 4, True))
    assert (events[-1], alert.number) == ("opened", 2)


def test_the_greater_one_is_told_to_who_acknowledged_the_lesser():
    """Acknowledged, then critical: open again, and told; not told a second time."""
    alert, _ = run(sighting(1, True))
    alert, event = acknowledge(alert, "ana")
    assert (alert.state, event, acknowledge(alert, "bo")[1]) == ("acknowledged", "acknowledged",
                                                                None)  # fmt: skip
    alert, event = see(alert, sighting(2, True))
    assert (alert.state, event) == ("acknowledged", None)
    alert, event = see(alert, sighting(3, True, severity="critical"))
    assert (alert.state, event, alert.acknowledged_by) == ("open", "escalated", None)
    assert see(alert, sighting(4, True, severity="critical"))[1] is None


def test_muting_holds_back_and_ends_with_a_reminder():
    """Nothing is sent until it expires; then, if it is still raised, it is told."""
    alert, _ = run(sighting(1, True))
    alert, _ = mute(alert, "ana", 10, "known")
    alert, event = see(alert, sighting(5, True, severity="critical"))
    assert (event, is_sent(event, alert, 5)) == ("escalated", False)
    alert, event = see(alert, sighting(11, True))
    assert (event, is_sent(event, alert, 11), alert.muted_until) == ("reminded", True, None)
    alert, event = mute(alert, "ana", COOL_DOWN_NS * 9, "known")
    for at in (12, 13):
        alert, _ = see(alert, sighting(at, False))
    alert, event = see(alert, sighting(COOL_DOWN_NS * 3, True))
    assert (event, alert.number, is_sent(event, alert, COOL_DOWN_NS * 3)) == ("opened", 2, False)


def test_what_came_back_quietly_and_stays_is_told():
    """Its end was the last that anybody heard: an hour after that, if it is raised, they hear so;
    if it ended again before, nobody is told a second time."""
    begun = [sighting(1, True), sighting(2, False), sighting(3, False), sighting(4, True)]
    alert, _ = run(*begun)
    assert see(alert, sighting(3 + COOL_DOWN_NS, True))[1] is None
    after, event = see(alert, sighting(4 + COOL_DOWN_NS, True))
    assert (event, is_sent(event, after, 4 + COOL_DOWN_NS)) == ("reminded", True)
    assert see(after, sighting(5 + COOL_DOWN_NS, True))[1] is None
    seen, _ = acknowledge(alert, "ana")
    assert see(seen, sighting(4 + COOL_DOWN_NS, True))[1] is None
    over, events = run(*begun, sighting(5, False), sighting(6, False))
    assert (events[-1], is_sent("resolved", over, 6)) == ("resolved", False)
    assert see(over, sighting(4 + COOL_DOWN_NS, True))[1] == "reminded"


def test_what_ended_and_came_back_while_muted_is_told_when_the_muting_ends():
    """Nobody heard of its end, so its coming back is no flapping to them."""
    alert, _ = run(sighting(1, True))
    alert, _ = mute(alert, "ana", 10, "known")
    for at in (2, 3):
        alert, _ = see(alert, sighting(at, False))
    after, event = see(alert, sighting(11, True))
    assert (after.state, event, is_sent(event, after, 11)) == ("open", "reminded", True)


def test_an_arm_without_traffic_does_not_alarm_for_ever():
    """After a day in which no window spoke of it."""
    alert, _ = run(sighting(1, True))
    assert fall_silent(alert, SILENT_NS)[1] is None
    alert, event = fall_silent(alert, SILENT_NS + 2)
    assert (alert.state, event) == ("resolved", "resolved")


steps = st.lists(
    st.tuples(st.integers(0, COOL_DOWN_NS), st.sampled_from([True, False, None]),
              st.sampled_from("ab"), st.sampled_from(["warning", "critical"])),
    max_size=40,
)  # fmt: skip


@given(steps, st.lists(st.integers(0, 3 * COOL_DOWN_NS), max_size=40))
def test_what_was_told_last_is_so_but_for_an_hour(windows, mutings):
    """Whatever comes: an end is not told twice, and while it is raised, not muted, and people
    believe that it is over, they heard so within the cool-down."""
    alert, at, told, told_at = None, 0, None, 0
    for place, (wait, raised, arm, severity) in enumerate(windows):
        at += wait
        if alert is not None and alert.state != "resolved" and place < len(mutings):
            alert, _ = mute(alert, "ana", at + mutings[place] - COOL_DOWN_NS, "known")
        alert, event = see(alert, sighting(at, raised, arm, severity))
        if event is not None and is_sent(event, alert, at):
            assert (event, told) != ("resolved", "over")
            told, told_at = "over" if event == "resolved" else "raised", at
        if raised and not alert.is_muted(at):
            assert told == "raised" or at - told_at <= COOL_DOWN_NS


@given(steps)
def test_events_make_sense_in_any_order_of_windows(windows):
    """Openings and resolutions take turns; severity of an alert never falls; JSON keeps all."""
    alert, at, live = None, 0, False
    for wait, raised, arm, severity in windows:
        at += wait
        before = alert
        alert, event = see(alert, sighting(at, raised, arm, severity))
        if event in ("opened", "reopened") or (
            event in ("escalated", "reminded") and before.state == "resolved"
        ):
            assert not live
            live = True
        if event == "resolved":
            assert live
            live = False
        if alert is not None:
            assert (alert.state != "resolved") == live
            assert Alert.from_json(orjson.loads(orjson.dumps(alert.to_json()))) == replace(
                alert, evidence={}
            )
            if before is not None and before.number == alert.number:
                assert not (before.severity == "critical" and alert.severity == "warning")
