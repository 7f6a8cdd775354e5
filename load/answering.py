"""Upstreams that answer everything alike, for what is measured at the gateway and not at them."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """A message whose length its head gives; the head in small letters."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    return head


def answering(status: bytes, body: bytes, wait_s: float = 0.0) -> Connection:
    """What a server does with a connection; each answer comes after `wait_s`."""
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    sent = head % (status, len(body)) + body

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await read_message(reader)
                await asyncio.sleep(wait_s)
                writer.write(sent)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return connection


Kind = tuple[bytes, bytes, float]
"""As `answering` is told."""


async def listening(kind: Kind) -> int:
    """The port of a server in this loop."""
    server = await asyncio.start_server(answering(*kind), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return port


def apart(kinds: Sequence[Kind]) -> tuple[BaseProcess, list[int]]:
    """Servers in a process of their own, so that what they do holds up nobody here."""
    context = multiprocessing.get_context("spawn")
    ports: Any = context.SimpleQueue()
    process = context.Process(target=_serve, args=(kinds, ports), daemon=True)
    process.start()
    return process, ports.get()


def _serve(kinds: Sequence[Kind], ports: Any) -> None:
    async def run() -> None:
        ports.put([await listening(kind) for kind in kinds])
        await asyncio.Event().wait()

    asyncio.run(run())
