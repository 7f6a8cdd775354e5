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
from gateway.dataplane.connection import Answer
from gateway.dataplane.departure import Departure
from gateway.dataplane.failures import UpstreamError
from gateway.dataplane.response import LINES, media_type
from gateway.dataplane.turn import Turn
from gateway.dataplane.upload import Tally
from gateway.errors import JournalUnavailable, Refusal
from gateway.exchange import Headers
from gateway.protocol import openai
from gateway.protocol.sse import EVENT_TYPE

Record = Callable[[Account, str], Awaitable[None]]

STREAM_AFTER_S: Final = 0.1
PARTIAL_BYTES_MAX: Final = 64 * 1024
LOOK_BYTES: Final = 16 * 1024
"""So much of a stream is digested, kept and metered at once, behind its relaying."""
_ENDS: Final = (b"[DONE]", b"message_stop", b"response.completed")
_LAST_LINES: Final = tuple(
    name + space + word
    for space in (b"", b" ")
    for name, word in ((b"data:", b"[DONE]"), *((b"event:", word) for word in _ENDS[1:]))
)
_LAST_LINE: Final = re.compile(rb"\n(?:" + b"|".join(map(re.escape, _LAST_LINES)) + rb")")
_BLANKS: Final = (b"\r\n\r\n", b"\n\n", b"\r\r")
_BLANK_LINE = re.compile(b"|".join(_BLANKS))
_TERMINAL = re.compile(
    rb"(?<![^\r\n])(?:data: ?\[DONE\]|event: ?(?:message_stop|response\.completed))"
    rb"[ \t]*(?![^\r\n])"
)
"""Between two line ends of any kind: MULTILINE knows but one."""


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
        """Whole events before the first line that may end a terminal one need no closer look."""
        if data.find(b"\r") < 0:
            at, looked = self._clear_of_lines(data)
        else:
            at, looked = self._clear_of_words(data)
        for blank in () if looked else _BLANK_LINE.finditer(data, at):
            if _TERMINAL.search(data, at, blank.end()):
                self._ended = True
                return at
            at = blank.end()
        return len(data) if len(data) - at > PARTIAL_BYTES_MAX else at

    def _clear_of_lines(self, data: bytes) -> tuple[int, bool]:
        """The end of the whole events before a last line, and whether there is no such line; of
        lines that end in one byte, as nearly all do."""
        if data.startswith(_LAST_LINES):
            return 0, False
        found = _LAST_LINE.search(data)
        clear = len(data) if found is None else found.start() + 1
        before = data.rfind(b"\n\n", 0, clear)
        return before + 2 if before >= 0 else 0, found is None

    def _clear_of_words(self, data: bytes) -> tuple[int, bool]:
        """The same, however lines end: before a word of a last line."""
        words = [found for end in _ENDS if (found := data.find(end)) >= 0]
        clear = min(words, default=len(data))
        ends = [before + len(b) for b in _BLANKS if (before := data.rfind(b, 0, clear)) >= 0]
        return max(ends, default=0), not words


class Look:
    """What the record says of a stream: its digest, its first bytes, its usage. Chunks are small
    and many, so several are looked at together."""

    def __init__(self, keep: int, *, metered: bool) -> None:
        self._tally = Tally(keep)
        self._meter = openai.Meter() if metered else None
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= LOOK_BYTES:
            self._look()

    def _look(self) -> None:
        seen = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._tally.add(seen)
        if self._meter is not None:
            self._meter.add(seen)

    def end(self, account: Account) -> None:
        """Tell the account; its `error` says whether the upstream's message came to its end."""
        self._look()
        account.response = self._tally.part()
        account.extra["stream"] = True
        if self._meter is not None:
            account.extra["completion"] = self._meter.summary(account.error is None)


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
    await turn.relieved()
    turn.begin(answer.status, headers)
    withheld = await _pass(account, answer, headers, turn, departure)
    try:
        await record(account, "exchange")
    except JournalUnavailable:
        account.error = "answer_cut"
        return False
    if account.error is not None:
        return False
    await turn.relieved()
    turn.pass_on(withheld, more=False)
    return True


async def _pass(
    account: Account, answer: Answer, headers: Headers, turn: Turn, departure: Departure
) -> bytes:
    """Relay all but what is withheld, which it gives back; the account says what came of it."""
    assert account.model is not None
    withheld = Withheld(headers, answer.length)
    events = media_type(headers) == EVENT_TYPE
    look = Look(account.answer_bytes(), metered=account.dialect is openai and events)
    sent = 0
    try:
        with departure:
            async for chunk in answer:
                look.add(chunk)
                if released := withheld.release(chunk):
                    if turn.congested:
                        await turn.relieved()
                    turn.pass_on(released)
                    sent += len(released) if departure.left is None else 0
    except (UpstreamError, Refusal) as error:
        account.error = error.code
    finally:
        answer.abort()
        look.end(account)
        account.note_departure(departure.left, sent)
    return withheld.rest
