"""The analyst: explains, monitors, keeps the catalog, serves the console and the API.

It is a fold over the ledger. For each leaf in order it makes the same outputs whenever and however
often it is asked; each output is named by the leaf it is of and its ordinal there. Outputs go into
a journal of the analyst's own, which the governor seals like any other, and only then does the
catalog's transaction say that the leaf was reached. After a crash between the two, the outputs that
the journal or the ledger already hold are made again and dropped by name: nothing is lost, nothing
doubled.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from gateway.artifacts import Artifacts
from gateway.asgi import Server
from gateway.catalog.rows import rows_of
from gateway.catalog.store import open_catalog
from gateway.clock import SystemClock
from gateway.explain.worker import Explanations
from gateway.journal.directory import JournalFolder
from gateway.journal.reader import JournalReader
from gateway.journal.record import EMPTY, decode_parts, encode_parts
from gateway.journal.writer import open_journal
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader, read_committed
from gateway.monitor.report import WindowReport
from gateway.monitor.worker import Windows, decisions_of
from gateway.protocol import v2
from gateway.table import Model, Table, TableStore, Version
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans

CHUNK = 256
IDLE_S = 0.05
SPANS_PATIENCE_S = 2.0
NAME = "analyst"
Place = tuple[int, int]
NO_PARTS = encode_parts({}, EMPTY, EMPTY)
log = logging.getLogger("headworks.analyst")


class Analyst:
    def __init__(self, state: Path, keys: Path) -> None:
        self.state, self.keys = state, keys
        self.clock = SystemClock()
        self.metrics = Metrics(NAME, state / "metrics")
        self.tables = TableStore(state)
        artifacts = Artifacts(state)
        self.explanations = Explanations(artifacts)
        self.folder = JournalFolder(state, keys, NAME)
        self.bodies = BodyReader(state, keys)
        self.catalog, anew = open_catalog(state / "catalog" / "catalog.duckdb")
        if anew:
            log.error("the catalog is made anew from the ledger: %s", anew)
        self.windows = Windows(artifacts, self.catalog.state)
        self.stopping = asyncio.Event()
        self.failed = asyncio.Event()
        self._tables: dict[str, Table] = {}
        self._newest_ns = self.clock.steady()
        self._spans: Spans | None = None
        self._spans_to: str | None = None
        self._emitted: Place = (-1, -1)
        self._outputs: list[tuple[Place, dict[str, Any]]] = []

    async def start(self) -> None:
        """Open the journal, learn what was already said, fill the open windows again."""
        self.journal = await open_journal(
            self.folder,
            self.clock,
            segment_bytes=8 * 1024**2,
            stall_s=60.0,
            queue_bytes=64 * 1024**2,
            on_failure=lambda _: self.failed.set(),
        )
        await asyncio.to_thread(self._resume)

    def _resume(self) -> None:
        # The journal first: what is sealed and destroyed meanwhile is then found in the ledger.
        reader = JournalReader(self.folder)
        for entry in reader.read(1 << 60):
            self._heard(orjson.loads(entry.header))
        reader.close()
        reached = self.catalog.reached
        for _, leaf in LedgerReader(self.state, reached + 1).read(1 << 60):
            if b'"source":"analyst.' in leaf:
                self._heard(orjson.loads(leaf)["record"])
        start = self.windows.replay_from()
        if start is not None:
            for number, leaf in LedgerReader(self.state, start).read(reached + 1 - start):
                self._replay(number, orjson.loads(leaf))
        self.reader = LedgerReader(self.state, reached + 1)

    def _heard(self, record: dict[str, Any]) -> None:
        if "of" in record:
            self._emitted = max(self._emitted, (record["of"], record["ordinal"]))

    async def fold(self) -> None:
        """Follow the ledger until told to stop."""
        while not self.stopping.is_set() and not self.failed.is_set():
            if self.tables.changed():
                self._follow_telemetry()
            taken = await asyncio.to_thread(self._take_chunk)
            if not taken:
                await asyncio.sleep(IDLE_S)
                continue
            await self._write_outputs()
            await asyncio.to_thread(
                self.catalog.commit, self.reader.next - 1, self.windows.to_json()
            )
            behind = read_committed(self.state / "ledger") - self.reader.next
            self.metrics.set("headworks_lag_records", behind, NAME)
            seconds = (self.clock.steady() - self._newest_ns) / 1e9 if behind else 0.0
            self.metrics.set("headworks_lag_seconds", seconds, NAME)

    def _follow_telemetry(self) -> None:
        """Spans go where the revision in force says, or nowhere."""
        revision = self.tables.current
        if revision is None:
            return
        told = self.tables.load(revision).document["telemetry"]["otlp"]
        if told != self._spans_to:
            if self._spans is not None:
                self._spans.close(SPANS_PATIENCE_S)
            self._spans = Spans(told, self.metrics) if told else None
            self._spans_to = told

    def _take_chunk(self) -> int:
        taken = 0
        for number, text in self.reader.read(CHUNK):
            self._take(number, orjson.loads(text))
            taken += 1
        return taken

    async def _write_outputs(self) -> None:
        outputs, self._outputs = self._outputs, []
        fresh = [record for place, record in outputs if place > self._emitted]
        if outputs:
            self._emitted = max(self._emitted, outputs[-1][0])
        await asyncio.gather(*(self.journal.append(record, NO_PARTS) for record in fresh))

    def _take(self, number: int, leaf: dict[str, Any]) -> None:
        for table, row in rows_of(number, leaf):
            self.catalog.add(table, row)
        record = leaf["record"]
        if leaf["kind"] != "exchange":
            return
        self._newest_ns = record["at"]
        if self._spans is not None:
            self._spans.offer(record)
        for report in self.windows.overdue(record["at"]):
            self._say_window(number, report)
        if record.get("operation") == "infer":
            self._judge(number, leaf, record)

    def _judge(self, number: int, leaf: dict[str, Any], record: dict[str, Any]) -> None:
        """Explain an exchange and put its rows into their windows."""
        if record["status"] != 200:
            return
        found = self._held(record)
        if found is None or (version := found[1]).card is None:
            self._say_explanation(number, record, {"not_explained": "no_artifact"})
            return
        model = found[0]
        decisions = leaf.get("decisions")
        rows, groups, why = self._features(leaf, version) if decisions else ({}, [], None)
        if not decisions or why is not None:
            words = {"not_explained": "unreadable", "why": why or leaf.get("unreadable")}
            self._say_explanation(number, record, words)
            return
        try:
            outcomes = [decision["outcome"] for decision in decisions]
            said = self.explanations.explain(model, version, rows, outcomes)
        except Exception as error:
            log.exception("exchange %s is not explained", record["id"])
            said = {"not_explained": "failed", "why": f"{type(error).__name__}: {error}"[:200]}
        self._say_explanation(number, record, said)
        assert version.card is not None
        for decision in decisions_of(version.card, number, record, decisions, rows, groups):
            for report in self.windows.add(model, version, record["arm"], decision):
                self._say_window(number, report)

    def _replay(self, number: int, leaf: dict[str, Any]) -> None:
        """Put the rows of a leaf that was folded before into the windows that were open."""
        record = leaf["record"]
        if leaf["kind"] != "exchange" or record.get("operation") != "infer":
            return
        found = self._held(record)
        decisions = leaf.get("decisions")
        if not decisions or found is None or (card := found[1].card) is None:
            return
        rows, groups, why = self._features(leaf, found[1])
        if why is None:
            for decision in decisions_of(card, number, record, decisions, rows, groups):
                self.windows.replay(*found, record["arm"], decision)

    def _held(self, record: dict[str, Any]) -> tuple[Model, Version] | None:
        """Model and version by the revision that the exchange was answered under."""
        revision = record.get("revision")
        if revision is None or record.get("version") is None:
            return None
        table = self._tables.get(revision)
        if table is None:
            table = self._tables[revision] = self.tables.load(revision)
        model = table.models[record["model"]]
        return model, model.versions[record["version"]]

    def _features(
        self, leaf: dict[str, Any], version: Version
    ) -> tuple[dict[str, list[Any]], list[dict[str, str]], str | None]:
        """Feature columns, groups, and why the request cannot be read if it cannot."""
        assert version.card is not None
        try:
            parts = self.bodies.read(leaf["record"]["id"], leaf["body"])
            context, request, _ = decode_parts(parts)
            if request.truncated:
                return {}, [], "truncated"
            told = orjson.loads(context)
            headers = {name.lower(): value for name, value in told["request_headers"]}
            length = headers.get("inference-header-content-length")
            columns = v2.read_columns(
                version.card, request.kept, length.encode() if length else None
            )
            if any(len(column) != len(leaf["decisions"]) for column in columns.values()):
                return {}, [], "rows of request and answer differ"
            return columns, told["groups"], None
        except (v2.Unreadable, ValueError, OSError) as error:
            return {}, [], str(error)[:200]

    def _say_explanation(self, number: int, record: dict[str, Any], said: dict[str, Any]) -> None:
        model, version = str(record.get("model")), str(record.get("version"))
        if (why := said.get("not_explained")) is not None:
            self.metrics.count("headworks_not_explained", why)
        else:
            rows = len(said["rows"])
            self.metrics.count("headworks_explained", model, version, said["method"], by=rows)
        about = {"kind": "explanation", "exchange": record["id"], "model": model,
                 "version": version, "artifact": record.get("artifact")}  # fmt: skip
        self._say(number, about | said)

    def _say_window(self, number: int, report: WindowReport) -> None:
        told = report.to_json()
        model, version, *_ = report.id.split("/")
        self.metrics.count("headworks_windows", model, version, report.state)
        self._say(number, {"kind": "window", "name": report.id, "report": told})
        for kind, causes in (("alert", report.opened), ("alert_resolved", report.resolved)):
            for cause in causes:
                name = f"{report.id.rpartition('/')[0]}:{cause}"
                self._say(number, {"kind": kind, "name": name, "window": report.id})

    def _say(self, number: int, record: dict[str, Any]) -> None:
        ordinal = 0
        if self._outputs and self._outputs[-1][0][0] == number:
            ordinal = self._outputs[-1][0][1] + 1
        named = {"format": 1, "id": f"{number}.{ordinal}", "of": number, "ordinal": ordinal}
        self._outputs.append(((number, ordinal), named | record))

    async def close(self) -> None:
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close, SPANS_PATIENCE_S)
        await self.journal.close()
        self.catalog.close()


def analyse(state: Path, keys: Path) -> int:
    """Run the analyst until SIGTERM; the exit code."""
    return asyncio.run(_analyse(state, keys))


async def _analyse(state: Path, keys: Path) -> int:
    from gateway.console.api import make_app

    analyst = Analyst(state, keys)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, analyst.stopping.set)
    await analyst.start()
    path = state / "run" / "analyst.sock"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    app = make_app(analyst.catalog, analyst.tables, analyst.bodies, state)
    config = uvicorn.Config(app, uds=str(path), log_config=None, access_log=False, lifespan="off")
    server = Server(config)
    serving = loop.create_task(server.serve())
    await analyst.fold()
    server.should_exit = True
    await serving
    await analyst.close()
    return 74 if analyst.failed.is_set() else 0
