"""What a client may take: time, memory, connections. Each limit's reaching is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from clients import chunked, deaf, drip, flood, reset
from origins import Line, Origin, answering, echo, origin, silent
from world import INFER, LOCAL, World, applicants, remote, request, running, soon, until

from gateway.dataplane import server
from gateway.dataplane.limits import Load
from gateway.settings import Overload


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def limited(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Other limits for connections that are made from now on."""

    def limit(**limits: float) -> None:
        app = world.worker.app
        monkeypatch.setattr(app, "limits", replace(app.limits, **limits))  # type: ignore[arg-type]

    return limit


HEAD = b"POST " + INFER + b" HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "lines",
    [b"", b"host: a\r\nhost: a\r\n", b"host: a\r\nHost: b\r\n", b"host: a, b\r\n", b"host: a b\r\n",
     b"host: u@a\r\n", b"host: a\r\nx_headworks_version: v2\r\n",
     b"host: a\r\ncontent_length: 3\r\n", b"host: a\r\nx: a\x01b\r\n", b"host: a\r\nx: a\x7fb\r\n",
     b"host: a\r\ntransfer_encoding: chunked\r\n"])  # fmt: skip
def test_one_host_and_no_disguise(world: World, lines: bytes) -> None:
    """None or two hosts, control characters, names that others read as ours: 400, and the end."""

    async def story() -> None:
        client = await world.connect()
        await client.say(HEAD + lines + b"content-length: 0\r\n\r\n")
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (400, "bad_request")
        assert await client.ended()

    world.run(story())


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"http://b/-/live", 400), (b"http://a:80/-/live", 400), (b"HTTP://u@a/-/live", 400),
     (b"http://A/-/live", 200), (b"HTTP://a/-/live?x=http://b", 200), (b"/-/live?http://b", 200)],
)  # fmt: skip
def test_a_target_names_no_other_host(world: World, target: bytes, status: int) -> None:
    """Where target and header name two hosts, another server would have believed the other one."""

    async def story() -> None:
        client = await world.connect()
        await client.say(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await soon(client.answer())).status == status
        client.leave()

    world.run(story())


@pytest.mark.parametrize(
    "lines",
    [b"transfer-encoding: gzip, chunked", b"transfer-encoding: chunked, chunked",
     b"transfer-encoding: gzip\r\ntransfer-encoding: chunked",
     b"transfer-encoding: identity"])  # fmt: skip
def test_no_coding_of_a_message_but_chunks(world: World, lines: bytes) -> None:
    """What we would not undo would reach the version undone by half: 400, and the end."""

    async def story() -> None:
        client = await world.connect()
        await client.say(HEAD + b"host: a\r\n" + lines + b"\r\n\r\n0\r\n\r\n")
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (400, "bad_request")
        assert await client.ended()

    world.run(story())


@pytest.mark.parametrize("endless", [b"1;a=", b"0\r\nx: ", b"0\r\n" + b"x: y\r\n" * 99])
def test_what_is_no_body_within_one_has_an_end(world: World, limited: Any, endless: bytes) -> None:
    """Extensions and trailers without end are a head that is too long, though none is kept."""

    async def story() -> None:
        limited(head_bytes=2048)
        client = await world.connect()
        await client.say(chunked([applicants()]).removesuffix(b"0\r\n\r\n") + endless)
        for _ in range(5):
            await client.say(b"y" * 1024)
            await asyncio.sleep(0.01)
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (431, "headers_too_large")

    world.run(story())


@pytest.mark.parametrize("length", [True, False])
def test_a_slow_body_is_a_408(world: World, limited: Any, length: bool) -> None:
    """However steadily it drips: the time is of the whole body; recorded, and the last answer."""

    async def story() -> None:
        limited(body_s=0.2)
        client = await world.connect()
        whole = request(applicants()) if length else chunked([applicants()])
        head, _, body = whole.partition(b"\r\n\r\n")
        await client.say(head + b"\r\n\r\n")
        dripping = asyncio.ensure_future(drip(client, body))
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (408, "request_timeout")
        assert reply.get(b"connection") == b"close"
        await soon(dripping)
        told = await world.record_of(reply)
        assert (told.header["error"], told.header["status"]) == ("request_timeout", 408)
        await until(world.idle)

    world.run(story())


def test_a_body_that_comes_slowly_enough_is_taken(world: World, limited: Any) -> None:
    """A second request on the connection has a time of its own."""

    async def story() -> None:
        limited(body_s=2)
        client = await world.connect()
        for _ in range(2):
            await drip(client, request(applicants())[:300], 0)
            await client.say(request(applicants())[300:])
            assert (await soon(client.answer())).status == 200
        client.leave()

    world.run(story())


@pytest.mark.parametrize("hold", ["32MiB", "1MiB"])
def test_who_does_not_read_is_cut(world: World, limited: Any, hold: str) -> None:
    """A whole answer or a stream: after the time the connection is reset, and that is counted."""

    async def story() -> None:
        limited(write_s=0.2)
        size = 16 << 20
        body = b"x" * size
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        async with origin(answering(raw + body)) as seen:
            await world.serve(remote(seen.url, f"limits: {{hold: {hold}}}"))
            before = world.count("headworks_refusals", code="client_too_slow")
            left = world.count("headworks_clients_left", model="mortgage", code="client_too_slow",
                               policy="drain")  # fmt: skip
            client = await deaf(world, request(b"hi"))
            if hold == "32MiB":
                await until(
                    lambda: world.count("headworks_refusals", code="client_too_slow") == before + 1
                )
            else:
                await until(world.worker.handler.open.__len__)
                await until(world.idle)
            client.close()
            await until(world.idle)
            if hold != "32MiB":
                assert world.count(
                    "headworks_clients_left", model="mortgage", code="client_too_slow",
                    policy="drain",
                ) == left + 1  # fmt: skip
                told = await world.record(
                    lambda told: (
                        told.header.get("client", {}).get("left") == "client_too_slow"
                        and told.header["kind"] == "exchange"
                    )
                )
                assert told.response.length == size
                assert told.header["client"]["sent"] < size

    world.run(story())


def test_a_slow_reader_gets_it_all(world: World, limited: Any) -> None:
    """Who takes 64 KiB in each span of the time is not cut, however long it takes."""

    async def story() -> None:
        limited(write_s=0.3)
        size = 6_000_000
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        async with origin(answering(raw + b"x" * size)) as seen:
            await world.serve(remote(seen.url))
            client = await deaf(world, request(b"hi"), 65536)
            loop, got = asyncio.get_running_loop(), b""
            while len(got) < size and (piece := await loop.sock_recv(client, 262144)):
                got += piece
                await asyncio.sleep(0.01)
            assert len(got) >= size
            client.close()
            await until(world.idle)

    world.run(story())


def test_who_stays_after_a_refusal_was_not_slow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its answer and only does not close: let go after a while, counted as refused alone."""

    async def story() -> None:
        monkeypatch.setattr(server, "LINGER_S", 0.1)
        before = world.count("headworks_refusals", code="client_too_slow")
        client = await world.connect()
        await client.say(b"no request\r\n\r\n")
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (400, "bad_request")
        own = client.writer.get_extra_info("sockname")
        peers = world.worker.server.server_state.connections
        await until(lambda: all(each.transport.get_extra_info("peername") != own for each in peers))
        assert world.count("headworks_refusals", code="client_too_slow") == before

    world.run(story())


def test_connections_have_a_number(world: World, limited: Any) -> None:
    """One more gets 503 and the end; when another leaves there is room again."""

    async def story() -> None:
        for known in world.clients:
            known.leave()
        state = world.worker.server.server_state
        await until(lambda: not state.connections)
        limited(connections=3)
        clients = [await world.connect() for _ in range(3)]
        await until(lambda: len(state.connections) == 3)
        extra = await world.connect()
        reply = await soon(extra.answer())
        assert (reply.status, reply.error) == (503, "too_many_connections")
        assert reply.get(b"retry-after") == b"1"
        assert await extra.ended()
        await world.record(lambda told: told.header.get("error") == "too_many_connections")
        clients[0].leave()
        await until(lambda: len(state.connections) == 2)
        assert (await world.ask(target=b"/-/live", method=b"GET")).status == 200

    world.run(story())


def test_an_idle_connection_is_let_go(world: World, limited: Any) -> None:
    """After its answer a connection without a request ends when its time is over."""

    async def story() -> None:
        await world.serve(LOCAL)
        limited(idle_s=0.1)
        client = await world.connect()
        await client.say(request(applicants()))
        assert (await soon(client.answer())).status == 200
        assert await client.ended()

    world.run(story())


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_too_long_is_told_before_it_is_sent(world: World, stated: bool) -> None:
    """413 reaches a client that goes on sending: it is not lost to a reset."""

    async def story() -> None:
        await world.serve(LOCAL)
        body = b" " * 4_000_000
        client = await world.connect()
        whole = request(body) if stated else chunked([body])
        sending = asyncio.ensure_future(flood(client, whole))
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (413, "request_too_large")
        client.leave()
        await soon(sending)
        await until(world.idle)

    world.run(story())


def test_bodies_have_room_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above overload.bodies a further body is refused, and room is given back."""

    async def story() -> None:
        await world.serve(LOCAL)
        handler = world.worker.handler
        monkeypatch.setattr(handler, "load", Load(Overload(bodies="2KiB"), 1))  # type: ignore[arg-type]
        assert (await world.ask(applicants())).status == 200
        reply = await world.ask(applicants(200))
        assert (reply.status, reply.error) == (503, "memory_full")
        assert handler.load.held_bytes == 0
        assert (await world.ask(applicants())).status == 200

    world.run(story())


def test_who_is_shed_by_class(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten: batch goes at seven, default at nine, critical at ten; before a version is chosen,
    with 503, a time to come back, and a record."""

    async def story() -> None:
        async with origin(silent) as seen:
            rules = "".join(
                f"- {{name: {name}, when: {{header: {{x-class: {name}}}}}, split: {{v1: 100%}},"
                f" priority: {name}}}\n  " for name in ("batch", "critical")
            )  # fmt: skip
            text = remote(seen.url, "timeouts: {request: 2s}").replace(
                "rules: [{name: all, split: {v1: 100%}}]",
                f"rules:\n      {rules.replace(chr(10) + '  ', chr(10) + '      ')}"
                "- {name: all, split: {v1: 100%}}",
            )
            await world.serve(text)
            load = Load(Overload(in_flight=10), 1)
            monkeypatch.setattr(world.worker.handler, "load", load)
            asked = []

            async def fill(upto: int, header: bytes) -> None:
                while load.in_flight < upto:
                    asked.append(asyncio.ensure_future(world.ask(b"hi", headers=(header,))))
                    await until(lambda: len(seen.requests) == len(asked))

            async def shed(header: bytes) -> None:
                reply = await soon(world.ask(b"hi", headers=(header,)))
                assert (reply.status, reply.error) == (503, "shed")
                assert 1 <= int(reply.get(b"retry-after") or 0) <= 4
                told = await world.record_of(reply)
                assert "arm" not in told.header

            await fill(7, b"x-class: batch")
            await shed(b"x-class: batch")
            await fill(9, b"x-class: none")
            await shed(b"x-class: none")
            await fill(10, b"x-class: critical")
            await shed(b"x-class: critical")
            for reply in await asyncio.gather(*asked):
                assert reply.error == "upstream_timeout"
            assert load.in_flight == 0

    world.run(story())


@pytest.mark.parametrize("leave", [reset, lambda client: client.leave()])
@pytest.mark.parametrize("policy", ["drain", "cancel"])
def test_a_client_that_leaves_is_recorded(world: World, leave: Any, policy: str) -> None:
    """Drained: the version is heard to its end and its answer recorded. Cancelled: its connection
    is closed at once, and the record is a 499."""

    async def story() -> None:
        name = f"{policy}-{leave.__name__}"
        opened = asyncio.Event()
        ended: list[bool] = []

        async def waiting(seen: Origin, line: Line) -> None:
            seen.requests.append(await line.request())  # type: ignore[arg-type]
            reading = asyncio.ensure_future(line.reader.read())
            waiting = asyncio.ensure_future(opened.wait())
            await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
            ended.append(reading.done())
            for task in (reading, waiting):
                task.cancel()
            await line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        async with origin(waiting) as seen:
            await world.serve(remote(seen.url, f"on_disconnect: {policy}"))
            client = await world.connect()
            await client.say(request(b"hi", headers=(b"x-request-id: " + name.encode(),)))
            await until(lambda: seen.requests)
            leave(client)
            if policy == "drain":
                await until(lambda: any(d.left for d in world.worker.handler.open))
                opened.set()
            told = await world.record(
                lambda told: told.context.get("request_id") == name and "client" in told.header
            )
            assert told.header["client"] == {"left": "client_gone", "policy": policy, "sent": 0}
            wanted = (200, None, b"ok") if policy == "drain" else (499, "client_gone", None)
            assert (told.header["status"], told.header["error"]) == wanted[:2]
            if wanted[2] is not None:
                assert told.response.kept == wanted[2]
            await until(lambda: ended)
            assert ended == [policy == "cancel"]
            await until(world.idle)

    world.run(story())


def test_half_a_body_and_gone(world: World) -> None:
    """Nothing is sent to the version; the record says 499, and the leaving is counted."""

    async def story() -> None:
        async with origin(echo) as seen:
            await world.serve(remote(seen.url))
            left = {"model": "mortgage", "code": "client_gone", "policy": "drain"}
            before = world.count("headworks_clients_left", **left)
            client = await world.connect()
            await client.say(request(b"x" * 1000)[:-10])
            await until(lambda: world.worker.handler.in_flight == 1)
            client.leave()
            await until(world.idle)
            assert seen.requests == []
            await world.record(lambda told: told.header.get("error") == "client_gone")
            assert world.count("headworks_clients_left", **left) == before + 1

    world.run(story())


def test_too_many_requests_in_a_row_are_refused(world: World) -> None:
    """Behind the one under way at most 128 wait; those before get their answers."""

    async def story() -> None:
        await world.serve(LOCAL)
        client = await world.connect()
        await client.say(b"GET /-/live HTTP/1.1\r\nhost: a\r\n\r\n" * 140)
        statuses = []
        try:
            while True:
                statuses.append((await soon(client.answer())).status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        assert statuses == [200] * 129

    world.run(story())
