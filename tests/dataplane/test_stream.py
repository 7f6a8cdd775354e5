"""Nothing leaves before its record: whole answers, long ones, and a journal that fails."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from origins import Line, Origin, answering, origin, stalling
from world import World, applicants, remote, request, running, soon, until

T = TypeVar("T")
HOLD = "limits: {hold: 1KiB, keep: 2KiB}\n"
PIECES = [bytes([65 + number]) * 1500 for number in range(4)]
LONG = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Gate:
    """A syncer whose disk answers when it is let: in place of the journal's own."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.waiting: list[tuple[int, Callable[[OSError | None], None]]] = []

    def sync(self, descriptor: int, done: Callable[[OSError | None], None]) -> None:
        self.waiting.append((descriptor, done))

    def let(self) -> None:
        """Sync for all that wait."""
        waiting, self.waiting = self.waiting, []
        for descriptor, done in waiting:
            self.behind.sync(descriptor, done)

    def fail(self, error: OSError) -> None:
        waiting, self.waiting = self.waiting, []
        for _, done in waiting:
            done(error)

    def close(self) -> None:
        self.behind.close()


def gate(world: World) -> Gate:
    journal = world.worker.journal
    found = Gate(journal._syncer)
    journal._syncer = found  # type: ignore[assignment]
    return found


async def letting(closed: Gate, work: Awaitable[T]) -> T:
    """What comes while the disk works."""
    doing = asyncio.ensure_future(work)
    async with asyncio.timeout(5):
        while not doing.done():
            closed.let()
            await asyncio.sleep(0.001)
    return doing.result()


def ungate(world: World, found: Gate) -> None:
    world.worker.journal._syncer = found.behind
    found.let()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


async def nothing_comes(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)


def test_no_answer_before_its_record_is_durable(world: World) -> None:
    """While the disk works, not a byte of the answer is seen; then all of it is."""

    async def story() -> None:
        closed = gate(world)
        client = await world.connect()
        await client.say(request(applicants()))
        await until(lambda: closed.waiting)
        await nothing_comes(client.reader)
        ungate(world, closed)
        reply = await soon(client.answer())
        assert reply.status == 200
        client.leave()

    world.run(story())


def test_bounded_does_not_wait_and_is_recorded(world: World) -> None:
    """A model that chose so is answered while the disk still works."""

    async def story() -> None:
        async with origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as seen:
            await world.serve(remote(seen.url, "durability: bounded"))
            closed = gate(world)
            reply = await soon(world.ask(b"hi"))
            assert reply.body == b"ok"
            ungate(world, closed)
            assert (await world.record_of(reply)).response.kept == b"ok"

    world.run(story())


def test_a_strict_intent_goes_before_the_request(world: World) -> None:
    """The upstream hears nothing until the intent is durable; both records name one exchange."""

    async def story() -> None:
        async with origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as seen:
            await world.serve(remote(seen.url, "durability: strict_intent"))
            closed = gate(world)
            asking = asyncio.ensure_future(world.ask(b"hi"))
            await until(lambda: closed.waiting)
            await asyncio.sleep(0.05)
            assert seen.requests == []
            ungate(world, closed)
            reply = await soon(asking)
            await world.record_of(reply)
            kinds = [t.header["kind"] for t in world.records() if t.header["id"] == reply.id]
            assert kinds == ["intent", "exchange"]

    world.run(story())


async def pieces_on(gates: list[asyncio.Event], seen: Origin, line: Line) -> None:
    """Each piece when its gate opens."""
    seen.requests.append(await line.request())  # type: ignore[arg-type]
    await line.write(LONG)
    for opened, piece in zip(gates, PIECES, strict=True):
        await opened.wait()
        await line.write(chunk(piece))
    await line.write(b"0\r\n\r\n")


def test_a_long_answer_is_streamed_under_the_same_promise(world: World) -> None:
    """Intent, first byte, pieces as they come, final record, last piece: in that order."""

    async def story() -> None:
        gates = [asyncio.Event() for _ in PIECES]
        async with origin(lambda seen, line: pieces_on(gates, seen, line)) as seen:
            await world.serve(remote(seen.url, HOLD))
            closed = gate(world)
            client = await world.connect()
            await client.say(request(b"hi"))
            gates[0].set()
            await until(lambda: closed.waiting)
            await nothing_comes(client.reader)
            reply = await letting(closed, client.head())
            assert [t.header["kind"] for t in world.records() if t.header["id"] == reply.id] == [
                "intent"
            ]
            got = b""
            for number in range(1, len(PIECES) + 1):
                while len(got) < 1500 * number - 1:  # at once: no piece waits for the next
                    got += await letting(closed, client.chunk())
                if number < len(PIECES):
                    gates[number].set()
            assert got == b"".join(PIECES)[:-1]
            await until(lambda: closed.waiting)
            await nothing_comes(client.reader)
            ungate(world, closed)
            assert await soon(client.chunk()) == PIECES[-1][-1:]
            assert await soon(client.chunk()) == b""
            client.leave()
            told = await world.record_of(reply)
            whole = b"".join(PIECES)
            assert told.header["stream"]
            assert (told.response.length, told.response.kept) == (6000, whole[:2048])
            assert told.response.sha256 == hashlib.sha256(whole).digest()
            await until(world.idle)

    world.run(story())


def test_a_long_answer_is_byte_for_byte(world: World) -> None:
    """A megabyte with a length, in one piece after another, and the connection goes on."""

    async def story() -> None:
        body = os.urandom(1 << 20)
        raw = b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with origin(answering(raw + body, pieces=70_001)) as seen:
            await world.serve(remote(seen.url, HOLD))
            client = await world.connect()
            for line, echoed in (((), b"theirs"), ((b"x-request-id: mine",), b"mine")):
                await client.say(request(b"hi", headers=line))
                reply = await soon(client.answer())
                assert reply.body == body
                assert reply.all(b"x-request-id") == [echoed]
                assert reply.error is None
                told = await world.record_of(reply)
                assert told.response.sha256 == hashlib.sha256(body).digest()
                assert told.findings.unreadable == "truncated"
            client.leave()
            assert len(seen.lines) == 1

    world.run(story())


def test_an_upstream_that_fails_within_its_answer_cuts_it(world: World) -> None:
    """The client sees that it is not whole, the record says why, the exchange is counted."""

    async def story() -> None:
        start = LONG + chunk(PIECES[0]) + chunk(PIECES[1])

        async def failing(seen: Origin, line: Line) -> None:
            await stalling(start)(seen, line)

        async def resetting(seen: Origin, line: Line) -> None:
            await line.request()
            await line.write(start)
            await asyncio.sleep(0.05)
            line.reset()

        for serve, code in ((failing, "upstream_timeout"), (resetting, "upstream_reset")):
            async with origin(serve) as seen:
                await world.serve(remote(seen.url, HOLD + "timeouts: {idle: 300ms}"))
                before = world.count("headworks_refusals", code=code)
                reply = await soon(world.ask(b"hi"))
                assert (reply.status, reply.whole) == (200, False)
                told = await world.record_of(reply)
                assert told.header["error"] == code
                assert world.count("headworks_refusals", code=code) == before + 1
                await until(world.idle)

    world.run(story())


def test_a_client_that_leaves_a_stream_leaves_a_record(world: World) -> None:
    """What the model said is recorded whole, and its connection is free again."""

    async def story() -> None:
        gates = [asyncio.Event() for _ in PIECES]
        async with origin(lambda seen, line: pieces_on(gates, seen, line)) as seen:
            await world.serve(remote(seen.url, HOLD))
            client = await world.connect()
            await client.say(request(b"hi"))
            gates[0].set()
            reply = await soon(client.head())
            client.leave()
            for opened in gates:
                opened.set()
            assert (await world.record_of(reply)).response.length == 6000
            await until(world.idle)

    world.run(story())


def test_a_stream_survives_a_reload(world: World) -> None:
    """Its upstream is let go when the last byte has left, not when the table changes."""

    async def story() -> None:
        gates = [asyncio.Event() for _ in PIECES]
        async with origin(lambda seen, line: pieces_on(gates, seen, line)) as seen:
            await world.serve(remote(seen.url, HOLD))
            asking = asyncio.ensure_future(world.ask(b"hi"))
            gates[0].set()
            await until(lambda: seen.requests)
            await asyncio.sleep(0.05)
            await world.serve(remote(seen.url, HOLD + "timeouts: {request: 9s}"))
            await asyncio.sleep(0.15)
            for opened in gates:
                opened.set()
            reply = await soon(asking)
            assert (reply.whole, reply.body) == (True, b"".join(PIECES))

    world.run(story())


def test_a_stalled_disk_withholds_answers_and_recovers(tmp_path: Path) -> None:
    """503 and no output while it stalls, readiness says so; then `withheld` records and answers."""
    with running(tmp_path, stall_s=0.2) as world:

        async def story() -> None:
            closed = gate(world)
            reply = await soon(world.ask(applicants()))
            assert (reply.status, reply.error) == (503, "journal_unavailable")
            assert b"score" not in reply.body
            refused = await soon(world.ask(applicants()))
            assert (refused.status, refused.error) == (503, "journal_unavailable")
            await until(lambda: not world.worker.probes.journal_writable)
            assert (await world.ask(target=b"/-/ready", method=b"GET")).status == 503
            assert (await world.ask(target=b"/-/live", method=b"GET")).status == 200
            ungate(world, closed)
            told = await world.record(lambda told: told.header["kind"] == "withheld")
            assert told.header["id"] == reply.id
            await until(lambda: world.worker.probes.journal_writable)
            assert (await world.ask(applicants())).status == 200

        world.run(story())
    assert world.exit_code == 0


def test_a_failed_disk_ends_the_worker(tmp_path: Path) -> None:
    """A failed fdatasync is never retried: 503 without the output, then exit 74."""
    with running(tmp_path) as world:

        async def story() -> None:
            closed = gate(world)
            asking = asyncio.ensure_future(world.ask(applicants()))
            await until(lambda: closed.waiting)
            await asyncio.sleep(0.02)
            closed.fail(OSError(5, "Input/output error"))
            reply = await soon(asking)
            assert (reply.status, reply.error) == (503, "journal_unavailable")
            assert b"score" not in reply.body
            assert await soon(world.task) == 74

        world.run(story())


def test_a_stream_without_an_intent_never_begins(tmp_path: Path) -> None:
    """503 instead of the upstream's head; nothing of its body is seen."""
    with running(tmp_path, stall_s=0.3) as world:

        async def story() -> None:
            raw = LONG + b"".join(map(chunk, PIECES)) + b"0\r\n\r\n"
            async with origin(answering(raw)) as seen:
                await world.serve(remote(seen.url, HOLD))
                closed = gate(world)
                reply = await soon(world.ask(b"hi"))
                assert (reply.status, reply.error) == (503, "journal_unavailable")
                assert b"A" * 100 not in reply.body
                assert world.count("headworks_exchanges", model="mortgage", version="v1",
                                   arm="stable", status="503") == 1  # fmt: skip
                ungate(world, closed)
                await until(world.idle)

        world.run(story())


def test_a_stream_whose_final_record_fails_is_cut(tmp_path: Path) -> None:
    """The last piece never comes, the connection is closed, and the cut is counted."""
    with running(tmp_path, stall_s=0.3) as world:

        async def story() -> None:
            gates = [asyncio.Event() for _ in PIECES]
            async with origin(lambda seen, line: pieces_on(gates, seen, line)) as seen:
                await world.serve(remote(seen.url, HOLD))
                client = await world.connect()
                await client.say(request(b"hi"))
                gates[0].set()
                await soon(client.head())
                closed = gate(world)
                for opened in gates:
                    opened.set()
                got = await client.rest()
                assert PIECES[-1] not in got
                await until(lambda: world.count("headworks_refusals", code="answer_cut") == 1)
                ungate(world, closed)
                await until(world.idle)

        world.run(story())
