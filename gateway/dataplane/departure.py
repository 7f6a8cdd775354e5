"""Ending an exchange from outside: its client left or does not read, or the process stops.

Only what may be ended is: waiting for a body, a version, a stream. Once an answer's record has been
given to the journal the exchange takes its course, so that no answer has two records.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from gateway.errors import CODES, Refusal


class Departure:
    """`left` is the code of how the client went. It ends the exchange if `cancels`; else the
    version is heard to its end. As a context manager, around what may be ended, it
    turns the end into a Refusal with `code`."""

    __slots__ = ("_may_end", "_task", "cancels", "code", "left")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        """`task` is the exchange's."""
        self.left: str | None = None
        self.code: str | None = None
        self.cancels = False
        self._task = task
        self._may_end = False

    def leave(self, code: str) -> None:
        self.left = self.left or code
        if self.cancels:
            self.end(code)

    def end(self, code: str) -> None:
        """End the exchange as soon as it waits for anything, now or later."""
        if self.code is None:
            self.code = code
            if self._may_end and self._task is not None:
                self._task.cancel()

    def __enter__(self) -> Departure:
        if self.code is not None:
            raise Refusal(self.code, CODES[self.code][1])
        self._may_end = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._may_end = False
        if kind is asyncio.CancelledError and self.code is not None and self._task is not None:
            self._task.uncancel()
            raise Refusal(self.code, CODES[self.code][1]) from None
