"""Many event streams at once, on real sockets: none waits for another, none is mixed up, and what
they cost is bounded."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from origins import Line, Origin, origin
from world import Client, Reply, World, config, request, running, until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHAT = b"/v1/chat/completions"
LAST = b"data: [DONE]\n\n"
PATIENCE_S = 100
BYTES_A_STREAM = 128 * 1024
"""Of client, gateway and origin together, which are one process here."""


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(who: bytes, number: int) -> bytes:
    said = b'{"choices":[{"delta":{"content":"%b.%d "},"finish_reason":null}]}' % (who, number)
    return b"data: " + said + b"\n\n"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def ask(world: World, who: int) -> tuple[Client, Reply]:
    client = await world.connect()
    body = b'{"model": "big", "stream": true, "who": "%d"}' % who
    await client.say(request(body, target=CHAT, key=None))
    return client, await client.head()


def test_a_thousand_streams_flow_beside_each_other(tmp_path: Path) -> None:
    """Every client has its first event before any second one is made. One more than
    `limits.in_flight` is refused and disturbs none. Each stream is its own, and has its record."""
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 5 * count + 500), hard), hard))
    text = "versions: {v1: {upstream: 'http://127.0.0.1:1'}}\nrules: [{name: a, split: {v1: }}]\n"
    text += f"protocol: openai\nlimits: {{in_flight: {count}, connections: {count}}}\n"
    text = config(text, callers="", name="big")
    with running(tmp_path, text) as world:
        world.run(_story(world, text, count), PATIENCE_S)


async def _story(world: World, text: str, count: int) -> None:
    opened = asyncio.Event()
    spoken: list[bytes] = []

    async def speak(_: Origin, line: Line) -> None:
        while (asked := await line.request()) is not None:
            who = asked.body.split(b'"who": "')[1].rstrip(b'"}')
            await line.write(HEAD + piece(event(who, 0)))
            await opened.wait()
            spoken.append(who)
            for number in range(1, 4):
                await line.write(piece(event(who, number)))
            await line.write(piece(LAST) + b"0\r\n\r\n")

    async with origin(speak) as seen:
        await world.serve(text.replace("http://127.0.0.1:1", seen.url))
        before = peak_bytes()
        streams = await asyncio.gather(*(ask(world, number) for number in range(count)))
        for number, (client, head) in enumerate(streams):
            assert (head.status, head.error) == (200, None)
            assert await client.chunk() == event(b"%d" % number, 0)
        assert not spoken
        assert world.worker.handler.in_flight == count
        refused = await world.ask(b'{"model": "big"}', target=CHAT, key=None)
        assert (refused.status, refused.error) == (503, "overloaded")
        opened.set()
        for number, (client, _) in enumerate(streams):
            rest = b""
            while data := await client.chunk():
                rest += data
            expected = [event(b"%d" % number, place) for place in range(1, 4)]
            assert rest == b"".join(expected) + LAST
        await until(world.idle)
        assert peak_bytes() - before < count * BYTES_A_STREAM
    ids = {head.id for _, head in streams}
    told = [item.header for item in world.records() if item.header["kind"] == "exchange"]
    done = {header["id"]: header for header in told if header["status"] == 200}
    assert done.keys() == ids
    assert all(header["stream"] for header in done.values())
    assert {header["completion"]["completion_tokens"] for header in done.values()} == {4}
