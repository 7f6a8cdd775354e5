"""A rollback reaches every worker: what the measuring command says, and that it is so."""

from __future__ import annotations

import asyncio

import pytest

from load import rollback

BLOCK = {"rollout": "bad", "number": 7, "ended": 10_000}
MOVE = {"move": "roll_back", "block": 7, "at": 10_300}


def exchange(source: str, revision: str, at: int, arm: str = "canary") -> dict:
    record = {"revision": revision, "at": at, "arm": arm}
    return {"kind": "exchange", "source": source, "record": record}


def leaves(*exchanges: dict) -> list[dict]:
    later = {"kind": "evidence", "record": {"block": BLOCK | {"number": 8, "ended": 20_000}}}
    return [
        *exchanges, {"kind": "evidence", "record": {"block": BLOCK}}, later,
        {"kind": "rollout", "record": MOVE},
    ]  # fmt: skip


OLD = [exchange("0.a", "r1", 9_000), exchange("1.b", "r1", 10_400, "stable"),
       exchange("1.b", "r1", 9_500)]  # fmt: skip


def test_the_last_worker_counts():
    """From the end of the block that proved it, to the slowest worker's first exchange by another
    table; the last exchange of the candidate; the decision."""
    new = [exchange("0.a", "r2", 10_350, "stable"), exchange("1.b", "r2", 10_600, "stable")]
    told = rollback.measured("limit", leaves(*OLD, *new))
    assert told is not None
    seconds = told.decided, told.canary, told.exposed, told.exchange
    assert [round(value * 1e9) for value in seconds] == [300, -500, 400, 600]


@pytest.mark.parametrize(
    "new",
    [
        [exchange("0.a", "r2", 10_350, "stable")],  # one worker never swapped, or was not asked
        [exchange("0.a", "r2", 10_350), exchange("1.b", "r2", 10_600)],  # the candidate is there
    ],
)
def test_a_worker_that_was_not_reached_is_no_figure(new):
    """It is left out and told, rather than taken for a fast one."""
    assert rollback.measured("limit", leaves(*OLD, *new)) is None


@pytest.mark.timeout(600)
def test_every_worker_is_reached(tmp_path):
    """A real gateway with two workers: by a hard limit and by a guard's evidence, both stop."""
    found = asyncio.run(rollback.measure(2, tmp_path))
    assert [one.way for one in found] == ["limit", "guard"]
    assert all(one.decided < one.exchange for one in found)
