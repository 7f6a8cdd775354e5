"""The slots of subjects' keys, as any process reads them: whole, erased or damaged.

A slot is 36 bytes: the key, and the CRC-32 of its number (8 bytes, little-endian) and the key. With
the number in it, a slot that was moved or a file under another's name is damage, too. Zeros, or no
slot: the key was erased. A checksum tells a rotten key from one that is right: a wrong key would
make bodies unreadable without a word, and seal new ones so that no backup of the keys opens them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from zlib import crc32

KEY_BYTES = 32
SLOT_BYTES = 36
ERASED = bytes(SLOT_BYTES)
SLOTS_A_FILE = 65_536
FILES_OPEN_MAX = 16
TRIES = 3
PAUSE_S = 0.001
"""A slot that an erasure is overwriting is looked at again after this."""


class Erased(ValueError):
    """A key that is wanted was destroyed, or is not in these keys."""

    reason = "erased"


class KeyDamaged(ValueError):
    """A slot is neither zeros nor a key with its checksum: restore it from a backup of the keys."""

    reason = "damaged"


class KeysUnusable(OSError):
    """Numbers were given, and the keys they belong to are missing or damaged."""


def combine(keys: Sequence[bytes]) -> bytes:
    """The key of a blob of one or several subjects: without any one of them it is lost."""
    return keys[0] if len(keys) == 1 else sha256(b"".join(keys)).digest()


def encode_slot(number: int, key: bytes) -> bytes:
    return key + crc32(key, crc32(number.to_bytes(8, "little"))).to_bytes(4, "little")


def _is_whole(number: int, slot: bytes) -> bool:
    """Whether the slot is what was written: a key with its checksum, or zeros."""
    return slot == encode_slot(number, slot[:KEY_BYTES]) or not slot.strip(b"\0")


class KeyFiles:
    """The slots, read by any thread; at most `FILES_OPEN_MAX` files stay open."""

    def __init__(self, root: Path, flags: int = os.O_RDONLY) -> None:
        self.root = root
        self._flags = flags | os.O_CLOEXEC
        self._open: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, file: int) -> Path:
        return self.root / f"{file:08d}.keys"

    def files(self) -> list[int]:
        return sorted(int(path.stem) for path in self.root.glob("*.keys"))

    def descriptor(self, file: int) -> int:
        """FileNotFoundError: none of its keys is left, or was ever there."""
        found = self._open.get(file)
        if found is None:
            found = self._open[file] = os.open(self.path(file), self._flags, 0o600)
            while len(self._open) > FILES_OPEN_MAX:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(file)
        return found

    def read(self, number: int) -> bytes:
        """The raw key of a number. Erased, KeyDamaged; KeysUnusable: there are no keys at all."""
        slot = self._slot(number)
        for _ in range(TRIES - 1):
            if _is_whole(number, slot):
                break
            time.sleep(PAUSE_S)  # half of it may have been overwritten by then
            slot = self._slot(number)
        if len(slot) < SLOT_BYTES or slot == ERASED:
            raise Erased(f"key {number} was erased")
        if not _is_whole(number, slot):
            raise KeyDamaged(f"key {number} is damaged: {self._place(number)}")
        return slot[:KEY_BYTES]

    def _place(self, number: int) -> str:
        file, slot = divmod(number, SLOTS_A_FILE)
        return (f"slot {slot} of {self.path(file)}; its {SLOT_BYTES} bytes, from "
                f"{slot * SLOT_BYTES} on, are wanted from a backup of the keys")  # fmt: skip

    def _slot(self, number: int) -> bytes:
        file, slot = divmod(number, SLOTS_A_FILE)
        try:
            with self._lock:
                return os.pread(self.descriptor(file), SLOT_BYTES, slot * SLOT_BYTES)
        except FileNotFoundError:
            if not self.root.exists():
                raise KeysUnusable(f"{self.root} is missing") from None
            return b""

    def forget(self, file: int) -> None:
        with self._lock:
            if (found := self._open.pop(file, None)) is not None:
                os.close(found)

    def close(self) -> None:
        for file in list(self._open):
            self.forget(file)


class KeyReader:
    """Any process that may read bodies, from any of its threads. It keeps no key."""

    def __init__(self, keys: Path) -> None:
        self._files = KeyFiles(keys / "subjects")

    def secret(self, numbers: Sequence[int]) -> bytes:
        """The 32-byte key of a blob under these numbers. Erased: one of them is no more."""
        return combine([self._files.read(number) for number in numbers])

    def close(self) -> None:
        self._files.close()


def damaged_slots(keys: Path) -> Iterator[list[str]]:
    """For each key file its damaged slots, in words. The file is read once.

    A key whose last write was torn by a power loss is among them; nothing was sealed under it.
    """
    files = KeyFiles(keys / "subjects")
    for file in files.files():
        try:
            data = files.path(file).read_bytes()
        except FileNotFoundError:
            continue
        first = file * SLOTS_A_FILE
        doubtful = [
            first + slot
            for slot in range(len(data) // SLOT_BYTES)
            if not _is_whole(first + slot, data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES])
        ]
        yield list(_damaged(files, doubtful))
    files.close()


def _damaged(files: KeyFiles, numbers: Sequence[int]) -> Iterator[str]:
    """Of slots that were not whole at a first look, those that are not at a second."""
    for number in numbers:
        try:
            files.read(number)
        except KeyDamaged as error:
            yield str(error)
        except Erased:
            continue
