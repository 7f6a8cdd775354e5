"""Sealing: each durable record of each journal becomes one leaf, exactly once.

The order of writes is the invariant: subjects' keys, then bodies, then leaves, each made durable,
then the mark that readers trust, then checkpoints. A crash after any of them is undone or completed
at the next start from the ledger alone: its order names journal and sequence of each leaf. After an
error within a step nothing is written any more, not even by a clean end: leaves that wait name
bodies that may be missing. A journal segment may go once all of it is sealed, whoever else lags.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import orjson

from gateway.budget import Rung, read_rung
from gateway.clock import Clock
from gateway.journal.damage import SET_BACK, Damage, Gap
from gateway.journal.directory import Garbled, JournalFolder, folders
from gateway.journal.reader import Entry, JournalReader
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import Bodies, BodyReader
from gateway.ledger.keyfiles import Erased, KeyDamaged
from gateway.ledger.log import Ledger, LedgerReader
from gateway.ledger.names import ROOT, day_of
from gateway.ledger.signer import Signer
from gateway.ledger.subjects import Subjects
from gateway.seal.joining import Joining, Sealed
from gateway.seal.leaf import (
    DECISIONS_BYTES_MAX,
    Findings,
    decisions_of,
    encode_decisions,
    encode_leaf,
)
from gateway.seal.notary import Notary
from gateway.seal.standing import StandingAlerts
from gateway.settings import LedgerSettings
from gateway.table import Model, Table, TableStore
from gateway.telemetry.metrics import Metrics

CHUNK = 512
CHUNK_BYTES = 8 * 1024**2
"""Sealed parts held in memory before a commit, for each journal."""
TABLES_MAX = 16
"""Revisions kept compiled: records of more than a few are sealed only after many reloads."""
RETIRE_EVERY_NS = 30 * 10**9
log = logging.getLogger("headworks.sealer")
Told = tuple[str, dict[str, Any], "Future[int]"]


class Sealer:
    def __init__(
        self, state: Path, keys: Path, clock: Clock, metrics: Metrics, settings: LedgerSettings
    ) -> None:
        self.state, self.keys, self.clock, self.metrics = state, keys, clock, metrics
        self.ledger = Ledger(state)
        signer = Signer(self.ledger, keys, settings.name)
        self.notary = Notary(self.ledger, signer, clock, settings)
        self.subjects = Subjects(state, keys)
        self.bodies = Bodies(state, self.subjects, self._ends())
        self.tables = TableStore(state)
        self.readers: dict[str, JournalReader] = {}
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._tables: dict[str, Table] = {}
        self.joining = Joining(state, BodyReader(state, keys), self._model, self.ledger.number)
        self.standing = StandingAlerts(state, self.ledger.number)
        self.garbled: dict[str, str] = {}
        self._reported: set[str] = set()
        self._looked_at = clock.steady()
        self._rung = Rung.FINE
        self._within_step = False

    @property
    def broken(self) -> bool:
        """Whether an error came between what was appended and its commit: nothing may follow."""
        return self._within_step or self.ledger.broken

    def _ends(self) -> dict[str, int]:
        """Where the bodies end, by the newest leaves: more than one commit's."""
        begin = max(0, self.ledger.number - CHUNK * (len(self.ledger.positions) + 8))
        ends: dict[str, int] = {}
        reader = LedgerReader(self.state, begin)
        for _, text in reader.read(self.ledger.number - begin):
            leaf = orjson.loads(text)
            for place in (leaf.get("body"), leaf.get("decisions_at")):
                if place is not None:
                    end = place["offset"] + place["length"]
                    ends[place["file"]] = max(end, ends.get(place["file"], 0))
        reader.close()
        return ends

    def tell(self, kind: str, record: dict[str, Any]) -> Future[int]:
        """From any thread: a leaf of the root log; its number, once it is durable."""
        future: Future[int] = Future()
        self._told.put((kind, record, future))
        return future

    def call(self, act: Callable[[], Any]) -> Future[Any]:
        """From any thread: have `act` run in the sealing thread, between two steps."""
        future: Future[Any] = Future()
        self._calls.put((act, future))
        return future

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for what the next turn does."""
        return not (self._calls.empty() and self._told.empty())

    @property
    def is_behind(self) -> bool:
        """Whether the last step left what it could have read."""
        return any(not one.caught_up and one.damage is None for one in self.readers.values())

    def turn(self) -> int:
        """What was called for, and a step."""
        while not self._calls.empty():
            act, future = self._calls.get()
            try:
                future.set_result(act())
            except Exception as error:
                future.set_exception(error)
                if self.broken:
                    raise
        return self.step()

    def step(self) -> int:
        """Seal what is there, at most a chunk of each journal; how many leaves were written."""
        before = self.ledger.number
        self._within_step = True
        self._seal_revisions()
        told = self._take_told()
        for folder in folders(self.state, self.keys):
            self._seal_journal(folder)
        self._tell_disk()
        self.notary.beat()
        self.subjects.commit()
        self.bodies.commit()
        self.ledger.commit()
        self._within_step = False
        self.standing.keep(self.ledger.number)
        for future, number in told:
            future.set_result(number)
        self._tidy()
        self.notary.publish()
        return self.ledger.number - before

    def _tell_disk(self) -> None:
        """A leaf for each step that the disk's ladder goes up or down."""
        rung = read_rung(self.state)
        if rung is not self._rung:
            self._rung = rung
            self.notary.tell("disk", {"rung": rung.name.lower()})

    def _take_told(self) -> list[tuple[Future[int], int]]:
        told = []
        while not self._told.empty():
            kind, record, future = self._told.get()
            told.append((future, self.notary.tell(kind, record)))
        return told

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
        chain.reverse()
        for number, digest, document in chain:
            told = {key: document[key] for key in ("author", "reason", "created", "parent")}
            told["origin"] = document.get("origin", "file")
            record = orjson.dumps({"id": digest, **told}, option=orjson.OPT_SORT_KEYS)
            leaf = encode_leaf("revision", record, source=("revisions", number))
            self.ledger.append(ROOT, leaf, "revisions", number)

    def _seal_journal(self, folder: JournalFolder) -> None:
        try:
            if folder.name in self.garbled:
                folder.check()
                del self.garbled[folder.name]
            source = f"{folder.name}.{folder.identity}"
        except FileNotFoundError:
            return
        except Garbled as error:
            self._set_aside(folder, error)
            return
        try:
            self._seal_source(source, folder)
        except Garbled as error:
            self._set_aside(folder, error)

    def _set_aside(self, folder: JournalFolder, error: Garbled) -> None:
        """Nothing of this journal is sealed until its small files are right again."""
        if self.garbled.get(folder.name) != str(error):
            log.critical("journal %s is not sealed: %s", folder.name, error)
        self.garbled[folder.name] = str(error)

    def _seal_source(self, source: str, folder: JournalFolder) -> None:
        reader = self.readers.get(source)
        if reader is None:
            reader = self.readers[source] = self._reader(source, folder)
        size = 0
        for entry in reader.read(CHUNK):
            if isinstance(entry, Gap):
                self._tell_gap(source, entry)
                continue
            self._seal(source, entry)
            size += len(entry.parts)
            if size > CHUNK_BYTES:
                break
        if reader.damage is not None and source not in self._reported:
            self._reported.add(source)
            kind = "set_back" if reader.damage.offset == SET_BACK else "damage"
            if self.ledger.positions.get(f"{kind}:{source}", -1) < 0:
                self._tell_damage(f"{kind}:{source}", reader)

    def _reader(self, source: str, folder: JournalFolder) -> JournalReader:
        """A reader of what is not sealed yet. What was once seen set back stays so: its writer
        goes on, and will have passed the number that is sealed."""
        folder.check()
        sealed = self.ledger.positions.get(source, -1) + 1
        reader = JournalReader(folder, sealed)
        if sealed and (f"set_back:{source}" in self.ledger.positions or folder.end() < sealed):
            reader.damage = Damage.set_back(folder.name, folder.end(), sealed)
        return reader

    def _tell_damage(self, place: str, reader: JournalReader) -> None:
        record = orjson.dumps({"damage": str(reader.damage), "at": self.clock.steady()})
        leaf = encode_leaf("damage", record, source=(place, reader.next_sequence))
        self.ledger.append(ROOT, leaf, place, reader.next_sequence)

    def _tell_gap(self, source: str, gap: Gap) -> None:
        told = {"first": gap.first, "upto": gap.upto, "reason": gap.reason, "by": gap.by}
        record = orjson.dumps({"at": self.clock.steady(), **told})
        leaf = encode_leaf("gap", record, source=(source, gap.upto - 1))
        self.ledger.append(ROOT, leaf, source, gap.upto - 1)

    def _seal(self, source: str, entry: Entry) -> None:
        header = orjson.loads(entry.header)
        kind, model = header.get("kind", "exchange"), header.get("model")
        place = self.notary.log(model)
        told: dict[str, Any] = {}
        if kind == "exchange" or header.get("sealed"):
            sealed = self._inside(header, entry.parts, model or "-")
            told = sealed.told
            if kind == "exchange" and sealed.model is not None:
                told |= self._joined(sealed)
        leaf = encode_leaf(kind, entry.header, source=(source, entry.sequence), **told)
        self.ledger.append(place, leaf, source, entry.sequence)
        if kind == "alert":
            self.standing.take(header)
        self.metrics.count("headworks_sealed", kind)

    def _joined(self, sealed: Sealed) -> dict[str, Any]:
        """A shadow's comparison with its primary; a primary is kept for its shadows."""
        comparison = self.joining.take(sealed)
        if comparison is None:
            return {}
        result = comparison.get("not_compared") or ("agree" if comparison["agree"] else "disagree")
        if sealed.header.get("noise"):
            result = f"noise_{result}"
        named = (sealed.header["model"], sealed.header.get("version", ""))
        self.metrics.count("headworks_comparisons", *named, result)
        return {"comparison": comparison}

    def _inside(self, header: dict[str, Any], parts: bytes, model: str) -> Sealed:
        """What the sealed parts come to: the place of the body, decisions or why there are none."""
        found = self._model(header)
        try:
            context_bytes, request, response = decode_parts(parts)
            context = orjson.loads(context_bytes)
        except ValueError as error:
            return Sealed(header, {"unreadable": str(error)[:200]}, found)
        numbers = tuple(context.get("keys", ())) or self.subjects.keys_for(
            context.get("subjects", ())
        )
        day = day_of(header.get("at") or self.clock.steady())
        try:
            body = self.bodies.append(model, day, header["id"], numbers, parts)
        except (Erased, KeyDamaged) as error:
            return Sealed(header, {"unreadable": error.reason}, found)
        version = found.versions.get(header.get("version", "")) if found else None
        card = version.card if version else None
        findings = decisions_of(header, context, response, card, found, request)
        told: dict[str, Any] = {"body": body.to_json(), "unreadable": findings.unreadable,
                                "completion": findings.completion,
                                "trace": findings.trace}  # fmt: skip
        if findings.decisions:
            told |= self._decided(findings, model, day, header["id"], numbers)
        answered = (response, context.get("response_headers", ()))
        return Sealed(header, told, found, card, findings, answered)

    def _decided(
        self, findings: Findings, model: str, day: str, identity: str, numbers: tuple[int, ...]
    ) -> dict[str, Any]:
        decisions = encode_decisions(findings)
        if len(decisions) <= DECISIONS_BYTES_MAX:
            return {"decisions": decisions}
        place = self.bodies.append(model, day, identity, numbers, decisions).to_json()
        return {"decisions_at": place | {"count": len(findings.decisions)}}

    def _model(self, header: dict[str, Any]) -> Model | None:
        revision, model = header.get("revision"), header.get("model")
        if not (isinstance(revision, str) and isinstance(model, str)):
            return None
        table = self._tables.get(revision)
        if table is None:
            try:
                table = self.tables.load(revision)
            except (OSError, ValueError) as error:
                log.error("revision %s cannot be read: %s", revision, error)
                return None
            if len(self._tables) >= TABLES_MAX:
                self._tables.pop(next(iter(self._tables)))
            self._tables[revision] = table
        return table.models.get(model)

    def _tidy(self) -> None:
        """Destroy segments that are sealed to their end: those before the one being read at once,
        a former worker's last one at the next look."""
        now = self.clock.steady()
        look = now - self._looked_at > RETIRE_EVERY_NS
        for source, reader in self.readers.items():
            if reader.segment is None or reader.damage is not None:
                continue
            if reader.folder.name in self.garbled:
                continue
            if self.ledger.positions.get(source, -1) + 1 < reader.next_sequence:
                continue
            if look or any(number < reader.segment for number in reader.folder.segments()):
                self._retire(reader)
        if look:
            self._looked_at = now

    def _retire(self, reader: JournalReader) -> None:
        try:
            reader.folder.retire(reader.next_sequence)
        except Garbled as error:
            self._set_aside(reader.folder, error)

    def lag(self) -> dict[str, Any]:
        """How far sealing is behind, and what is wrong, by journal."""
        told = {source: self._lag(reader) for source, reader in list(self.readers.items())}
        for name, words in list(self.garbled.items()):
            told[name] = {"next_sequence": None, "bytes": 0, "damage": words,
                          "marked_seconds_ago": None}  # fmt: skip
        return told

    def _lag(self, reader: JournalReader) -> dict[str, Any]:
        seconds = (self.clock.steady() - reader.marked_ns) / 1e9 if reader.marked_ns else None
        return {
            "next_sequence": reader.next_sequence,
            "bytes": reader.folder.size(),
            "damage": str(reader.damage) if reader.damage else None,
            "marked_seconds_ago": None if seconds is None else round(seconds, 1),
        }

    def close(self) -> None:
        """The last checkpoint holds all that was sealed, if the end is a clean one."""
        if not self.broken:
            self.notary.end()
        for reader in self.readers.values():
            reader.close()
        self.bodies.close()
        self.subjects.close()
        self.ledger.close()
