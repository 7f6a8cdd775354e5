"""One request on a client's connection, and the way of its answer.

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
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.errors import CODES, Refusal
from gateway.exchange import Headers

if TYPE_CHECKING:
    from gateway.dataplane.server import Protocol

BODY_HIGH_BYTES: Final = 64 * 1024
DATE: Final = b"date: "
SAID: Final = frozenset((b"content-length: ", DATE))
"""Headers that we say ourselves where the answer does not."""


def _phrase(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b" % (status, _phrase(status)) for status in range(200, 600)
}


@lru_cache(maxsize=2)
def _date(seconds: int) -> bytes:
    """RFC 9110, 5.6.7; an upstream's own date is passed as it came."""
    return DATE + formatdate(seconds, usegmt=True).encode()


NAMES_MAX: Final = 256
_starts: dict[bytes, bytes] = {}
"""How a header's line begins, by name: filled with what comes, up to `NAMES_MAX`."""


def _start(name: bytes) -> bytes:
    start = name.lower() + b": "
    if len(_starts) < NAMES_MAX:
        _starts[name] = start
    return start


class Turn:
    __slots__ = (
        "_chunks", "_left", "_way", "_waiter", "chunked", "expects", "first", "gone", "headers",
        "keep_alive", "late", "method", "old", "on_gone", "over", "path", "query", "size",
        "started", "task", "until_close", "whole",
    )  # fmt: skip

    def __init__(
        self, way: Protocol, method: str, path: str, query: str, headers: Headers,
        first: dict[bytes, bytes], keep_alive: bool, expects: bool, old: bool = False,
    ) -> None:  # fmt: skip
        """`way` is the connection; `path` and `query` are raw; names of `headers` are in lower
        case, `first` is the first value of each. `expects`: the client waits for "100 Continue"
        before it sends its body; `old`: it speaks HTTP/1.0."""
        self._way, self.method, self.path, self.query = way, method, path, query
        self.headers, self.first = headers, first
        self.keep_alive, self.expects, self.old = keep_alive, expects, old
        self.task: asyncio.Task[None] | None = None
        self._chunks: list[bytes] = []
        self.size = 0
        self.whole = self.late = self.started = self.over = False
        self.chunked = self.until_close = False
        self.gone: str | None = None
        self.on_gone: Callable[[str], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._left = 0  # bytes of the answer's body that are still owed, where its length is known

    # The connection's side.

    def push(self, data: bytes) -> None:
        """Bytes of the request's body."""
        self._chunks.append(data)
        self.size += len(data)
        if self.size > BODY_HIGH_BYTES:
            self._way.hold_back()
        if self._waiter is not None:
            self._wake()

    def finish(self) -> None:
        """The request is whole."""
        self.whole = True
        if self._waiter is not None:
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

    def arrived(self, at_most: int) -> bytes | None:
        """All of the body, taken, if it is here and has at most so many bytes; else `receive` says:
        None."""
        if not self.whole or self.size > at_most or self.gone is not None:
            return None
        return self._take()

    def _take(self) -> bytes:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.size = 0
        return body

    async def receive(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether more comes. Refusal `request_timeout` where it
        does not come in time, `client_gone`."""
        if self.expects and not self.whole and self.gone is None:
            self.expects = False
            self._way.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._chunks or self.whole or self.late or self.gone is not None or self.over):
            self._way.read_on()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        if self.gone is not None or self.over:
            raise Refusal("client_gone", CODES["client_gone"][1])
        if self.late and not self.whole:
            self.keep_alive = False
            raise Refusal("request_timeout", f"{self.size} bytes of the body came in time")
        return self._take(), not self.whole

    @property
    def congested(self) -> bool:
        """The client does not read: whoever has something for it waits for `relieved` first."""
        return self._way.unwritable is not None and self.gone is None

    async def relieved(self) -> None:
        """Once the client reads, or has gone."""
        while (writable := self._way.unwritable) is not None and self.gone is None:
            await asyncio.shield(writable)

    # An answer. Nothing happens once the client has gone.

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """All of it; it says its length, and the date where `headers` do not."""
        if self.gone is None:
            self._write(self._head(status, headers, len(body)), body, False)

    def begin(self, status: int, headers: Headers) -> None:
        """The head of one that comes in pieces."""
        if self.gone is None:
            self._way.transport.write(self._head(status, headers, None))

    def pass_on(self, piece: bytes, *, more: bool = True) -> None:
        """A piece of the body, the last one unless `more`."""
        if self.gone is None:
            assert self.started, "a head comes first"
            self._write(b"", piece, more)

    def _head(self, status: int, headers: Headers, whole: int | None) -> bytes:
        """`whole`: length of the body, where it is there."""
        assert not self.started, "an answer has one head"
        self.started = True
        if not self.whole:
            self.keep_alive = False  # what is left of the body would be taken for a request
        bodiless = status == 204 or status == 304
        length, dated = None, whole is None
        lines = [STATUS_LINES[status]]
        for name, value in headers:
            start = _starts.get(name) or _start(name)
            if start in SAID:
                if start == DATE:
                    dated = True
                elif bodiless and whole is not None:
                    continue  # what it says is not here; the client would wait for it
                else:
                    length = int(value)
            lines.append(start + value)
        if length is None and whole is not None and not bodiless:
            length = whole
            lines.append(b"content-length: %d" % whole)
        if not dated:
            lines.append(_date(int(time.time())))  # noqa: TID251 - HTTP wants the wall
        bodiless = bodiless or self.method == "HEAD"
        if length is not None:
            self._left = 0 if bodiless else length
        elif not bodiless:
            self.until_close, self.chunked = self.old, not self.old
        if self.chunked:
            lines.append(b"transfer-encoding: chunked")
        if not self.keep_alive:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        ends = len(lines)  # find, since `in` asks first whether its left side is a number
        if head.count(b"\r") != ends or head.count(b"\n") != ends or head.find(b"\0") >= 0:
            raise ValueError("CR, LF or NUL in the answer's head")
        return head

    def _write(self, head: bytes, body: bytes, more: bool) -> None:
        assert not self.over, "an answer ends once"
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
            self._way.transport.write(head + body)
        if not more:
            if self._left:
                raise ValueError("an answer shorter than its content-length")
            self.over = True
            self._way.answered(self)

    def cut(self) -> None:
        """End the connection before the end of the message: the client sees that it is cut."""
        self._way.cut(self)
