"""The origin of the benchmark: fixed answers as fast as a Python process can write them.

    python -m load.origin --port 9000 [--processes 2]

A bare uvloop protocol that looks for the length of a request and nothing else; several processes
share the port (SO_REUSEPORT). An SSE answer leaves event by event, each in a write of its own in a
turn of its own, so that whoever relays it sees a stream. That the origin is not the bottleneck is
measured in each trial: its busiest process's share of a core is part of the result.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket

import uvloop

from load import scenario

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"
BACKLOG = 2048
"""Who connects 256 times at once is not kept waiting a second for a lost SYN."""
LARGE = range(8_000, 100_000)
"""Lengths of requests that get the large answer."""


def whole(body: bytes, content_type: bytes = b"application/json") -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nserver: origin\r\ndate: Mon, 23 Nov 2026 19:00:00 GMT\r\n"
        b"content-type: %b\r\ncontent-length: %d\r\n\r\n"
    )
    return head % (content_type, len(body)) + body


SMALL, BIG, CHAT = (
    whole(body)
    for body in (scenario.small_answer(), scenario.large_answer(), scenario.chat_answer())
)
HEALTH = whole(b"{}")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENTS = [b"%x\r\n%b\r\n" % (len(event), event) for event in scenario.events()]
EVENTS[0] = STREAM_HEAD + EVENTS[0]
EVENTS[-1] += LAST_CHUNK


class Origin(asyncio.Protocol):
    """One connection. A request is its head and as many bytes as it states; none are pipelined."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._head = b""
        self._body = bytearray()
        self._missing = 0
        self._length = 0
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing or self._chunked:
            self._more(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._head[: end + 2], self._head[end + 4 :]
        self._head = head
        self._chunked = CHUNKED.search(head) is not None
        stated = LENGTH.search(head)
        self._missing = self._length = int(stated[1]) if stated else 0
        self._more(rest)

    def _more(self, data: bytes) -> None:
        if len(self._body) < 65_536:
            self._body += data
        if self._chunked:
            if not data.endswith(LAST_CHUNK):
                return
            self._length = len(self._body)
        else:
            self._missing -= len(data)
            if self._missing > 0:
                return
        head, body = self._head, bytes(self._body)
        self._head, self._missing, self._chunked = b"", 0, False
        self._body.clear()
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/chat/completions") or b"/stream/" in path:
            if b'"stream":true' in body or b'"stream": true' in body:
                self._event(0)
            else:
                self.transport.write(CHAT)
        elif head.startswith(b"GET"):
            self.transport.write(HEALTH)
        else:
            self.transport.write(BIG if self._length in LARGE else SMALL)

    def _event(self, number: int) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(EVENTS[number])
        if number + 1 < len(EVENTS):
            self.loop.call_soon(self._event, number + 1)


def listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    return listening


async def serve(port: int) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(Origin, sock=listen(port), backlog=BACKLOG)
    await stopped.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    children = []
    for _ in range(chosen.processes - 1):
        child = os.fork()
        if not child:
            uvloop.run(serve(chosen.port))
            return
        children.append(child)
    uvloop.run(serve(chosen.port))
    for child in children:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
