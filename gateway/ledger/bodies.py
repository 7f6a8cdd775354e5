"""Bodies beside the leaves: compressed, encrypted under their subjects' keys, in daily files.

    state/bodies/<model or "-">/<2026-11-23>.bodies    blobs, appended
    state/bodies/<model or "-">/<2026-11-23>.index     which key numbers are where in it, appended

A blob is `u32 n, n x u64 key number, 12-byte nonce, AES-256-GCM(zstandard(parts))`, little-endian,
bound to the exchange's id. The leaf holds place and SHA-256 of the blob, never of what is inside.
An index entry is 24 bytes: `u64 number, u64 offset, u32 length, u32 CRC-32 of the 20 before it`.

Invariants:
1. Blobs and their entries are durable before the leaf that names them; keys before both.
2. What no leaf names may lie anywhere between (a crash left it): nobody reads it, an erasure finds
   it like any other, it goes with its day. Entries may name what was cut: the newest entry of an
   offset counts, and a blob's own head is believed over any entry.
3. An erasure overwrites a blob behind its head: without any key it can still be told which key the
   blob was under, so that a verifier may look for the leaf that says why it cannot be read.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.disk import sync_folder
from gateway.ledger.keyfiles import KeyReader
from gateway.ledger.subjects import Subjects

BLOB_BYTES_MAX = 1024**3
NUMBERS_MAX = 65_536
FILES_OPEN_MAX = 16
NONCE_BYTES = 12
COUNT = struct.Struct("<I")
ONE = struct.Struct("<IQ")
ENTRY, TOLD = struct.Struct("<QQII"), struct.Struct("<QQI")
ENTRIES = np.dtype(
    [("number", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("checksum", "<u4")]
)  # fmt: skip
ENTRIES_AT_ONCE = 1 << 18
FILE = re.compile(r"^(?:-|[A-Za-z0-9][A-Za-z0-9._-]{0,63})/\d{4}-\d\d-\d\d$", re.ASCII)


class Retired(ValueError):
    """The day's file is gone, as retention takes it."""

    reason = "retired"


class Damaged(ValueError):
    """The bytes are not those that the leaf names, or do not open."""

    reason = "damaged"


@dataclass(slots=True)
class Place:
    """Where a blob is: `file` without its ending, as `mortgage/2026-11-23`."""

    file: str
    offset: int
    length: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "offset": self.offset, "length": self.length,
                "sha256": self.sha256}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that can still be read, found by a key number."""

    file: str
    offset: int
    length: int
    head: int


def body_path(state: Path, file: str) -> Path:
    """ValueError: the name leads elsewhere."""
    if not FILE.match(file):
        raise ValueError(f"{file[:100]!r} is no name of a file of bodies")
    return state / "bodies" / f"{file}.bodies"


def index_path(state: Path, file: str) -> Path:
    return body_path(state, file).with_suffix(".index")


def body_files(state: Path) -> list[str]:
    """Every model's days, as `mortgage/2026-11-23`; a day of which only the index is left too."""
    found = {
        f"{path.parent.name}/{path.stem}"
        for path in (state / "bodies").glob("*/*")
        if path.suffix in (".bodies", ".index")
    }
    return sorted(file for file in found if FILE.match(file))


def encode_entry(number: int, offset: int, length: int) -> bytes:
    """An entry of an index."""
    told = TOLD.pack(number, offset, length)
    return told + crc32(told).to_bytes(4, "little")


@dataclass(slots=True)
class _Day:
    """A daily file that is written: descriptors, end, and what waits for the commit."""

    descriptor: int
    index: int
    size: int
    entries_size: int
    blobs: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)


class Bodies:
    """The writing side, of the governor alone; one thread at a time."""

    def __init__(self, state: Path, subjects: Subjects, ends: Mapping[str, int]) -> None:
        """`ends`: by file, the end of the last place that a leaf names, of any files.

        What lies behind belongs to no leaf and is cut. Nothing is ever written below an end, even
        if the file was lost; a file not listed goes on where it ends.
        """
        self.state = state
        self._subjects = subjects
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._days: OrderedDict[str, _Day] = OrderedDict()
        self._ends = dict(ends)
        for file, end in ends.items():
            path = body_path(state, file)
            if path.exists() and path.stat().st_size > end:
                with path.open("r+b") as opened:
                    opened.truncate(end)
                    os.fsync(opened.fileno())

    def append(
        self, model: str, day: str, identity: str, numbers: Sequence[int], parts: bytes
    ) -> Place:
        """Queue a record's parts for the next `commit`; their place. Erased: a key is no more.

        `model`: its name, or "-"; `day`: UTC, as 2026-11-23.
        """
        if not 0 < len(numbers) <= NUMBERS_MAX or len(parts) > BLOB_BYTES_MAX:
            raise ValueError(f"{identity}: {len(numbers)} subjects, {len(parts)} bytes: too many")
        secret = self._subjects.secret(numbers)
        file = f"{model}/{day}"
        written = self._days.get(file)
        if written is None:
            written = self._days[file] = self._open(file)
        nonce = os.urandom(NONCE_BYTES)
        packed = self._compressor.compress(parts)
        sealed = AESGCM(secret).encrypt(nonce, packed, identity.encode())
        head = ONE.pack(1, *numbers) if len(numbers) == 1 else _head(numbers)
        blob = b"".join((head, nonce, sealed))
        offset = written.size
        written.blobs.append(blob)
        written.entries += [encode_entry(number, offset, len(blob)) for number in numbers]
        written.size = offset + len(blob)
        return Place(file, offset, len(blob), sha256(blob).hexdigest())

    def _open(self, file: str) -> _Day:
        path = body_path(self.state, file)
        fresh = not path.exists()
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700)
            sync_folder(path.parent.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        index = os.open(index_path(self.state, file), flags, 0o600)
        if fresh:
            sync_folder(path.parent)
        size = max(os.fstat(descriptor).st_size, self._ends.get(file, 0))
        entries = os.fstat(index).st_size // ENTRY.size * ENTRY.size
        return _Day(descriptor, index, size, entries)

    def commit(self) -> None:
        """Make the blobs durable; comes after the keys' commit and before the ledger's.

        After an error the object is of no use any more: open another one.
        """
        for file, day in list(self._days.items()):
            if day.blobs:
                blobs, entries = b"".join(day.blobs), b"".join(day.entries)
                _write(day.descriptor, blobs, day.size - len(blobs), file)
                _write(day.index, entries, day.entries_size, file)
                day.entries_size += len(entries)
                day.blobs.clear()
                day.entries.clear()
                self._days.move_to_end(file)
        while len(self._days) > FILES_OPEN_MAX:
            self._close(self._days.popitem(last=False)[1])

    def let_go(self, file: str) -> None:
        """Close a file whose index somebody else writes; the next blob goes where it would have."""
        if (day := self._days.pop(file, None)) is not None:
            self._ends[file] = max(day.size, self._ends.get(file, 0))
            self._close(day)

    def forget(self, file: str) -> None:
        """Close a file that is about to be dropped."""
        self.let_go(file)
        self._ends.pop(file, None)

    def _close(self, day: _Day) -> None:
        os.close(day.descriptor)
        os.close(day.index)

    def close(self) -> None:
        while self._days:
            self._close(self._days.popitem()[1])


def _head(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<I{len(numbers)}Q", len(numbers), *numbers)


def _write(descriptor: int, data: bytes, offset: int, file: str) -> None:
    if os.pwrite(descriptor, data, offset) != len(data):
        raise OSError(f"a write to the bodies of {file} was short")
    os.fdatasync(descriptor)


class BodyReader:
    """Any process that may read the keys, from any of its threads."""

    def __init__(self, state: Path, keys: Path) -> None:
        self.state = state
        self._keys = KeyReader(keys)
        self._decompressor = zstandard.ZstdDecompressor()
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, identity: str, place: Mapping[str, Any]) -> bytes:
        """The record's parts, for `record.decode_parts`. Erased, Retired, Damaged (ValueErrors)."""
        return self.read_sealed(identity, place)[1]

    def read_sealed(self, identity: str, place: Mapping[str, Any]) -> tuple[tuple[int, ...], bytes]:
        """As `read`, behind the numbers of the keys that the parts are sealed under."""
        blob = self._blob(place, place["length"])
        numbers = _numbers(blob, place)
        secret = self._keys.secret(numbers)
        if sha256(blob).hexdigest() != place["sha256"]:
            self._keys.secret(numbers)  # an erasure may have come between
            raise Damaged(f"the body of {identity} is not the one its leaf names")
        start = COUNT.size + 8 * len(numbers)
        nonce, sealed = blob[start : start + NONCE_BYTES], blob[start + NONCE_BYTES :]
        try:
            packed = AESGCM(secret).decrypt(nonce, sealed, identity.encode())
            with self._lock:
                parts = self._decompressor.decompress(packed, max_output_size=BLOB_BYTES_MAX)
            return numbers, parts
        except (InvalidTag, zstandard.ZstdError, ValueError) as error:
            self._keys.secret(numbers)
            raise Damaged(f"the body of {identity} does not open: {error!r}") from None

    def numbers(self, place: Mapping[str, Any]) -> tuple[int, ...]:
        """The key numbers that a blob is under, even if it was erased. Retired, Damaged."""
        head = self._blob(place, min(place["length"], COUNT.size + 8))
        if len(head) >= COUNT.size and COUNT.unpack_from(head)[0] > 1:
            head = self._blob(place, min(place["length"], COUNT.size + 8 * NUMBERS_MAX))
        return _numbers(head, place)

    def _blob(self, place: Mapping[str, Any], length: int) -> bytes:
        file = place["file"]
        with self._lock:
            descriptor = self._open.get(file)
            if descriptor is not None and os.fstat(descriptor).st_nlink == 0:
                os.close(self._open.pop(file))
                descriptor = None
            if descriptor is None:
                descriptor = self._open[file] = self._opened(file)
                while len(self._open) > FILES_OPEN_MAX:
                    os.close(self._open.popitem(last=False)[1])
            self._open.move_to_end(file)
            return os.pread(descriptor, length, place["offset"])

    def _opened(self, file: str) -> int:
        try:
            return os.open(body_path(self.state, file), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Retired(f"the bodies of {file} are gone") from None

    def close(self) -> None:
        self._keys.close()
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])


def _numbers(blob: bytes, place: Mapping[str, Any]) -> tuple[int, ...]:
    """The key numbers in a blob's head. Damaged: there is none."""
    count = COUNT.unpack_from(blob)[0] if len(blob) >= COUNT.size else 0
    if not 0 < count <= NUMBERS_MAX or len(blob) < COUNT.size + 8 * count:
        raise Damaged(f"{place['file']} at {place['offset']}: there is no blob")
    return struct.unpack_from(f"<{count}Q", blob, COUNT.size)


def head_numbers(descriptor: int, file: str, offset: int, length: int) -> tuple[int, ...]:
    """The key numbers in the head of a blob of an open file. Damaged: there is none."""
    head = os.pread(descriptor, min(length, COUNT.size + 8), offset)
    if len(head) >= COUNT.size and COUNT.unpack_from(head)[0] > 1:
        head = os.pread(descriptor, min(length, COUNT.size + 8 * NUMBERS_MAX), offset)
    return _numbers(head, {"file": file, "offset": offset})


def indexed(state: Path, file: str) -> Iterator[np.ndarray[Any, Any]]:
    """A file's index, in pieces; nothing if it has none."""
    try:
        opened = index_path(state, file).open("rb")
    except FileNotFoundError:
        return
    with opened:
        while data := opened.read(ENTRIES_AT_ONCE * ENTRY.size):
            whole = len(data) // ENTRY.size
            yield np.frombuffer(data, ENTRIES, whole)


def find(state: Path, numbers: Collection[int]) -> Iterator[Blob]:
    """The blobs under any of some key numbers that are not overwritten yet, file by file."""
    wanted = np.array(sorted(numbers), dtype="<u8")
    for file in body_files(state):
        places: dict[int, int] = {}
        for piece in indexed(state, file):
            for entry in piece[np.isin(piece["number"], wanted)]:
                number, offset, length, checksum = (int(value) for value in entry.item())
                if crc32(struct.pack("<QQI", number, offset, length)) == checksum:
                    places[offset] = length
        if places:
            yield from _alive(state, file, places, frozenset(numbers))


def _alive(
    state: Path, file: str, places: Mapping[int, int], wanted: frozenset[int]
) -> Iterator[Blob]:
    """Of places that an index names, those where such a blob is, and can be read."""
    try:
        opened = body_path(state, file).open("rb", buffering=0)
    except FileNotFoundError:
        return
    with opened:
        for offset, length in sorted(places.items()):
            try:
                found = head_numbers(opened.fileno(), file, offset, length)
            except Damaged:
                continue
            head = COUNT.size + 8 * len(found)
            nonce = os.pread(opened.fileno(), NONCE_BYTES, offset + head)
            if not wanted.isdisjoint(found) and nonce.strip(b"\0"):
                yield Blob(file, offset, length, head)


def overwrite(state: Path, blobs: Sequence[Blob]) -> None:
    """Zeros over some blobs of one file, behind their heads, durable on return.

    The nonces go last, when the rest is durable: a blob that has one is not overwritten yet.
    """
    descriptor = os.open(body_path(state, blobs[0].file), os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        for blob in blobs:
            end = min(blob.offset + blob.length, size)
            zero(descriptor, blob.offset + blob.head + NONCE_BYTES, end)
        os.fdatasync(descriptor)
        for blob in blobs:
            start = blob.offset + blob.head
            zero(descriptor, start, start + NONCE_BYTES)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def zero(descriptor: int, start: int, end: int) -> None:
    """Zeros over a range of an open file."""
    for at in range(start, end, 1024**2):
        if os.pwrite(descriptor, bytes(min(1024**2, end - at)), at) != min(1024**2, end - at):
            raise OSError("a write of zeros over a body was short")
