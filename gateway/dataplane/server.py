"""The server's side of HTTP/1.1: one connection of a client, as uvicorn's `http=` class.

uvicorn's own takes a head of any size and number of headers, keeps half a head or half a body open
for ever, waits for ever for a client that does not read, and answers its own 400s as text that
nobody counts. Here:

* **Every wait ends.** `_awaits` says for what the connection waits now, `_due` until when: a head,
  a body, a client that reads, the next request. One timer a connection wakes at or before that time
  and looks again, so a request costs no timer of its own.
* **One way to read a request.** llhttp without leniency, and beyond it: exactly one host, no
  control characters in values, no transfer coding but chunks, and no name with underscores that
  some servers would read as one of ours or of the message's framing (`x_headworks_id`,
  `content_length`). Trailers are dropped: behind the head nothing may join it.
* **Answers go in the order of requests**, one under way at a time; what cannot be parsed is
  answered by us, in turn, and ends the connection.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
from collections import deque
from functools import lru_cache
from typing import Any, Final, cast

import httptools

from gateway.dataplane.heads import KnownHead, find_known, remember
from gateway.dataplane.limits import ClientLimits
from gateway.dataplane.strictness import FRAMING, find_wrong
from gateway.dataplane.turn import STATUS_LINES, Turn
from gateway.errors import CODES
from gateway.protocol import v2

PIPELINE_MAX: Final = 128  # requests that wait behind the one under way
WRITE_PROGRESS_BYTES: Final = 64 * 1024  # what a client has to take in `clients.write`
LINGER_S: Final = 2.0  # how long what a refused client still sends is read and forgotten
RESET: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
log = logging.getLogger("headworks.server")


@lru_cache(maxsize=64)
def _split(url: bytes) -> tuple[str, str]:
    """Path and query of a request's target, raw."""
    parts = httptools.parse_url(url)
    return parts.path.decode("latin-1"), (parts.query or b"").decode("latin-1")


class Protocol(asyncio.Protocol):
    """`config.app.answer` is called with each request; its `limits`, `draining` and `refused(code)`
    are what else is asked of it."""

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self.app = config.app
        self.limits: ClientLimits = config.app.limits
        self.loop = asyncio.get_running_loop()
        self.connections, self.tasks = server_state.connections, server_state.tasks
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.parser = httptools.HttpRequestParser(self)
        self.turn: Turn | None = None  # under way
        self.reading: Turn | None = None  # whose body is being read
        self._task: asyncio.Task[None] | None = None
        self._resting: asyncio.Future[Turn | None] | None = None  # until there is a turn again
        self.waiting: deque[Turn] = deque()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0  # read while a head was not yet whole
        self._framing_bytes = 0  # read within a body and none of it: extensions, trailers
        self._read_bytes = 0  # at most so many of them belong to a head that is whole now
        self._in_head, self._begun = True, False
        self._resuming = self._refused = self._held_back = False
        self.unwritable: asyncio.Future[None] | None = None  # while the client does not read
        self._unsent = 0
        self._awaits = ""
        self._due = self._timer_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)
        self._await("head", self.limits.head_s)
        if len(self.connections) > self.limits.connections:
            limit = self.limits.connections
            self.refuse("too_many_connections", f"{limit} connections are open already")

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._rest()
        if self._timer is not None:
            self._timer.cancel()
        self._let_write()
        self._wake(None)
        for turn in (self.turn, *self.waiting):
            if turn is not None:
                turn.leave("client_gone")
        self.waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        in_head = self._in_head
        between = self._is_between()
        if between and (known := find_known(data)) is not None and self._allows(known):
            self._take_known(known, data)
            return
        self._read_bytes = self._head_bytes + len(data)
        if in_head:
            self._head_bytes = self._read_bytes
        else:
            self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse("bad_request", "the request is not valid HTTP/1.1")
        if not self._in_head:
            if self._framing_bytes > self.limits.head_bytes:
                self._refuse_size()
            elif in_head and self.reading is self.turn:
                self._await("body", self.limits.body_s)
        elif self._begun or self._head_bytes:
            self._head_bytes = self._head_bytes or self._measure()  # it began behind a request
            if self._head_bytes > self.limits.head_bytes:
                self._refuse_size()
            elif not self._awaits or self._awaits == "idle":
                self._await("head", self.limits.head_s)
        elif between and self.turn is not None and self.turn.whole and not self.waiting:
            remember(data, self.turn)

    def _is_between(self) -> bool:
        """The next byte is the first one of a message, and no request is under way."""
        return self.turn is None and self._in_head and not (self._begun or self._head_bytes)

    def _allows(self, known: KnownHead) -> bool:
        limits = self.limits
        return len(known.headers) <= limits.headers and known.size <= limits.head_bytes

    def _take_known(self, known: KnownHead, data: bytes) -> None:
        turn = Turn(self, known.method, known.path, known.query, known.headers, known.first,
                    True, False)  # fmt: skip
        self._rest()
        if known.length:
            turn.push(data[known.size :])
        turn.finish()
        self._start(turn)

    def eof_received(self) -> None:
        """Half a connection is none: it closes."""

    def pause_writing(self) -> None:
        if self.unwritable is None:
            self.unwritable = self.loop.create_future()
        self._unsent = self._untaken()
        self._await("write", self.limits.write_s)

    def resume_writing(self) -> None:
        if self._awaits == "write":
            self._rest()
        self._let_write()
        if self.turn is None:
            self._await("idle", self.limits.idle_s)

    def _untaken(self) -> int:
        """Bytes that the client has not taken, here and in the kernel, whose buffer is larger."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        queued = bytearray(4)
        if descriptor >= 0:
            fcntl.ioctl(descriptor, termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _let_write(self) -> None:
        waiter, self.unwritable = self.unwritable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        self._url, self._headers = b"", []
        self._in_head = self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = self._begun = False
        self._head_bytes = self._framing_bytes = 0
        if self._resuming:
            self._resuming = False
            return
        if self._refused:
            return
        headers, limits = self._headers, self.limits
        first = dict(reversed(headers))  # the first of each name
        version = self.parser.get_http_version()
        if len(headers) > limits.headers:
            self.refuse("headers_too_large", f"more than {limits.headers} headers")
        elif self._read_bytes > limits.head_bytes and self._measure() > limits.head_bytes:
            self._refuse_size()
        elif (wrong := find_wrong(self._url, headers, first, version)) is not None:
            self.refuse("bad_request", wrong)
        elif len(self.waiting) >= PIPELINE_MAX:
            self.refuse("bad_request", f"more than {PIPELINE_MAX} requests wait for an answer")
        else:
            self._take(version, first)

    def _measure(self) -> int:
        """Bytes of a head, as far as it is parsed; of one that never ends its reads are counted."""
        return len(self._url) + sum(len(n) + len(v) + 4 for n, v in self._headers)

    def _refuse_size(self) -> None:
        words = f"the head is longer than {self.limits.head_bytes} bytes"
        self.refuse("headers_too_large", words)

    def _take(self, version: str, first: dict[bytes, bytes]) -> None:
        """A whole head: a turn of its own, now or when it is its turn."""
        path, query = _split(self._url)
        method = self.parser.get_method().decode("ascii")
        old = version == "1.0"
        expects = b"expect" in first and not old and first[b"expect"].lower() == b"100-continue"
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        turn = Turn(self, method, path, query, self._headers, first, keep_alive, expects, old)
        self.reading = turn
        self._rest()
        if self.turn is None:
            self._start(turn)
        else:
            self.waiting.append(turn)
            self.hold_back()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self.reading is not None and not self._refused:
            self.reading.push(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # its body is still to come
        self._in_head = True
        turn, self.reading = self.reading, None
        if turn is not None and not self._refused:
            if self._awaits == "body":
                self._rest()
            turn.finish()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """What follows is plain HTTP/1.1 all the same: Java's client offers h2c with each POST.

        The parser stops at an upgrade, so a new one is told how the body is framed and goes on.
        """
        lines = [b"%b: %b\r\n" % item for item in self._headers if item[0] in FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self._resuming, self._headers = True, []  # those that are told again are nobody's
        self.data_received(b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(lines), rest))

    # Turns.

    def _start(self, turn: Turn) -> None:
        self.turn = turn
        if self.app.draining:
            turn.keep_alive = False
        if self._task is None:
            self._task = self.loop.create_task(self._serve(turn))
        elif self._resting is not None:
            self._wake(turn)
        turn.task = self._task
        self.tasks.add(self._task)

    async def _serve(self, turn: Turn | None) -> None:
        """The connection's own task: turn for turn, until one has no answer or no other comes."""
        while turn is not None:
            try:
                await self.app.answer(turn)
            except Exception:
                log.exception("%s was not answered", turn.path[:200])
            finally:
                if not turn.over or self.turn is None:
                    self.tasks.discard(turn.task)
                if not turn.over:
                    self.cut(turn)
            if not turn.over:
                return
            turn = self.turn
            if turn is None:
                self._resting = self.loop.create_future()
                turn = await self._resting

    def _wake(self, turn: Turn | None) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and not resting.done():
            resting.set_result(turn)

    def hold_back(self) -> None:
        if not self._held_back:
            self._held_back = True
            self.transport.pause_reading()

    def read_on(self) -> None:
        if self._held_back and not self.transport.is_closing():
            self._held_back = False
            self.transport.resume_reading()

    def cut(self, turn: Turn) -> None:
        if self.transport.is_closing():
            return
        if turn.until_close:  # a plain end would say that this was all
            self.transport.get_extra_info("socket").setsockopt(*RESET)
        self.transport.abort()

    def answered(self, turn: Turn) -> None:
        """The last byte of an answer is written: the next request has its turn."""
        self.turn = None
        if self.transport.is_closing():
            return
        if not turn.keep_alive:
            self._close()
            return
        if self.waiting:
            following = self.waiting.popleft()
            self._start(following)
            if not following.whole:
                self.read_on()
                self._await("body", self.limits.body_s)
        elif self._refused:
            self._close()
        else:
            self.read_on()
            if self._awaits != "write":
                self._await("head" if self._begun else "idle",
                            self.limits.head_s if self._begun else self.limits.idle_s)  # fmt: skip

    def shutdown(self) -> None:
        """The process is about to end: an idle connection closes, a busy one after its answer."""
        if self.turn is None:
            self._close()
        else:
            self.turn.keep_alive = False

    def _close(self, *, linger: bool = False) -> None:
        """When all is written, or, if the client does not take it, when `clients.write` is over."""
        self._refused = True
        if (linger or self.reading is not None) and self.transport.can_write_eof():
            # Closing on bytes that nobody read is a reset, which may overtake the answer.
            self._await("flush", LINGER_S)
            self.transport.write_eof()
            self.read_on()
            return
        self._await("flush", self.limits.write_s)
        self.transport.close()

    def refuse(self, code: str, message: str) -> None:
        """Our answer to bytes that are no request; the connection ends with it.

        A request before them still gets its own answer, and then they get none: an answer out of
        turn would be taken for its.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.app.refused(code)
        broken, self.reading = self.reading, None  # its body will never be whole
        if broken is not None and self.waiting:
            self.waiting.pop()
        if self.turn is None or (broken is self.turn and not broken.started):
            self._say(code, message)
        elif broken is self.turn:
            self.transport.abort()
        else:
            (self.waiting[-1] if self.waiting else self.turn).keep_alive = False
        if broken is not None:
            broken.leave("client_gone")

    def _say(self, code: str, message: str) -> None:
        status = CODES[code][0]
        body = v2.error_body(code, status, message)
        self.transport.write(b"".join((
            STATUS_LINES[status],
            b"\r\ncontent-type: application/json\r\nx-headworks-error: ", code.encode(),
            b"\r\nretry-after: 1" if status == 503 else b"",
            b"\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body), body,
        )))  # fmt: skip
        self._close(linger=code != "too_many_connections")

    # Waiting.

    def _await(self, what: str, seconds: float) -> None:
        self._awaits, self._due = what, self.loop.time() + seconds
        if self._timer is None or self._due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._arm()

    def _rest(self) -> None:
        """Nothing is awaited of the client: it waits for us."""
        self._awaits = ""

    def _arm(self) -> None:
        self._timer_at = self._due
        self._timer = self.loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._awaits:
            return
        if self.loop.time() + 0.001 < self._due:  # event loops count milliseconds
            self._arm()
            return
        awaited = self._awaits
        self._rest()
        getattr(self, f"_{awaited}_late")()

    def _head_late(self) -> None:
        if self._begun:
            self.refuse("bad_request", f"the head took longer than {self.limits.head_s:g} s")
        elif self.turn is None:
            self._close()

    def _body_late(self) -> None:
        if self._held_back:  # it is us who do not read, until whoever we wait for has its own time
            self._await("body", self.limits.body_s)
        elif self.reading is not None:
            self.reading.expire()

    def _idle_late(self) -> None:
        if self.transport.get_write_buffer_size():
            self._give_up()
        else:
            self._close()

    def _write_late(self) -> None:
        """Who takes too little of an answer holds its bytes in our memory."""
        unsent = self._untaken()
        if unsent + WRITE_PROGRESS_BYTES <= self._unsent:
            self._unsent = unsent
            self._await("write", self.limits.write_s)
        else:
            self._give_up()

    def _flush_late(self) -> None:
        if self._untaken():
            self._give_up()
        else:  # the client has its answer, it only does not close
            self.transport.abort()

    def _give_up(self) -> None:
        if self.turn is not None:
            self.turn.leave("client_too_slow")
        else:
            self.app.refused("client_too_slow")
        self.transport.abort()
