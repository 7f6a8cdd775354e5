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

from gateway.clock import Clock
from gateway.journal.directory import JournalFolder, folders
from gateway.journal.reader import Entry, JournalReader
from gateway.ledger.bodies import Bodies, Place
from gateway.ledger.log import Ledger, LedgerReader
from gateway.seal.leaf import Findings, decisions_of, encode_leaf
from gateway.table import Model, Table, TableStore
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
        self.bodies = Bodies(state, keys, self._last_place())
        self.tables = TableStore(state)
        self.readers: dict[str, JournalReader] = {}
        self._tables: dict[str, Table] = {}
        self._reported: set[str] = set()

    def _last_place(self) -> Place | None:
        """Where the bodies end, by the newest leaf that has one."""
        start = self.ledger.number
        while start > 0:
            begin = max(0, start - 4096)
            found = None
            reader = LedgerReader(self.state, begin)
            for _, leaf in reader.read(start - begin):
                body = orjson.loads(leaf).get("body")
                found = Place(**body) if body else found
            if found is not None:
                return found
            start = begin
        return None

    def step(self) -> int:
        """Seal what is there, at most a chunk of each journal; how many leaves were written."""
        before = self.ledger.number
        self._seal_revisions()
        for folder in folders(self.state, self.keys):
            self._seal_journal(folder)
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
            model = self._model(header)
            version = model.versions.get(header.get("version")) if model else None
            card = version.card if version else None
            findings = decisions_of(header, entry.parts, card, model)
            body = self.bodies.append(header["id"], entry.parts).to_json()
        leaf = encode_leaf(kind, source, entry.sequence, entry.header, body, findings)
        self.ledger.append(leaf, source, entry.sequence)
        self.metrics.count("headworks_sealed", kind)

    def _model(self, header: dict[str, Any]) -> Model | None:
        revision, model = header.get("revision"), header.get("model")
        if not (isinstance(revision, str) and isinstance(model, str)):
            return None
        table = self._tables.get(revision)
        if table is None:
            try:
                table = self._tables[revision] = self.tables.load(revision)
            except (OSError, ValueError) as error:
                log.error("revision %s cannot be read: %s", revision, error)
                return None
        return table.models.get(model)

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
        self.ledger.close()
