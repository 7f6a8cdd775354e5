"""What keeps a process of the tree from its work, in words: one small file a role, for status.

    state/run/<role>.trouble     text; absent while nothing is known

A process that ends by an error leaves it behind; a worker keeps its own current. The log has more.
"""

from __future__ import annotations

from pathlib import Path

LENGTH_MAX = 500


class Trouble:
    def __init__(self, state: Path, role: str) -> None:
        self._path = state / "run" / f"{role}.trouble"

    def tell(self, words: str) -> None:
        """In place of what was told before. A disk that takes not even this is told by others."""
        try:
            self._path.write_text(words[:LENGTH_MAX])
        except OSError:
            pass

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def read(self) -> str | None:
        try:
            return self._path.read_text(errors="replace") or None
        except OSError:
            return None
