"""The pool over real sockets: endpoints, request heads, turns, connecting, TLS, cancellation."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from origins import (
    HEADERS,
    LOOPS,
    OK,
    Line,
    Origin,
    Run,
    answering,
    ask,
    echo,
    origin,
    pool_for,
    run_in,
    silent,
)

from gateway.dataplane.failures import (
    UpstreamConnectFailed,
    UpstreamOverloaded,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.request import request_head
from gateway.dataplane.upstream import Endpoint, Pool


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in the loop named."""
    return functools.partial(run_in, request.param)


def state(pool: Pool) -> str:
    return repr(pool).partition(" [")[2].removesuffix("]>")


# Endpoints and request heads.


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:9001", Endpoint("http", "127.0.0.1", 9001, "")),
        ("https://models.test/a/b/", Endpoint("https", "models.test", 443, "/a/b")),
        ("http://[::1]/", Endpoint("http", "::1", 80, "")),
    ],
)
def test_an_endpoint_is_read_from_its_url(url: str, endpoint: Endpoint) -> None:
    """Scheme, host, port and base path come from the URL, with the scheme's port by default."""
    assert Endpoint.of(url) == endpoint
    assert str(endpoint) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "models.test", "ftp://a", "http://", "http://a:0", "http://a:b", "http://a?x=1"]
    + ["http://a#", "http://a b", "http://a\r\n", "http://é", "http://a:99999", "http://[::1"],
)
def test_what_is_no_base_url_is_refused_by_name(url: str) -> None:
    """A wrong URL is a ValueError that quotes it."""
    with pytest.raises(ValueError, match="upstream") as caught:
        Endpoint.of(url)
    assert repr(url) in str(caught.value)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    """Credentials in a URL would end in logs: refused, without quoting them."""
    with pytest.raises(ValueError, match="user or password") as caught:
        Endpoint.of("http://ana:secret@a")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "length", "headers", "written"),
    [
        (b"GET", 0, [], None),
        (b"GET", 2, [], b"2"),
        (b"POST", 0, [], b"0"),
        (b"POST", 2, [], b"2"),
        (b"POST", 2, [(b"Content-Length", b"2")], b"2"),
    ],
)
def test_a_length_is_written_once_where_it_is_due(
    method: bytes, length: int, headers: list[tuple[bytes, bytes]], written: bytes | None
) -> None:
    """A body or a method that has one gets a content-length, unless the caller wrote it."""
    head = request_head(method, b"/", HEADERS + headers, length).lower()
    assert head.count(b"content-length") == (written is not None)
    assert written is None or b"content-length: " + written + b"\r\n" in head


def test_headers_are_written_as_given_and_expect_is_not() -> None:
    """Order, case and repetition are kept; expect is left out, as the body follows at once."""
    headers = [(b"X-B", b"1"), *HEADERS, (b"Expect", b"100-continue"), (b"x-b", b" 2\xe9")]
    head = request_head(b"GET", b"/a%2Fb?c", headers, 0)
    assert head == b"GET /a%2Fb?c HTTP/1.1\r\nX-B: 1\r\nhost: upstream.test\r\nx-b:  2\xe9\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GET", b"/", [(b"x", b"a\r\nb: c")]),
        (b"GET", b"/", [(b"x", b"a\rb")]),
        (b"GET", b"/", [(b"x", b"a\nb")]),
        (b"GET", b"/", [(b"x", b"a\0b")]),
        (b"GET", b"/", [(b"x: y", b"a")]),
        (b"GET", b"/", [(b"", b"a")]),
        (b"GET", b"/", [(b"x\r\ny", b"a")]),
        (b"GET", b"/", [(b"transfer-encoding", b"chunked")]),
        (b"GET", b"/", [(b"content-length", b"7")]),
        (b"GET", b"/", [(b"content-length", b"0"), (b"Content-Length", b"0")]),
        (b"GET", b"/", [(b"Host", b"another")]),
        (b"GET", b"/ HTTP/1.1\r\nx: y", []),
        (b"GET", b"/a b", []),
        (b"GET", b"http://other/", []),
        (b"GET", b"", []),
        (b"G T", b"/", []),
        (b"", b"/", []),
        (b"CONNECT", b"/", []),
    ],
)
def test_a_request_that_could_be_read_as_another_is_refused(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Line ends, NUL, bad names, wrong lengths and a second host are ValueErrors before a write."""
    with pytest.raises(ValueError, match="."):
        request_head(method, target, HEADERS + headers, 0)


@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=4))
def test_no_header_adds_a_line(headers: list[tuple[bytes, bytes]]) -> None:
    """A head that is written has exactly the lines of its headers."""
    try:
        head = request_head(b"GET", b"/", HEADERS + headers, 0)
    except ValueError:
        return
    lines = head.split(b"\r\n")
    kept = [(name, value) for name, value in headers if name.lower() != b"expect"]
    assert lines[2:-2] == [name + b": " + value for name, value in kept]
    assert not any(b"\r" in line or b"\n" in line for line in lines)


def test_a_refused_request_takes_no_connection(run: Run) -> None:
    """A ValueError comes before a connection is opened or taken."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen)
            with pytest.raises(ValueError, match="CR, LF or NUL"):
                await pool.send(b"GET", b"/", [*HEADERS, (b"x", b"a\nb")], b"")
            assert (state(pool), seen.lines) == ("0 busy, 0 idle, 0 pending", [])
            await pool.aclose()

    run(main())


# Requests.


def test_a_request_arrives_as_it_was_sent(run: Run) -> None:
    """Base path and target, headers and body reach the origin byte for byte, small and large."""

    async def main() -> None:
        async with origin(echo) as seen:
            endpoint = Endpoint.of(seen.url + "/base")
            pool = Pool(endpoint, PoolLimits(), Timeouts())
            for body in (b"{}", b"\x00\xff" * (1 << 20)):
                answer = await pool.send(b"POST", b"/v2?a=b", HEADERS, body)
                assert await answer.read(1 << 22) == body
                assert seen.requests[-1].head.startswith(b"POST /base/v2?a=b HTTP/1.1\r\n")
            assert repr(pool) == f"<Pool {endpoint} [0 busy, 1 idle, 0 pending]>"
            await pool.aclose()

    run(main())


def test_a_thousand_requests_leave_nothing_busy(run: Run) -> None:
    """1,000 requests at concurrency 20 each get their own answer and give every slot back."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen, PoolLimits(connections=8))

            async def client(number: int) -> None:
                for turn in range(50):
                    target = b"/%d/%d" % (number, turn)
                    assert await ask(pool, target) == target

            await asyncio.gather(*(client(number) for number in range(20)))
            await asyncio.sleep(0.02)
            assert state(pool) == "0 busy, 8 idle, 0 pending"
            assert pool.stats.opened == len(seen.lines) == 8  # a steady load never connects anew
            assert pool.stats.reused == 992
            await pool.aclose()
            assert state(pool) == "0 busy, 0 idle, 0 pending"

    run(main())


# Turns.


def test_requests_beyond_the_connections_wait_in_turn(run: Run) -> None:
    """With every connection busy requests wait first come, first served; the next is refused."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen, PoolLimits(connections=1, pending=2))
            done: list[bytes] = []

            async def client(target: bytes) -> None:
                done.append(await ask(pool, target))

            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(client(b"/%d" % number))
                await asyncio.sleep(0)
                assert state(pool) == "1 busy, 0 idle, 2 pending"
                with pytest.raises(UpstreamOverloaded):
                    await ask(pool)
            assert done == [b"/0", b"/1", b"/2"]
            assert (len(seen.lines), pool.stats.overloaded) == (1, 1)
            await pool.aclose()

    run(main())


def test_a_wait_for_ones_turn_ends_at_the_deadline(run: Run) -> None:
    """A request whose turn does not come before its deadline is timed out and leaves the queue."""

    async def main() -> None:
        async with origin(silent) as seen:
            pool = pool_for(seen, PoolLimits(connections=1))
            first = asyncio.ensure_future(ask(pool))
            await asyncio.sleep(0.02)
            with pytest.raises(UpstreamTimeout) as caught:
                await pool.send(b"GET", b"/", HEADERS, b"", pool._loop.time() + 0.05)
            assert caught.value.phase == "request"
            assert state(pool) == "1 busy, 0 idle, 0 pending"
            first.cancel()
            await asyncio.wait([first])
            assert state(pool) == "0 busy, 0 idle, 0 pending"
            await pool.aclose()

    run(main())


def test_a_deadline_in_the_past_sends_nothing(run: Run) -> None:
    """A request that is too late when it is made is timed out without a connection."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen)
            with pytest.raises(UpstreamTimeout):
                await pool.send(b"GET", b"/", HEADERS, b"", pool._loop.time())
            assert seen.lines == []

    run(main())


def test_a_failed_exchange_passes_its_slot_on(run: Run) -> None:
    """Whoever waits behind a connection that dies gets the slot and connects anew."""

    async def once(seen: Origin, line: Line) -> None:
        await line.request()
        await asyncio.sleep(0.02)
        await line.write(OK if len(seen.lines) > 1 else OK[:-1])

    async def main() -> None:
        async with origin(once) as seen:
            pool = pool_for(seen, PoolLimits(connections=1))
            first, second = await asyncio.gather(ask(pool), ask(pool), return_exceptions=True)
            assert isinstance(first, UpstreamReset)
            assert second == b"ok"
            await pool.aclose()

    run(main())


def test_a_connection_is_looked_at_when_it_is_handed_over(run: Run) -> None:
    """Forged bytes that come between one exchange's end and the next one's turn answer nothing."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen, PoolLimits(connections=1))

            async def first() -> None:
                assert await ask(pool, b"/1") == b"/1"
                # The waiter has its connection by now, and runs after this.
                connected = seen.lines[0].writer.get_extra_info("socket")
                with socket.socket(fileno=socket.dup(connected.fileno())) as raw:
                    raw.send(OK)

            results = await asyncio.gather(first(), ask(pool, b"/2"))
            assert results == [None, b"/2"]
            assert (len(seen.lines), pool.stats.closed_dirty) == (2, 1)
            await pool.aclose()

    run(main())


def test_old_connections_are_not_used_again(run: Run) -> None:
    """A connection past retire_after_s is closed at its next use or release, and counted."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen, PoolLimits(retire_after_s=0.05))
            await ask(pool)
            await ask(pool)
            await asyncio.sleep(0.06)
            await ask(pool)
            assert (len(seen.lines), pool.stats.retired, pool.stats.reused) == (2, 1, 1)
            await pool.aclose()

    run(main())


def test_connections_that_nobody_uses_are_closed(run: Run) -> None:
    """After a burst all connections stay; `trim` closes those unused for keep_idle_s, no other."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen, PoolLimits(keep_idle_s=0.05))
            await asyncio.gather(*(ask(pool, b"/%d" % number) for number in range(40)))
            pool.trim()
            assert state(pool) == "0 busy, 40 idle, 0 pending"
            await asyncio.sleep(0.06)
            await ask(pool)
            pool.trim()
            assert state(pool) == "0 busy, 1 idle, 0 pending"
            await ask(pool)
            assert (pool.stats.opened, len(seen.lines)) == (40, 40)
            await pool.aclose()

    run(main())


def test_idle_closes_are_seen_at_once(run: Run) -> None:
    """Idle connections that the upstream closes leave the pool without being asked for."""

    async def main() -> None:
        async with origin(answering(OK)) as seen:
            pool = pool_for(seen)
            await asyncio.gather(ask(pool), ask(pool))
            assert state(pool) == "0 busy, 2 idle, 0 pending"
            for line in seen.lines:
                line.close()
            await asyncio.sleep(0.02)
            assert state(pool) == "0 busy, 0 idle, 0 pending"
            assert pool.stats.closed_dirty == 0

    run(main())


# Connecting.


@contextmanager
def full_backlog(port: int = 0) -> Iterator[int]:
    """A port that takes part in no handshake any more: connecting to it hangs."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.2", port))
        listening.listen(0)
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        try:
            yield listening.getsockname()[1]
        finally:
            for client in clients:
                client.close()


def test_a_refused_connection_is_a_failed_connect(run: Run) -> None:
    """Nobody listens: upstream_connect_failed, and the slot is free again."""

    async def main() -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            pool = pool_for(Origin(bound.getsockname()[1]))
            with pytest.raises(UpstreamConnectFailed) as caught:
                await ask(pool)
            assert (caught.value.code, caught.value.phase) == ("upstream_connect_failed", "connect")
            assert state(pool) == "0 busy, 0 idle, 0 pending"

    run(main())


def test_a_hanging_connect_ends_with_the_connect_timeout(run: Run) -> None:
    """An address that never answers is upstream_timeout, phase connect; or request if sooner."""

    async def main() -> None:
        with full_backlog() as port:
            pool = Pool(Endpoint("http", "127.0.0.2", port, ""), PoolLimits(), Timeouts(0.1))
            with pytest.raises(UpstreamTimeout) as caught:
                await ask(pool)
            assert caught.value.phase == "connect"
            with pytest.raises(UpstreamTimeout) as caught:
                await pool.send(b"GET", b"/", HEADERS, b"", pool._loop.time() + 0.05)
            assert caught.value.phase == "request"
            assert state(pool) == "0 busy, 0 idle, 0 pending"
            assert pool.stats.timeouts == 2

    run(main())


def test_all_addresses_are_tried_in_the_connect_timeout(run: Run) -> None:
    """A refusing and a hanging address before the good one do not prevent the connection."""

    async def main() -> None:
        async with origin(echo) as seen:
            with full_backlog(seen.port):
                pool = pool_for(seen, connect_s=0.6)
                pool._addresses = ["127.0.0.3", "127.0.0.2", "127.0.0.1"]
                pool._resolve_after = math.inf
                assert await ask(pool) == b"/"
                await pool.aclose()

    run(main())


def test_a_failed_connect_makes_the_name_be_asked_again(run: Run) -> None:
    """A cached address that fails is looked up anew for the next request."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen)
            pool._addresses, pool._resolve_after = ["127.0.0.2"], math.inf
            with pytest.raises(UpstreamConnectFailed):
                await ask(pool)
            assert await ask(pool) == b"/"
            assert pool._addresses == ["127.0.0.1"]
            await pool.aclose()

    run(main())


def test_a_name_that_cannot_be_resolved_is_a_failed_connect(run: Run) -> None:
    """A name without an address fails in phase resolve."""

    async def main() -> None:
        pool = Pool(Endpoint.of("http://" + "a" * 70), PoolLimits(), Timeouts())
        with pytest.raises(UpstreamConnectFailed) as caught:
            await ask(pool)
        assert caught.value.phase == "resolve"
        assert state(pool) == "0 busy, 0 idle, 0 pending"

    run(main())


def test_small_writes_are_not_delayed(run: Run) -> None:
    """TCP_NODELAY is on, in both loops."""

    async def main() -> None:
        async with origin(echo) as seen:
            pool = pool_for(seen)
            await ask(pool)
            connected = pool._idle[0]._transport.get_extra_info("socket")
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await pool.aclose()

    run(main())


def test_a_closed_pool_refuses_and_ends_what_runs(run: Run) -> None:
    """aclose() aborts exchanges, fails waiters, and no request goes out afterwards."""

    async def main() -> None:
        async with origin(silent) as seen:
            pool = pool_for(seen, PoolLimits(connections=1))
            asked = [asyncio.ensure_future(ask(pool)) for _ in range(2)]
            while not any(connection.exchanges for connection in pool._open):
                await asyncio.sleep(0.001)
            await pool.aclose()
            first, second = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(first, UpstreamReset)
            assert first.phase == "aborted"
            assert isinstance(second, UpstreamConnectFailed)
            with pytest.raises(UpstreamConnectFailed, match="closed"):
                await ask(pool)
            assert state(pool) == "0 busy, 0 idle, 0 pending"

    run(main())
