"""A governor's sealing and rollouts on a clock of the test's own, and a worker that answers.

Everything is real but the clock and the models' answers: journal, sealing, ledger, table, rollouts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from gateway.artifacts import Artifacts
from gateway.check import check
from gateway.exchange import exchange_id
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger.log import LedgerReader
from gateway.revision.revisions import Revisions
from gateway.rollout.controller import Rollouts
from gateway.rollout.steward import Person, Steward
from gateway.routing.choice import choose, shadows
from gateway.seal.sealer import Sealer
from gateway.settings import LedgerSettings
from gateway.table import TableStore
from gateway.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
SECOND = 10**9
CONFIG = f"""
models:
  mortgage:
    unit: [header:x-applicant, exchange]
    versions:
      v1: {{artifact: {ROOT}/models/mortgage/v1}}
      v2: {{artifact: {ROOT}/models/mortgage/v2}}
      v3: {{artifact: {ROOT}/models/mortgage/v3}}
    rules: [{{name: everyone, split: {{v1: 100%}}}}]
    monitor: {{groups: [race]}}
"""
FILE = """\
rollout: trees
model: mortgage
rule: everyone
from: v1
to: v2
evidence: {block: 1s, warmup: 0s, min_requests: 10}
guards: [errors]
health: {no_traffic: {after: 1h}}
steps:
  - {weight: 10%, min: 3s, require: []}
  - {weight: 50%, min: 3s, require: []}
  - {weight: 100%, bake: 3s}
"""
ANA = Person("ana", frozenset({"sre"}))
BEN = Person("ben", frozenset({"sre"}))


@dataclass
class Ticking:
    now: int = 1_800_000_000 * SECOND

    def steady(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now


@dataclass(frozen=True)
class Answer:
    status: int = 200
    us: int = 2000
    score: float = 0.2
    race: str = "white"


Behaviour = Callable[[str, int], Answer]


def well(version: str, number: int) -> Answer:
    return Answer(us=1800 + number * 37 % 400, score=number * 7 % 100 / 100)


class Site:
    """`folder` survives; `open` and `die` are a governor's start and its kill -9."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder, self.clock, self.units = folder, Ticking(), 0
        self.loop = asyncio.new_event_loop()
        (folder / "headworks.yaml").write_text(config)
        self.checked = check(folder / "headworks.yaml")
        assert not self.checked.problems, self.checked.problems
        self.state, self.keys = folder / "state", folder / "keys"
        self.state.mkdir()
        self.answered: list[tuple[str, str, float]] = []
        self.copies = 0
        self.sequences = 0  # of how many one is named by each request; 0: none is
        self.open()
        self.journal = self.loop.run_until_complete(self._journal())
        self.source = f"0.{JournalFolder(self.state, self.keys, '0').identity}"
        self._table: Any = (None, None)

    async def _journal(self) -> Any:
        return await open_journal(
            JournalFolder(self.state, self.keys, "0"), self.clock, segment_bytes=1 << 22,
            stall_s=9, queue_bytes=1 << 24, on_failure=print,
        )  # fmt: skip

    def open(self) -> None:
        self.tables = TableStore(self.state)
        metrics = Metrics("governor")
        self.revisions = Revisions(self.tables, Artifacts(self.state), self.clock.wall)
        self.sealer = Sealer(self.state, self.keys, self.clock, metrics, LedgerSettings())
        self.sealer.notary.begin(0)
        if self.tables.current is None:
            self.revisions.adopt(self.checked, author="ana", reason="start")
        self.rollouts = Rollouts(
            self.state, self.keys, self.sealer, self.revisions, self.clock, metrics
        )
        self.rollouts.resume()
        self.steward = Steward(self.rollouts)

    def die(self) -> None:
        """Nothing is written any more; the locks of a dead process are free."""
        for one in (*self.sealer.readers.values(), self.sealer.bodies, self.sealer.subjects,
                    self.sealer.ledger, self.rollouts.bodies):  # fmt: skip
            one.close()
        for attempt in self.rollouts.attempts.values():
            for kept in (attempt.tally.units, attempt.tally.answers):
                if kept is not None:
                    kept.close()

    def start(self, text: str = FILE, person: Person = ANA, **changed: str) -> Any:
        for before, after in changed.items():
            assert before in text
            text = text.replace(before, after)
        return self.steward.start(text.encode(), "trees.yaml", person)

    @property
    def attempt(self) -> Any:
        return self.rollouts.attempts["trees"]

    @property
    def stage(self) -> Any:
        return self.attempt.stage

    def rule(self) -> Any:
        """As a worker has it now."""
        current = self.tables.current
        if self._table[0] != current:
            self._table = (current, self.tables.load(current))
        model = self._table[1].models["mortgage"]
        return model, model.rules[0]

    def serve(self, seconds: int, behaviour: Behaviour = well, a_second: int = 40) -> None:
        """So many seconds of traffic, one unit each; after each the governor has its turn."""
        for _ in range(seconds):
            self.loop.run_until_complete(self._second(behaviour, a_second))
            while True:
                self.turn()
                reader = self.sealer.readers.get(self.source)
                if reader is not None and reader.passed_ns >= self.clock.now:
                    break
                self.loop.run_until_complete(asyncio.sleep(0.002))
            self.turn()

    def turn(self) -> None:
        self.sealer.step()
        self.rollouts.turn()

    async def _second(self, behaviour: Behaviour, count: int) -> None:
        model, rule = self.rule()
        waiting = []
        for place in range(count):
            self.units += 1
            at = self.clock.now + place * SECOND // count
            identity = exchange_id(at)
            unit = f"unit-{self.units}"
            sequence = f"s{self.units % self.sequences}" if self.sequences else None
            chosen = choose(model, rule, {b"x-applicant": unit.encode()}, identity, sequence)
            answer = behaviour(chosen.version, self.units)
            self.answered.append((identity, chosen.version, answer.score))
            more = {"sequence": sequence} if sequence else ()
            waiting.append(self.journal.append(*self._record(chosen, answer, at, identity, more)))
            for name in shadows(rule, chosen.version, sequence or identity, Any):
                self.copies += 1
                copied = replace(chosen, version=name, arm="shadow")
                other = behaviour(copied.version, self.units)
                header, parts = self._record(copied, other, at, exchange_id(at))
                waiting.append(self.journal.append(header | {"primary": identity}, parts))
        self.clock.now += SECOND
        self.journal.mark()
        await asyncio.gather(*waiting)

    def _record(
        self, chosen: Any, answer: Answer, at: int, identity: str, more: Any = ()
    ) -> tuple[Any, bytes]:
        header = {
            "format": 1, "kind": "exchange", "id": identity, "at": at, "model": "mortgage",
            "rule": chosen.rule, "version": chosen.version, "arm": chosen.arm,
            "unit": chosen.unit_kind, "revision": self.tables.current, "status": answer.status,
            "error": None, "operation": "infer", "protocol": "v2", "attempts": 1,
            "timings": {"total_us": answer.us, "upstream_us": 0},
            "bytes": {"request": 0, "response": 0},
        }  # fmt: skip
        context = {
            "bucket": chosen.bucket_ppm, "unit": chosen.unit_digest, "subjects": [],
            "groups": [{"race": answer.race}], "response_headers": [], "salt": "00",
            **dict(more),
        }  # fmt: skip
        body = {"outputs": [{"name": "score", "datatype": "FP32", "shape": [1, 1],
                             "data": [answer.score]}]}  # fmt: skip
        sent = record.Part.of(orjson.dumps(body) if answer.status == 200 else b"{}", 9999)
        return header, record.encode_parts(context, record.EMPTY, sent)

    def feedback(self, told: list[tuple[str, int, object]]) -> None:
        """Labels by decision, as a worker records them."""
        labels = [[identity, row, value, 0, "test"] for identity, row, value in told]
        header = {"kind": "feedback", "id": exchange_id(self.clock.now), "at": self.clock.now,
                  "status": 202, "labels": labels}  # fmt: skip
        sent = record.encode_parts({}, record.EMPTY, record.EMPTY)

        async def append() -> None:
            await self.journal.append(header, sent)

        self.loop.run_until_complete(append())

    def leaves(self, kind: str) -> list[dict[str, Any]]:
        found = [orjson.loads(text) for _, text in LedgerReader(self.state).read(1 << 30)]
        return [leaf["record"] for leaf in found if leaf["kind"] == kind]

    def moves(self) -> list[tuple[str, str]]:
        return [(one["move"], one["phase"]) for one in self.leaves("rollout")
                if one["event"] == "move"]  # fmt: skip

    def entry(self) -> Any:
        _, document = self.revisions.current()
        return document["models"]["mortgage"]["rules"][0]["rollout"]

    def split(self) -> Any:
        _, document = self.revisions.current()
        return document["models"]["mortgage"]["rules"][0]["split"]
