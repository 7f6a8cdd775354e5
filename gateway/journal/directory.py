"""One journal's folder: its segments in order, their keys, its name, and its single writer.

    state/journal/<name>/identity           16 hex digits, made once: a wiped journal is another one
    state/journal/<name>/lock               held by the writer
    state/journal/<name>/00000007.segment   numbered from 0, never reused
    keys/journal/<name>/00000007.key        32 bytes; gone with its segment

A key is on disk before the segment that uses it, and is destroyed before it: a segment without its
key is unreadable for ever, a key without its segment is harmless.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.disk import sync_folder, write_durably


class JournalFolder:
    def __init__(self, state: Path, keys: Path, name: str) -> None:
        self.name = name
        self.path = state / "journal" / name
        self.keys = keys / "journal" / name

    def make(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (self.path / "identity").exists():
            write_durably(self.path / "identity", random(8).hex().encode())

    @property
    def identity(self) -> str:
        return (self.path / "identity").read_text()

    def segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self.path.glob("*.segment"))

    def segment(self, number: int) -> Path:
        return self.path / f"{number:08d}.segment"

    def _key(self, number: int) -> Path:
        return self.keys / f"{number:08d}.key"

    def make_key(self, number: int, random: Callable[[int], bytes] = os.urandom) -> AESGCM:
        key = random(32)
        write_durably(self._key(number), key)
        return AESGCM(key)

    def cipher(self, number: int) -> AESGCM:
        """FileNotFoundError: the key was destroyed or not restored."""
        return AESGCM(self._key(number).read_bytes())

    def destroy(self, number: int) -> None:
        """Forget a segment: its key first, so that nothing readable outlives it."""
        self._key(number).unlink(missing_ok=True)
        sync_folder(self.keys)
        self.segment(number).unlink(missing_ok=True)
        sync_folder(self.path)

    def size(self) -> int:
        """Bytes of segments on disk. One that goes while they are counted counts nothing."""
        total = 0
        for path in self.path.glob("*.segment"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return total


def folders(state: Path, keys: Path) -> list[JournalFolder]:
    """Every journal of the state, those of former workers too."""
    root = state / "journal"
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []
    return [JournalFolder(state, keys, name) for name in names]
