"""The gRPC port: `inference.GRPCInferenceService`, unary calls, bytes in and bytes out.

Starlette and uvicorn cannot carry it, so each worker has a `grpc.aio` server of its own on the same
port (SO_REUSEPORT). A call is an exchange like any other: the handler's story, its rules, limits
and journal. A call goes on when its client leaves, so that its record is written all the same.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from gateway.clock import Clock
from gateway.dataplane.account import Account
from gateway.dataplane.handler import Handler
from gateway.dataplane.headers import as_dict
from gateway.exchange import Headers, Reply
from gateway.protocol import grpc as dialect
from gateway.protocol.grpc import CODES, SERVICE

CALLS_AT_ONCE = 1000
"""More are refused by the server itself with RESOURCE_EXHAUSTED."""
MESSAGE_BYTES_MAX = 2**31 - 1
"""The library's own bound, whatever `limits.request` says."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Listener(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    """One worker's server on one port, for messages up to `largest` bytes."""

    def __init__(self, handler: Handler, clock: Clock, address: str, largest: int) -> None:
        self._handler, self._clock = handler, clock
        self._address, self.largest = address, largest
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def start(self) -> None:
        """RuntimeError where the port is not to be had."""
        options = [
            ("grpc.max_receive_message_length", min(self.largest, MESSAGE_BYTES_MAX)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
        ]
        self._server = grpc.aio.server(
            handlers=[self], options=options, maximum_concurrent_rpcs=CALLS_AT_ONCE
        )
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()

    async def stop(self, patience_s: float) -> None:
        await self._server.stop(patience_s)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)

    def service(self, details: Any) -> Any:
        """Identity instead of serialisers: messages are bytes here. Streams are not taken."""
        path = details.method
        if not path.startswith(SERVICE) or path.endswith("StreamInfer"):
            return None

        async def behave(message: bytes, context: Any) -> bytes:
            return await self._call(path, message, context)

        return grpc.unary_unary_rpc_method_handler(behave)

    async def _call(self, path: str, message: bytes, context: Any) -> bytes:
        headers = [(key.encode(), _bytes(value)) for key, value in context.invocation_metadata()]
        account = Account(self._clock, "POST", path, "", headers, as_dict(headers))
        account.dialect = dialect
        account.patience_s = context.time_remaining()
        task = asyncio.get_running_loop().create_task(self._handler.call(account, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        reply, ours = await asyncio.shield(task)
        code = account.extra.get("grpc_status", 0)
        if account.error is not None:
            code = CODES.get(reply.status, 2)
        await context.send_initial_metadata(_metadata(_initial(reply) + ours))
        context.set_trailing_metadata(_metadata(reply.trailers or []))
        if code:
            context.set_code(_CODES[code])
            context.set_details(reply.body.decode("utf-8", "replace"))
            return b""
        return reply.body


def _initial(reply: Reply) -> Headers:
    """Content types are HTTP's; gRPC has its own."""
    return [item for item in reply.headers if item[0] not in (b"content-type", b"retry-after")]


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


def _metadata(headers: Headers) -> tuple[tuple[str, str | bytes], ...]:
    """Values of `-bin` keys stay bytes."""
    return tuple(
        (key.decode(), value if key.endswith(b"-bin") else value.decode("latin-1"))
        for key, value in headers
    )
