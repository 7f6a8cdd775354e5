"""Both parsers under anything at all: no wrong answer, no hang, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from clients import drip, reset
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from origins import Line, Origin, Serve, answering, echo, origin, stalling
from test_stream import gate, ungate
from world import INFER, LOCAL, World, applicants, remote, request, running, soon, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINES = "timeouts: {connect: 500ms, request: 500ms, first_byte: 300ms, idle: 300ms}\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some taken out, put in or turned."""
    edits = st.lists(
        st.tuples(
            st.integers(0, len(whole)),
            st.integers(0, 4),
            st.sampled_from([b"", b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"ffffffff",
                             b"-1", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
                             b"\r\n\r\n", b"\xff", b"HTTP/1.1 100 Continue\r\n\r\n"])
            | st.binary(max_size=6),
        ),
        min_size=1, max_size=4,
    )  # fmt: skip

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = whole
        for at, cut, put in changes:
            data = data[:at] + put + data[at + cut :]
        return data

    return edits.map(apply)


REQUESTS = mutated(request(b"hello")) | mutated(
    b"POST " + INFER + b" HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)
ANSWERS = mutated(OK) | mutated(CHUNKS) | st.binary(max_size=200)
BOUNDED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATIENT = settings(BOUNDED, max_examples=1500)


async def says_anything(world: World, sent: bytes, followed: bytes) -> None:
    """Each answer is one that HTTP allows and ours or the echo's; the worker is as before."""
    client = await world.connect()
    await client.say(sent)
    data = await client.rest()
    at = 0
    while at < len(data):
        head = data[at : data.index(b"\r\n\r\n", at)]
        status = int(head.split(b" ", 2)[1])
        assert head.startswith(b"HTTP/1.1 ")
        assert status in (100, 200, 400, 403, 404, 405, 408, 413, 431, 499, 502), head
        at += len(head) + 4
        if status != 100:
            lines = [line.lower() for line in head.split(b"\r\n")]
            (length,) = [int(li[16:]) for li in lines if li.startswith(b"content-length: ")]
            at += length
    assert at == len(data)
    client.leave()
    world.clients.clear()
    reply = await soon(world.ask(followed))
    assert (reply.status, reply.body) == (200, followed)
    await until(world.idle)


def fuzz_requests(world: World, sent: bytes) -> None:
    world.run(says_anything(world, sent, b"whole"))


@pytest.fixture(scope="module")
def echoing(world: World) -> Iterator[World]:
    """The world before an upstream that says what it hears; connections end soon."""
    app = world.worker.app
    before = app.limits
    app.limits = replace(before, head_s=0.05, body_s=0.05, idle_s=0.03)
    entered = origin(echo)
    seen = world.run(entered.__aenter__())
    world.run(world.serve(remote(seen.url, DEADLINES)))
    yield world
    app.limits = before
    world.run(entered.__aexit__(None, None, None))


@seed(20261123)
@settings(BOUNDED, max_examples=100)
@given(REQUESTS)
def test_any_request(echoing: World, sent: bytes) -> None:
    """Whatever a client says, it gets whole answers or the end, and the next one is served."""
    fuzz_requests(echoing, sent)


@pytest.mark.long
@pytest.mark.timeout(900)
@PATIENT
@given(REQUESTS)
def test_any_request_for_long(echoing: World, sent: bytes) -> None:
    """The same, many more of them, differently each time."""
    fuzz_requests(echoing, sent)


async def hears_anything(world: World, said: bytes, *, cut: bool) -> None:
    async def serve(seen: Origin, line: Line) -> None:
        await line.request()
        await line.write(said)
        if cut:
            line.reset()
        line.close()

    async with origin(serve) as seen:
        await world.serve(remote(seen.url, DEADLINES))
        reply = await soon(world.ask(b"hi"), 3)
        if reply.error is None and reply.whole:
            # An upstream's own answer: what its bytes say, nothing more.
            assert 200 <= reply.status < 600
            assert reply.body in said.replace(b"\r\n", b"") or reply.body in said
        else:
            assert reply.error is None or reply.status in (502, 503, 504)
        await until(world.idle)


@seed(20261123)
@settings(BOUNDED, max_examples=60)
@given(ANSWERS, st.booleans())
def test_any_answer(world: World, said: bytes, cut: bool) -> None:
    """Whatever an upstream says, its answer is passed as it was or is a 502 or 504 of ours."""
    world.run(hears_anything(world, said, cut=cut))


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(PATIENT, max_examples=400)
@given(ANSWERS, st.booleans())
def test_any_answer_for_long(world: World, said: bytes, cut: bool) -> None:
    """The same, many more of them, differently each time."""
    world.run(hears_anything(world, said, cut=cut))


@pytest.mark.parametrize("whole", [OK, CHUNKS], ids=["length", "chunks"])
def test_a_reset_at_each_byte(world: World, whole: bytes) -> None:
    """Cut anywhere before its end an answer is a 502; whole it is itself."""

    async def story() -> None:
        cut = [0]

        async def serve(seen: Origin, line: Line) -> None:
            await line.request()
            await line.write(whole[: cut[0]])
            await asyncio.sleep(0)
            line.close() if cut[0] == len(whole) else line.reset()

        async with origin(serve) as seen:
            await world.serve(remote(seen.url, DEADLINES))
            for cut[0] in range(len(whole) + 1):
                reply = await soon(world.ask(b"hi"))
                if cut[0] == len(whole):
                    assert (reply.status, reply.body) == (200, b"ok")
                else:
                    assert (reply.status, reply.error) == (502, "upstream_reset")
            await until(world.idle)

    world.run(story(), 30)


async def endless(seen: Origin, line: Line) -> None:
    await line.request()
    await line.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await line.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        await asyncio.sleep(0.005)


async def dripping(seen: Origin, line: Line) -> None:
    await line.request()
    for byte in OK * 20:
        await line.write(bytes([byte]))
        await asyncio.sleep(0.1)


async def many_headers(seen: Origin, line: Line) -> None:
    await line.request()
    await line.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n")


MISBEHAVING: dict[str, tuple[Serve, tuple[str | None, ...]]] = {
    "silent": (stalling(b""), ("upstream_timeout",)),
    "slow head": (dripping, ("upstream_timeout",)),
    "half a body": (stalling(OK[:-1]), ("upstream_timeout",)),
    "endless": (endless, (None,)),
    "20,000 headers": (many_headers, ("upstream_protocol_error",)),
    "interim answers": (answering(b"HTTP/1.1 103 Early\r\n\r\n" * 3 + OK), (None,)),
    "endless interim": (answering(b"HTTP/1.1 100 Go\r\n\r\n" * 99), ("upstream_protocol_error",)),
    "trailers": (answering(CHUNKS[:-2] + b"X-Late: 1\r\n\r\n"), (None,)),
    "too long": (answering(OK + b"!"), ("upstream_protocol_error",)),
    "too short": (answering(OK[:-1], close=True), ("upstream_reset",)),
    "split": (answering(b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok"),
              ("upstream_protocol_error",)),
    "controls": (answering(b"HTTP/1.1 200 OK\r\nX: a\x0bb\r\nContent-Length: 2\r\n\r\nok"),
                 ("upstream_protocol_error",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISBEHAVING)
def test_no_upstream_holds_us_past_the_deadline(world: World, kind: str) -> None:
    """Its answer as it was, cut where it never ends, or ours; and nobody is left waiting."""

    async def story() -> None:
        serve, wanted = MISBEHAVING[kind]
        async with origin(serve) as seen:
            await world.serve(remote(seen.url, DEADLINES[:-2] + ", stream: 700ms}\n"))
            replies = await soon(asyncio.gather(*(world.ask(b"hi") for _ in range(5))), 4)
            for reply in replies:
                assert reply.error in wanted
                assert reply.whole == (kind != "endless")
                told = await world.record_of(reply)
                assert told.header["error"] == (
                    "upstream_timeout" if kind == "endless" else reply.error
                )
            await until(world.idle)

    world.run(story())


def test_nothing_is_left_behind(world: World) -> None:
    """After hundreds of misbehaving clients and upstreams: no task, connection or room is lost."""

    async def story() -> None:
        await world.serve(LOCAL)
        for known in world.clients:
            known.leave()
        await until(lambda: not world.worker.server.server_state.connections)
        before = len(asyncio.all_tasks())

        async def misbehave(number: int) -> None:
            client = await world.connect()
            sent = request(applicants())
            if number % 4 == 0:
                await client.say(sent[: number * 3])
            elif number % 4 == 1:
                await client.say(sent)
                await client.answer()
            elif number % 4 == 2:
                await drip(client, sent[:40], 0)
            else:
                await client.say(sent * 3 + b"garbage\r\n\r\n")
            reset(client) if number % 2 else client.leave()

        async with origin(answering(OK[:-1], close=True)) as seen:
            for round_ in range(2):
                await asyncio.gather(*(misbehave(number) for number in range(100)))
                await world.serve(remote(seen.url, DEADLINES) if not round_ else LOCAL)
            await until(world.idle)
            state = world.worker.server.server_state
            await until(lambda: not state.connections and not state.tasks)
            assert world.worker.handler.load.held_bytes == 0
            assert not world.worker.handler.open
        await until(lambda: gc.collect() is not None and len(asyncio.all_tasks()) <= before)

    world.run(story(), 30)


@pytest.mark.parametrize("seconds", [0.05, 5.0])
def test_a_slow_disk_delays_only_who_waits_for_it(
    tmp_path_factory: pytest.TempPathFactory, seconds: float
) -> None:
    """50 ms: answers wait for it, together. 5 s: after journal.stall they are 503, and so is
    readiness; probes and models that chose `bounded` go on meanwhile."""
    with running(tmp_path_factory.mktemp("disk"), stall_s=0.5) as world:

        async def story() -> None:
            closed = gate(world)
            loop = asyncio.get_running_loop()

            async def disk() -> None:
                while True:
                    if closed.waiting:
                        await asyncio.sleep(seconds)
                        closed.let()
                    await asyncio.sleep(0.001)

            turning = asyncio.ensure_future(disk())
            asked = [asyncio.ensure_future(world.ask(applicants())) for _ in range(20)]
            await until(lambda: closed.waiting)
            began = loop.time()
            assert (await soon(world.ask(target=b"/-/live", method=b"GET"), 1)).status == 200
            replies = await soon(asyncio.gather(*asked), 10)
            if seconds < 1:
                assert {reply.status for reply in replies} == {200}
            else:
                assert {reply.error for reply in replies} == {"journal_unavailable"}
                assert loop.time() - began < 4  # nobody waits for the disk, but for its stall
                assert (await soon(world.ask(target=b"/-/live", method=b"GET"), 1)).status == 200
            turning.cancel()
            ungate(world, closed)
            await until(lambda: world.worker.journal and world.worker.journal.writable, 8)
            assert (await world.ask(applicants())).status == 200

        world.run(story(), 30)
