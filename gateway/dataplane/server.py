"""The server's side of HTTP: uvicorn's httptools protocol with the limits it lacks.

The stock class takes a head of any size and number of headers, keeps half a head open for ever, and
answers its own 400s as text that nobody counts. Here a head has a size, a number of headers and a
time; what cannot be parsed is answered in the dialect of the program and told to the handler.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import CODES
from gateway.protocol import v2

HEAD_BYTES_MAX = 32 * 1024
HEADERS_MAX = 100
HEAD_SECONDS_MAX = 10.0


class Protocol(HttpToolsProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser = httptools.HttpRequestParser(self)  # without uvicorn's leniency
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._begun = self._resuming = False
        self._parsed_bytes = 0
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
            self._start_timer()
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse("bad_request", "the request is not valid HTTP/1.1")
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self.refuse("headers_too_large", f"the head is longer than {HEAD_BYTES_MAX} bytes")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """What follows is plain HTTP/1.1 all the same: Java's client offers h2c with each POST.

        The parser stops at an upgrade, so a new one is told how the body is framed and goes on.
        """
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b\r\n" % item for item in self.headers if item[0] in framing]
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        self.data_received(b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(lines), rest))

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        super().on_message_begin()
        self._in_head = self._begun = True
        self._parsed_bytes = 0
        self._start_timer()

    def on_url(self, url: bytes) -> None:
        if self._resuming:
            return
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._refused or self._resuming:
            return
        self._count_head(len(name) + len(value) + 4)
        if len(self.headers) >= HEADERS_MAX:
            self.refuse("headers_too_large", f"more than {HEADERS_MAX} headers")
            return
        super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        """A head that came whole in one read is measured here, one that never ends by its reads."""
        self._parsed_bytes += size
        if self._parsed_bytes > HEAD_BYTES_MAX:
            self.refuse("headers_too_large", f"the head is longer than {HEAD_BYTES_MAX} bytes")

    def on_headers_complete(self) -> None:
        self._in_head = self._begun = False
        self._head_bytes = 0
        self._stop_timer()
        if self._resuming:
            self._resuming = False
        elif not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # its body is still to come
        self._in_head = True
        if not self._refused:
            super().on_message_complete()

    def refuse(self, code: str, message: str) -> None:
        """Our answer to bytes that are no request; the connection ends with it.

        A request before them still gets its own answer, and then they get none: an answer out of
        turn would be taken for its.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.config.app.refused(code)  # type: ignore[union-attr]
        if self._in_head and self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        if self.pipeline:
            self.transport.close()
            return
        body = v2.error_body(code, CODES[code][0], message)
        self.transport.write(
            b"".join((
                STATUS_LINE[CODES[code][0]],
                b"content-type: application/json\r\nx-headworks-error: ", code.encode(),
                b"\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body),
                body,
            ))
        )  # fmt: skip
        self.transport.close()

    def _head_late(self) -> None:
        self._head_timer = None
        if self._begun:
            self.refuse("bad_request", f"the head took longer than {HEAD_SECONDS_MAX:g} s")
        elif self._in_head and (self.cycle is None):
            self.transport.close()

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._head_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
