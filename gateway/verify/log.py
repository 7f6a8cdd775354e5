"""One log recomputed: entries against the order, tiles against entries, roots against claims.

Invariant: entries are taken up in bundles of 256 and forgotten; the first fault ends the log, and
the others go on. What nobody signed or ordered yet is noted, never a fault.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from zlib import crc32

import orjson

from gateway.verify.bodies import Bodies
from gateway.verify.fault import Fault, Found, LogReport
from gateway.verify.folder import HASH_BYTES, LogFolder, split
from gateway.verify.tree import WIDTH, Tree, leaf_hashes

Ordered = tuple[int, int, str | None, int]  # CRC-32, leaf number, source, sequence in the source
TILE_ENDS = list(range(0, (WIDTH + 1) * HASH_BYTES, HASH_BYTES))


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody said that the first `size` entries have this root."""

    size: int
    root: bytes
    who: str
    file: str | None = None


class LogCheck:
    """Fed with what the order says (`told`, one an entry of the bundle under way).

    `leaves`: whether what they say is read. `live`: a writer is at work in the folder.
    """

    def __init__(
        self, folder: LogFolder, report: LogReport, claims: Iterable[Iterable[Claim]],
        bodies: Bodies | None, live: bool, *, leaves: bool = True,
    ) -> None:  # fmt: skip
        self.folder, self.report, self.bodies, self.live = folder, report, bodies, live
        self.leaves = leaves
        self.fault: Fault | None = None
        self.gone = False
        self.notes: list[str] = []
        self.next = 0
        self.told: list[Ordered] = []
        self.tree = Tree()
        parts = folder.name.split("/")
        self.model = parts[1] if len(parts) == 3 else None
        self._claims: Iterator[Claim] = heapq.merge(*claims, key=lambda claim: claim.size)
        self._claim = next(self._claims, None)

    @property
    def stopped(self) -> bool:
        return self.gone or self.fault is not None

    def flush(self, *, alone: bool = False) -> bool:
        """Take up the entries that the order told of; `alone`: all that the bundle has. Whether
        a next bundle may follow."""
        more = False
        if not self.stopped:
            try:
                more = self._bundle(alone)
            except Found as found:
                self.fault = found.fault
        self.told.clear()
        return more

    def _bundle(self, alone: bool) -> bool:
        number = self.tree.bundles
        first = number * WIDTH
        found = self.folder.bundle(number)
        if found is None or (".p/" in found[0] and not alone):
            if self.told:
                raise self.folder.fault("missing", "no bundle has this entry", f"tail/{number}",
                                        first, self.told[0][1])  # fmt: skip
            return False
        name, data = found
        entries, end = split(data)
        self._compare_order(name, entries, first)
        if not alone:
            self._see_behind(name, entries, end, len(data))
            del entries[len(self.told) :]
        elif end != len(data) and len(entries) == WIDTH:
            raise self.folder.fault("beyond the log", "bytes follow the last entry", name)
        if self.leaves and not alone:
            self._read_leaves(name, entries, first)
        if entries:
            self._grow(number, data, entries)
        return len(entries) == WIDTH

    def _compare_order(self, name: str, entries: list[bytes], first: int) -> None:
        for at, (entry, ordered) in enumerate(zip(entries, self.told)):
            if crc32(entry) != ordered[0]:
                raise self.folder.fault("entry changed", "it is not the one that was ordered", name,
                                        first + at, ordered[1])  # fmt: skip
        if len(entries) < len(self.told):
            at = len(entries)
            raise self.folder.fault("entry cut", "the bundle ends before it", name, first + at,
                                    self.told[at][1])  # fmt: skip

    def _see_behind(self, name: str, entries: list[bytes], end: int, length: int) -> None:
        """What lies behind the last ordered entry: in a tail a crash or a writer left it."""
        held = len(self.told)
        behind = length - (end if len(entries) == held else sum(len(e) + 2 for e in entries[:held]))
        if not behind or self.live:
            return
        if not name.startswith("tail/") or held == WIDTH:
            raise self.folder.fault("beyond the order", f"{behind} bytes that no leaf has", name)
        self.notes.append(f"{self.folder.file(name)}: {behind} bytes behind the last leaf, written "
                          "and never acknowledged")  # fmt: skip

    def _read_leaves(self, name: str, entries: list[bytes], first: int) -> None:
        loads, model, bodies = orjson.loads, self.model, self.bodies
        for at, (entry, ordered) in enumerate(zip(entries, self.told)):
            _, number, source, sequence = ordered
            try:
                leaf = loads(entry)
                record = leaf["record"]
                right = leaf.get("source") == source and (model is None or record["model"] == model)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise self.folder.fault("not a leaf", "it does not say what leaves say", name,
                                        first + at, number) from None  # fmt: skip
            if not right or (source is not None and leaf.get("sequence") != sequence):
                raise self.folder.fault(
                    "leaf misplaced", f"the order says source {source}, sequence {sequence}; the "
                    f"leaf {leaf.get('source')}, {leaf.get('sequence')}, model "
                    f"{record.get('model')}", name, first + at, number,
                )  # fmt: skip
            if "comparison" in leaf and not compares(leaf):
                raise self.folder.fault("comparison", "it is no shadow's, or says what cannot be",
                                        name, first + at, number)  # fmt: skip
            if bodies is not None:
                self._see_bodies(bodies, leaf, first + at, number)

    def _see_bodies(self, bodies: Bodies, leaf: dict[str, Any], index: int, number: int) -> None:
        for place in (leaf.get("body"), leaf.get("decisions_at")):
            if place is not None and (wrong := bodies.fault_of(place)) is not None:
                raise self.folder.fault(*wrong, None, index, number)

    def _grow(self, number: int, data: bytes, entries: list[bytes]) -> None:
        signed, live = self.report.signed, self.live
        ends = list(accumulate((len(entry) + 2 for entry in entries), initial=0))
        hashes = leaf_hashes(entries)
        self.tree.begin(hashes)
        self.report.entries = self.tree.size
        self.folder.compare("entries", number, data[: ends[-1]], ends, signed, 1, live)
        self._compare_tile(0, number, b"".join(hashes))
        self._check_claims()
        above = self.tree.finish() if len(entries) == WIDTH else self.tree.unfinished()
        for level, tile, row in above[1:]:
            self._compare_tile(level, tile, row)

    def _compare_tile(self, level: int, tile: int, row: bytes) -> None:
        ends = TILE_ENDS[: len(row) // HASH_BYTES + 1]
        self.folder.compare(
            str(level), tile, row, ends, self.report.signed, 1 << (8 * level), self.live
        )

    def _check_claims(self) -> None:
        """Claims up to the size now."""
        size = self.tree.size
        while self._claim is not None and self._claim.size <= size:
            claim = self._claim
            if self.tree.root_at(claim.size) != claim.root:
                words = f"{claim.who} says another root of the first {claim.size} entries"
                raise self.folder.fault("root differs", words, claim.file)
            self._claim = next(self._claims, None)

    def finish(self) -> None:
        """The order has no more: what is left, unfinished tiles, claims of more than there is."""
        if not self.stopped:
            self.flush()
        self._end()

    def finish_alone(self) -> None:
        """Without an order: all entries that are there."""
        while not self.stopped and self.flush(alone=True):
            pass
        self._end()

    def _end(self) -> None:
        if self.stopped:
            return
        try:
            self._check_claims()
            size = self.tree.size
            if size % WIDTH == 0:  # a tile above may be unfinished all the same
                for level, tile, row in self.tree.unfinished():
                    self._compare_tile(level, tile, row)
            if self._claim is not None and not self.live:
                claim = self._claim
                raise self.folder.fault("cut", f"{claim.who} says {claim.size} entries; {size} are "
                                        "there", claim.file, size)  # fmt: skip
            if not self.live:
                for fault in self.folder.stray(size):
                    raise Found(fault)
            self.report.root = self.tree.root_at(size).hex()
        except Found as found:
            self.fault = found.fault


def compares(leaf: dict[str, Any]) -> bool:
    """Whether a leaf's comparison is a shadow's with the primary it names, and fits itself."""
    told, record = leaf["comparison"], leaf["record"]
    if not isinstance(told, dict) or record.get("arm") != "shadow" or "primary" not in record:
        return False
    if "not_compared" in told:
        return "agree" not in told
    rows, severity = told.get("rows"), told.get("severity")
    fits = isinstance(told.get("agree"), bool) and isinstance(rows, int)
    fits = fits and isinstance(severity, (int, float)) and 0 <= severity <= 1
    return fits and (rows == 1 or told["agree"] == (not told.get("disagree", 0)))
