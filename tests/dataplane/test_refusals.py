"""Strangers' refusals: recorded one by one, and above ten a second together."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from world import World, applicants, request, running, soon, until

from gateway.dataplane.refusals import EACH_A_SECOND, Refusals

SECOND = 1_000_000_000
CODES = st.sampled_from(["unauthorised", "unknown_path", "bad_request"])


def test_ten_a_second_and_code_have_a_record_of_their_own() -> None:
    """The eleventh has none; another code and another second begin anew."""
    refusals = Refusals()
    assert [refusals.admit("a", SECOND) for _ in range(12)] == [True] * 10 + [False] * 2
    assert refusals.admit("b", SECOND)
    assert refusals.due(SECOND + 1) == {}
    assert refusals.due(2 * SECOND) == {"a": 2}
    assert refusals.due(3 * SECOND) == {}
    assert refusals.admit("a", 3 * SECOND)


@given(st.lists(st.tuples(CODES, st.integers(0, 300_000_000), st.booleans()), max_size=200))
def test_every_refusal_is_recorded_or_counted_once(
    steps: list[tuple[str, int, bool]],
) -> None:
    """Own records and coalesced counts sum to what happened, whenever one looks."""
    refusals, now = Refusals(), SECOND
    happened, recorded = Counter[str](), Counter[str]()
    for code, passed, looks in steps:
        now += passed
        happened[code] += 1
        recorded[code] += refusals.admit(code, now)
        if looks:
            recorded.update(refusals.due(now))
    recorded.update(refusals.due(now + 2 * SECOND))
    assert recorded == happened


async def _storm(world: World, code: str, sent: bytes, count: int) -> None:
    def told() -> list[int]:
        return [
            record.header.get("count", 1)
            for record in world.records()
            if record.header.get("error") == code
        ]

    before = sum(told())
    for _ in range(count):
        client = await world.connect()
        await client.say(sent)
        assert (await soon(client.answer())).error == code
        client.leave()
    await until(lambda: sum(told()) == before + count)
    assert len(told()) < count / 2
    assert world.count("headworks_refusals", code=code) == count


def test_strangers_cannot_fill_the_disk(tmp_path: Path) -> None:
    """Many refusals make few records and none is uncounted; a known caller has his own."""
    with running(tmp_path) as world:
        world.run(_storm(world, "unauthorised", request(applicants(), key=None), 120))
        world.run(_storm(world, "bad_request", b"nonsense\r\n\r\n", 120))
        world.run(_storm(world, "unknown_path", request(target=b"/x"), 120))

        async def known() -> None:
            before = len([t for t in world.records() if t.header.get("error") == "bad_body"])
            replies = await asyncio.gather(*(world.ask(b"{") for _ in range(4 * EACH_A_SECOND)))
            for reply in replies:
                await world.record_of(reply)
            after = len([t for t in world.records() if t.header.get("error") == "bad_body"])
            assert after - before == 4 * EACH_A_SECOND

        world.run(known())
