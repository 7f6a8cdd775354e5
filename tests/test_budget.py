"""The ladder of a filling disk: which rung, when it is full, and a reserve on a real one."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budget import (
    AMPLE,
    DAY_S,
    Reserve,
    Room,
    Rung,
    bytes_a_day,
    days_left,
    measure,
    read_rung,
    rung_of,
    write_rungs,
)
from gateway.clock import SystemClock
from gateway.settings import Disk
from gateway.stores import Stores
from gateway.telemetry.metrics import Metrics

GIB = 1024**3
RESERVE = 64 * 1024**2


@pytest.mark.parametrize(
    ("room", "rung"),
    [
        (Room(0, None, 5 * GIB, 10 * GIB), Rung.FINE),
        (Room(0, None, 2 * GIB, 10 * GIB), Rung.FINE),
        (Room(0, None, 2 * GIB - 1, 10 * GIB), Rung.WARN),
        (Room(0, None, 1 * GIB - 1, 10 * GIB), Rung.SPARE),
        (Room(0, None, RESERVE // 4 - 1, 10 * GIB), Rung.REFUSE),
        (Room(0, None, AMPLE, 10_000 * GIB), Rung.FINE),
        (Room(0, None, AMPLE // 2 - 1, 10_000 * GIB), Rung.SPARE),
        (Room(79, 100, 5 * GIB, 10 * GIB), Rung.FINE),
        (Room(81, 100, 5 * GIB, 10 * GIB), Rung.WARN),
        (Room(91, 100, 5 * GIB, 10 * GIB), Rung.SPARE),
        (Room(100, 100, 5 * GIB, 10 * GIB), Rung.REFUSE),
        (Room(0, 100, RESERVE // 4 - 1, 10 * GIB), Rung.REFUSE),
    ],
)
def test_each_rung_begins_where_it_is_said(room, rung):
    """20 %, 10 %, nothing: of a budget or of the filesystem, whichever is less."""
    assert rung_of(room, RESERVE) is rung


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**12))
def test_less_room_is_never_a_lower_rung(used, free, at_most):
    """More bytes used, or fewer free, only ever climbs."""
    at = rung_of(Room(used, at_most, free, 10**12), RESERVE)

    assert rung_of(Room(used + 1, at_most, free, 10**12), RESERVE) >= at
    assert rung_of(Room(used, at_most, max(0, free - 1), 10**12), RESERVE) >= at


@given(st.floats(1, 1e9), st.integers(2, 50))
def test_steady_growth_is_told_as_it_is(rate, count):
    """A straight line's slope, per day, and from it the days that are left."""
    samples = [(10.0 * number, round(rate * 10 * number)) for number in range(count)]
    growth = bytes_a_day(samples)

    assert growth == pytest.approx(rate * DAY_S, rel=0.1, abs=DAY_S)
    room = Room(0, 10**9, 10**12, 10**12)
    assert days_left(room, growth) == pytest.approx(10**9 / growth)
    assert days_left(room, 0.0) is None
    assert bytes_a_day(samples[:1]) == 0.0


def test_what_workers_are_told_is_the_highest_rung(tmp_path):
    """Nothing told is fine, a torn file is fine, and the highest counts."""
    (tmp_path / "run").mkdir()
    assert read_rung(tmp_path) is Rung.FINE
    write_rungs(tmp_path, {"ledger": Rung.WARN, "bodies": Rung.SPARE})
    assert read_rung(tmp_path) is Rung.SPARE
    (tmp_path / "run" / "disk.json").write_text("{")
    assert read_rung(tmp_path) is Rung.FINE


def test_the_reserve_is_real_room_and_is_given_back(tmp_path):
    """On a filesystem of its own: held it takes room, at the last rung it is free, then held."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(tmp_path)], check=True)
    try:
        reserve = Reserve(tmp_path / "reserve", 1 << 20)
        before = reserve.free_beside()
        reserve.follow(Rung.FINE)
        assert reserve.held == 1 << 20 == measure(tmp_path)
        assert reserve.free_beside() == before
        filler = tmp_path / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(60 << 20))
        assert rung_of(Room(0, None, *reserve.free_beside()), reserve.size) is Rung.REFUSE
        reserve.follow(Rung.REFUSE)
        assert reserve.free_beside()[0] == 0
        (tmp_path / "table").write_bytes(bytes(500_000))  # what the room is for
        with pytest.raises(OSError, match="No space left"):
            reserve.follow(Rung.FINE)
        filler.unlink()
        reserve.follow(Rung.FINE)
        assert reserve.held == 1 << 20
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_growth_seen_for_seconds_is_no_growth_of_a_day(tmp_path):
    """For ten minutes nothing is said of a day, then for how long it was seen."""
    stores = Stores(tmp_path, Disk(reserve="1MiB"), Metrics("supervisor"), SystemClock())
    (tmp_path / "run").mkdir()
    (tmp_path / "ledger").mkdir()
    for at in range(0, 601, 10):
        (tmp_path / "ledger" / str(at)).write_bytes(bytes(8192))
        stores.look(float(at))
        told = stores.to_json()["ledger"]
        assert (told["bytes_a_day"] is None, told["measured_s"]) == (at < 600, at)
        assert told["full_on"] is None or at >= 600
    assert told["bytes_a_day"] == pytest.approx(8192 / 10 * DAY_S, rel=0.01)
