"""The blobs that leaves name: there, and with their SHA-256, unless a leaf says why not."""

from __future__ import annotations

import os
import re
import struct
from collections import Counter, OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway.verify.chronicle import Chronicle

OPEN_MAX = 64
CHUNK = 1024**2
FILE = re.compile(r"[^/\x00]+/[^/\x00]+")


class Bodies:
    """`counts`: whole, erased, retired. `fault_of` says what is wrong with one, if anything."""

    def __init__(self, root: Path, chronicle: Chronicle) -> None:
        self.root, self.chronicle = root, chronicle
        self.counts: Counter[str] = Counter()
        self._open: OrderedDict[str, int | None] = OrderedDict()

    def fault_of(self, place: dict[str, Any]) -> tuple[str, str] | None:
        """(kind, words), or None: the blob is as the leaf says, or excused by a leaf."""
        try:
            file, offset, length = place["file"], place["offset"], place["length"]
            digest = bytes.fromhex(place["sha256"])
        except (KeyError, TypeError, ValueError):
            return "body place", f"not a place: {place!r:.200}"
        if not isinstance(file, str) or not FILE.fullmatch(file) or ".." in file.split("/"):
            return "body place", f"not a file: {file!r:.200}"
        descriptor = self._descriptor(file)
        if descriptor is None:
            if file in self.chronicle.retired:
                self.counts["retired"] += 1
                return None
            return "body missing", f"bodies/{file}.bodies is not there"
        if self._digest(descriptor, offset, length) == digest:
            self.counts["whole"] += 1
            return None
        if self._erased(descriptor, file, offset, length):
            self.counts["erased"] += 1
            return None
        return "body changed", f"bodies/{file}.bodies at {offset}: not the {length} bytes it was"

    def _descriptor(self, file: str) -> int | None:
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= OPEN_MAX:
            _, oldest = self._open.popitem(last=False)
            if oldest is not None:
                os.close(oldest)
        try:
            descriptor = os.open(self.root / f"{file}.bodies", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            descriptor = None
        self._open[file] = descriptor
        return descriptor

    def _digest(self, descriptor: int, offset: int, length: int) -> bytes:
        digest = sha256()
        while length > 0:
            data = os.pread(descriptor, min(length, CHUNK), offset)
            if not data:
                break
            digest.update(data)
            offset, length = offset + len(data), length - len(data)
        return digest.digest()

    def _erased(self, descriptor: int, file: str, offset: int, length: int) -> bool:
        """Overwritten with zeros as an erasure of this file says, or still naming a key of one."""
        head = os.pread(descriptor, min(length, CHUNK), offset)
        if file in self.chronicle.erased_files and not any(head):
            return True
        count = int.from_bytes(head[:4], "little")
        if not 0 < count <= (len(head) - 4) // 8:
            return False
        return not self.chronicle.erased.isdisjoint(struct.unpack_from(f"<{count}Q", head, 4))

    def close(self) -> None:
        for descriptor in self._open.values():
            if descriptor is not None:
                os.close(descriptor)
        self._open.clear()
