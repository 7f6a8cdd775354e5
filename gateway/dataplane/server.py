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
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._head_late)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self.refuse("headers_too_large", f"the head is longer than {HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= HEADERS_MAX:
            if not self._refused:
                self.refuse("headers_too_large", f"more than {HEADERS_MAX} headers")
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self.refuse("bad_request", "the request is not valid HTTP/1.1")

    def refuse(self, code: str, message: str) -> None:
        """Our answer to bytes that are no request; the connection ends with it."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.config.app.refused(code)  # type: ignore[union-attr]
        body = v2.error_body(message)
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
        if self._in_head and self._head_bytes:
            self.refuse("bad_request", f"the head took longer than {HEAD_SECONDS_MAX:g} s")
        elif self._in_head and (self.cycle is None):
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
