"""A day's index of bodies that is damaged, made again from the leaves.

Erasure and retention go by the index: which subject's blobs lie where. An entry that rotted or is
missing would keep a ciphertext from an erasure, or a key that is in use from being seen in use. So
both look at every index first (`unsound`). What it should say is in the ledger: a leaf names its
blob's place, and the blob's head the key numbers.

Invariants:
1. An index accounts for every byte of its file. What neither a leaf nor a whole entry names, nobody
   can read: a crash left it. It is overwritten with zeros and entered under number 0, nobody's.
2. Nothing is changed before every leaf was read: LedgerDamaged leaves all as it is.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import orjson

from gateway.disk import write_durably
from gateway.ledger.bodies import (
    ENTRIES,
    Damaged,
    body_files,
    body_path,
    encode_entry,
    head_numbers,
    index_path,
    indexed,
    zero,
)
from gateway.ledger.entries import EntryReader
from gateway.ledger.names import ROOT

TOLD = ENTRIES.itemsize - 4
"""Bytes of an entry that its checksum is of."""
NOBODY = 0
LENGTH_MAX = 2**32 - 1
Entries = np.ndarray[Any, Any]


@cache
def _tables() -> np.ndarray[Any, Any]:
    """What each value of each byte of an entry adds to its CRC-32, which is linear."""
    nothing = crc32(bytes(TOLD))
    return np.array(
        [
            [crc32(bytes(at) + bytes([value]) + bytes(TOLD - 1 - at)) ^ nothing
             for value in range(256)]
            for at in range(TOLD)
        ],
        dtype=np.uint32,
    )  # fmt: skip


def intact(entries: Entries) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which entries have their checksum."""
    data = entries.view(np.uint8).reshape(len(entries), ENTRIES.itemsize)
    found = np.full(len(entries), crc32(bytes(TOLD)), dtype=np.uint32)
    for at, table in enumerate(_tables()):
        found ^= table[data[:, at]]
    return np.asarray(found == entries["checksum"])


def unsound(state: Path) -> list[str]:
    """The files whose index has a damaged entry, or does not account for every byte."""
    return [file for file in body_files(state) if not _is_sound(state, file)]


def _is_sound(state: Path, file: str) -> bool:
    reached = 0
    for entries in indexed(state, file):
        if not intact(entries).all():
            return False
        reached, holes = _holes(entries, reached)
        if holes:
            return False
    return reached >= _size(state, file)


def _size(state: Path, file: str) -> int:
    path = body_path(state, file)
    return path.stat().st_size if path.exists() else 0


def _holes(entries: Entries, reached: int) -> tuple[int, list[tuple[int, int]]]:
    """How far entries reach, read one after the other, and what they leave out (start, end)."""
    starts = entries["offset"].astype(np.int64)
    ends = np.maximum.accumulate(np.concatenate(([reached], starts + entries["length"])))
    found = np.flatnonzero(starts > ends[:-1])
    return int(ends[-1]), [(int(ends[at]), int(starts[at])) for at in found]


def mend(state: Path, file: str, logs: Mapping[str, int]) -> int:
    """Make a file's index again; durable on return. How many bytes no leaf and no entry named.

    `logs`: how many entries each log has. Nobody may be writing the file.
    """
    places = _places(state, file, logs)
    held = [entries[intact(entries)] for entries in indexed(state, file)]
    whole = np.concatenate([*held, np.zeros(0, ENTRIES)])
    made = b"".join(_entries_of(state, file, places, whole))
    named = np.array(places, np.uint64)[::2]
    others = whole[~np.isin(whole["offset"], named)]
    entries = _in_order(np.concatenate([np.frombuffer(made, ENTRIES), others]))
    size = _size(state, file)
    reached, holes = _holes(entries, 0)
    if reached < size:
        holes.append((reached, size))
    if holes:
        _clear(state, file, holes)
    nobodys = b"".join(encode_entry(NOBODY, start, length) for start, length in _pieces(holes))
    entries = _in_order(np.concatenate([entries, np.frombuffer(nobodys, ENTRIES)]))
    write_durably(index_path(state, file), entries.tobytes())
    return sum(end - start for start, end in holes)


def _in_order(entries: Entries) -> Entries:
    return np.asarray(entries[np.argsort(entries["offset"], kind="stable")])


def _pieces(holes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(start, length) of the holes, none longer than an entry can say."""
    for start, end in holes:
        for at in range(start, end, LENGTH_MAX):
            yield at, min(LENGTH_MAX, end - at)


def _clear(state: Path, file: str, holes: list[tuple[int, int]]) -> None:
    descriptor = os.open(body_path(state, file), os.O_RDWR | os.O_CLOEXEC)
    try:
        for start, end in holes:
            zero(descriptor, start, min(end, os.fstat(descriptor).st_size))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _entries_of(state: Path, file: str, places: array[int], whole: Entries) -> Iterator[bytes]:
    """The entries of the blobs that leaves name: by their heads, or, where a head cannot be read,
    by the entries there are."""
    try:
        opened = body_path(state, file).open("rb", buffering=0)
    except FileNotFoundError:
        return
    with opened:
        for offset, length in zip(places[::2], places[1::2]):
            try:
                numbers = head_numbers(opened.fileno(), file, offset, length)
            except Damaged:
                numbers = tuple(whole["number"][whole["offset"] == offset].tolist()) or (NOBODY,)
            for number in numbers:
                yield encode_entry(number, offset, length)


def _places(state: Path, file: str, logs: Mapping[str, int]) -> array[int]:
    """Offset and length of each blob that a leaf names, one after the other."""
    model = file.partition("/")[0]
    needle = b'"file":' + orjson.dumps(file)
    found = array("Q")
    for log, size in sorted(logs.items()):
        own = log == ROOT if model == "-" else log.split("/")[1:2] == [model]
        if not own:
            continue
        reader = EntryReader(state / "ledger" / log)
        for index in range(size):
            entry = reader.read(index)
            if needle in entry:
                leaf = orjson.loads(entry)
                for place in (leaf.get("body"), leaf.get("decisions_at")):
                    if place is not None and place["file"] == file:
                        found.extend((place["offset"], place["length"]))
        reader.close()
    return found
