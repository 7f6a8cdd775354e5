"""One request on a client's connection, and the way of its answer: ASGI's receive and send.

Invariants kept here:

* **An answer is framed once**: its head is checked and written with its first bytes; a body is as
  long as the head said, or chunked, or the connection ends without the end of the message. Clients
  of HTTP/1.0 know no chunks: theirs ends with the connection, and where it is cut, by a reset.
* **A body waits in memory for nobody**: above `BODY_HIGH_BYTES` unread bytes the client is held
  back until somebody takes them, and an answer is written no faster than the client reads.
* **The client's end is told**: `gone` names how it went, and `on_gone` is called once.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable
from typing import Any, Final, Protocol

from gateway.dataplane.response import CONTROLS
from gateway.errors import Refusal

BODY_HIGH_BYTES: Final = 64 * 1024
CLOSE: Final = b"connection: close\r\n"


def _phrase(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status)) for status in range(200, 600)
}


class Way(Protocol):
    """What a turn asks of its connection."""

    def write(self, data: bytes) -> None: ...
    def read_on(self) -> None: ...
    def hold_back(self) -> None: ...
    def writable(self) -> asyncio.Future[None] | None: ...
    def answered(self, turn: Turn) -> None: ...
    def cut(self, turn: Turn) -> None: ...


class Turn:
    __slots__ = (
        "_chunks", "_head", "_left", "_way", "_waiter", "chunked", "expects", "gone",
        "keep_alive", "late", "method", "old", "on_gone", "over", "scope", "size", "started",
        "until_close", "whole",
    )  # fmt: skip

    def __init__(
        self, way: Way, method: str, keep_alive: bool, expects: bool, old: bool = False
    ) -> None:
        """`expects`: the client waits for "100 Continue" before it sends its body; `old`: it speaks
        HTTP/1.0."""
        self._way, self.method, self.old = way, method, old
        self.keep_alive, self.expects = keep_alive, expects
        self.scope: dict[str, Any] = {}
        self._chunks: list[bytes] = []
        self.size = 0
        self.whole = self.late = self.started = self.over = False
        self.chunked = self.until_close = False
        self.gone: str | None = None
        self.on_gone: Callable[[str], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._left = 0  # bytes of the answer's body that are still owed, where its length is known

    # The connection's side.

    def push(self, data: bytes) -> None:
        """Bytes of the request's body."""
        self._chunks.append(data)
        self.size += len(data)
        if self.size > BODY_HIGH_BYTES:
            self._way.hold_back()
        self._wake()

    def finish(self) -> None:
        """The request is whole."""
        self.whole = True
        self._wake()

    def expire(self) -> None:
        """The rest of the body did not come in time."""
        self.late = True
        self._wake()

    def leave(self, code: str) -> None:
        """The client has gone: nothing more can be said to it."""
        if self.gone is None and not self.over:
            self.gone = code
            self._wake()
            if self.on_gone is not None:
                self.on_gone(code)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The program's side.

    async def receive(self) -> dict[str, Any]:
        """The next piece of the body. Refusal `request_timeout` where it does not come in time."""
        if self.expects and not self.whole and self.gone is None:
            self.expects = False
            self._way.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._chunks or self.whole or self.late or self.gone is not None or self.over):
            self._way.read_on()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        if self.gone is not None or self.over:
            return {"type": "http.disconnect"}
        if self.late and not self.whole:
            self.keep_alive = False
            raise Refusal("request_timeout", f"{self.size} bytes of the body came in time")
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.size = 0
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def send(self, message: dict[str, Any]) -> None:
        """A head, then pieces of a body; nothing happens once the client has gone."""
        while (writable := self._way.writable()) is not None and self.gone is None:
            await asyncio.shield(writable)
        if self.gone is not None:
            return
        if message["type"] == "http.response.start":
            assert not self.started, "an answer has one head"
            self.started = True
            self._begin(message["status"], message["headers"])
            return
        assert self.started, "a head comes first"
        assert not self.over, "an answer ends once"
        self._piece(message.get("body", b""), message.get("more_body", False))

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not self.whole:
            self.keep_alive = False  # what is left of the body would be taken for a request
        length = None
        lines = [STATUS_LINES[status]]
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                length = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        bodiless = self.method == "HEAD" or status in (204, 304)
        self.until_close = length is None and not bodiless and self.old
        self.chunked = length is None and not bodiless and not self.old
        self._left = 0 if bodiless or length is None else length
        if self.chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(CLOSE)
        lines.append(b"\r\n")
        head = b"".join(lines)
        if len(head) - len(head.translate(None, CONTROLS)) != 2 * len(lines):
            raise ValueError("a control character in the answer's head")
        self._head = head

    def _piece(self, body: bytes, more: bool) -> None:
        head, self._head = self._head, b""
        if self.chunked:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif self.method == "HEAD":
            body = b""
        elif self.until_close:
            pass
        elif len(body) > self._left:
            raise ValueError("an answer longer than its content-length")
        else:
            self._left -= len(body)
        if head or body:
            self._way.write(head + body)
        if not more:
            if self._left:
                raise ValueError("an answer shorter than its content-length")
            self.over = True
            self._way.answered(self)

    def cut(self) -> None:
        """End the connection before the end of the message: the client sees that it is cut."""
        self._way.cut(self)
