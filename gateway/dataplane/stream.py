"""Answers that are relayed piece by piece, under the same promise as whole ones.

The intent is durable before the first byte leaves; the end of the answer is withheld until the
final record is durable. If that fails, the connection is cut and the record, should
it appear, says so. A receipt stands in the head, so it is the intent's: not every client takes
trailers.

An answer is a stream where it says so (events, lines), where it is longer than `limits.hold`, or
where its length is not known and its end does not come within `STREAM_AFTER_S` of its head. The
first piece never waits for the last.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.dataplane.account import Account
from gateway.dataplane.departure import Departure
from gateway.dataplane.turn import Turn
from gateway.dataplane.upload import Tally
from gateway.dataplane.upstream import Answer, UpstreamError
from gateway.errors import JournalUnavailable, Refusal
from gateway.exchange import Headers
from gateway.protocol import openai
from gateway.protocol.sse import EVENT_TYPE

Record = Callable[[Account, str], Awaitable[None]]

STREAM_AFTER_S: Final = 0.1
LINES: Final = (b"application/x-ndjson", b"application/jsonl", b"application/stream+json")
PARTIAL_BYTES_MAX: Final = 64 * 1024
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_TERMINAL = re.compile(
    rb"^(?:data: ?\[DONE\]|event: ?(?:message_stop|response\.completed))[ \t]*\r?$", re.MULTILINE
)


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


class Withheld:
    """What of a stream may leave at once, and what waits for its record: pure.

    Of events, whole ones leave and the terminal one waits; of lines, whole ones leave; of anything
    else all but the last byte that is known. The end of a chunked message always waits.
    """

    def __init__(self, headers: Headers, length: int | None) -> None:
        """`length` of the body, where it is known."""
        self.rest = b""
        self._kind = media_type(headers)
        self._left = length
        self._ended = False

    def release(self, chunk: bytes) -> bytes:
        """What may leave now; `rest` is what waits."""
        data = self.rest + chunk
        at = self._cut(data, chunk)
        self.rest = data[at:]
        return data[:at]

    def _cut(self, data: bytes, chunk: bytes) -> int:
        """How many bytes may leave."""
        if self._left is not None:
            self._left -= len(chunk)
            return len(data) - (self._left <= 0)
        if self._ended:
            return max(0, len(data) - PARTIAL_BYTES_MAX)
        if self._kind == EVENT_TYPE:
            return self._after_events(data)
        if self._kind in LINES:
            at = data.rfind(b"\n") + 1
            return len(data) if len(data) - at > PARTIAL_BYTES_MAX else at
        return len(data) - 1

    def _after_events(self, data: bytes) -> int:
        at = 0
        for blank in _BLANK_LINE.finditer(data):
            if _TERMINAL.search(data, at, blank.end()):
                self._ended = True
                return at
            at = blank.end()
        return len(data) if len(data) - at > PARTIAL_BYTES_MAX else at


async def relay(
    account: Account, answer: Answer, headers: Headers, turn: Turn, record: Record,
    departure: Departure,
) -> bool:  # fmt: skip
    """Whether the client was given all of it; if not, the connection is to be cut. Raises
    JournalUnavailable only while nothing was sent."""
    assert account.model is not None
    account.status, account.response_headers = answer.status, headers
    try:
        await record(account, "intent")
    except JournalUnavailable:
        answer.abort()
        raise
    if account.receipt is not None:
        headers = [*headers, (b"x-headworks-receipt", account.receipt.encode().encode())]
    await turn.begin(answer.status, headers)
    withheld = await _pass(account, answer, headers, turn, departure)
    try:
        await record(account, "exchange")
    except JournalUnavailable:
        account.error = "answer_cut"
        return False
    if account.error is not None:
        return False
    await turn.pass_on(withheld, more=False)
    return True


async def _pass(
    account: Account, answer: Answer, headers: Headers, turn: Turn, departure: Departure
) -> bytes:
    """Relay all but what is withheld, which it gives back; the account says what came of it."""
    assert account.model is not None
    tally, withheld = Tally(account.answer_bytes()), Withheld(headers, answer.length)
    events = media_type(headers) == EVENT_TYPE
    meter = openai.Meter() if account.dialect is openai and events else None
    sent = 0
    try:
        with departure:
            async for chunk in answer:
                tally.add(chunk)
                if meter is not None:
                    meter.add(chunk)
                if released := withheld.release(chunk):
                    await turn.pass_on(released)
                    sent += len(released) if departure.left is None else 0
    except (UpstreamError, Refusal) as error:
        account.error = error.code
    finally:
        answer.abort()
        account.response = tally.part()
        account.extra["stream"] = True
        if meter is not None:
            account.extra["completion"] = meter.summary(account.error is None)
        account.note_departure(departure.left, sent)
    return withheld.rest
