"""One exchange over real sockets, under asyncio and uvloop: framing, closes, timeouts."""

from __future__ import annotations

import asyncio
import functools
import socket

import pytest
from origins import (
    HEADERS,
    LOOPS,
    OK,
    Line,
    Origin,
    Run,
    Serve,
    answering,
    origin,
    pool_for,
    run_in,
    silent,
    stalling,
)

from gateway.dataplane.connection import BUFFER_BYTES, Answer
from gateway.dataplane.failures import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.dataplane.upstream import Pool

CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n...\r\n0\r\nT: t\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\nall of it"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in the loop named."""
    return functools.partial(run_in, request.param)


async def get(pool: Pool, method: bytes = b"GET", body: bytes = b"") -> Answer:
    return await pool.send(method, b"/", HEADERS, body)


async def body_of(pool: Pool, method: bytes = b"GET") -> bytes:
    body = await (await get(pool, method)).read(1 << 20)
    assert body is not None
    return body


async def settled(pool: Pool) -> str:
    """The pool's repr once the loop has seen every close."""
    await asyncio.sleep(0.06)
    return repr(pool).partition(" [")[2]


def exchange_fails(run: Run, serve: Serve, **timeouts: float) -> UpstreamError:
    """The error of one exchange with that origin; nothing of it may stay in the pool."""
    found: list[UpstreamError] = []

    async def main() -> None:
        async with origin(serve) as seen:
            pool = pool_for(seen, **timeouts)
            with pytest.raises(UpstreamError) as caught:
                await body_of(pool)
            found.append(caught.value)
            assert await settled(pool) == "0 busy, 0 idle, 0 pending]>"
            await pool.aclose()

    run(main())
    return found[0]


SPOILED = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "bad chunking": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "a long head": b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 2\r\n\r\nok" % (b"a" * 40_000),
    "many headers": b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"X: a\r\n" * 101),
    "a byte too many": OK + b"!",
    "a line end too many": OK + b"\r\n",
    "a second answer": OK + OK,
    "bytes after chunks": CHUNKS + b"\r\n",
    "a split answer": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_answer_closes_the_connection(run: Run, name: str) -> None:
    """What HTTP/1.1 does not allow is the upstream's protocol error and ends its connection."""
    error = exchange_fails(run, answering(SPOILED[name]))
    assert isinstance(error, UpstreamProtocolError)
    assert error.phase in ("head", "body")


@pytest.mark.parametrize(
    ("answer", "body"), [(OK, b"ok"), (CHUNKS, b"ok..."), (b"HTTP/1.1 100 C\r\n\r\n" + OK, b"ok")]
)
def test_a_clean_answer_leaves_the_connection_for_the_next(
    run: Run, answer: bytes, body: bytes
) -> None:
    """A connection is used again after a complete message, in one segment or byte by byte."""

    async def main() -> None:
        for pieces in (0, 1):
            async with origin(answering(answer, pieces=pieces)) as seen:
                pool = pool_for(seen)
                assert [await body_of(pool) for _ in range(3)] == [body] * 3
                assert (len(seen.lines), pool.stats.reused) == (1, 2)
                await pool.aclose()

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_a_connection_that_the_upstream_ends_is_not_used_again(run: Run, answer: bytes) -> None:
    """Connection: close and HTTP/1.0 are honoured although the origin keeps the socket open."""

    async def main() -> None:
        async with origin(answering(answer)) as seen:
            pool = pool_for(seen)
            assert await body_of(pool) == await body_of(pool) == b"ok"
            assert (len(seen.lines), pool.stats.closed_dirty) == (2, 0)
            await pool.aclose()

    run(main())


def test_a_body_until_close_is_complete_with_the_close(run: Run) -> None:
    """HTTP/1.0 style: the end of the connection ends the body, a reset does not."""

    async def main() -> None:
        async with origin(answering(UNTIL_CLOSE, close=True)) as seen:
            pool = pool_for(seen)
            assert await body_of(pool) == b"all of it"
            assert await settled(pool) == "0 busy, 0 idle, 0 pending]>"
            await pool.aclose()

    async def resetting(seen: Origin, line: Line) -> None:
        await line.request()
        await line.write(UNTIL_CLOSE)
        await asyncio.sleep(0.05)
        line.reset()

    run(main())
    assert exchange_fails(run, resetting).phase == "body"


@pytest.mark.parametrize("answer", [OK, CHUNKS])
def test_every_cut_is_the_answer_or_an_error(run: Run, answer: bytes) -> None:
    """Closed or reset after any number of bytes: the right answer or upstream_reset, at once."""

    async def main() -> None:
        for reset in (False, True):
            for cut in range(len(answer) + 1):
                await check(cut, reset)

    async def check(cut: int, reset: bool) -> None:
        async def serve(seen: Origin, line: Line) -> None:
            await line.request()
            await line.write(answer[:cut])
            (line.reset if reset else line.close)()

        async with origin(serve) as seen:
            pool = pool_for(seen)
            outcome: bytes | UpstreamError
            try:
                outcome = await body_of(pool)
            except UpstreamError as error:
                outcome = error
            if isinstance(outcome, UpstreamError):
                assert cut < len(answer) or reset
                assert isinstance(outcome, UpstreamReset)
                assert outcome.phase in ("head", "body")
            else:
                assert (cut, outcome) == (len(answer), b"ok" if answer is OK else b"ok...")
            assert pool.stats.in_flight == 0
            await pool.aclose()

    run(main())


def test_head_and_204_have_no_body_and_keep_the_connection(run: Run) -> None:
    """HEAD and 204 end with the head, whatever their length says."""

    async def main() -> None:
        empty = b"HTTP/1.1 204 No Content\r\n\r\n"
        async with origin(answering(OK[:-2], empty, OK)) as seen:
            pool = pool_for(seen)
            assert await body_of(pool, b"HEAD") == b""
            assert await body_of(pool) == b""
            assert await body_of(pool) == b"ok"
            assert len(seen.lines) == 1
            await pool.aclose()

    run(main())


@pytest.mark.parametrize(
    ("phase", "serve", "timeouts"),
    [
        ("first_byte", silent, {"first_byte_s": 0.05}),
        ("idle", stalling(OK[:10]), {"idle_s": 0.05}),
        ("idle", stalling(OK[:-1]), {"idle_s": 0.05}),
        ("request", silent, {"request_s": 0.05}),
        ("request", stalling(OK[:-1]), {"request_s": 0.05}),
    ],
)
def test_each_wait_ends_as_its_own_timeout(
    run: Run, phase: str, serve: Serve, timeouts: dict[str, float]
) -> None:
    """No first byte, no next byte, no end by the deadline: upstream_timeout names which."""
    error = exchange_fails(run, serve, **timeouts)
    assert isinstance(error, UpstreamTimeout)
    assert error.phase == phase


def test_a_slow_but_steady_answer_meets_only_its_deadline(run: Run) -> None:
    """The idle timeout begins anew with each chunk; the absolute deadline does not."""

    async def dripping(seen: Origin, line: Line) -> None:
        while await line.request() is not None:
            for at in range(len(OK)):
                await line.write(OK[at : at + 1])
                await asyncio.sleep(0.01)

    async def main() -> None:
        async with origin(dripping) as seen:
            pool = pool_for(seen, idle_s=0.3, first_byte_s=0.3)
            assert await body_of(pool) == b"ok"
            with pytest.raises(UpstreamTimeout, match="request"):
                await pool.send(b"GET", b"/", HEADERS, b"", pool._loop.time() + 0.1)
            assert pool.stats.timeouts == 1
            await pool.aclose()

    run(main())


def test_a_close_in_the_race_is_told_from_a_failed_answer(run: Run) -> None:
    """A used connection closed before any byte of the answer is reset in phase reused_closed."""

    async def once(seen: Origin, line: Line) -> None:
        await line.request()
        await line.write(OK)
        await line.request()

    async def main() -> None:
        async with origin(once) as seen:
            pool = pool_for(seen)
            await body_of(pool)
            with pytest.raises(UpstreamReset) as caught:
                await get(pool)
            assert caught.value.phase == "reused_closed"
            assert await body_of(pool) == b"ok"
            await pool.aclose()

    run(main())


def test_bytes_between_exchanges_close_the_connection(run: Run) -> None:
    """What an upstream says unasked on an idle connection answers no later request."""
    forged = OK.replace(b"ok", b"no")

    async def talkative(seen: Origin, line: Line) -> None:
        while await line.request() is not None:
            await line.write(OK)
            await asyncio.sleep(0.01)
            await line.write(forged)

    async def main() -> None:
        async with origin(talkative) as seen:
            pool = pool_for(seen)
            assert await body_of(pool) == b"ok"
            assert await settled(pool) == "0 busy, 0 idle, 0 pending]>"
            assert await body_of(pool) == b"ok"
            assert (len(seen.lines), pool.stats.closed_dirty) == (2, 1)
            await pool.aclose()

    run(main())


def test_bytes_the_loop_has_not_seen_yet_close_the_connection_too(run: Run) -> None:
    """Forged bytes or a close that wait in the socket are found before a request is written."""

    async def main() -> None:
        async with origin(answering(OK)) as seen:
            pool = pool_for(seen)
            for spoil in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""):
                await body_of(pool)
                connected = seen.lines[-1].writer.get_extra_info("socket")
                raw = socket.socket(fileno=socket.dup(connected.fileno()))
                with raw:
                    # Between these lines and the next send() the loop does not run.
                    raw.send(spoil) if spoil else raw.shutdown(socket.SHUT_WR)
                assert await body_of(pool) == b"ok"
            assert (len(seen.lines), pool.stats.closed_dirty) == (3, 1)
            await pool.aclose()

    run(main())


def test_bytes_before_the_first_request_are_refused(run: Run) -> None:
    """An upstream that speaks first is not spoken to."""

    async def greeting(seen: Origin, line: Line) -> None:
        await line.write(OK)
        await line.reader.read()

    async def main() -> None:
        async with origin(greeting) as seen:
            pool = pool_for(seen)
            connection = await pool._connect_to("127.0.0.1")
            await asyncio.sleep(0.02)
            with pytest.raises(UpstreamProtocolError, match="early"):
                pool._checked(connection)
            assert await settled(pool) == "0 busy, 0 idle, 0 pending]>"
            assert pool.stats.closed_dirty == 1
            await pool.aclose()

    run(main())


def test_an_answer_that_overtakes_its_request_ends_the_connection(run: Run) -> None:
    """With part of the request unsent, a complete answer is given but nothing follows it."""

    async def hasty(seen: Origin, line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.write(OK)
        await asyncio.sleep(0.2)

    async def main() -> None:
        async with origin(hasty) as seen:
            pool = pool_for(seen)
            answer = await get(pool, b"POST", b"x" * (32 << 20))
            assert await answer.read(10) == b"ok"
            assert await settled(pool) == "0 busy, 0 idle, 0 pending]>"
            await pool.aclose()

    run(main())


def streaming(total: int) -> Serve:
    async def serve(seen: Origin, line: Line) -> None:
        while await line.request() is not None:
            await line.write(STREAM % total + b"x" * total, 1 << 16)

    return serve


def test_a_long_body_is_streamed_within_its_buffer(run: Run) -> None:
    """A slow reader holds the upstream back; idle time does not run against it meanwhile."""
    total = 8 << 20

    async def main() -> None:
        async with origin(streaming(total)) as seen:
            pool = pool_for(seen, idle_s=0.05)
            answer = await get(pool)
            assert await answer.read(1000) is None
            await asyncio.sleep(0.15)
            assert BUFFER_BYTES < answer._size < 4 * BUFFER_BYTES
            assert not answer.complete
            assert sum([len(chunk) async for chunk in answer]) == total
            assert answer.complete
            assert await settled(pool) == "0 busy, 1 idle, 0 pending]>"
            await pool.aclose()

    run(main())


def test_read_takes_whole_bodies_up_to_its_limit(run: Run) -> None:
    """read() gives a body of exactly its limit, also above the buffer; one byte more is None."""
    total = 1 << 20

    async def chunked(seen: Origin, line: Line) -> None:
        while await line.request() is not None:
            await line.write(
                CHUNKS.replace(b"2\r\nok\r\n", b"%x\r\n%b\r\n" % (total, b"x" * total))
            )

    async def main() -> None:
        for serve, length in ((streaming(total), total), (chunked, total + 3)):
            async with origin(serve) as seen:
                pool = pool_for(seen)
                body = await (await get(pool)).read(length)
                assert body is not None
                assert len(body) == length
                answer = await get(pool)
                assert await answer.read(length - 1) is None
                assert sum([len(chunk) async for chunk in answer]) == length
                await pool.aclose()

    run(main())


def test_a_stream_gives_what_came_before_it_raises(run: Run) -> None:
    """The bytes before a reset are read first; the end is an error and not a short body."""

    async def serve(seen: Origin, line: Line) -> None:
        await line.request()
        await line.write(OK[:-1])
        await asyncio.sleep(0.02)

    async def main() -> None:
        async with origin(serve) as seen:
            pool = pool_for(seen)
            answer = await get(pool)
            assert await anext(answer) == b"o"
            with pytest.raises(UpstreamReset):
                await anext(answer)
            await pool.aclose()

    run(main())


@pytest.mark.parametrize("method", ["abort", "aclose"])
def test_an_answer_given_up_closes_its_connection(run: Run, method: str) -> None:
    """Given up before its end an answer costs its connection, after its end nothing."""

    async def main() -> None:
        async with origin(answering(OK)) as seen, origin(stalling(OK[:-1])) as stalled:
            clean, dirty = pool_for(seen), pool_for(stalled)
            for pool in (clean, dirty):
                answer = await get(pool)
                if method == "abort":
                    answer.abort()
                else:
                    await answer.aclose()
            assert await settled(clean) == "0 busy, 1 idle, 0 pending]>"
            assert await settled(dirty) == "0 busy, 0 idle, 0 pending]>"
            assert (clean.stats.closed_dirty, dirty.stats.closed_dirty) == (0, 1)
            await clean.aclose()
            await dirty.aclose()

    run(main())
