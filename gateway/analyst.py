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
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from gateway.artifacts import Artifacts
from gateway.asgi import Server
from gateway.catalog import queries
from gateway.catalog.leaves import whole
from gateway.catalog.rebuild import Rebuild
from gateway.catalog.rows import rows_of
from gateway.catalog.store import open_catalog
from gateway.clock import SystemClock
from gateway.detectors.foreign import opened
from gateway.exchange import exchange_id
from gateway.explain.remote import Remote
from gateway.explain.worker import Explanations, in_clear
from gateway.journal.directory import JournalFolder
from gateway.journal.record import EMPTY, encode_parts
from gateway.journal.writer import open_journal
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader, read_committed
from gateway.monitor.alerts import Alerts, Happening
from gateway.monitor.inference import (
    Inference,
    Readings,
    is_decided,
    is_judged,
    is_refused,
    read_inference,
    segments_of,
)
from gateway.monitor.labelling import Labelling, records_of
from gateway.monitor.outcomeblocks import OutcomeBlocks
from gateway.monitor.pairs import Pairs, sightings
from gateway.monitor.report import WindowReport
from gateway.monitor.segments import Segments
from gateway.monitor.worker import Windows
from gateway.outbound.scoring import Scores
from gateway.outbound.webhook import Waiting, Webhook
from gateway.outbound.witness import Witnesses
from gateway.outputs import NO_PARTS, QUEUE_BYTES, Outputs, Place
from gateway.priority import step_back
from gateway.settings import LedgerSettings
from gateway.table import Table, TableStore
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans

CHUNK = 2048
CHUNK_BYTES = 4 * 1024**2
"""Leaves and bodies decoded at once: lists of numbers take ten times their text."""
IDLE_S = 0.05
GATHER_S = 0.25
"""Before the next chunk, where less than one is there: what a transaction costs, in processor time
and in flushes of the disk on which the workers' answers wait too, is then paid by many leaves."""
COMMIT_EVERY_NS = 10**9
COMMIT_LEAVES = 2 * CHUNK
"""Taken before a transaction: a statement costs the catalog milliseconds, however few its rows."""
MARK_EVERY_NS = 10**9
OUTPUT_BYTES_MAX = 1024**2
SPANS_PATIENCE_S = 2.0
NAME = "analyst"
LEAF_BYTES_MAX = 48 * 1024
"""An output longer than this goes beside the bodies: a leaf has to stay below 64 KiB."""
TABLES_MAX = 16
log = logging.getLogger("headworks.analyst")


class Analyst:
    def __init__(self, state: Path, keys: Path, clock: SystemClock) -> None:
        self.state, self.keys, self.clock = state, keys, clock
        self.metrics = Metrics(NAME, state / "metrics")
        self.metrics.gather()
        self.tables = TableStore(state)
        artifacts = Artifacts(state)
        self.scores = Scores(self.metrics)
        self.explanations = Explanations(artifacts, Remote(self.scores, clock.steady))
        self.folder = JournalFolder(state, keys, NAME)
        self.outputs = Outputs()
        self.bodies = BodyReader(state, keys)
        self.readings = Readings()
        self.catalog, anew = open_catalog(state / "catalog" / "catalog.duckdb")
        if anew:
            log.error("the catalog is made anew from the ledger: %s", anew)
        family = opened(state)
        self.windows = Windows(
            artifacts, self.catalog.state.get("windows", {}), family, self.explanations
        )
        self.alerts = Alerts(self.catalog.state.get("alerts", {}))
        leaf, place = self.catalog.state.get("delivered", (-1, -1))
        self.webhook = Webhook(
            self._unsent, self._webhook_target, (leaf, place), self.metrics, clock
        )
        self.segments = Segments(self.catalog.state.get("segments", {}))
        self.pairs = Pairs(self.catalog.state.get("pairs", {}))
        self.outcomes = OutcomeBlocks(self.catalog.state.get("outcomes", {}))
        waiting = self.catalog.state.get("waiting", [])
        self.labelling = Labelling(state, self.bodies, self._table, waiting)
        self.stopping = asyncio.Event()
        self.failed = asyncio.Event()
        self._tables: dict[str, Table] = {}
        self._newest_ns = self.clock.steady()
        self._spans: Spans | None = None
        self._spans_to: str | None = None
        self._marked_ns = self._committed_ns = 0
        self._rebuilding: Rebuild | None = None
        self._rebuilt: asyncio.Future[int] | None = None
        self._followed = False

    async def start(self) -> None:
        """Open the journal, learn what was already said, fill the open windows again."""
        self.journal = await open_journal(
            self.folder,
            self.clock,
            segment_bytes=8 * 1024**2,
            stall_s=60.0,
            queue_bytes=QUEUE_BYTES,
            on_failure=lambda _: self.failed.set(),
        )
        await asyncio.to_thread(self._resume)
        await self._announce()

    async def _announce(self) -> None:
        """Machines' reading of bodies is a leaf a job: this job begins here."""
        record = {"format": 1, "id": exchange_id(self.clock.wall()), "kind": "reading",
                  "job": "explain and monitor", "from": self.catalog.reached + 1,
                  "at": self.clock.steady()}  # fmt: skip
        await self.journal.append(record, NO_PARTS)

    def _resume(self) -> None:
        reached = self.catalog.reached
        self.outputs.resume(self.state, self.folder, reached)
        start = self.windows.replay_from()
        if start is not None:
            for number, leaf in LedgerReader(self.state, start).read(reached + 1 - start):
                self._replay(number, whole(orjson.loads(leaf), self.bodies))
        self.reader = LedgerReader(self.state, reached + 1)

    async def fold(self) -> None:
        """Follow the ledger until told to stop."""
        while not self.stopping.is_set() and not self.failed.is_set():
            if self.tables.changed():
                self._follow_telemetry()
                await asyncio.to_thread(self._plan)
            self._mark()
            await self._swap_catalog()
            taken = await asyncio.to_thread(self._take_chunk)
            await self.outputs.write(self.journal)
            behind = read_committed(self.state / "ledger") - self.reader.next
            if self._is_due(behind):
                await self._commit(behind)
            self.metrics.tell()
            if not taken:
                await asyncio.sleep(IDLE_S)
            elif behind < CHUNK:
                await asyncio.sleep(GATHER_S)
        if self.uncommitted and not self.failed.is_set():
            await self._commit(0)

    @property
    def uncommitted(self) -> int:
        """Leaves that were taken and are not in the catalog yet."""
        return self.reader.next - 1 - self.catalog.reached

    def _is_due(self, behind: int) -> bool:
        """Once a second while leaves come, and at once when none is left."""
        late = self.clock.steady() - self._committed_ns > COMMIT_EVERY_NS
        full = self.uncommitted >= COMMIT_LEAVES
        return self.uncommitted > 0 and (late or full or not behind)

    async def _commit(self, behind: int) -> None:
        state = {
            "windows": self.windows.to_json(),
            "waiting": list(self.labelling.waiting),
            "alerts": self.alerts.to_json(),
            "delivered": self.webhook.delivered,
            "segments": self.segments.to_json(),
            "pairs": self.pairs.to_json(),
            "outcomes": self.outcomes.to_json(),
        }
        await asyncio.to_thread(self.catalog.commit, self.reader.next - 1, state)
        self.labelling.forget()
        self._committed_ns = self.clock.steady()
        self.metrics.set("headworks_lag_records", behind, NAME)
        seconds = (self._committed_ns - self._newest_ns) / 1e9 if behind else 0.0
        self.metrics.set("headworks_lag_seconds", seconds, NAME)

    async def rebuild(self) -> int:
        """Make the catalog again beside the one in use; how many leaves it holds then."""
        if self._rebuilt is not None:
            raise RuntimeError("a rebuild is under way")
        self._rebuilt = asyncio.get_running_loop().create_future()
        try:
            self._rebuilding = await asyncio.to_thread(Rebuild, self.state, self.bodies)
            await asyncio.to_thread(self._rebuilding.follow, self.catalog.reached)
            self._followed = True
            return await self._rebuilt
        finally:
            self._rebuilding, self._rebuilt, self._followed = None, None, False

    async def _swap_catalog(self) -> None:
        """Between two commits: the new catalog takes the place of the old one."""
        if self._rebuilding is None or self._rebuilt is None or not self._followed:
            return
        if self.uncommitted:
            return
        path = self.state / "catalog" / "catalog.duckdb"
        self.catalog = await asyncio.to_thread(self._rebuilding.finish, self.catalog, path)
        self._followed = False
        self._rebuilt.set_result(self.catalog.reached + 1)

    def _mark(self) -> None:
        """Each second, so that segments of old records are left and destroyed when idle too."""
        now = self.clock.steady()
        if now - self._marked_ns > MARK_EVERY_NS:
            self._marked_ns = now
            self.journal.mark()

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

    def _plan(self) -> None:
        """For the revision in force: what workers need to give reasons in their answers, and,
        without waiting for it, what windows will be held against."""
        if (revision := self.tables.current) is not None:
            table = self._table(revision)
            self.explanations.plan(table)
            self.windows.yardsticks.follow(table)

    def _unsent(self, behind: Place) -> list[Waiting]:
        with closing(self.catalog.cursor()) as cursor:
            return queries.unsent(cursor, behind)

    def _webhook_target(self) -> dict[str, str] | None:
        revision = self.tables.current
        if revision is None:
            return None
        alerts: dict[str, dict[str, str] | None] = self._table(revision).document.get("alerts", {})
        return alerts.get("webhook")

    def _take_chunk(self) -> int:
        """Fold a chunk of leaves; explanations are made for all of it at once."""
        leaves, size = [], 0
        for number, text in self.reader.read(CHUNK):
            leaf = whole(orjson.loads(text), self.bodies)
            leaves.append((number, leaf))
            sent = leaf["record"]["bytes"] if leaf["kind"] == "exchange" else {}
            size += len(text) + sent.get("request", 0) + sent.get("response", 0)
            if size > CHUNK_BYTES:
                break
        inferences = {number: self._read(leaf) for number, leaf in leaves if is_decided(leaf)}
        readable = {number: found for number, found in inferences.items() if found.why is None}
        asked = [found.asked() for found in readable.values()]
        said = dict(zip(readable, self.explanations.explain(asked)))
        for number, leaf in leaves:
            self._take(number, leaf)
            if (found := inferences.get(number)) is not None:
                self._judge(number, leaf, found, said.get(number))
            elif is_judged(leaf) and (found := self._read(leaf)).why is None:  # a text
                self._watch(number, leaf, found, None)
            elif is_refused(leaf) and (found := self._read(leaf)).contradicts_card:
                self._count_readable(number, leaf["record"], found)
            self._count_segments(number, leaf, inferences.get(number))
        self._count_left_out()
        return len(leaves)

    def _count_left_out(self) -> None:
        self.metrics.count("headworks_windows_unjudged", by=self.windows.unjudged)
        self.windows.unjudged = 0
        for judged in (self.windows, self.pairs, self.outcomes):
            judged.room.tell(self.metrics)

    def _take(self, number: int, leaf: dict[str, Any]) -> None:
        for table, row in rows_of(number, leaf):
            self.catalog.add(table, row)
        record = leaf["record"]
        for told in records_of(changes := self.labelling.take(number, leaf, self.catalog)):
            self.outputs.say(number, told | {"feedback": record["id"]})
        for seen in self.outcomes.take(changes, record):
            self._say_alerts(number, self.alerts.take_sighting(seen))
        self._tell_labels(leaf)
        if (happening := self.alerts.take_word(leaf["kind"], record)) is not None:
            self._say_alert(number, happening)
        if leaf["kind"] != "exchange":
            return
        self._newest_ns = record["at"]
        if self._spans is not None:
            self._spans.offer(record)
        for report in self.windows.overdue(record["at"]):
            self._say_window(number, report)

    def _tell_labels(self, leaf: dict[str, Any]) -> None:
        if leaf["kind"] == "feedback":
            self.metrics.count("headworks_labels", by=len(leaf["record"]["labels"]))
            self.metrics.count("headworks_labels_dropped", by=self.labelling.dropped)
            self.labelling.dropped = 0

    def _judge(
        self, number: int, leaf: dict[str, Any], found: Inference, said: dict[str, Any] | None
    ) -> None:
        """Say an exchange's explanation and put its rows into their windows."""
        if found.version.card is None:  # its record says so: no decision was read from it
            self.metrics.count("headworks_not_explained", "no_artifact")
            return
        told = said or {"not_explained": found.why or "lost"}
        self._say_explanation(number, leaf["record"], told, found.keys)
        if "rows" in told and any(rule.shadows for rule in found.model.rules):
            self.segments.explained(leaf["record"], told)
        if said is not None or found.answers is not None:
            self._watch(number, leaf, found, said)
        elif found.contradicts_card and not leaf["record"].get("noise"):
            self._count_readable(number, leaf["record"], found)

    def _watch(
        self, number: int, leaf: dict[str, Any], found: Inference, said: dict[str, Any] | None
    ) -> None:
        """Put an exchange's rows into their windows and say what those say."""
        if leaf["record"].get("noise"):  # the same decision again is no further one
            return
        self._count_readable(number, leaf["record"], found)
        for decision in found.decisions(number, leaf, said):
            arm = leaf["record"]["arm"]
            for told in self.windows.add(found.model, found.version, arm, decision):
                if isinstance(told, WindowReport):
                    self._say_window(number, told)
                else:
                    self._say_alerts(number, self.alerts.take_sighting(told))

    def _count_readable(self, number: int, record: dict[str, Any], found: Inference) -> None:
        readable = not found.contradicts_card
        for seen in self.windows.heard_of(found.model, found.version, record, readable=readable):
            self._say_alerts(number, self.alerts.take_sighting(seen))

    def _count_segments(self, number: int, leaf: dict[str, Any], found: Inference | None) -> None:
        """A shadow's comparison by what its exchange was of; what was counted for long is said."""
        if leaf["kind"] != "exchange":
            return
        if "comparison" in leaf:
            known = self._table(leaf["record"]["revision"]).models[leaf["record"]["model"]]
            self.segments.take(leaf, segments_of(leaf, found, known, self.windows, self.bodies))
            self._count_pairs(leaf, found)
        for model, told in self.segments.due(leaf["record"]["at"]):
            self.outputs.say(number, {"kind": "compared", "model": model} | told)
        for report in self.pairs.due(leaf["record"]["at"]):
            name = f"{report.model}/{report.version}/{report.against}"
            about = {"kind": "paired", "model": report.model, "name": name}
            self.outputs.say(number, about | {"report": report.to_json()})
            for seen in sightings(report):
                self._say_alerts(number, self.alerts.take_sighting(seen))

    def _count_pairs(self, leaf: dict[str, Any], found: Inference | None) -> None:
        """The outcomes of both versions by group, where the groups can be read."""
        if found is not None and found.why is None:
            cards = {name: version.card for name, version in found.model.versions.items()}
            self.pairs.offer(leaf, cards, tuple(found.model.monitor["groups"]), found.groups)

    def _replay(self, number: int, leaf: dict[str, Any]) -> None:
        """Put the rows of a leaf that was folded before into the windows that were open."""
        noise = leaf["record"].get("noise")
        if is_judged(leaf) and not noise and (found := self._read(leaf)).is_counted:
            asked = replace(found.asked(), given=False)  # no counterfactuals, which were told
            here = found.version.artifact is not None and found.why is None
            said = self.explanations.explain([asked])[0] if here else None
            for decision in found.decisions(number, leaf, said):
                self.windows.replay(found.model, found.version, leaf["record"]["arm"], decision)

    def _read(self, leaf: dict[str, Any]) -> Inference:
        table = self._table(leaf["record"]["revision"])
        return read_inference(leaf, table, self.bodies, self.readings)

    def _table(self, revision: str) -> Table:
        table = self._tables.get(revision)
        if table is None:
            if len(self._tables) >= TABLES_MAX:
                self._tables.pop(next(iter(self._tables)))
            table = self._tables[revision] = self.tables.load(revision)
        return table

    def _say_explanation(
        self, number: int, record: dict[str, Any], said: dict[str, Any], keys: tuple[int, ...]
    ) -> None:
        model, version = str(record.get("model")), str(record.get("version"))
        if (why := said.get("not_explained")) is not None:
            self.metrics.count("headworks_not_explained", why)
        else:
            rows = len(said["rows"])
            self.metrics.count("headworks_explained", model, version, said["method"], by=rows)
        told = in_clear(said)
        given = record.get("reasons", {}).get("codes")
        if given is not None and "codes" in told and given != told["codes"]:
            log.error("exchange %s was answered with other reasons", record["id"])
            self.metrics.count("headworks_inline_differs", model, version)
        about = {"kind": "explanation", "exchange": record["id"], "model": model,
                 "version": version, "artifact": record.get("artifact"),
                 "sealed": bool(keys)}  # fmt: skip
        parts = encode_parts({"explanation": said, "keys": keys}, EMPTY, EMPTY)
        if len(parts) > OUTPUT_BYTES_MAX:
            told = said = {"not_explained": "too_large"}
            parts = encode_parts({"explanation": said, "keys": keys}, EMPTY, EMPTY)
        self.outputs.say(number, about | told, parts if keys else NO_PARTS)

    def _say_window(self, number: int, report: WindowReport) -> None:
        told = report.to_json()
        model, version, *_ = report.id.split("/")
        self.metrics.count("headworks_windows", model, version, report.state)
        self.metrics.count("headworks_detector_unjudged", by=self.windows.family.dropped)
        self.windows.family.dropped = 0
        about = {"kind": "window", "model": model, "name": report.id}
        if len(orjson.dumps(told)) <= LEAF_BYTES_MAX:
            self.outputs.say(number, about | {"report": told})
        else:
            self.outputs.say(
                number, about | {"sealed": True}, encode_parts({"report": told}, EMPTY, EMPTY)
            )
        self._say_alerts(number, self.alerts.take_window(report))

    def _say_alerts(self, number: int, happened: list[Happening]) -> None:
        for happening in happened:
            self._say_alert(number, happening)
        self.metrics.count("headworks_alerts_dropped", by=self.alerts.dropped)
        self.alerts.dropped = 0

    def _say_alert(self, number: int, happening: Happening) -> None:
        alert = happening.alert
        self.metrics.count("headworks_alerts", alert.model, happening.event)
        about = {"kind": "alert", "model": alert.model, "name": alert.key}
        self.outputs.say(number, about | happening.to_json())

    async def close(self) -> None:
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close, SPANS_PATIENCE_S)
        self.metrics.tell()
        await self.journal.close()
        self.windows.close()
        self.catalog.close()


def analyse(state: Path, keys: Path, clock: SystemClock, ledger: LedgerSettings) -> int:
    """Run the analyst until SIGTERM; the exit code."""
    return asyncio.run(_analyse(state, keys, clock, ledger))


async def _analyse(state: Path, keys: Path, clock: SystemClock, ledger: LedgerSettings) -> int:
    from gateway.console.api import make_app

    analyst = Analyst(state, keys, clock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, analyst.stopping.set)
    await analyst.start()
    path = state / "run" / "analyst.sock"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    asked = [(one.vkey, one.url) for one in ledger.witnesses]
    witnesses = Witnesses(state / "ledger", asked, ledger.needed, analyst.metrics, clock)
    witnessing = loop.create_task(witnesses.keep_witnessed(analyst.stopping))
    sending = loop.create_task(analyst.webhook.keep_sending(analyst.stopping))
    app = make_app(
        lambda: analyst.catalog, analyst.tables, BodyReader(state, keys), state,
        witnesses.document, analyst.rebuild,
    )  # fmt: skip
    config = uvicorn.Config(app, uds=str(path), log_config=None, access_log=False, lifespan="off")
    server = Server(config)
    serving = loop.create_task(server.serve())
    await asyncio.to_thread(step_back, NAME)
    await analyst.fold()
    server.should_exit = True
    await serving
    witnessing.cancel()
    sending.cancel()
    await asyncio.gather(witnessing, sending, return_exceptions=True)
    await analyst.close()
    return 74 if analyst.failed.is_set() else 0
