"""Upstreams that misbehave: raw TCP servers that write exactly the bytes they are told to."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvloop

from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.upstream import Endpoint, Pool

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Run = Callable[[Coroutine[None, None, None]], None]

HEADERS = [(b"host", b"upstream.test")]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Request:
    """A request as its bytes came."""

    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        for line in self.head.split(b"\r\n")[1:]:
            found, _, value = line.partition(b": ")
            if found.lower() == name:
                return value
        return None


class Line:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> Request | None:
        """The next request, or None when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            request = Request(head, b"")
            length = int(request.header(b"content-length") or 0)
            request.body = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return request

    async def write(self, data: bytes, pieces: int = 0) -> None:
        """All at once, or so many bytes at a time, each in a segment of its own."""
        step = pieces or len(data) or 1
        for start in range(0, len(data), step):
            self.writer.write(data[start : start + step])
            await self.writer.drain()
            await asyncio.sleep(0)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        connected = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Origin:
    """What a running origin has seen."""

    port: int
    lines: list[Line] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def run_in(loop: str, main: Coroutine[None, None, None]) -> None:
    """Runs a coroutine in that kind of loop for at most ten seconds."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(main, 10))


def pool_for(seen: Origin, limits: PoolLimits | None = None, **timeouts: float) -> Pool:
    return Pool(Endpoint.of(seen.url), limits or PoolLimits(), Timeouts(**timeouts))


async def ask(pool: Pool, target: bytes = b"/") -> bytes:
    """The body of the answer to a GET, read to its end."""
    answer = await pool.send(b"GET", target, HEADERS, b"")
    body = await answer.read(1 << 20)
    assert body is not None
    return body


Serve = Callable[[Origin, Line], Awaitable[None]]


@asynccontextmanager
async def origin(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    """An origin on a free port of the loopback that calls `serve` for each connection."""
    running: set[asyncio.Task[None]] = set()
    seen = Origin(0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        line = Line(reader, writer)
        seen.lines.append(line)
        try:
            await serve(seen, line)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            running.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        while running:
            await asyncio.sleep(0.001)


def answering(*answers: bytes, pieces: int = 0, close: bool = False) -> Serve:
    """Answers the n-th request of a connection with the n-th of `answers`, the last for ever."""

    async def serve(seen: Origin, line: Line) -> None:
        served = 0
        while (request := await line.request()) is not None:
            seen.requests.append(request)
            await line.write(answers[min(served, len(answers) - 1)], pieces)
            served += 1
            if close:
                line.close()
                return

    return serve


async def echo(seen: Origin, line: Line) -> None:
    """Answers with the request's body, or with its target when it has none."""
    while (request := await line.request()) is not None:
        seen.requests.append(request)
        body = request.body or request.head.split(b" ")[1]
        await line.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def silent(seen: Origin, line: Line) -> None:
    """Reads the request and never answers."""
    request = await line.request()
    if request is not None:
        seen.requests.append(request)
    await line.reader.read()


def stalling(start: bytes) -> Serve:
    """Answers with `start` and then says nothing more."""

    async def serve(seen: Origin, line: Line) -> None:
        await line.request()
        await line.write(start)
        await line.reader.read()

    return serve
