"""One HTTP/1.1 connection to an upstream, and the answer that comes over it.

Invariants kept here:

* **An exchange ends once**: complete, failed or aborted, and then the connection forgets its
  answer. Whatever comes later, comes out of turn and closes the connection, so an answer never
  holds another exchange's bytes.
* **A connection is usable again** only after a complete message with an exact end, keep-alive
  allowed, the request wholly written and nothing left over.
* **Every wait ends.** While an exchange runs, `_due` is the time at which it fails. One timer a
  connection wakes at or before that time and looks again, so a request costs no timer of its own.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol, cast

from gateway.dataplane.failures import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.response import Framing, Head, MalformedResponse, ResponseReader
from gateway.exchange import Headers

BUFFER_BYTES: Final = 256 * 1024  # unread bytes of an answer at which the upstream has to wait
COPY_BYTES: Final = 64 * 1024  # bodies up to here are joined with their head into one write
TIMER_SLACK_S: Final = 0.001  # event loops count milliseconds: a timer may be early by one


class Pieces(Protocol):
    """A request's body as it comes; `length` is None where it is not known before."""

    length: int | None

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Answer:
    """An upstream's answer: status, raw headers, and a body that one reader takes once.

    `headers` are (name, value) as sent and in order, without the white space around values; `head`
    also has those that a client is given, and may be another answer's too: read-only. `length` is
    the length of the body in bytes where the head tells it, None otherwise.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_over",
        "_pump",
        "_size",
        "_waiter",
        "_window",
        "failure",
        "head",
        "length",
    )

    def __init__(self, connection: Connection) -> None:
        self.head: Head | None = None
        self.length: int | None = None
        self._connection = connection
        self._chunks: list[bytes] = []
        self._size = 0
        self._window = BUFFER_BYTES
        self._over = False
        self.failure: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[None] | None = None

    @property
    def status(self) -> int:
        """0 until the head has come."""
        return self.head.status if self.head is not None else 0

    @property
    def headers(self) -> Headers:
        return self.head.headers if self.head is not None else []

    async def read(self, at_most: int, patience_s: float | None = None) -> bytes | None:
        """The whole body if it has at most `at_most` bytes; None if longer, nothing consumed.

        With `patience_s` also None if its end is not known and does not come within these seconds.
        """
        if self.length is not None and self.length > at_most:
            return None
        if (whole := self.whole(at_most)) is not None:
            return whole
        self._widen(max(BUFFER_BYTES, at_most))
        loop, timer, until = self._connection.loop, None, float("inf")
        if patience_s is not None and self.length is None and not self._over:
            until = loop.time() + patience_s
            timer = loop.call_at(until, self._wake)
        try:
            while not self._over and self._size <= at_most and loop.time() + TIMER_SLACK_S < until:
                await self.change()
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not self._over or self._size > at_most:
            self._widen(BUFFER_BYTES)
            return None
        if self.failure is not None:
            raise self.failure
        return self._take_all()

    def whole(self, at_most: int) -> bytes | None:
        """The whole body if it has come and has at most `at_most` bytes; else nothing happens."""
        if not self._over or self.failure is not None or self._size > at_most:
            return None
        return self._take_all()

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self.failure is not None:
                raise self.failure
            if self._over:
                raise StopAsyncIteration
            try:
                await self.change()
            except asyncio.CancelledError:
                self.abort()
                raise
        piece = self._take_all()  # what has come together is passed on together
        if not self._over:
            self._connection.resume()
        return piece

    def _take_all(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        self._size = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def extend(self, deadline: float) -> None:
        """A stream has a deadline of its own: loop.time() by which its last byte has come."""
        if not self._over:
            self._connection.extend(self, deadline)

    def abort(self) -> None:
        """Take no more of it. Before its end this closes the connection; afterwards it is free."""
        if not self._over:
            self._connection.abort(self)
        self._chunks.clear()
        self._size = 0

    async def aclose(self) -> None:
        self.abort()

    @property
    def complete(self) -> bool:
        """The last byte has come; all that is left is in the buffer."""
        return self._over and self.failure is None

    def __repr__(self) -> str:
        state = "open" if not self._over else self.failure.code if self.failure else "complete"
        return f"<Answer {self.status} [{state}, {self._size} bytes buffered]>"

    def change(self) -> asyncio.Future[None]:
        """Done when something new is known. Whoever is cancelled meanwhile will not read the rest,
        and has to abort."""
        assert self._waiter is None or self._waiter.done(), "an answer has one reader"
        waiter = self._waiter = self._connection.loop.create_future()
        return waiter

    def _widen(self, window: int) -> None:
        self._window = window
        if not self._over and self._size <= window:
            self._connection.resume()

    # What follows is for Connection.

    def _push(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)

    def _end(self, error: UpstreamError | None) -> None:
        if self._pump is not None:
            self._pump.cancel()
        self._over = True
        self.failure = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One exchange at a time over one transport.

    `ended(connection, error)` is called once for each exchange, `lost(connection)` once for the
    transport. `usable` is False from the moment the connection must not be handed out again.
    """

    def __init__(
        self,
        limits: PoolLimits,
        timeouts: Timeouts,
        ended: Callable[[Connection, UpstreamError | None], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.opened_at = self.idle_since = self.loop.time()
        self.address = ""
        self.exchanges = 0
        self.usable = False
        self.failure: UpstreamError | None = None  # of a connection without an exchange
        self._limits = limits
        self.timeouts = timeouts
        self._ended = ended
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._poller = select.poll()
        self._answer: Answer | None = None
        self._deadline = self._due = self._timer_at = 0.0
        self._phase = "first_byte"
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = self._paused = self._uploading = False
        self._drained: asyncio.Future[None] | None = None
        self._reader: ResponseReader | None = None
        self._silent = True  # not one byte of this answer has come

    # The pool's side.

    def is_quiet(self) -> bool:
        """Neither bytes nor a close wait in the socket, seen by the loop or not."""
        if not self.usable:
            return False
        events = self._poller.poll(0)
        if not events:
            return True
        if self._tls is None and events[0][1] == select.POLLIN:
            self.failure = UpstreamProtocolError("bytes out of turn", "early")
        else:
            self.failure = UpstreamReset("closed before the request", "head")
        return False

    def begin(
        self, head: bytes, body: bytes | Pieces, *, bodiless: bool, deadline: float
    ) -> Answer:
        """Write the request; the answer's head is still to come. `bodiless`: the method is HEAD.

        Pieces are written as they come, no faster than the upstream takes them; it may answer
        before their end. Until then only the deadline runs.
        """
        assert self._answer is None
        assert self._transport is not None
        self.exchanges += 1
        self._silent = True
        answer = self._answer = Answer(self)
        limits = self._limits
        self._reader = ResponseReader(
            limits.head_bytes, limits.header_count, bodiless, answer._push
        )
        self._deadline = deadline
        if not isinstance(body, bytes):
            self._uploading = True
            self._transport.write(head)
            self._wait_for("request", deadline)
            answer._pump = self.loop.create_task(self._upload(answer, body))
            return answer
        if len(body) <= COPY_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        self._wait_for("first_byte", self.timeouts.first_byte_s)
        return answer

    @property
    def is_lost(self) -> bool:
        """The transport has gone, or never came."""
        return self._transport is None

    def close(self) -> None:
        """At once, without a word to the other side; an exchange must have ended before."""
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """Close whatever it is doing; a running exchange fails as aborted."""
        if self._answer is not None:
            self.abort(self._answer)
        self.close()

    async def _upload(self, answer: Answer, pieces: Pieces) -> None:
        """Cancelled when the answer has ended. Whatever the pieces raise ends the exchange."""
        chunked = pieces.length is None
        try:
            async for piece in pieces:
                if piece:
                    await self._write_piece(
                        b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                    )
        except Exception:
            self.abort(answer)  # who gave the pieces knows why
            return
        if self._answer is answer and self._transport is not None:
            if chunked:
                self._transport.write(b"0\r\n\r\n")
            self._uploading = False
            self._deadline = min(self._deadline, self.loop.time() + self.timeouts.request_s)
            if self._silent:
                self._wait_for("first_byte", self.timeouts.first_byte_s)

    async def _write_piece(self, piece: bytes) -> None:
        assert self._transport is not None
        self._transport.write(piece)
        if self._unsent:
            self._drained = self.loop.create_future()
            await self._drained

    # The answer's side.

    def extend(self, answer: Answer, deadline: float) -> None:
        if self._answer is answer:
            self._deadline = deadline
            if not self._uploading:
                self._wait_for("idle", self.timeouts.idle_s)

    def abort(self, answer: Answer) -> None:
        if self._answer is answer:
            self._fail(UpstreamReset("abandoned before its end", "aborted"))

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._wait_for("idle", self.timeouts.idle_s)
            self._transport.resume_reading()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("ssl_object")
        descriptor = transport.get_extra_info("socket").fileno()
        self._poller.register(descriptor, select.POLLIN | select.POLLRDHUP)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        answer, reader = self._answer, self._reader
        if answer is None or reader is None:
            self._out_of_turn(len(data))
            return
        self._silent = False
        try:
            reader.feed(data)
        except MalformedResponse as error:
            self._fail(UpstreamProtocolError(str(error), _phase(reader)))
            return
        if answer.head is None and reader.head is not None:
            answer.head, answer.length = reader.head, reader.length
        if reader.complete:
            self._complete(reader)
            return
        if answer._size > answer._window:
            self._pause()
        self._wait_for("idle", self.timeouts.idle_s)
        if answer.head is not None:
            answer._wake()

    def eof_received(self) -> None:
        self._closed_by_upstream(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed_by_upstream(exc)
        self._transport = None
        self._lost(self)

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._answer is not None and self._silent and not self._uploading:
            self._wait_for("first_byte", self.timeouts.first_byte_s)

    # Ends.

    def _complete(self, reader: ResponseReader) -> None:
        answer, transport = self._answer, self._transport
        assert answer is not None
        assert transport is not None
        self._answer = self._reader = None
        # An answer may overtake its request: what is still to be written would follow the next one.
        sent = not self._uploading and not transport.get_write_buffer_size()
        exact = reader.framing is not Framing.CLOSE and not self._paused
        kept = reader.head is not None and reader.head.keep_alive
        self.usable = self.usable and kept and sent and exact
        answer._end(None)
        self._ended(self, None)

    def _fail(self, error: UpstreamError) -> None:
        answer = self._answer
        assert answer is not None
        self._answer = self._reader = None
        self.close()
        answer._end(error)
        self._ended(self, error)

    def _closed_by_upstream(self, exc: Exception | None) -> None:
        self.usable = False
        reason = f": {exc}" if exc else ""
        reader = self._reader
        if reader is None:
            self.failure = self.failure or UpstreamReset(f"closed while idle{reason}", "head")
        elif exc is None and self._is_said_to_end() and reader.end():
            self._complete(reader)
        elif self._silent and self.exchanges > 1:
            self._fail(UpstreamReset(f"closed as the request was sent{reason}", "reused_closed"))
        else:
            self._fail(UpstreamReset(f"closed before the end{reason}", _phase(reader)))
        self.close()

    def _is_said_to_end(self) -> bool:
        """Under TLS only the close_notify alert ends a stream: who cuts the line cannot send it.

        Both event loops hide the difference, but after the alert OpenSSL reads nothing without an
        error.
        """
        if self._tls is None:
            return True
        try:
            return self._tls.read(1) == b""
        except ssl.SSLError:
            return False

    def _out_of_turn(self, count: int) -> None:
        if self.failure is None:
            self.failure = UpstreamProtocolError(f"{count} bytes out of turn", "early")
        self.close()

    # Waiting.

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _wait_for(self, phase: str, seconds: float) -> None:
        """Fail the exchange as `phase` in `seconds`, unless something comes before.

        While we hold the upstream back, or it our request, only the deadline runs.
        """
        due = self.loop.time() + seconds
        if due >= self._deadline or self._paused or self._unsent or self._uploading:
            due, phase = self._deadline, "request"
        self._due, self._phase = due, phase
        if self._timer is None or due < self._timer_at:
            self._arm(due)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self.loop.time() + TIMER_SLACK_S < self._due:
            self._arm(self._due)
        else:
            self._fail(UpstreamTimeout("no answer in time", self._phase))


def _phase(reader: ResponseReader) -> str:
    return "head" if reader.head is None else "body"
