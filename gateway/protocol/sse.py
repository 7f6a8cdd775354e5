"""Server-sent events as they pass: what may leave at once, and what waits for the record. Pure.

The terminal event (`data: [DONE]`) tells a client that the answer is whole, so it is withheld until
the final record is durable; every other byte passes at once, in whatever pieces it came. A stream
without a terminal event ends with its message: there the end itself is what is withheld.
"""

from __future__ import annotations

from collections.abc import Iterator

EVENT_TYPE = b"text/event-stream"
TERMINALS = (b"data: [DONE]", b"data:[DONE]")
HELD_MAX = 64 * 1024
LINE_MAX = 256 * 1024


def is_event_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether an answer's headers announce events."""
    for name, value in headers:
        if name.lower() == b"content-type":
            return value.partition(b";")[0].strip().lower() == EVENT_TYPE
    return False


class Withheld:
    """Splits a stream into what may pass and what is held to its end."""

    def __init__(self) -> None:
        self.held = b""
        self._line_start = True

    def pass_on(self, chunk: bytes) -> bytes:
        """The bytes that may leave now. What is held is bounded: beyond it nothing is terminal."""
        data = self.held + chunk
        if len(data) > HELD_MAX and self._terminal(data) == 0:
            self.held, self._line_start = data[-1:], False
            return data[:-1]
        cut = self._terminal(data)
        if cut:
            self._line_start = data[cut - 1 : cut] in b"\r\n"
        self.held = data[cut:]
        return data[:cut]

    def _terminal(self, data: bytes) -> int:
        """Where a terminal event begins, or could: the data's length where nothing could."""
        at = 0 if self._line_start else _line_after(data, 0)
        while at < len(data):
            rest = data[at : at + 12]
            if any(rest.startswith(word) or word.startswith(rest) for word in TERMINALS):
                return at
            at = _line_after(data, at)
        return len(data)


def _line_after(data: bytes, at: int) -> int:
    """Where the line after `at` begins; the length of `data` if there is none."""
    ends = [end for end in (data.find(b"\n", at), data.find(b"\r", at)) if end >= 0]
    return min(ends) + 1 if ends else len(data)


class Events:
    """The `data:` lines of a stream, whole, in order; a line over `LINE_MAX` is passed over."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *lines, rest = bytes(self._partial + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if not self._skipping and line.startswith(b"data:"):
                yield line[5:].strip()
            self._skipping = False
        if len(rest) > LINE_MAX:
            self._skipping, rest = True, b""
        self._partial = bytearray(rest)
