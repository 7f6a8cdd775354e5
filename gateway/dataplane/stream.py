"""Answers longer than `limits.hold`: relayed piece by piece, under the same promise.

The intent is durable before the first byte leaves, and the last piece is withheld until the final
record is durable; of server-sent events the terminal one, so that no token waits for the next. If
that fails, the connection is cut and the record, should it appear, says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.dataplane.account import Account
from gateway.dataplane.upstream import Answer, UpstreamError
from gateway.errors import JournalUnavailable
from gateway.exchange import Headers
from gateway.journal.record import Part
from gateway.protocol import openai
from gateway.protocol.sse import Withheld, is_event_stream

Send = Callable[[dict[str, Any]], Awaitable[None]]
Record = Callable[[Account, str], Awaitable[None]]


class Tally:
    """Length, digest and the first bytes of what passes."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._digest = hashlib.sha256()
        self._kept = bytearray()
        self.length = 0

    def add(self, chunk: bytes) -> None:
        self.length += len(chunk)
        self._digest.update(chunk)
        if len(self._kept) < self._keep:
            self._kept += chunk[: self._keep - len(self._kept)]

    def part(self) -> Part:
        return Part(self.length, self._digest.digest(), bytes(self._kept))


class LastPiece:
    """Holds each piece until the next one comes."""

    def __init__(self) -> None:
        self.held = b""

    def pass_on(self, chunk: bytes) -> bytes:
        passed, self.held = self.held, chunk
        return passed


async def relay(
    account: Account, answer: Answer, headers: Headers, send: Send, record: Record
) -> None:
    """Raises JournalUnavailable only while nothing was sent; afterwards the connection is cut."""
    assert account.model is not None
    account.status, account.response_headers = answer.status, headers
    try:
        await record(account, "intent")
    except JournalUnavailable:
        answer.abort()
        raise
    tally = Tally(account.model.limits["keep"])
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    tail: Withheld | LastPiece = Withheld() if is_event_stream(headers) else LastPiece()
    meter = openai.Meter() if account.dialect is openai and is_event_stream(headers) else None
    try:
        async for chunk in answer:
            tally.add(chunk)
            if meter is not None:
                meter.add(chunk)
            if passed := tail.pass_on(chunk):
                await send({"type": "http.response.body", "body": passed, "more_body": True})
    except UpstreamError as error:
        account.error = error.code
    finally:
        answer.abort()
        account.response = tally.part()
        account.extra["stream"] = True
        if meter is not None:
            account.extra["completion"] = meter.summary(account.error is None)
    try:
        await record(account, "exchange")
    except JournalUnavailable:
        account.error = "answer_cut"
        raise ConnectionAbortedError("the final record is not durable: the answer is cut") from None
    if account.error is not None:
        raise ConnectionAbortedError(f"the upstream failed within its answer: {account.error}")
    await send({"type": "http.response.body", "body": tail.held, "more_body": False})
