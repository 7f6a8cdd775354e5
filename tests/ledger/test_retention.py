"""Retention: exactly what is old enough and not held, and the keys that only it used."""

import shutil
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import DAYS, World, killed_at, parts_of, populate

from gateway.ledger.bodies import body_files
from gateway.ledger.holds import HeldExchange, Hold
from gateway.ledger.keyfiles import Erased
from gateway.ledger.retention import (
    Log,
    day_end,
    drop_bodies,
    drop_log,
    due,
    quarter_end,
    sweep,
    unused,
)  # fmt: skip

DAY_S = 86400.0
MODELS = st.sampled_from(["mortgage", "credit-card", "-", "old"])
DATES = st.dates(date(2025, 1, 1), date(2027, 12, 31))
FILES = st.builds("{}/{}".format, MODELS, DATES)
LOGS = st.builds(
    lambda model, year, number, closed: Log(model, f"{year}q{number}", closed),
    MODELS, st.integers(2024, 2027), st.integers(1, 4), st.booleans(),
)  # fmt: skip
HELD = st.builds(HeldExchange, st.just("x"), FILES, st.just((1,)))
HOLDS = st.one_of(
    st.builds(Hold, st.uuids().map(str), st.just("r"), st.just("b"), st.just(1), MODELS),
    st.builds(
        lambda id, held: Hold(id, "r", "b", 1, exchanges=tuple(held)),
        st.uuids().map(str), st.lists(HELD, min_size=1, max_size=3),
    ),
)  # fmt: skip


def nanoseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1e9)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(LOGS, max_size=8, unique=True),
    st.lists(FILES, max_size=8, unique=True),
    st.lists(HOLDS, max_size=3),
    DATES,
    st.dictionaries(MODELS, st.integers(0, 700), max_size=4),
)
def test_due_is_what_is_old_closed_known_and_not_held(logs, bodies, holds, today, days):
    """Against the rule said in plain words, for any files, logs, holds and retentions."""
    now, retention = nanoseconds(today), {model: count * DAY_S for model, count in days.items()}
    found = due(logs, bodies, holds, now, retention)

    for file in bodies:
        model, _, day = file.partition("/")
        age = today - date.fromisoformat(day) - timedelta(days=1)
        old = model in days and age >= timedelta(days=days[model])
        held = any(
            hold.model == model or file in [e.file for e in hold.exchanges] for hold in holds
        )
        assert (file in found.bodies) == (old and not held)
        assert (file in found.held) == (old and held)
    for log in logs:
        end = quarter_end(log.quarter)
        old = log.model in days and today - end >= timedelta(days=days[log.model])
        if log in found.logs:
            assert old
            assert log.closed
            assert not any(hold.model == log.model for hold in holds)
            kept = [e.file for hold in holds for e in hold.exchanges]
            assert not any(f"{log.model}/{end - timedelta(days=1)}" == file for file in kept)
        elif old and log.closed:
            assert any(log.model in hold.models() for hold in holds)
            assert log.name in found.held
    assert not set(found.unknown) & set(days)


@settings(max_examples=100, deadline=None)
@given(st.lists(FILES, max_size=8, unique=True), HOLDS, DATES)
def test_a_hold_only_ever_keeps_more(bodies, hold, today):
    """With a hold more, nothing is due that was not; its release gives the same back."""
    retention = dict.fromkeys(["mortgage", "credit-card", "-", "old"], 30 * DAY_S)
    without = due([], bodies, [], nanoseconds(today), retention)
    held = due([], bodies, [hold], nanoseconds(today), retention)

    assert set(held.bodies) <= set(without.bodies)
    assert set(without.bodies) == set(held.bodies) | set(held.held)


def test_ends_of_days_and_quarters():
    """Years and quarters turn; what is no quarter is refused."""
    assert date(2027, 1, 1) == day_end("2026-12-31")
    ends = [quarter_end(f"2026q{number}") for number in (1, 2, 3, 4)]
    assert [date(2026, 4, 1), date(2026, 7, 1), date(2026, 10, 1), date(2027, 1, 1)] == ends
    for wrong in ("2026q5", "2026", "q1", "2026q"):
        with pytest.raises(ValueError, match=r"quarter|invalid literal"):
            quarter_end(wrong)


DROPPED = [f"mortgage/{DAYS[0]}", f"credit-card/{DAYS[0]}"]


def test_a_kill_while_a_day_is_dropped_is_completed_by_the_next_look(tmp_path):
    """Files go with the keys that only they used, whatever is killed between; others stay."""
    told = populate(tmp_path / "seed")
    world = World(tmp_path / "seed")
    world.append("once", ["carl"], day=DAYS[0])
    world.commit()
    assert world.subjects.token("carl") is not None
    used = {n for w, p in told.values() for n in world.reader.numbers(p.to_json())}
    assert {1, 2, 3, 4, 5, 6} == used
    own = [world.reader.numbers(p.to_json())[0] for w, p in told.values()
           if not w and p.file in DROPPED]  # fmt: skip
    carl = world.subjects.token("carl")
    assert sorted([*own, carl]) == sorted(
        n for some in unused(world.state, DROPPED, 4) for n in some
    )
    world.close()
    kills = 0
    while True:
        folder = tmp_path / str(kills)
        shutil.copytree(tmp_path / "seed", folder)

        def act(watch, folder=folder):
            world = World(folder)
            watch(world.subjects)
            drop_bodies(world.state, world.subjects, DROPPED)

        killed = killed_at(kills, act)
        world = World(folder)
        again = [file for file in DROPPED if file in body_files(world.state)]
        drop_bodies(world.state, world.subjects, again)
        for number in own:
            with pytest.raises(Erased):
                world.subjects.secret([number])
        assert world.subjects.token("carl") is None
        assert (1, 2) == (world.subjects.token("annalee"), world.subjects.token("bob"))
        assert [] == [file for file in DROPPED if file in body_files(world.state)]
        for identity, (who, place) in told.items():
            if place.file not in DROPPED:
                assert parts_of(*who) == world.read(identity, place)
        world.close()
        shutil.rmtree(folder)
        if not killed:
            break
        kills += 1
    assert kills > 15


def test_a_log_is_dropped_whole_whatever_is_killed(tmp_path):
    """After a kill at any write readers find all of a log or nothing, and a sweep ends it."""
    kills = 0
    while True:
        models = tmp_path / str(kills)
        log = models / "mortgage" / "2026q3"
        (log / "tile").mkdir(parents=True)
        (log / "checkpoint").write_text("c")
        (log / "tile" / "0").write_text("t")
        killed = killed_at(kills, lambda watch, log=log: drop_log(log))
        assert not log.exists() or (log / "tile" / "0").exists()
        if log.exists():
            drop_log(log)
        sweep(models)
        assert [] == list((models / "mortgage").iterdir())
        if not killed:
            break
        kills += 1
    assert kills >= 2
