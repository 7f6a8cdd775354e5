"""Which endpoint is asked, left out, asked again: pure decisions."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.balance import least_request
from gateway.dataplane.ejection import Ejection, Health, may_eject
from gateway.dataplane.limits import Load, divided
from gateway.dataplane.retry import Typical, backoff, budget, cause, retry_after_s, wait_s
from gateway.settings import Overload

POLICY = {"attempts": 2, "on": ("connect", "503"), "budget": 200_000, "at_least": 3}


@given(st.lists(st.integers(0, 100), min_size=1, max_size=9), st.integers(0, 1 << 30))
def test_the_busiest_alone_is_never_chosen(loads: list[int], draw: int) -> None:
    """Of two that are drawn the freer one wins, so the busiest one loses unless it has an equal."""
    chosen = least_request(loads, draw)
    assert 0 <= chosen < len(loads)
    if len(loads) > 1 and loads.count(max(loads)) == 1:
        assert loads[chosen] < max(loads)


def test_equals_are_chosen_equally() -> None:
    """Over all draws each endpoint gets its part."""
    found = Counter(least_request([4] * 5, draw) for draw in range(20))
    assert found == dict.fromkeys(range(5), 4)


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 1_000_000))
def test_the_last_one_is_never_left_out(endpoints: int, ejected: int, share: int) -> None:
    """Whatever the share: somebody is left, and no more than the share is out."""
    if may_eject(endpoints, ejected, share):
        assert ejected + 1 < endpoints
        assert (ejected + 1) / endpoints <= share / 1_000_000


def test_ejections_grow_and_are_forgotten() -> None:
    """Five failures in a row; 10 s, 20 s, ... up to the longest; a quiet time takes one back."""
    one = Ejection(5, 10, 35)
    assert [one.failed("failure") for _ in range(5)] == [False] * 4 + [True]
    now, lengths = 100.0, []
    for _ in range(5):
        one.eject(now, 0.0)
        lengths.append(one.until - now)
        assert one.is_out(one.until - 0.1)
        assert not one.is_out(one.until)
        now = one.until
    assert lengths == [10, 20, 30, 35, 35]
    one.eject(now + 1000, 1.0)
    assert one.count == 5
    assert one.until - now - 1000 == 38.5
    one.reprieve()
    assert not one.is_out(now)


@given(st.lists(st.sampled_from(["status", "failure", "good"]), max_size=60))
def test_only_failures_in_a_row_count(events: list[str]) -> None:
    """A success, or an answer between two failures to answer, begins the row anew."""
    one, row = Ejection(5, 10, 300), {"status": 0, "failure": 0}
    for event in events:
        if event == "good":
            one.succeeded()
            row = {"status": 0, "failure": 0}
            continue
        if event == "status":
            row["failure"] = 0
        row[event] += 1
        assert one.failed(event) == (row[event] >= 5)  # type: ignore[arg-type]


def test_checks_need_a_row() -> None:
    """Out after three failures in a row, well again after two successes in a row."""
    one = Health(down=3, up=2)
    told = []
    for mark in "001000101100011":
        one.note(mark == "1")
        told.append("1" if one.well else "0")
    assert "".join(told) == "111110000111001"


@given(st.integers(1, 5), st.floats(0, 0.999999))
def test_backoff_is_spread_and_bounded(number: int, draw: float) -> None:
    """[0, (2^n - 1) * 25 ms), never over 250 ms."""
    assert 0 <= backoff(number, draw) <= min((2**number - 1) * 0.025, 0.25)


def test_a_retry_has_a_cause_a_number_and_time() -> None:
    """Only what `on` names, only so often, only while an ordinary answer still fits."""
    assert cause("upstream_connect_failed", "connect") == "connect"
    assert cause("upstream_timeout", "connect") == "connect"
    assert cause("upstream_reset", "reused_closed") == "reused"
    for code, phase in (("upstream_reset", "head"), ("upstream_reset", "body"),
                        ("upstream_timeout", "first_byte"), ("upstream_timeout", "request"),
                        ("upstream_protocol_error", "head")):  # fmt: skip
        assert cause(code, phase) is None
    assert wait_s(POLICY, "connect", 1, 5.0, 0.1, 0.0, 0.5) == 0.0125
    assert wait_s(POLICY, "reused", 1, 5.0, 0.1, 0.0, 0.5) is None
    assert wait_s(POLICY, None, 1, 5.0, 0.1, 0.0, 0.5) is None
    assert wait_s(POLICY, "503", 3, 5.0, 0.1, 0.0, 0.5) is None
    assert wait_s(POLICY, "503", 1, 0.1, 0.1, 0.0, 0.5) is None
    assert wait_s(POLICY, "503", 1, 5.0, 0.1, 2.0, 0.5) == 2.0
    assert wait_s(POLICY, "503", 1, 5.0, 0.1, 6.0, 0.5) is None
    assert [retry_after_s(value) for value in (None, b"3", b"0")] == [0, 3, 0]
    assert retry_after_s(b"Wed, 21 Oct 2026 07:28:00 GMT") == float("inf")
    assert [budget(POLICY, n) for n in (0, 10, 15, 20, 100)] == [3, 3, 3, 4, 20]


def test_the_typical_time_is_the_median() -> None:
    """Nine in ten answers of 10 ms and one of 1 s: the typical one is near 10 ms."""
    typical = Typical()
    for number in range(1000):
        typical.note(1.0 if number % 10 == 0 else 0.01)
    assert 0.008 < typical.value < 0.015


def test_who_is_shed_when() -> None:
    """By class at 100, 90, 70 and 50 % of one worker's share; shares are never below one."""
    load = Load(Overload(in_flight=200), 2)
    assert load.thresholds == {"critical": 100, "default": 90, "batch": 70, "shadow": 50}
    load.in_flight = 91
    assert [load.sheds(name) for name in load.thresholds] == [False, True, True, True]
    tiny = Load(Overload(in_flight=1), 8)
    assert set(tiny.thresholds.values()) == {1}
    assert [divided(n, 3) for n in (0, 1, 3, 4)] == [0, 1, 1, 2]


@given(st.lists(st.integers(0, 1 << 20)))
def test_bodies_have_room_or_not(sizes: list[int]) -> None:
    """What is held never exceeds the room."""
    load = Load(Overload(bodies="1MiB"), 1)  # type: ignore[arg-type]
    for size in sizes:
        load.hold(size)
        assert load.held_bytes <= 1 << 20
