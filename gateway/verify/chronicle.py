"""What the root log says of all logs: opened, closed, beaten, erased, retired, lost.

A claim is a size and a root that were said of a log; claims are packed (48 bytes each), because a
heartbeat a minute makes half a million of them a year for each busy model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.verify.fault import Fault

CLAIM = struct.Struct("<QQ32s")  # index of the leaf that claims, size, root
HOLES_MAX = 1000


@dataclass
class Said:
    """Of one origin. `opened`, `closed`, `dropped`: indexes in the root log."""

    opened: int | None = None
    vkey: str = ""
    closed: int | None = None
    final: tuple[int, bytes, bytes] | None = None  # size, root, checkpoint
    dropped: int | None = None
    size: int = 0
    root: bytes = b""
    claims: bytearray = field(default_factory=bytearray)

    def pending(self) -> Iterator[tuple[int, int, bytes]]:
        """(index in root, size, root) of each claim, sizes rising."""
        yield from CLAIM.iter_unpack(self.claims)


@dataclass
class Chronicle:
    """The fold over the root log's leaves. `fault`: the first thing that it says wrongly."""

    root: str
    prefix: str
    key: str | None = None
    said: dict[str, Said] = field(default_factory=dict)
    erased: set[int] = field(default_factory=set)
    retired: set[str] = field(default_factory=set)
    gaps: list[tuple[str, int, int]] = field(default_factory=list)
    damages: list[tuple[str, int]] = field(default_factory=list)
    fault: Fault | None = None
    _beaten: set[str] = field(default_factory=set)

    def of(self, origin: str) -> Said:
        return self.said.setdefault(origin, Said())

    def read(self, entries: Iterable[bytes]) -> None:
        """Take up every leaf that can be read."""
        for index, entry in enumerate(entries):
            try:
                leaf = orjson.loads(entry)
                self._take(index, leaf["kind"], leaf["record"], leaf)
            except (ValueError, KeyError, TypeError, AttributeError, struct.error):
                self._wrong(index, "not a leaf", "it does not say what leaves of its kind say")

    def _wrong(self, index: int, kind: str, words: str) -> None:
        if self.fault is None:
            self.fault = Fault(self.root, kind, words, None, index)

    def _take(self, index: int, kind: str, record: dict[str, Any], leaf: dict[str, Any]) -> None:
        if kind == "key":
            self._key(index, record)
        elif kind == "log_opened":
            said = self.of(record["origin"])
            if said.opened is not None:
                self._wrong(index, "opened twice", record["origin"])
            said.opened, said.vkey = index, record["vkey"]
        elif kind == "log_closed":
            said = self.of(record["origin"])
            said.closed = index
            root, checkpoint = bytes.fromhex(record["root"]), record["checkpoint"].encode()
            said.final = (int(record["size"]), root, checkpoint)
        elif kind == "heartbeat":
            self._beat(index, record["logs"])
        elif kind == "erasure":
            self.erased |= set(record.get("numbers", ()))
        elif kind == "retention":
            self._retire(index, record)
        elif kind == "gap":
            journal = record.get("journal", leaf.get("source"))
            self.gaps.append((str(journal), int(record["first"]), int(record["upto"])))
        elif kind == "damage":
            self.damages.append((str(leaf["source"]).partition(":")[2], leaf["sequence"]))

    def _key(self, index: int, record: dict[str, Any]) -> None:
        if index != 0:
            self._wrong(index, "second key", "the ledger's key is its first leaf, once")
        self.key = record.get("vkey")

    def _retire(self, index: int, record: dict[str, Any]) -> None:
        for name in ("logs", "log", "origins", "origin"):
            told = record.get(name, ())
            for each in [told] if isinstance(told, str) else told:
                origin = each if each.startswith(self.prefix) else self.prefix + each
                self.of(origin).dropped = index
        for name in ("bodies", "files", "file"):
            told = record.get(name, ())
            self.retired |= {told} if isinstance(told, str) else set(map(str, told))

    def _beat(self, index: int, logs: dict[str, list[Any]]) -> None:
        for origin in self._beaten - logs.keys():
            if self.of(origin).dropped is None:
                self._wrong(index, "log vanished", f"the heartbeat no longer knows {origin}")
        for origin, (size, root) in logs.items():
            said, digest = self.of(origin), bytes.fromhex(root)
            if len(digest) != 32:
                self._wrong(index, "heartbeat", f"{origin}: not a root")
            elif size < said.size:
                self._wrong(index, "log shrank", f"{origin}: {said.size} entries, then {size}")
            elif size == said.size and said.root and digest != said.root:
                self._wrong(index, "log forked", f"{origin}: two roots of {size} entries")
            elif said.opened is None and origin != self.prefix + "root":
                self._wrong(
                    index, "not opened", f"the heartbeat knows {origin}, which never opened"
                )
            if size > said.size:
                said.claims += CLAIM.pack(index, size, digest)
                said.size, said.root = size, digest
        self._beaten = set(logs)

    def excused(self, source: str, first: int, upto: int) -> bool:
        """Whether a leaf says that these sequences (`upto` not included) are lost."""
        for journal, start, end in self.gaps:
            mine = source == journal or source.startswith(f"{journal}.")
            if mine and start <= first and upto <= end:
                return True
        return (source, first) in self.damages
