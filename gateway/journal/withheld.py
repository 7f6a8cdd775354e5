"""The note of answers that were not given, for the case that the process does not live to say so.

When a commit stalls or fails, its waiters get 503; but its records are written, and may turn out
whole. Before the waiters fail their ids are noted here, in a file of its own (a write to the page
cache: it survives the process, and asks nothing of a disk that does not answer). When the disk
answers again the journal says `withheld` itself and the note is wiped; when the process ends first,
the next start reads the note and says it. What a power loss takes before the note is flushed stays
unsaid: then a record stands for an answer that nobody got - one too many, never one too few.
"""

from __future__ import annotations

import os
from pathlib import Path

ID_BYTES_MAX = 128


class WithheldNote:
    """Ids, one a line; the file is made at opening, so that noting needs no new name."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.found = self._read()

    def _read(self) -> list[str]:
        """What a former process left. A line that was not finished was never relied on."""
        size = os.fstat(self._descriptor).st_size
        lines = os.pread(self._descriptor, size, 0).split(b"\n")[:-1]
        ids = [line.decode("ascii", "replace")[:ID_BYTES_MAX] for line in lines if line]
        return list(dict.fromkeys(ids))

    def note(self, ids: list[str]) -> None:
        end = os.fstat(self._descriptor).st_size
        os.pwrite(self._descriptor, "".join(f"{each}\n" for each in ids).encode(), end)

    def wipe(self) -> None:
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        os.close(self._descriptor)
