"""Server-sent events as they pass. Pure."""

from __future__ import annotations

from collections.abc import Iterator

EVENT_TYPE = b"text/event-stream"
LINE_MAX = 256 * 1024


class Events:
    """The `data:` lines of a stream, whole, in order; a line over `LINE_MAX` is passed over."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False

    @property
    def at_line(self) -> bool:
        """A line begins with what comes next."""
        return not self._partial and not self._skipping

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *lines, rest = bytes(self._partial + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if not self._skipping and line.startswith(b"data:"):
                yield line[5:].strip()
            self._skipping = False
        if len(rest) > LINE_MAX:
            self._skipping, rest = True, b""
        self._partial = bytearray(rest)
