"""Clients as they are found: aiohttp, Java's spelling of headers, chunked uploads, HTTP/1.0,
`Expect: 100-continue`. Before an upstream each is answered as that upstream would answer it; before
a version in the process as everybody is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import orjson
import pytest
from clients import chunked
from origins import Line, Origin, echo, origin
from world import INFER, World, applicants, remote, request, running, soon

KEY = {"Authorization": "Bearer demo-key", "X-Applicant": "one"}
ONE = b"X-Applicant: one"
"""Whose version stays the same."""

URL = "http://127.0.0.1:{}/v2/models/mortgage/infer"
EVENTS = (b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("local")) as found:
        yield found


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("before")) as found:
        yield found


def test_aiohttp_is_answered(local: World) -> None:
    """One connection, requests one after the other and side by side; with a length, in pieces, with
    Expect, compressed; each answer is the one everybody gets."""

    async def story() -> None:
        expected = (await local.ask(applicants(2), headers=(ONE,))).body
        url = URL.format(local.port)

        async def pieces() -> AsyncIterator[bytes]:
            for place in range(0, len(applicants(2)), 100):
                yield applicants(2)[place : place + 100]

        async with aiohttp.ClientSession(headers=KEY) as session:
            for more in (
                {"data": applicants(2)},
                {"data": pieces()},
                {"data": applicants(2), "expect100": True},
                {"data": pieces(), "expect100": True},
                {"data": applicants(2), "compress": "gzip"},
                {"data": applicants(2), "compress": "deflate"},
                {"json": orjson.loads(applicants(2))},
            ):
                async with session.post(url, **more) as answer:
                    assert (answer.status, await answer.read()) == (200, expected)
            asked = (session.post(url, data=applicants(2)) for _ in range(30))
            for answer in await asyncio.gather(*asked):
                async with answer:
                    assert (answer.status, await answer.read()) == (200, expected)

    local.run(story(), 30)


def test_aiohttp_hears_events_as_they_come(before: World) -> None:
    """An upstream's events through a client that reads them piece by piece."""

    async def story() -> None:
        heard = asyncio.Event()

        async def speaking(_: Origin, line: Line) -> None:
            await line.request()
            await line.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for number, event in enumerate(EVENTS):
                await line.write(event)
                if not number:
                    await soon(heard.wait())
            line.close()

        async with origin(speaking) as seen, aiohttp.ClientSession() as session:
            await before.serve(remote(seen.url))
            async with session.post(URL.format(before.port), data=b"{}") as answer:
                assert answer.content_type == "text/event-stream"
                assert await answer.content.readuntil(b"\n\n") == EVENTS[0]
                heard.set()
                assert await answer.content.read() == b"".join(EVENTS[1:])

    before.run(story(), 30)


@pytest.mark.parametrize("spell", [bytes.upper, bytes.lower, bytes.title, bytes.swapcase])
def test_headers_of_any_spelling_are_the_same(local: World, spell: object) -> None:
    """Java's clients write `X-Applicant`, HTTP/2's bridges `x-applicant`, old ones `X-APPLICANT`:
    the caller, the rule, the unit and the length are found in each; a forced version too."""

    async def story() -> None:
        lines = [b"authorization", b"x-tenant", b"x-headworks-subject", b"x-request-id"]
        values = [b"Bearer demo-key", b"pilot", b"someone", b"mine"]
        named = [b"%b: %b" % (spell(name), value) for name, value in zip(lines, values)]  # type: ignore[operator]
        named += [
            spell(b"host") + b": Test",
            spell(b"content-length") + b": %d" % len(applicants()),
        ]  # type: ignore[operator]
        sent = b"\r\n".join([b"POST %b HTTP/1.1" % INFER, *named]) + b"\r\n\r\n" + applicants()
        client = await local.connect()
        await client.say(sent)
        reply = await soon(client.answer())
        client.leave()
        assert (reply.status, reply.get(b"x-headworks-version")) == (200, b"v2")
        assert reply.get(b"x-request-id") == b"mine"
        told = await local.record_of(reply)
        assert (told.header["caller"], told.header["rule"]) == ("loans-app", "pilot")
        assert told.context["subjects"] == ["someone"]

    local.run(story())


def test_an_upstream_sees_headers_as_they_were_spelt_or_in_lower_case(before: World) -> None:
    """Names are told apart by nobody; values, order and repetition stay."""

    async def story() -> None:
        async with origin(echo) as seen:
            await before.serve(remote(seen.url))
            headers = (b"X-Many: One", b"x-other: 2", b"X-MANY: Two", b"Accept-Encoding: br")
            assert (await before.ask(b"{}", headers=headers, key=None)).status == 200
            lines = seen.requests[0].head.split(b"\r\n")[1:]
            pairs = [line.split(b": ", 1) for line in lines if line]
            kept = [(name.lower(), value) for name, value in pairs]
            assert [value for name, value in kept if name == b"x-many"] == [b"One", b"Two"]
            assert [value for name, value in kept if name == b"accept-encoding"] == [b"br"]
            assert not [name for name, _ in kept if name in (b"accept", b"user-agent")]

    before.run(story())


@pytest.mark.parametrize("sizes", [[1], [7, 1, 4096], [65536]])
def test_chunked_uploads_arrive_whole(local: World, before: World, sizes: list[int]) -> None:
    """However the client cuts its body, chunk extensions and trailers beside it: the same answer,
    and an upstream gets the same bytes; trailers are nobody's headers."""
    body = applicants(3)
    pieces, at = [], 0
    while at < len(body):
        pieces.append(body[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    sent = chunked(pieces, (ONE,))
    first = b"\r\n\r\n%x\r\n" % len(pieces[0])
    sent = sent.replace(first, first[:-2] + b";name=value\r\n", 1)
    sent = sent.removesuffix(b"\r\n") + b"X-Checksum: none\r\nX-Headworks-Version: v9\r\n\r\n"

    async def story(world: World) -> bytes:
        client = await world.connect()
        await client.say(sent)
        reply = await soon(client.answer())
        assert reply.status == 200
        await client.say(request(body, headers=(ONE,)))  # the connection is as good as new
        assert (await soon(client.answer())).body == reply.body
        client.leave()
        return reply.body

    async def passing() -> None:
        async with origin(echo) as seen:
            await before.serve(remote(seen.url))
            assert await story(before) == body
            assert seen.requests[0].body == body
            assert seen.requests[0].header(b"x-checksum") is None

    assert orjson.loads(local.run(story(local)))["outputs"][0]["shape"] == [3, 1]
    before.run(passing())


def old(body: bytes, *headers: bytes) -> bytes:
    """A request of HTTP/1.0, without a host."""
    lines = [b"POST %b HTTP/1.0" % INFER, b"Authorization: Bearer demo-key", ONE, *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


def test_http_1_0_is_answered_and_closed(local: World) -> None:
    """With a length and without chunks, whatever it says of keeping the connection; 100 is not for
    it, whatever it expects."""

    async def story() -> None:
        expected = (await local.ask(applicants(), headers=(ONE,))).body
        for more in ((), (b"Connection: keep-alive",), (b"Expect: 100-continue",)):
            client = await local.connect()
            await client.say(old(applicants(), *more))
            reply = await soon(client.answer())
            assert (reply.status, reply.body) == (200, expected)
            assert (reply.get(b"transfer-encoding"), reply.get(b"connection")) == (None, b"close")
            assert await client.ended()

    local.run(story())


@pytest.mark.parametrize("whole", [True, False])
def test_http_1_0_hears_a_stream_without_chunks(before: World, whole: bool) -> None:
    """What has no length ends with the connection: that client knows no chunks. A stream that is
    cut ends with a reset, so that it is not taken for a whole one."""

    async def story() -> None:
        async def speaking(_: Origin, line: Line) -> None:
            await line.request()
            await line.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
            for event in EVENTS:
                await line.write(b"%x\r\n%b\r\n" % (len(event), event))
            if whole:
                await line.write(b"0\r\n\r\n")
            line.close()

        async with origin(speaking) as seen:
            await before.serve(remote(seen.url))
            client = await before.connect()
            await client.say(old(b"{}", b"Connection: keep-alive"))
            reply = await soon(client.head())
            assert reply.get(b"transfer-encoding") is None
            assert reply.get(b"content-length") is None
            if whole:
                assert await soon(client.reader.read()) == b"".join(EVENTS)
            else:
                with pytest.raises(ConnectionResetError):
                    await soon(client.reader.read())

    before.run(story())


@pytest.mark.parametrize("length", [True, False])
def test_who_expects_100_is_told_to_go_on(local: World, length: bool) -> None:
    """The body is called for once the head is found good, and only then."""

    async def story() -> None:
        whole = request(applicants(), headers=(b"Expect: 100-continue",))
        if not length:
            whole = chunked([applicants()], (b"Expect: 100-continue",))
        head, _, body = whole.partition(b"\r\n\r\n")
        client = await local.connect()
        for _ in range(2):
            await client.say(head + b"\r\n\r\n")
            assert (
                await soon(client.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            )
            await client.say(body)
            assert (await soon(client.answer())).status == 200
        client.leave()

    local.run(story())


@pytest.mark.parametrize(
    ("target", "key", "status", "error"),
    [(b"/v2/models/none/infer", "demo-key", 404, "unknown_model"),
     (INFER, "wrong-key", 401, "unauthorised")],
)  # fmt: skip
def test_who_expects_100_is_refused_without_the_body(
    local: World, target: bytes, key: str, status: int, error: str
) -> None:
    """What can be told by the head is told before a body is called for."""

    async def story() -> None:
        whole = request(applicants(), target=target, key=key, headers=(b"Expect: 100-continue",))
        client = await local.connect()
        await client.say(whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (status, error)
        assert await client.ended()  # it may or may not send the body now: nobody could tell

    local.run(story())


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(local: World) -> None:
    """413 instead of 100."""

    async def story() -> None:
        head = request(b"", headers=(b"Expect: 100-continue",))
        client = await local.connect()
        await client.say(head.replace(b"content-length: 0", b"content-length: 99999999"))
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (413, "request_too_large")
        client.leave()

    local.run(story())
