"""The hop to an upstream's gRPC port: one channel, bytes out and bytes in.

Metadata, deadline, trailers and status details pass as they come. A status that the upstream gave
is its answer; that nobody could be reached, or not in time, is ours to say.
"""

from __future__ import annotations

from typing import Any

import grpc

from gateway.errors import Refusal
from gateway.exchange import Headers, Reply
from gateway.protocol.grpc import DEADLINE_EXCEEDED, STATUS, UNAVAILABLE

RESERVED = (b"user-agent", b"content-type", b"te", b"host")


class Channel:
    """Made at its first use: it belongs to the event loop."""

    def __init__(self, address: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=options)

    async def call(
        self, path: str, message: bytes, headers: Headers, timeout_s: float
    ) -> tuple[int, Reply]:
        """The gRPC status and the answer; Refusals `upstream_connect_failed`, `_timeout`."""
        method = self._channel.unary_unary(path)
        metadata = [_item(key, value) for key, value in headers if key not in RESERVED]
        call = method(message, timeout=timeout_s, metadata=metadata, wait_for_ready=False)
        try:
            body = await call
        except grpc.aio.AioRpcError as error:
            return self._failed(error)
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        return 0, Reply(200, _headers(initial), body, _headers(trailing))

    def _failed(self, error: grpc.aio.AioRpcError) -> tuple[int, Reply]:
        code: int = error.code().value[0]
        initial, trailing = error.initial_metadata(), error.trailing_metadata()
        if not initial and not trailing:
            if code == UNAVAILABLE:
                raise Refusal("upstream_connect_failed", f"{self.address}: {error.details()}")
            if code == DEADLINE_EXCEEDED:
                raise Refusal("upstream_timeout", f"{self.address}: {error.details()}")
        details = (error.details() or "").encode()
        return code, Reply(STATUS[code], _headers(initial), details, _headers(trailing))

    async def aclose(self) -> None:
        await self._channel.close()


def _item(key: bytes, value: bytes) -> tuple[str, Any]:
    return key.decode(), value if key.endswith(b"-bin") else value.decode("latin-1")


def _headers(metadata: Any) -> Headers:
    return [
        (key.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for key, value in metadata or ()
        if not key.startswith("x-headworks-")
    ]
