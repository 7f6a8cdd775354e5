"""Children end when their supervisor does.

Each child inherits the reading end of a pipe whose other end only the supervisor holds. When the
supervisor goes, however it goes, the pipe closes; the child then ends as if told to (SIGTERM), and
at once if it has not done so in time.
"""

from __future__ import annotations

import os
import signal
import threading
import time


def hold_to(descriptor: int, patience_s: float) -> None:
    """Watch the lifeline from a thread of its own: it works while the event loop is stuck."""

    def watch() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience_s)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
