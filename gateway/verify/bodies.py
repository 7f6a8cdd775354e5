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
from gateway.verify.keys import Keys

OPEN_MAX = 64
CHUNK = 1024**2
NONCE_BYTES = 12
FILE = re.compile(r"[^/\x00]+/[^/\x00]+")


class Bodies:
    """`counts`: whole, keyless (whole, but a key is gone and no leaf says why), erased, retired.
    `fault_of` says what is wrong with one, if anything; `keys`: where its keys are looked for."""

    def __init__(self, root: Path, chronicle: Chronicle, keys: Keys | None = None) -> None:
        self.root, self.chronicle, self.keys = root, chronicle, keys
        self.counts: Counter[str] = Counter()
        self._open: OrderedDict[str, int | None] = OrderedDict()

    def fault_of(self, place: dict[str, Any]) -> tuple[str, str] | None:
        """(kind, words), or None: the blob is as the leaf says, or excused by a leaf."""
        try:
            file, offset, length = place["file"], place["offset"], place["length"]
            digest = bytes.fromhex(place["sha256"])
            struct.pack("<QQ", offset, length)
        except (KeyError, TypeError, ValueError, struct.error):
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
            return self._fault_of_keys(descriptor, offset, length)
        if self._erased(descriptor, offset, length):
            self.counts["erased"] += 1
            return None
        return "body changed", f"bodies/{file}.bodies at {offset}: not the {length} bytes it was"

    def _fault_of_keys(self, descriptor: int, offset: int, length: int) -> tuple[str, str] | None:
        """Of a blob that is whole: can it be opened with the keys that are there?"""
        kind = "whole"
        for number in self._numbers(descriptor, offset, length) if self.keys else ():
            if number in self.chronicle.erased:
                continue
            assert self.keys is not None
            state = self.keys.state(number)
            if state == "damaged":
                return "key damaged", self.keys.place(number)
            if state == "missing":
                kind = "keyless"
        self.counts[kind] += 1
        return None

    def _numbers(self, descriptor: int, offset: int, length: int) -> tuple[int, ...]:
        """The key numbers in a blob's head (u32 count, u64 each), if it has one."""
        count = int.from_bytes(os.pread(descriptor, 4, offset), "little")
        if not 0 < count <= (length - 4) // 8:
            return ()
        return struct.unpack(f"<{count}Q", os.pread(descriptor, 8 * count, offset + 4))

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

    def _erased(self, descriptor: int, offset: int, length: int) -> bool:
        """Zeros behind a head (u32 count, u64 key numbers) that names a key which a leaf erased."""
        head = os.pread(descriptor, min(length, CHUNK), offset)
        count = int.from_bytes(head[:4], "little")
        behind = 4 + 8 * count + NONCE_BYTES
        if count == 0 or behind > len(head):
            return False
        if self.chronicle.erased.isdisjoint(struct.unpack_from(f"<{count}Q", head, 4)):
            return False
        while behind < length:
            data = os.pread(descriptor, min(length - behind, CHUNK), offset + behind)
            if not data or any(data):
                return False
            behind += len(data)
        return True

    def close(self) -> None:
        for descriptor in self._open.values():
            if descriptor is not None:
                os.close(descriptor)
        self._open.clear()
        if self.keys is not None:
            self.keys.close()
