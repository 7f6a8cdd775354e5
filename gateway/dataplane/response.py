"""Reads one HTTP/1.1 response out of bytes, without any I/O.

Invariants kept here:

* **We frame, llhttp checks.** The end of a head is found here, and a body with a length is counted
  here, so that a byte too many is seen wherever it lies; httptools says neither how far it has read
  nor that it skipped blank lines between messages. llhttp, with no leniency set, judges the head
  and decodes chunks.
* **A reader reads one message.** Each head and each chunked body has a parser of its own, so that
  no state outlives a message.
* **Whatever the bytes, MalformedResponse is the only error**, and memory stays within the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.dataplane.headers import to_client
from gateway.exchange import Headers
from gateway.protocol.sse import EVENT_TYPE

KNOWN_BYTES_MAX: Final = 1024
INTERIM_COUNT: Final = 8  # 1xx answers before the final one
HEAD_END: Final = b"\r\n\r\n"
CONTROLS: Final = bytes(set(range(32)) - {9}) + b"\x7f"
VERSIONS: Final = (b"HTTP/1.1 ", b"HTTP/1.0 ")
VERSION_PREFIX: Final = b"HTTP/1."
LINES: Final = (b"application/x-ndjson", b"application/jsonl", b"application/stream+json")


def media_type(headers: Headers) -> bytes:
    """In lower case, without parameters; empty where there is none."""
    for name, value in headers:
        if len(name) == 12 and name.lower() == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""


def is_stream(headers: Headers) -> bool:
    """Whether an answer says that it comes piece by piece."""
    kind = media_type(headers)
    return kind == EVENT_TYPE or kind in LINES


class MalformedResponse(Exception):
    """Bytes that HTTP/1.1 does not allow, or more of them than we do; says what was wrong."""


class Framing(Enum):
    """What ends the message that is being read."""

    HEAD = "its head is not yet whole"
    LENGTH = "a known length"
    CHUNKED = "the last chunk"
    CLOSE = "the end of the connection"


class Head:
    """One head as it was read; `headers` as sent and in order, without white space around values,
    `returned` are those that a client is given. Read-only: the same head may be another answer's
    too."""

    __slots__ = (
        "framing", "headers", "keep_alive", "length", "over", "parser", "returned", "status",
        "streams",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.returned: Headers = []
        self.length: int | None = None
        self.framing = Framing.HEAD
        self.keep_alive = self.over = False
        self.streams = False  # it says that it comes piece by piece
        self.parser: HttpResponseParser | None = None  # while it reads

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        self.keep_alive = self.parser.should_keep_alive()
        self.over = True


def read_head(data: bytes) -> Head:
    """One whole head, with its blank line, final or interim.

    What ends its body is RFC 9112's, section 6.3, and stricter on transfer codings. llhttp refuses
    a second or malformed length, and a length beside a transfer coding.
    """
    # llhttp would skip blank lines, take HTTP/2.0 and RTSP/1.0, and NUL in a reason.
    if not data.startswith(VERSIONS):
        raise MalformedResponse("not an HTTP/1.0 or HTTP/1.1 answer")
    if len(data) - len(data.translate(None, CONTROLS)) != 2 * data.count(b"\r\n"):
        raise MalformedResponse("a control character in the head")
    head = Head()
    parser = head.parser = HttpResponseParser(head)
    try:
        parser.feed_data(data)
    except (HttpParserError, HttpParserUpgrade) as error:
        raise MalformedResponse(str(error)) from error
    if not head.over:
        raise MalformedResponse("head without an end")
    head.status, head.parser = parser.get_status_code(), None
    codings = []
    for name, value in head.headers:
        lowered = name.lower()
        if lowered == b"content-length":
            if not value.isdigit():
                raise MalformedResponse("malformed content-length")
            head.length = int(value)
        elif lowered == b"transfer-encoding":
            codings.append(value.lower())
    if codings and (codings != [b"chunked"] or data.startswith(VERSIONS[1])):
        # We asked for no other coding and hide the header: the body would change its meaning.
        raise MalformedResponse("transfer-encoding other than chunked in HTTP/1.1")
    if head.status in (204, 304):
        head.framing, head.length = Framing.LENGTH, 0
    elif codings:
        head.framing, head.length = Framing.CHUNKED, None
    else:
        head.framing = Framing.CLOSE if head.length is None else Framing.LENGTH
    head.returned, head.streams = to_client(head.headers), is_stream(head.headers)
    return head


_known = lru_cache(maxsize=512)(read_head)
"""Servers say the same heads again and again; what a head says depends on its bytes alone."""


class ResponseReader:
    """Feed it bytes as they come; it hands on body bytes through `take`, chunks decoded.

    `head` is None until the final head is whole; `length` is the body's length if it is known.
    `complete` says that the last byte has come.
    """

    __slots__ = (
        "_bodiless", "_head_bytes", "_header_count", "_interims", "_message_over", "_overhead",
        "_parser", "_partial", "_pieces", "_remaining", "_tail", "_take", "complete", "framing",
        "head", "length", "on_body",
    )  # fmt: skip

    def __init__(
        self, head_bytes: int, header_count: int, bodiless: bool, take: Callable[[bytes], None]
    ) -> None:
        """`bodiless`: the request's method is HEAD."""
        self.head: Head | None = None
        self.length: int | None = None
        self.complete = False
        self.framing = Framing.HEAD
        self._head_bytes = head_bytes
        self._header_count = header_count
        self._bodiless = bodiless
        self._take = take
        self._parser: HttpResponseParser | None = None
        self._partial: bytearray | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._message_over = False
        self._remaining = self._interims = self._overhead = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Raises MalformedResponse; the reader is of no use afterwards."""
        if self.framing is Framing.HEAD:
            data = self._take_heads(data)
        if self.framing is Framing.LENGTH:
            self._remaining -= len(data)
            if self._remaining < 0:
                raise MalformedResponse(f"{-self._remaining} bytes after the message")
            if data:
                self._take(data)
            self.complete = self._remaining == 0
        elif data and self.framing is Framing.CHUNKED:
            self._take_chunks(data)
        elif data:
            self._take(data)

    def end(self) -> bool:
        """The connection has ended: whether the message was complete by that."""
        if self.framing is Framing.CLOSE:
            self.complete = True
        return self.complete

    # The side of the parser that decodes chunks. Its `on_body` is a list's own `append`: chunks are
    # small and many, so what one read has brought is handed on at once.

    def _hand_on(self) -> None:
        pieces = self._pieces
        if pieces:
            self._overhead = 0
            self._take(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            pieces.clear()

    def on_message_complete(self) -> None:
        self._message_over = True

    # Heads.

    def _take_heads(self, data: bytes) -> bytes:
        """What follows the final head, once that is whole; interim answers are skipped."""
        while data and self.framing is Framing.HEAD:
            end = data.find(HEAD_END) if self._partial is None else -1
            if end < 0:
                data = self._join(data)
                if not data:
                    break
                end = data.find(HEAD_END)
            end += len(HEAD_END)
            self._take_head(data[:end])
            data = data[end:]
        return data

    def _join(self, data: bytes) -> bytes:
        """All since the head's first byte; nothing while its end has not come."""
        partial = self._partial = self._partial or bytearray()
        searched = max(0, len(partial) - len(HEAD_END) + 1)
        partial += data
        if partial.find(HEAD_END, searched) < 0:
            self._check_partial(partial)
            return b""
        self._partial = None
        return bytes(partial)

    def _check_partial(self, partial: bytearray) -> None:
        if len(partial) >= self._head_bytes:
            raise MalformedResponse(f"head over {self._head_bytes} bytes")
        if not VERSION_PREFIX.startswith(bytes(partial[: len(VERSION_PREFIX)])):
            raise MalformedResponse("not an HTTP/1 answer")

    def _take_head(self, head: bytes) -> None:
        """Check one whole head; if it is the final one, it is the answer's."""
        if len(head) > self._head_bytes:
            raise MalformedResponse(f"head over {self._head_bytes} bytes")
        read = _known(head) if len(head) <= KNOWN_BYTES_MAX else read_head(head)
        if len(read.headers) > self._header_count:
            raise MalformedResponse(f"over {self._header_count} headers")
        if 200 <= read.status < 600:
            self._frame(read, head)
            self.head = read
        elif 100 <= read.status < 200:
            self._skip_interim(read.status)
        else:
            raise MalformedResponse(f"status {read.status}")

    def _skip_interim(self, status: int) -> None:
        self._interims += 1
        if status == 101:
            raise MalformedResponse("101 without our asking")
        if self._interims > INTERIM_COUNT:
            raise MalformedResponse(f"over {INTERIM_COUNT} interim answers")

    def _frame(self, read: Head, head: bytes) -> None:
        if self._bodiless:
            self.framing, self.length = Framing.LENGTH, 0
            return
        self.framing, self.length = read.framing, read.length
        if read.length is not None:
            self._remaining = read.length
        elif read.framing is Framing.CHUNKED:
            self._parser = HttpResponseParser(self)
            self._parser.feed_data(head)

    # Bodies.

    def _take_chunks(self, data: bytes) -> None:
        """Sizes, extensions and trailers together may be as long as a head between body bytes."""
        assert self._parser is not None
        self._overhead += len(data)
        self._tail = (self._tail + data[-5:])[-5:]
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._hand_on()
            raise MalformedResponse(str(error)) from error
        self._hand_on()
        if self._message_over:
            # llhttp skips line ends after a message: the last five bytes show whether it did.
            if self._tail[-4:] != HEAD_END or self._tail[:1] in b"\r\n":
                raise MalformedResponse("line ends after the message")
            self.complete = True
            self._parser = None
        elif self._overhead > self._head_bytes:
            raise MalformedResponse("chunk extensions or trailers too long")
