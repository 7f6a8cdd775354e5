"""Exchanges that end at any moment, by our side or the other: no slot lost, no answer mixed up."""

from __future__ import annotations

import asyncio
import functools

import pytest
from origins import LOOPS, Line, Origin, Run, ask, origin, pool_for, run_in

from gateway.dataplane.failures import UpstreamError
from gateway.dataplane.limits import PoolLimits
from gateway.dataplane.upstream import Pool


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in the loop named."""
    return functools.partial(run_in, request.param)


def state(pool: Pool) -> str:
    return repr(pool).partition(" [")[2].removesuffix("]>")


@pytest.mark.parametrize("steps", range(24))
def test_cancelled_at_any_await_nothing_leaks(run: Run, steps: int) -> None:
    """Cancelled after any number of loop turns, with or without others waiting, an exchange frees
    its slot, and the requests after it get their own answers."""

    async def dripping(seen: Origin, line: Line) -> None:
        while (request := await line.request()) is not None:
            target = request.head.split(b" ")[1]
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target)
            await line.write(head + target, 7)

    async def main() -> None:
        async with origin(dripping) as seen:
            for warm in (False, True):
                pool = pool_for(seen, PoolLimits(connections=1))
                if warm:
                    await ask(pool, b"/warm")
                for cancelled in range(3):
                    tasks = [asyncio.ensure_future(ask(pool, b"/%d" % n)) for n in range(3)]
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    tasks[cancelled].cancel()
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    for number, result in enumerate(results):
                        cut = number == cancelled and isinstance(result, asyncio.CancelledError)
                        assert cut or result == b"/%d" % number
                    assert state(pool).startswith("0 busy")
                    assert await ask(pool, b"/after") == b"/after"
                await pool.aclose()

    run(main())


def test_connections_come_and_go_in_any_order(run: Run) -> None:
    """Many clients, few connections, an origin that cuts at will: each outcome is the right answer
    or an UpstreamError, and no slot is lost."""

    async def whimsical(seen: Origin, line: Line) -> None:
        while (request := await line.request()) is not None:
            number = int(request.head.split(b" ")[1][1:])
            body = b"%d" % number
            data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            await line.write(data[: len(data) - (number % 7 == 0)] + b"!!" * (number % 11 == 0))
            if number % 5 == 0:
                (line.reset if number % 2 else line.close)()

    async def main() -> None:
        async with origin(whimsical) as seen:
            pool = pool_for(seen, PoolLimits(connections=5, pending=100), idle_s=0.05)
            right = 0
            seen_codes: set[str] = set()

            async def client(number: int) -> None:
                nonlocal right
                try:
                    assert await ask(pool, b"/%d" % number) == b"%d" % number
                    right += 1
                except UpstreamError as error:
                    seen_codes.add(error.code)

            for batch in range(1, 301, 60):
                await asyncio.gather(*(client(batch + number) for number in range(60)))
            assert right > 150
            assert seen_codes <= {"upstream_reset", "upstream_protocol_error", "upstream_timeout"}
            assert state(pool).startswith("0 busy")
            await pool.aclose()
            assert state(pool) == "0 busy, 0 idle, 0 pending"

    run(main())
