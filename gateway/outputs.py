"""What the analyst says: leaves to be, each named by the leaf it is of and its ordinal there.

They go into a journal of the analyst's own, which the governor seals like any other. What the
ledger or the journal already holds is made again after a crash and dropped by its name: nothing is
lost, nothing doubled.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson

from gateway.journal.directory import JournalFolder
from gateway.journal.reader import Entry, JournalReader
from gateway.journal.record import EMPTY, encode_parts
from gateway.journal.writer import Journal
from gateway.ledger.log import LedgerReader

AT_ONCE = 512
BYTES_AT_ONCE = 16 * 1024**2
"""Outputs that wait for one commit: fewer commits are fewer flushes of the disk, on which the
workers' answers wait too."""
QUEUE_BYTES = 64 * 1024**2
"""More than `AT_ONCE` headers and `BYTES_AT_ONCE` of parts, the last of them of a MiB, come to."""
NO_PARTS = encode_parts({}, EMPTY, EMPTY)
Place = tuple[int, int]


class Outputs:
    def __init__(self) -> None:
        self._waiting: list[tuple[Place, dict[str, Any], bytes]] = []
        self._said: Place = (-1, -1)

    def resume(self, state: Path, folder: JournalFolder, reached: int) -> None:
        """Learn what was said of leaves behind `reached`. OSError where that cannot be known.

        The ledger says what of the journal is sealed; the journal holds the rest; what was sealed
        and destroyed between both looks is found by looking into the ledger again.
        """
        ledger = LedgerReader(state, reached + 1)
        sealed = self._hear(ledger, folder)
        reader = JournalReader(folder, sealed + 1)
        for entry in reader.read(1 << 60):
            if isinstance(entry, Entry):  # what a gap held was never sealed: it is said again
                self._heard(orjson.loads(entry.header))
        reader.close()
        self._hear(ledger, folder)
        if reader.damage is not None:
            raise OSError(f"what was said cannot be known: {reader.damage}")

    def _hear(self, ledger: LedgerReader, folder: JournalFolder) -> int:
        """Take up our own leaves; the last sequence among them, or -1."""
        source = f"{folder.name}.{folder.identity}"
        last = -1
        for _, text in ledger.read(1 << 60):
            if b'"source":"%s.' % folder.name.encode() in text:
                leaf = orjson.loads(text)
                self._heard(leaf["record"])
                if leaf["source"] == source:
                    last = leaf["sequence"]
        return last

    def _heard(self, record: dict[str, Any]) -> None:
        if "of" in record:
            self._said = max(self._said, (record["of"], record["ordinal"]))

    def say(self, number: int, record: dict[str, Any], parts: bytes = NO_PARTS) -> None:
        """An output of leaf `number`, for the next `write`."""
        ordinal = 0
        if self._waiting and self._waiting[-1][0][0] == number:
            ordinal = self._waiting[-1][0][1] + 1
        named = {"format": 1, "id": f"{number}.{ordinal}", "of": number, "ordinal": ordinal}
        self._waiting.append(((number, ordinal), named | record, parts))

    async def write(self, journal: Journal) -> None:
        """Into the journal, durably, what it or the ledger does not hold yet."""
        outputs, self._waiting = self._waiting, []
        fresh = [(record, parts) for place, record, parts in outputs if place > self._said]
        if outputs:
            self._said = max(self._said, outputs[-1][0])
        under_way: list[asyncio.Future[Any]] = []
        size = 0
        for record, parts in fresh:
            if len(under_way) >= AT_ONCE or size > BYTES_AT_ONCE:
                await asyncio.gather(*under_way)
                under_way, size = [], 0
            under_way.append(journal.append(record, parts))
            size += len(parts)
        await asyncio.gather(*under_way)
