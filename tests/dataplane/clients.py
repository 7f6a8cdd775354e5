"""Clients that misbehave: they say slowly, read slowly, say too much, or leave."""

from __future__ import annotations

import asyncio
import socket
import struct

from world import Client, World, request


async def drip(client: Client, data: bytes, pause_s: float = 0.02) -> None:
    """A byte at a time, until the server has had enough."""
    try:
        for byte in data:
            await client.say(bytes([byte]))
            await asyncio.sleep(pause_s)
    except ConnectionError:
        pass


async def flood(client: Client, data: bytes) -> None:
    """All of it, as fast as it is taken, until the server has had enough."""
    try:
        for start in range(0, len(data), 65536):
            await client.say(data[start : start + 65536])
    except (ConnectionError, RuntimeError):  # uvloop's word for a transport that is closed
        pass


def reset(client: Client) -> None:
    """Leave with RST instead of FIN."""
    connected = client.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def deaf(world: World, sent: bytes, receive_bytes: int = 4096) -> socket.socket:
    """Asks, and never reads: with a small window, so that the server sees it soon."""
    loop = asyncio.get_running_loop()
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connected.setblocking(False)
    await loop.sock_connect(connected, ("127.0.0.1", world.port))
    await loop.sock_sendall(connected, sent)
    return connected


def chunked(pieces: list[bytes], headers: tuple[bytes, ...] = ()) -> bytes:
    """A request whose body has no length."""
    head = request(b"", headers=(*headers, b"transfer-encoding: chunked"))
    head = head.replace(b"content-length: 0\r\n", b"")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
