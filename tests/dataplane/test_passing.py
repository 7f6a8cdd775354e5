"""Bodies that pass by, streams as they come, and what a stop does to both."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import chunked, flood
from hypothesis import given
from hypothesis import strategies as st
from origins import Line, Origin, origin, silent
from world import World, remote, request, running, soon, until

from gateway.dataplane.limits import Load
from gateway.dataplane.response import is_stream
from gateway.dataplane.stream import Withheld
from gateway.dataplane.upload import PIECES_MAX, Tally
from gateway.journal.record import Part
from gateway.settings import Overload

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HOLD = "limits: {hold: 64KiB, keep: 1KiB, request: 64MiB}\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


async def digesting(seen: Origin, line: Line) -> None:
    """Answers with the digest of the body, however it is framed."""
    head = await line.reader.readuntil(b"\r\n\r\n")
    digest = hashlib.sha256()
    if b"transfer-encoding: chunked" in head:
        while size := int(await line.reader.readuntil(b"\r\n"), 16):
            digest.update((await line.reader.readexactly(size + 2))[:-2])
        await line.reader.readexactly(2)
    else:
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while left:
            piece = await line.reader.read(min(left, 1 << 18))
            left -= len(piece)
            digest.update(piece)
    seen.requests.append(head)  # type: ignore[arg-type]
    await line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" + digest.digest())
    await digesting(seen, line)


@pytest.mark.parametrize("stated", [True, False])
def test_a_long_body_passes_without_being_held(world: World, stated: bool) -> None:
    """Byte for byte, in bounded memory; the record has length, digest and the first bytes; a copy
    for a shadow is not made, and counted."""

    async def story() -> None:
        body = os.urandom(1 << 20) * 48
        async with origin(digesting) as seen:
            text = remote(seen.url, HOLD).replace("v1: 100%}}]", "v1: 100%}, shadow: {v1: 100%}}]")
            await world.serve(text)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            client = await world.connect()
            pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
            sent = request(body) if stated else chunked(pieces)
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await flood(client, sent)
            reply = await soon(client.answer())
            assert (reply.status, reply.body) == (200, hashlib.sha256(body).digest())
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 24 << 10
            assert before <= held
            told = await world.record_of(reply)
            assert told.request.length == told.header["bytes"]["request"] == len(body)
            assert told.request.sha256 == hashlib.sha256(body).digest()
            assert told.request.kept == body[:1024]
            client.leave()
            await until(world.idle)

    world.run(story(), 60)


@pytest.mark.parametrize("stated", [True, False])
def test_what_is_kept_of_passing_bodies_has_room_with_the_held_ones(
    world: World, stated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """overload.bodies bounds it too; room is given back, and the bytes are in the record."""

    async def story() -> None:
        body = os.urandom(1_000_000)
        sent = request(body) if stated else chunked([body[:400_000], body[400_000:]])
        async with origin(digesting) as seen:
            await world.serve(remote(seen.url, "limits: {hold: 1KiB, keep: 300KiB}\n"))
            handler = world.worker.handler
            for room, status in (("1MiB", 200), ("299KiB", 503)):
                monkeypatch.setattr(handler, "load", Load(Overload(bodies=room), 1))  # type: ignore[arg-type]
                client = await world.connect()
                sending = asyncio.ensure_future(flood(client, sent))
                reply = await soon(client.answer())
                assert reply.status == status
                told = await world.record_of(reply)
                assert told.header["error"] == (None if status == 200 else "memory_full")
                assert told.request.kept == (body[: 300 << 10] if status == 200 else b"")
                client.leave()
                await soon(sending)
                await until(world.idle)
                assert handler.load.held_bytes == 0

    world.run(story())


def test_a_passing_body_ends_at_its_limit(world: World) -> None:
    """Without a stated length the limit is met on the way: 413, and the upstream is left."""

    async def story() -> None:
        ended = asyncio.Event()

        async def reading(seen: Origin, line: Line) -> None:
            try:
                while await line.reader.read(65536):
                    pass
            finally:
                ended.set()

        async with origin(reading) as seen:
            await world.serve(remote(seen.url, "limits: {hold: 1KiB, request: 100KiB}\n"))
            client = await world.connect()
            sent = chunked([b"x" * 10_000] * 50)
            await client.say(sent[:20_000])
            await until(lambda: seen.lines)
            sending = asyncio.ensure_future(flood(client, sent[20_000:]))
            reply = await soon(client.answer())
            assert (reply.status, reply.error) == (413, "request_too_large")
            await soon(ended.wait())
            client.leave()
            await soon(sending)
            await until(world.idle)

    world.run(story())


def test_an_upstream_that_does_not_read_is_late(world: World) -> None:
    """A body that nobody takes waits no longer than the deadline; memory holds little of it."""

    async def story() -> None:
        async def deaf(seen: Origin, line: Line) -> None:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(20)

        async with origin(deaf) as seen:
            await world.serve(remote(seen.url, HOLD + "timeouts: {request: 300ms}"))
            live = world.worker.handler.live
            assert live is not None
            for backend in live.backends.values():
                backend._body_s = 0.2
            client = await world.connect()
            sending = asyncio.ensure_future(flood(client, request(b"x" * (40 << 20))))
            reply = await soon(client.answer())
            assert (reply.status, reply.error) == (504, "upstream_timeout")
            client.leave()
            await soon(sending)
            await until(world.idle)

    world.run(story())


def test_an_early_answer_to_a_passing_body_is_passed(world: World) -> None:
    """The upstream says no after the head: its answer goes to the client, neither connection is
    used again."""

    async def story() -> None:
        async def refusing(seen: Origin, line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await line.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
            await line.reader.read()

        async with origin(refusing) as seen:
            await world.serve(remote(seen.url, HOLD))
            client = await world.connect()
            sending = asyncio.ensure_future(flood(client, request(b"x" * (8 << 20))))
            reply = await soon(client.answer())
            assert (reply.status, reply.body, reply.get(b"connection")) == (403, b"no", b"close")
            client.leave()
            await soon(sending)
            await until(world.idle)

    world.run(story())


def test_a_client_that_leaves_within_a_passing_body(world: World) -> None:
    """The upstream never sees the end of the request, and the record says 499."""

    async def story() -> None:
        async with origin(silent) as seen:
            await world.serve(remote(seen.url, HOLD))
            client = await world.connect()
            await client.say(request(b"x" * 500_000)[:300_000])
            await until(lambda: seen.lines)
            client.leave()
            told = await world.record(
                lambda told: (
                    told.header.get("error") == "client_gone" and told.header["kind"] == "exchange"
                )
            )
            assert 0 < told.header["bytes"]["request"] < 500_000
            await until(world.idle)

    world.run(story())


def test_events_come_as_they_are_said(world: World) -> None:
    """The first event does not wait for the second; the terminal one waits for the record."""

    async def story() -> None:
        said: asyncio.Queue[bytes] = asyncio.Queue()

        async def speaking(seen: Origin, line: Line) -> None:
            await line.request()
            await line.write(SSE + CHUNKED)
            while piece := await said.get():
                await line.write(chunk(piece))
            await line.write(b"0\r\n\r\n")

        async with origin(speaking) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            await client.say(request(b"hi"))
            reply = await soon(client.head())
            assert reply.get(b"content-type") == b"text/event-stream; charset=utf-8"
            for event in (b"data: one\n\n", b"data: two\n\n"):
                said.put_nowait(event)
                assert await soon(client.chunk()) == event
            said.put_nowait(b"data: thr")
            said.put_nowait(b"ee\n\ndata: [DONE]\n\n")
            assert await soon(client.chunk()) == b"data: three\n\n"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.1)
            assert world.worker.handler.in_flight == 1
            said.put_nowait(b"")
            assert await soon(client.chunk()) == b"data: [DONE]\n\n"
            assert await soon(client.chunk()) == b""
            told = await world.record_of(reply)
            assert told.response.kept.endswith(b"ee\n\ndata: [DONE]\n\n")
            client.leave()

    world.run(story())


def test_a_chunked_answer_that_takes_its_time_is_a_stream(world: World) -> None:
    """Without a length and without its end in a tenth of a second, its first bytes leave."""

    async def story() -> None:
        opened = asyncio.Event()

        async def slowly(seen: Origin, line: Line) -> None:
            await line.request()
            await line.write(b"HTTP/1.1 200 OK\r\n" + CHUNKED + chunk(b"first "))
            await opened.wait()
            await line.write(chunk(b"last") + b"0\r\n\r\n")

        async with origin(slowly) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            await client.say(request(b"hi"))
            reply = await soon(client.head())
            assert await soon(client.chunk()) == b"first"
            opened.set()
            got = b""
            while piece := await soon(client.chunk()):
                got += piece
            assert got == b" last"
            assert (await world.record_of(reply)).header["stream"]
            client.leave()

    world.run(story())


@pytest.mark.parametrize("policy", ["cancel", "drain"])
def test_who_leaves_a_stream_is_recorded_with_what_was_sent(world: World, policy: str) -> None:
    """Cancelled: the upstream sees the end at once. Drained: it is heard to its end."""

    async def story() -> None:
        gone, opened = asyncio.Event(), asyncio.Event()

        async def speaking(seen: Origin, line: Line) -> None:
            await line.request()
            await line.write(SSE + CHUNKED + chunk(b"data: one\n\n"))
            reading = asyncio.ensure_future(line.reader.read())
            opening = asyncio.ensure_future(opened.wait())
            await asyncio.wait((reading, opening), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                gone.set()
            else:
                await line.write(chunk(b"data: two\n\n") + b"0\r\n\r\n")
            reading.cancel()
            opening.cancel()

        async with origin(speaking) as seen:
            await world.serve(remote(seen.url, f"on_disconnect: {policy}"))
            client = await world.connect()
            await client.say(request(b"hi"))
            reply = await soon(client.head())
            assert await soon(client.chunk()) == b"data: one\n\n"
            client.leave()
            if policy == "cancel":
                await soon(gone.wait())
            else:
                await until(lambda: any(d.left for d in world.worker.handler.open))
                opened.set()
            told = await world.record_of(reply)
            assert told.header["client"] == {"left": "client_gone", "policy": policy, "sent": 11}
            error, length = ("client_gone", 11) if policy == "cancel" else (None, 22)
            assert (told.header["error"], told.response.length) == (error, length)
            await until(world.idle)

    world.run(story())


def test_a_stop_drains_and_then_cuts(tmp_path: Path) -> None:
    """After SIGTERM an answer under way is given, with the end of its connection; what is open at
    the end of drain.at_most (2 s here) is cut: a stream mid-way, a whole answer as a 503. Both have
    records that say so."""
    with running(tmp_path) as world:

        async def story() -> None:
            opened = asyncio.Event()

            async def serve(seen: Origin, line: Line) -> None:
                asked = await line.request()
                assert asked is not None
                if asked.body == b"stream":
                    await line.write(SSE + CHUNKED + chunk(b"data: one\n\n"))
                if asked.body == b"soon":
                    await opened.wait()
                    await line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await asyncio.sleep(20)

            async with origin(serve) as seen:
                await world.serve(remote(seen.url))
                stream = await world.connect()
                await stream.say(request(b"stream"))
                head = await soon(stream.head())
                assert await soon(stream.chunk()) == b"data: one\n\n"
                others = [asyncio.ensure_future(world.ask(body)) for body in (b"soon", b"never")]
                await until(lambda: world.worker.handler.in_flight == 3)
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.3)
                opened.set()
                answered = await soon(others[0])
                assert (answered.status, answered.get(b"connection")) == (200, b"close")
                cut = await soon(others[1])
                assert (cut.status, cut.error) == (503, "draining")
                assert await stream.ended()
                assert await soon(world.task) == 0
                told = await world.record_of(head)
                assert told.header["error"] == "draining"
                assert told.response.kept == b"data: one\n\n"
                assert (await world.record_of(cut)).header["error"] == "draining"

        world.run(story())


EVENTS = st.lists(
    st.sampled_from([
        b"data: a\n\n", b"data: b\r\n\r\n", b": hm\n\n", b"event: x\ndata: y\n\n", b"data: c\r\r",
        b"data: [DONE] no\n\n", b"data: x [DONE]\n\n", b"event: message_stopped\ndata: d\n\n",
    ])
)  # fmt: skip
LAST = st.sampled_from([
    b"data: [DONE]\n\n", b"data:[DONE] \n\n", b"data: [DONE]\r\n\r\n", b"id: 1\ndata: [DONE]\n\n",
    b"event: message_stop\ndata: {}\n\n", b"event:response.completed\ndata: {}\n\n",
])  # fmt: skip


@given(EVENTS, st.binary(max_size=30), st.lists(st.integers(1, 20)), st.none() | LAST)
def test_withholding_loses_and_moves_nothing(
    events: list[bytes], tail: bytes, cuts: list[int], terminal: bytes | None
) -> None:
    """However it is cut: what leaves and what waits are the bytes; whole events never wait, the
    terminal one always does."""
    data = b"".join(events) + (terminal or b"") + tail
    held = Withheld([(b"Content-Type", b"text/event-stream")], None)
    released, at = b"", 0
    for size in [*cuts, len(data)]:
        if piece := data[at : at + size]:
            released += held.release(piece)
        at += size
    assert released + held.rest == data
    if terminal is not None:
        assert released == b"".join(events)
    else:
        assert released.startswith(b"".join(events))


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(1, 20)))
def test_of_a_known_length_only_the_last_byte_waits(data: bytes, cuts: list[int]) -> None:
    """All that has come but the body's last byte has left."""
    held, released, at = Withheld([], len(data)), b"", 0
    for size in [*cuts, len(data)]:
        if piece := data[at : at + size]:
            released += held.release(piece)
            at += len(piece)
            assert released == data[: min(at, len(data) - 1)]
    assert held.rest == data[-1:]


def test_what_is_a_stream() -> None:
    """By its type, whatever its parameters and letters."""
    for kind in (b"Text/Event-Stream;charset=utf-8", b"application/x-ndjson"):
        assert is_stream([(b"Content-Type", kind)])
    for kind in (b"application/json", b""):
        assert not is_stream([(b"Content-Type", kind)])


def test_a_tally_keeps_the_first_bytes_of_any_pieces() -> None:
    """Tiny ones too, which are put together; what is not kept leaves its length and digest."""
    data = bytes(range(256)) * 40
    for size in (1, 3, 5000, len(data)):
        for keep in (0, 1, 4000, len(data), 2 * len(data)):
            tally = Tally(keep)
            for at in range(0, len(data), size):
                tally.add(data[at : at + size])
            whole = hashlib.sha256(data).digest()
            assert tally.part() == Part(len(data), whole, data[:keep])
            assert tally.part(700).kept == data[: min(keep, 700)]
            assert len(tally._kept) <= PIECES_MAX
