"""The head of a request: its size, its number of headers, its time, and what is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from origins import Line, Origin, echo, origin, silent
from world import (
    INFER,
    LOCAL,
    Client,
    Reply,
    World,
    applicants,
    remote,
    request,
    running,
    soon,
    until,
)

GET = b"GET /-/live HTTP/1.1\r\nhost: a\r\n"
POST = b"POST " + INFER + b" HTTP/1.1\r\nhost: a\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


def limited(world: World, monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Other limits for connections that are made from now on."""
    app = world.worker.app
    monkeypatch.setattr(app, "limits", replace(app.limits, **limits))  # type: ignore[arg-type]


async def refused(world: World, client: Client, code: str) -> Reply:
    """Our answer: in JSON, whole, and the connection's last."""
    reply = await soon(client.answer())
    assert reply.error == code
    assert reply.status == {"bad_request": 400, "headers_too_large": 431}[code]
    assert reply.all(b"content-type") == [b"application/json"]
    assert list(reply.json()) == ["error"]
    assert reply.get(b"connection") == b"close"
    assert await client.ended()
    return reply


BAD = {
    "both lengths": POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, turned": POST
    + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "one length twice": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab",
    "a list of lengths": POST + b"content-length: 2, 2\r\n\r\nab",
    "a signed length": POST + b"content-length: +2\r\n\r\nab",
    "an endless length": POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n",
    "another coding": POST + b"transfer-encoding: gzip\r\n\r\n",
    "chunked and another": POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a bad chunk": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "a fold": GET + b"x: y\r\n z\r\n\r\n",
    "a space before the colon": GET + b"x : y\r\n\r\n",
    "a space in a name": GET + b"x y: z\r\n\r\n",
    "no colon": GET + b"xyz\r\n\r\n",
    "a NUL": GET + b"x: a\0b\r\n\r\n",
    "a bare CR": GET + b"x: a\rb: c\r\n\r\n",
    "bare LFs": GET.replace(b"\r\n", b"\n") + b"\n",
    "no method": b"\r\n\r\nhello\r\n\r\n",
    "small letters": b"get / HTTP/1.1\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\n\r\n",
    "no ASCII": b"GET /\xff HTTP/1.1\r\n\r\n",
    "another protocol": b"GET / FTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that is not ours": b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
    "a version of long ago": b"GET / HTTP/0.9\r\nhost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_request_is_a_400_of_ours(world: World, kind: str) -> None:
    """Nothing by which two parsers could read two requests gets through; each is counted."""

    async def story() -> None:
        before = world.count("headworks_refusals", code="bad_request")
        client = await world.connect()
        await client.say(BAD[kind])
        await refused(world, client, "bad_request")
        assert world.count("headworks_refusals", code="bad_request") == before + 1
        await until(world.idle)

    world.run(story())


@pytest.mark.parametrize("pieces", [1, 4096])
@pytest.mark.parametrize(
    "head",
    [
        GET + b"".join(b"x-%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
        GET + b"".join(b"x-%d: y\r\n" % number for number in range(100)) + b"\r\n",
        GET + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n",
        GET + b"x: " + b"y" * 33_000 + b"\r\n\r\n",
        GET + (b"x: " + b"y" * 1000 + b"\r\n") * 40 + b"\r\n",
        b"GET /" + b"a" * 33_000 + b" HTTP/1.1\r\n\r\n",
        GET + b"y" * 100_000,
        GET + b"x: " + b"y" * 100_000,
    ],
)
def test_a_head_has_a_size_and_a_number(world: World, head: bytes, pieces: int) -> None:
    """431, whether it comes at once or bit by bit, and whether it ever ends or not."""

    async def story() -> None:
        before = world.count("headworks_refusals", code="headers_too_large")
        client = await world.connect()

        async def send() -> None:
            step = len(head) // pieces + 1
            try:
                for start in range(0, len(head), step):
                    await client.say(head[start : start + step])
            except ConnectionError:
                pass

        sending = asyncio.ensure_future(send())
        try:
            reply = await soon(client.answer())
            assert (reply.status, reply.error) == (431, "headers_too_large")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the reset of a connection with unread bytes may overtake its answer
        await sending
        client.leave()
        assert world.count("headworks_refusals", code="headers_too_large") == before + 1

    world.run(story())


def test_a_head_at_the_limits_is_taken(world: World) -> None:
    """99 headers and almost 32 KiB are a request, and so is a large body in the same read."""

    async def story() -> None:
        client = await world.connect()
        many = b"".join(b"x-%d: y\r\n" % number for number in range(99))
        await client.say(GET + many + b"\r\n" + GET + b"x: " + b"y" * 32_000 + b"\r\n\r\n")
        assert [(await soon(client.answer())).status for _ in range(2)] == [200, 200]
        await client.say(request(b"[" + b" " * 60_000 + b"]"))
        assert (await soon(client.answer())).error == "bad_body"
        client.leave()

    world.run(story())


def test_a_head_has_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head is answered with 400 when its time is up, however steadily it drips."""
    limited(world, monkeypatch, head_s=0.2)

    async def story() -> None:
        client = await world.connect()
        await client.say(GET)

        async def drip() -> None:
            while True:
                await asyncio.sleep(0.02)
                await client.say(b"x: y\r\n")

        dripping = asyncio.ensure_future(drip())
        reply = await soon(client.answer(), 2)
        dripping.cancel()
        assert (reply.status, reply.error) == (400, "bad_request")
        assert "0.2 s" in reply.json()["error"]
        client.leave()

    world.run(story())


def test_half_a_head_behind_a_request_has_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came in the same read as a whole request, and is let go like any other."""
    limited(world, monkeypatch, head_s=0.2)

    async def story() -> None:
        client = await world.connect()
        await client.say(GET + b"\r\n" + GET)
        assert (await soon(client.answer())).status == 200
        assert (await soon(client.answer(), 2)).error == "bad_request"

    world.run(story())


def test_who_says_nothing_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a byte is closed without one."""
    limited(world, monkeypatch, head_s=0.1)

    async def story() -> None:
        client = await world.connect()
        assert await client.ended()

    world.run(story())


def test_a_stray_line_end_is_no_head(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old clients send one more CRLF behind a body: an answer under way is not disturbed."""
    limited(world, monkeypatch, head_s=0.1)

    async def story() -> None:
        async def slow(seen: Origin, line: Line) -> None:
            await line.request()
            await asyncio.sleep(0.4)
            await line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        async with origin(slow) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            await client.say(request(b"hi"))
            await asyncio.sleep(0.05)
            await client.say(b"\r\n")
            reply = await soon(client.answer())
            assert (reply.status, reply.body) == (200, b"ok")
            await asyncio.sleep(0.2)
            await client.say(GET + b"\r\n")
            assert (await soon(client.answer())).status == 200
            client.leave()
        await world.serve(LOCAL)

    world.run(story())


@pytest.mark.parametrize("tail", [b"nonsense\r\n\r\n", GET + (b"x: " + b"y" * 1000 + b"\r\n") * 40])
def test_an_earlier_request_still_gets_its_own_answer(world: World, tail: bytes) -> None:
    """Nonsense behind a request is never answered before it, or in its place."""

    async def story() -> None:
        async with origin(echo) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            await client.say(request(b"first") + tail)
            reply = await soon(client.answer())
            assert (reply.status, reply.body) == (200, b"first")
            assert await client.ended()
        await world.serve(LOCAL)

    world.run(story())


def test_requests_in_a_row_are_answered_in_order(world: World) -> None:
    """Pipelined requests share a connection and no bytes."""

    async def story() -> None:
        async with origin(echo) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            await client.say(b"".join(request(b"%d" % number) for number in range(20)))
            bodies = [(await soon(client.answer())).body for _ in range(20)]
            assert bodies == [b"%d" % number for number in range(20)]
            client.leave()
        await world.serve(LOCAL)

    world.run(story())


@pytest.mark.parametrize("step", [10_000, 1])
def test_an_offered_upgrade_is_ignored(world: World, step: int) -> None:
    """Java's client offers h2c with each POST: its body is read, and the connection goes on."""

    async def story() -> None:
        lines = (
            b"connection: Upgrade, HTTP2-Settings",
            b"upgrade: h2c",
            b"http2-settings: AAMAAABk",
        )
        client = await world.connect()
        for offered in (lines, (), lines):
            sent = request(applicants(), headers=offered)
            for start in range(0, len(sent), step):
                client.writer.write(sent[start : start + step])
                await asyncio.sleep(0)
            reply = await soon(client.answer())
            assert (reply.status, reply.json()["id"]) == (200, "ours")
        offered_get = GET + b"\r\n".join(lines) + b"\r\n\r\n"
        await client.say(offered_get + offered_get)
        assert [(await soon(client.answer())).status for _ in range(2)] == [200, 200]
        client.leave()
        await until(world.idle)

    world.run(story())


def test_a_body_waits_for_its_hundred(world: World) -> None:
    """`expect: 100-continue` is answered here and the body taken."""

    async def story() -> None:
        client = await world.connect()
        whole = request(applicants(), headers=(b"expect: 100-continue",))
        head, _, body = whole.partition(b"\r\n\r\n")
        await client.say(head + b"\r\n\r\n")
        assert (await soon(client.head())).status == 100
        await client.say(body)
        assert (await soon(client.answer())).status == 200
        client.leave()

    world.run(story())


def test_an_old_client_is_answered_and_let_go(world: World) -> None:
    """HTTP/1.0: a length, and the connection ends."""

    async def story() -> None:
        client = await world.connect()
        await client.say(b"GET /-/live HTTP/1.0\r\n\r\n")
        reply = await soon(client.answer())
        assert (reply.status, reply.get(b"connection")) == (200, b"close")
        assert await client.ended()

    world.run(story())


def test_an_exchange_that_is_cut_leaves_its_connection_to_the_next(world: World) -> None:
    """All exchanges of a connection are one task's: the end of one is none of the others, and the
    task ends with its connection."""

    async def story() -> None:
        async with origin(silent) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            before = len(asyncio.all_tasks())
            for _ in range(3):
                await client.say(request(b"hi"))
                await until(lambda: seen.requests)
                seen.requests.clear()
                world.worker.handler.cut()
                reply = await soon(client.answer())
                assert (reply.status, reply.error) == (503, "draining")
            client.leave()
            await until(world.idle)
            await until(lambda: not world.worker.server.server_state.tasks)
            await until(lambda: len(asyncio.all_tasks()) <= before)
        await world.serve(LOCAL)

    world.run(story())
