"""A wire between a client and a server that remembers every HTTP message on it, in order."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools

OURS = ("x-headworks-", "traceparent", "tracestate")
PROBES = ("GET /v2", "GET /v2/health/live", "GET /v2/health/ready")
FRAMING = ("host", "connection", "keep-alive", "transfer-encoding", "date", "expect")


@dataclass
class Message:
    """`start`: method and target, or the status; `headers` as sent, names in lower case."""

    start: str
    headers: list[list[str]] = field(default_factory=list)
    body: bytes = b""

    def told(self) -> dict[str, Any]:
        """What must be the same with and without the gateway: all but framing and our headers."""
        kept = [
            pair
            for pair in self.headers
            if not pair[0].startswith(OURS) and pair[0] not in (*FRAMING, "content-length")
        ]
        return {"start": self.start, "headers": sorted(kept),
                "body": base64.b64encode(self.body).decode()}  # fmt: skip


def probe(told: dict[str, Any]) -> bool:
    """Asked at most once a second: the gateway has the answer from a moment ago."""
    return told["start"] in PROBES


class _Side:
    """One direction of one connection."""

    def __init__(self, messages: list[Message], *, requests: bool) -> None:
        self._messages = messages
        self._url = b""
        self._requests = requests
        make = httptools.HttpRequestParser if requests else httptools.HttpResponseParser
        self._parser = make(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._message, self._url = Message(""), b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._message.headers.append([name.decode("latin-1").lower(), value.decode("latin-1")])

    def on_body(self, body: bytes) -> None:
        self._message.body += body

    def on_message_complete(self) -> None:
        if self._requests:
            method = self._parser.get_method().decode()
            self._message.start = f"{method} {self._url.decode('latin-1')}"
        else:
            self._message.start = str(self._parser.get_status_code())
        self._messages.append(self._message)


class Tap:
    """`requests` and `answers` in the order in which they were whole."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.requests: list[Message] = []
        self.answers: list[Message] = []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._pass(reader, to_writer, _Side(self.requests, requests=True)),
            self._pass(to_reader, writer, _Side(self.answers, requests=False)),
        )

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: _Side
    ) -> None:
        try:
            while data := await reader.read(65536):
                side.feed(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def tap(port: int) -> AsyncIterator[Tap]:
    """A tap before `port`; what is under way when it ends is cut."""
    found = Tap(port)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await found._accept(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
