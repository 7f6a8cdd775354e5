"""Subjects' keys, looked at from the files alone: is the key of a body there, and is it whole?

A slot has 36 bytes, 65,536 of them a file: the key and the CRC-32 of number and key. No key is
used, kept or told.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from zlib import crc32

SLOT_BYTES = 36
SLOTS_A_FILE = 65_536
OPEN_MAX = 64


class Keys:
    """`root`: the folder `keys`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[int, int | None] = OrderedDict()

    def place(self, number: int) -> str:
        file, slot = divmod(number, SLOTS_A_FILE)
        return f"keys/subjects/{file:08d}.keys: slot {slot}, at byte {slot * SLOT_BYTES}"

    def state(self, number: int) -> str:
        """whole, missing (zeros, or no slot) or damaged."""
        file, slot = divmod(number, SLOTS_A_FILE)
        descriptor = self._descriptor(file)
        data = b"" if descriptor is None else os.pread(descriptor, SLOT_BYTES, slot * SLOT_BYTES)
        if not data.strip(b"\0"):
            return "missing"
        checksum = crc32(number.to_bytes(8, "little") + data[:32]).to_bytes(4, "little")
        return "whole" if data[32:] == checksum else "damaged"

    def _descriptor(self, file: int) -> int | None:
        if file not in self._open:
            path = self.root / "subjects" / f"{file:08d}.keys"
            try:
                self._open[file] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._open[file] = None
            if len(self._open) > OPEN_MAX:
                _, oldest = self._open.popitem(last=False)
                if oldest is not None:
                    os.close(oldest)
        self._open.move_to_end(file)
        return self._open[file]

    def close(self) -> None:
        for descriptor in self._open.values():
            if descriptor is not None:
                os.close(descriptor)
        self._open.clear()
