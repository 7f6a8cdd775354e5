"""Bodies beside the leaves: compressed, encrypted, found by the place that a leaf names.

    state/bodies/<number>.bodies      blobs, appended
    keys/bodies.key                   32 bytes; without it no body can be read

A blob is a 12-byte nonce and AES-256-GCM over zstandard over the record's parts, bound to the
exchange's id. The leaf holds the SHA-256 of the blob, never of what is inside.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.disk import write_durably

FILE_BYTES = 256 * 1024**2
BLOB_BYTES_MAX = 1024**3


@dataclass(frozen=True, slots=True)
class Place:
    file: int
    offset: int
    length: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "offset": self.offset, "length": self.length,
                "sha256": self.sha256}  # fmt: skip


def _path(root: Path, number: int) -> Path:
    return root / f"{number:08d}.bodies"


def load_key(keys: Path) -> AESGCM:
    """FileNotFoundError: there is none, and only the writer makes one."""
    return AESGCM((keys / "bodies.key").read_bytes())


def make_key(keys: Path, *, begun: bool) -> AESGCM:
    """The key, made once: bodies that have begun (`begun`) are not given another one."""
    path = keys / "bodies.key"
    if not path.exists() and not begun:
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(path, os.urandom(32))
    return load_key(keys)


class Bodies:
    """The writing side, of the governor alone. `after`: the place of the last leaf's body."""

    def __init__(self, state: Path, keys: Path, after: Place | None) -> None:
        self.root = state / "bodies"
        self.root.mkdir(parents=True, exist_ok=True)
        self._cipher = make_key(keys, begun=after is not None)
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._number = after.file if after else 0
        self._size = after.offset + after.length if after else 0
        self._buffer: list[bytes] = []
        self._open()

    def _open(self) -> None:
        """Blobs behind the last leaf's belong to no leaf: a crash left them."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(_path(self.root, self._number), flags, 0o600)
        os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)

    def append(self, identity: str, parts: bytes) -> Place:
        nonce = os.urandom(12)
        packed = self._compressor.compress(parts)
        blob = nonce + self._cipher.encrypt(nonce, packed, identity.encode())
        place = Place(self._number, self._size, len(blob), hashlib.sha256(blob).hexdigest())
        self._buffer.append(blob)
        self._size += len(blob)
        return place

    def commit(self) -> None:
        """Make the blobs durable; comes before the ledger's commit that names them."""
        if self._buffer:
            data = b"".join(self._buffer)
            self._buffer.clear()
            if os.pwrite(self._descriptor, data, self._size - len(data)) != len(data):
                raise OSError("a write to the bodies was short")
            os.fdatasync(self._descriptor)
        if self._size > FILE_BYTES:
            os.close(self._descriptor)
            self._number, self._size = self._number + 1, 0
            self._open()

    def close(self) -> None:
        os.close(self._descriptor)


class BodyReader:
    """Any process that has the key, from any of its threads."""

    def __init__(self, state: Path, keys: Path) -> None:
        self.root = state / "bodies"
        self._keys = keys
        self._cipher: AESGCM | None = None
        self._decompressor = zstandard.ZstdDecompressor()
        self._open: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def read(self, identity: str, place: dict[str, Any]) -> bytes:
        """The record's parts, for `record.decode_parts`. ValueError: the blob is damaged."""
        with self._lock:
            return self._read(identity, place)

    def _read(self, identity: str, place: dict[str, Any]) -> bytes:
        if self._cipher is None:
            self._cipher = load_key(self._keys)
        number, offset, length = place["file"], place["offset"], place["length"]
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                os.close(self._open[1])
            self._open = (number, os.open(_path(self.root, number), os.O_RDONLY | os.O_CLOEXEC))
        blob = os.pread(self._open[1], length, offset)
        if hashlib.sha256(blob).hexdigest() != place["sha256"]:
            raise ValueError(f"the body of {identity} is not the one its leaf names")
        packed = self._cipher.decrypt(blob[:12], blob[12:], identity.encode())
        return self._decompressor.decompress(packed, max_output_size=BLOB_BYTES_MAX)
