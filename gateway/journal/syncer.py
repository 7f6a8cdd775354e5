"""One asynchronous fdatasync at a time: Linux AIO where there is one, else a thread.

Without a thread the interpreter's lock does not change hands for a commit (measured: 141 µs of CPU
a request against 213). The completion is an eventfd in the event loop. A result that is not zero
is an error of the disk; nobody retries it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Done = Callable[[OSError | None], None]


class AioSyncer:
    """fdatasync through the kernel's asynchronous I/O (`IOCB_CMD_FDSYNC`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from caio import linux_aio

        self._loop = loop
        self._context: Any = linux_aio.Context(max_requests=8)
        self._operation: Any = linux_aio.Operation
        loop.add_reader(self._context.fileno, self._completed)

    def sync(self, descriptor: int, done: Done) -> None:
        """Call `done` from the loop when all that was written is on the disk, or failed."""
        operation = self._operation.fdsync(descriptor)
        operation.set_callback(lambda _: done(_outcome(operation)))
        try:
            taken = self._context.submit(operation)
        except (ValueError, OverflowError, SystemError) as error:
            raise OSError(str(error)) from error
        if taken != 1:
            raise OSError("the kernel took no asynchronous fdatasync")

    def _completed(self) -> None:
        try:
            self._context.poll()
        except BlockingIOError:
            pass  # several completions may be told by one wake-up
        while self._is_interrupted():  # a wake-up that is not looked at never comes again
            pass

    def _is_interrupted(self) -> bool:
        """Take all completions there are; True where a signal, or who attaches to the process, came
        instead: the kernel says EINTR even to those who do not wait, and caio a SystemError."""
        try:
            self._context.process_events()
        except SystemError as error:
            if error.args[:1] != (errno.EINTR,):
                raise
            return True
        return False

    def close(self) -> None:
        self._loop.remove_reader(self._context.fileno)


def _outcome(operation: Any) -> OSError | None:
    """caio tells a failure as SystemError."""
    try:
        operation.get_value()
    except OSError as error:
        return error
    except SystemError as error:
        return OSError(str(error))
    return None


class ThreadSyncer:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(1, "fdatasync")

    def sync(self, descriptor: int, done: Done) -> None:
        def work() -> None:
            error = None
            try:
                os.fdatasync(descriptor)
            except OSError as caught:
                error = caught
            self._loop.call_soon_threadsafe(done, error)

        self._pool.submit(work)

    def close(self) -> None:
        self._pool.shutdown(wait=False)


Syncer = AioSyncer | ThreadSyncer


def best_syncer(loop: asyncio.AbstractEventLoop) -> Syncer:
    try:
        return AioSyncer(loop)
    except (ImportError, OSError, SystemError):
        return ThreadSyncer(loop)
