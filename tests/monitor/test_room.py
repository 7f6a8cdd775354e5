"""Who goes when there is no room left for a series, of windows, pairs and labels alike."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import outcomeblocks
from gateway.monitor.outcomeblocks import OutcomeBlocks
from gateway.monitor.room import IDLE_NS, Room

CALLS = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.integers(0, IDLE_NS)), min_size=1, max_size=60
)


@given(CALLS, st.integers(1, 4), st.integers(0, 59))
def test_the_idlest_goes_and_no_busy_one(calls: list[tuple[str, int]], most: int, at: int) -> None:
    """Never more than there is room for; who goes was silent for an hour, and longer than all that
    stay; who is refused found none such; a restart anywhere changes nothing."""
    room, now, seen = Room("windows", most, {}), 0, {}
    for place, (name, later) in enumerate(calls):
        if place == at:
            room = Room("windows", most, {one: {"seen": when} for one, when in seen.items()})
        now += later
        entered, gone = room.enter(name, now)
        if gone is not None:
            assert (name in seen, now - seen[gone] >= IDLE_NS) == (False, True)
            assert seen[gone] == min(seen.values())
            del seen[gone]
        if entered:
            seen[name] = now
        else:
            assert len(seen) == most
            assert now - min(seen.values()) < IDLE_NS
        assert len(seen) <= most


def test_labels_of_a_version_that_is_gone_make_room(monkeypatch) -> None:
    """After an hour without labels; numbers go on; what is kept says so after a restart."""
    monkeypatch.setattr(outcomeblocks, "SERIES_MAX", 1)
    monkeypatch.setattr(outcomeblocks, "LABELS", 2)

    def told(version: str, n: int) -> dict[str, list[list[object]]]:
        return {"m": [[version, "stable", "2026-11-27", "race", "x", 1, 1, n, 0.5]]}

    blocks = OutcomeBlocks({})
    list(blocks.take(told("v1", 2), {"at": 0}))
    list(blocks.take(told("v2", 1), {"at": IDLE_NS - 1}))
    assert (list(blocks.to_json()), blocks.room.refused) == (["m/v1/stable"], 1)
    blocks = OutcomeBlocks(orjson.loads(orjson.dumps(blocks.to_json())))
    list(blocks.take(told("v2", 1), {"at": IDLE_NS}))
    kept = blocks.to_json()
    assert (sorted(kept), kept["let_go"], kept["m/v2/stable"]["number"]) == (
        ["let_go", "m/v2/stable"], 1, 1,
    )  # fmt: skip
