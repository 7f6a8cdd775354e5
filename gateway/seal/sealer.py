"""Sealing: each durable record of each journal becomes one leaf, exactly once.

The order of writes is the invariant: bodies, then leaves, each made durable, then the mark that
readers trust. A crash after any of them is undone or completed at the next start from the ledger
alone: leaves name journal and sequence, and each leaf names its body's place. A journal segment may
go once all of it is sealed, whoever else lags.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson

from gateway.card import Card
from gateway.clock import Clock, isoformat
from gateway.journal.directory import JournalFolder, folders
from gateway.journal.reader import Entry, JournalReader
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import Bodies
from gateway.ledger.log import Ledger, LedgerReader
from gateway.ledger.subjects import Subjects
from gateway.seal.leaf import Findings, decisions_of, encode_leaf
from gateway.table import Table, TableStore
from gateway.telemetry.metrics import Metrics

CHUNK = 512
CHUNK_BYTES = 8 * 1024**2
"""Sealed parts held in memory before a commit, for each journal."""
log = logging.getLogger("headworks.sealer")
KINDS_WITH_BODY = ("exchange",)


class Sealer:
    def __init__(self, state: Path, keys: Path, clock: Clock, metrics: Metrics) -> None:
        self.state, self.keys, self.clock, self.metrics = state, keys, clock, metrics
        self.ledger = Ledger(state)
        self.subjects = Subjects(state, keys)
        self.bodies = Bodies(state, self.subjects, self._ends())
        self.tables = TableStore(state)
        self.readers: dict[str, JournalReader] = {}
        self._tables: dict[str, Table] = {}
        self._reported: set[str] = set()

    def _ends(self) -> dict[str, int]:
        """Where the bodies end, by the newest leaves: more than one commit's."""
        start = self.ledger.number
        begin = max(0, start - 16_384)
        ends: dict[str, int] = {}
        for _, leaf in LedgerReader(self.state, begin).read(start - begin):
            if body := orjson.loads(leaf).get("body"):
                end = body["offset"] + body["length"]
                ends[body["file"]] = max(end, ends.get(body["file"], 0))
        return ends

    def step(self) -> int:
        """Seal what is there, at most a chunk of each journal; how many leaves were written."""
        before = self.ledger.number
        self._seal_revisions()
        for folder in folders(self.state, self.keys):
            self._seal_journal(folder)
        self.subjects.commit()
        self.bodies.commit()
        self.ledger.commit()
        self._tidy()
        return self.ledger.number - before

    def _seal_revisions(self) -> None:
        """Each published revision is a leaf, in order."""
        sealed = self.ledger.positions.get("revisions", -1)
        chain: list[tuple[int, str, dict[str, Any]]] = []
        revision = self.tables.current
        while revision is not None:
            document = orjson.loads(self.tables.read(revision))
            if document["number"] <= sealed:
                break
            chain.append((document["number"], revision, document))
            revision = document["parent"]
        for number, digest, document in reversed(chain):
            told = {key: document[key] for key in ("author", "reason", "created", "parent")}
            record = orjson.dumps({"id": digest, **told}, option=orjson.OPT_SORT_KEYS)
            leaf = encode_leaf("revision", "revisions", number, record, None, Findings())
            self.ledger.append(leaf, "revisions", number)

    def _seal_journal(self, folder: JournalFolder) -> None:
        try:
            source = f"{folder.name}.{folder.identity}"
        except FileNotFoundError:
            return
        reader = self.readers.get(source)
        if reader is None:
            start = self.ledger.positions.get(source, -1) + 1
            reader = self.readers[source] = JournalReader(folder, start)
        size = 0
        for entry in reader.read(CHUNK):
            self._seal(source, entry)
            size += len(entry.parts)
            if size > CHUNK_BYTES:
                break
        if reader.damage is not None and source not in self._reported:
            self._reported.add(source)
            if f"damage:{source}" not in self.ledger.positions:
                self._tell_damage(source, reader)

    def _tell_damage(self, source: str, reader: JournalReader) -> None:
        record = orjson.dumps({"damage": reader.damage, "at": self.clock.steady()})
        place = f"damage:{source}"
        leaf = encode_leaf("damage", place, reader.next_sequence, record, None, Findings())
        self.ledger.append(leaf, place, reader.next_sequence)

    def _seal(self, source: str, entry: Entry) -> None:
        header = orjson.loads(entry.header)
        kind = header.get("kind", "exchange")
        findings, body = Findings(), None
        if kind in KINDS_WITH_BODY:
            findings = decisions_of(header, entry.parts, self._card(header))
            body = self._keep(header, entry.parts)
        leaf = encode_leaf(kind, source, entry.sequence, entry.header, body, findings)
        self.ledger.append(leaf, source, entry.sequence)
        self.metrics.count("headworks_sealed", kind)

    def _keep(self, header: dict[str, Any], parts: bytes) -> dict[str, Any]:
        """Queue a record's parts under its subjects' keys, on its own day; their place."""
        context, _, _ = decode_parts(parts)
        numbers = self.subjects.keys_for(orjson.loads(context).get("subjects") or ())
        day = isoformat(header["at"])[:10]
        model = header.get("model") or "-"
        return self.bodies.append(model, day, header["id"], numbers, parts).to_json()

    def _card(self, header: dict[str, Any]) -> Card | None:
        revision, model, version = (header.get(key) for key in ("revision", "model", "version"))
        if not (isinstance(revision, str) and isinstance(model, str) and isinstance(version, str)):
            return None
        table = self._tables.get(revision)
        if table is None:
            try:
                table = self._tables[revision] = self.tables.load(revision)
            except (OSError, ValueError) as error:
                log.error("revision %s cannot be read: %s", revision, error)
                return None
        found = table.models.get(model)
        return found.versions[version].card if found and version in found.versions else None

    def _tidy(self) -> None:
        """Destroy segments that are sealed to their end: all before the one being read."""
        for source, reader in self.readers.items():
            if reader.segment is None or reader.damage is not None:
                continue
            if self.ledger.positions.get(source, -1) + 1 < reader.next_sequence:
                continue
            for number in reader.folder.segments():
                if number < reader.segment:
                    reader.folder.destroy(number)

    def lag(self) -> dict[str, Any]:
        """How far sealing is behind, and what is wrong, by journal."""
        return {
            source: {
                "next_sequence": reader.next_sequence,
                "bytes": reader.folder.size(),
                "damage": reader.damage,
                "marked_seconds_ago": round((self.clock.steady() - reader.marked_ns) / 1e9, 1)
                if reader.marked_ns
                else None,
            }
            for source, reader in list(self.readers.items())
        }

    def close(self) -> None:
        for reader in self.readers.values():
            reader.close()
        self.bodies.close()
        self.subjects.close()
        self.ledger.close()
