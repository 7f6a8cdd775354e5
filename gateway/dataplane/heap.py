"""What bodies took of a process's memory, given back to the system when they are gone.

The allocator of C keeps the pages between two pieces that are in use, for ever: after a rush of
long bodies a worker would be as large as in it.
"""

from __future__ import annotations

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the GNU library alone; others keep less, and have nothing to ask for."""


def give_back() -> None:
    """Takes milliseconds where there is much, so it is for a lull."""
    if _trim is not None:
        _trim(0)
