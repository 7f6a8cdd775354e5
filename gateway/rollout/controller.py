"""Rollouts in the governor: read what was sealed, close blocks, decide, move, publish.

One thread, between two steps of sealing. Invariants:

1. A move or a block takes hold when its leaf is read back (`attempt.py`): there is one way into the
   state, and a governor that was killed goes on from its snapshot by reading the same leaves.
2. Before a block is closed all that was sealed is read: its leaf says exactly what lies before it.
3. Widening is recorded before it is published; narrowing is written down, published, and recorded
   after (`narrowing.py`). What was recorded and not published is published at the next look, by
   comparing what the table says with what the attempt's stage asks for.
4. Who takes a rule away from a rollout by other means (an old revision brought back) has aborted
   it; who gives it a smaller weight has paused it. What is published goes over what the table said
   when the move was made, and over nothing else: no narrowing that came later is undone.
5. A rollout that cannot be judged keeps its exposure, says so, and stops nobody else, least of all
   the sealing of journals.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.declaration import CONTROLLER
from gateway.disk import Occupied, write_durably
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.revision.revisions import Revisions, end_rollout, set_rollout
from gateway.rollout.attempt import Attempt, waits_for_labels
from gateway.rollout.chronicle import Chronicle
from gateway.rollout.counting import Counting
from gateway.rollout.entry import held_by, is_narrower, is_swapped, resumed_over
from gateway.rollout.lifecycle import (
    Decision,
    Move,
    Phase,
    abort,
    go_on,
    is_approved,
    is_legal,
    is_paused,
    pause,
)
from gateway.rollout.narrowing import Narrowings, take_back
from gateway.rollout.predictions import Predictions
from gateway.rollout.rolloutsettings import settings_of
from gateway.rollout.units import Units
from gateway.seal.sealer import Sealer
from gateway.split import Rollout
from gateway.table import Conflict
from gateway.telemetry.metrics import Metrics

FORMAT = 1
ROLLOUT, EVIDENCE = "rollout", "evidence"
"""Kinds of leaves."""
ANALYST = "analyst."
CHUNK = 2048
DEAD_NS = 3 * 10**9
"""A worker that is silent for so long is not waited for."""
IDLE_NS = 60 * 10**9
"""Between two snapshots while nothing runs."""
OVER_MAX = 100
"""Rollouts that are over and still shown; the ledger has all of them."""
BLOCKS_AT_ONCE = 200
ALERTS_LOOKED_FOR = 200_000
"""Leaves before a rollout's first in which alerts of its version are looked for."""
log = logging.getLogger("headworks.rollout")


class Illegal(Exception):
    """The move is not one that the rollout can make now."""


class Rollouts:
    def __init__(
        self, state: Path, keys: Path, sealer: Sealer, revisions: Revisions, clock: Clock,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self.state, self.keys, self.sealer = state, keys, sealer
        self.revisions, self.clock, self.metrics = revisions, clock, metrics
        self.folder = state / "rollouts"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.narrowings = Narrowings(state)
        self.attempts: dict[str, Attempt] = {}
        self.forgotten = 0  # the highest number of an attempt that is no longer shown
        self.troubles: dict[str, str] = {}
        self.bodies = BodyReader(state, keys)
        self.counting = Counting(revisions.tables, self.bodies)
        self.reader: LedgerReader
        self._snapped_at = 0
        self.is_dirty = False
        self._fitted: dict[str, tuple[str | None, int]] = {}

    # Where it was.

    def resume(self) -> None:
        """Be where the ledger says; complete what a crash left half done."""
        try:
            start = self._load()
        except (ValueError, KeyError, TypeError):
            log.exception("rollouts' state cannot be read: it is made anew from the ledger")
            self.attempts.clear()
            path = self.folder / "state.json"
            path.rename(path.with_name(f"state.json.{uuid.uuid4().hex[:8]}.set-aside"))
            start = 0
        self.reader = LedgerReader(self.state, start)
        self.follow()
        self._adopt_narrowings()
        for attempt in list(self.attempts.values()):
            self._guarded(attempt, self._complete)
            self._guarded(attempt, self._reconcile)
        self.snapshot()

    def _complete(self, attempt: Attempt) -> None:
        """Let begin what was about to, when a governor ended between two of the leaves it takes."""
        settings, stage = attempt.settings, attempt.stage
        if stage.phase is Phase.APPROVED:
            self.begin(attempt, attempt.last_by, attempt.last_why)
        elif stage.phase is Phase.DRAFT and not self.gate(attempt):
            yes = [one.by for one in stage.approvals]
            why = f"approved by {yes[-1]}" if yes else settings.reason or "started"
            if not settings.second_person:
                self.begin(attempt, attempt.author, why)
            elif attempt.asked is None:
                self.tell(attempt, "asked", attempt.author, {"what": "start", "why": why})

    def next_number(self, name: str) -> int:
        """Of a name's next attempt. None had it before: salt, units and leaves hang on it."""
        before = self.attempts.get(name)
        return (before.number if before is not None else self.forgotten) + 1

    def gate(self, attempt: Attempt) -> int | None:
        """Which step's approval the beginning waits for, counted from 1."""
        now = self.clock.steady()
        for place in range(attempt.plan.first):
            if not is_approved(attempt.plan, attempt.stage, place, now):
                return place + 1
        return None

    def begin(self, attempt: Attempt, by: str, why: str) -> None:
        """Two leaves: it is approved, and it enters the first step that exposes somebody."""
        if attempt.stage.phase is Phase.DRAFT:
            self.move(attempt, Decision(Move.APPROVE, Phase.APPROVED, -1, why), by)
        plan = attempt.plan
        self.move(attempt, go_on(plan, attempt.stage, why, plan.first), by)

    def _load(self) -> int:
        """The snapshot's attempts; the first leaf that they do not have. Without a snapshot all of
        the ledger is read again, if it has ever had a rollout."""
        try:
            told = orjson.loads((self.folder / "state.json").read_bytes())
        except FileNotFoundError:
            return 0 if self._had_any() else self.sealer.ledger.number
        if told["format"] > FORMAT:
            raise ValueError(f"rollouts' state has format {told['format']}, newer than {FORMAT}")
        for one in told["attempts"]:
            attempt = Attempt.from_json(one, self._registry)
            self.attempts[attempt.name] = attempt
        self.forgotten = told.get("forgotten", 0)
        reached: int = told["reached"]
        return reached + 1

    def _had_any(self) -> bool:
        return any(b'"kind":"rollout"' in entry for _, entry in Chronicle(self.state).entries())

    def _registry(
        self, created: Mapping[str, Any], units: int = 0, answers: int = 0
    ) -> tuple[Units, Predictions | None]:
        name = f"{created['rollout']}.{created['attempt']}"
        asked = waits_for_labels(settings_of(created)) is not None
        kept = Predictions(self.folder, name, answers) if asked else None
        return Units(self.folder, self.keys, name, units), kept

    def snapshot(self) -> None:
        """One durable write: what is known by the last leaf that was read."""
        over = [one for one in self.attempts.values() if one.is_over]
        for attempt in over[: max(0, len(over) - OVER_MAX)]:
            del self.attempts[attempt.name]
            self.forgotten = max(self.forgotten, attempt.number)
        document = {
            "format": FORMAT,
            "reached": self.reader.next - 1,
            "forgotten": self.forgotten,
            "attempts": [one.to_json() for one in self.attempts.values()],
        }
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        write_durably(self.folder / "state.json", text)
        for attempt in over:
            if attempt.tally.units is not None:
                attempt.tally.units.forget()
                attempt.tally.units = None
            if attempt.tally.answers is not None:
                attempt.tally.answers.forget()
                attempt.tally.answers = None
        self._snapped_at, self.is_dirty = self.clock.steady(), False

    # What the ledger says.

    def follow(self) -> None:
        """Read all that is committed."""
        while True:
            count = 0
            for number, text in self.reader.read(CHUNK):
                count += 1
                self._fold(number, text)
            if count < CHUNK:
                return

    def _fold(self, number: int, text: bytes) -> None:
        ours = b'"kind":"rollout"' in text or b'"kind":"evidence"' in text
        if not ours and not any(one.is_exposed for one in self.attempts.values()):
            return
        leaf = orjson.loads(text)
        kind, record = leaf["kind"], leaf["record"]
        if kind == ROLLOUT:
            try:
                self._fold_move(number, record)
            except (ValueError, KeyError, TypeError) as error:  # of another release, perhaps
                log.exception("leaf %d of a rollout cannot be read", number)
                self.troubles[str(record.get("rollout"))] = f"leaf {number}: {error}"[:300]
        elif kind == EVIDENCE:
            self._fold_evidence(number, record)
        elif kind == "exchange":
            self._fold_exchange(leaf)
        elif kind == "feedback":
            for attempt in self._exposed():
                self.counting.label(attempt, record)
        elif kind == "alert" and "alert" in record:
            for attempt in self._exposed():
                attempt.take_alert(record)

    def _exposed(self) -> list[Attempt]:
        return [one for one in self.attempts.values() if one.is_exposed]

    def _fold_move(self, number: int, record: Mapping[str, Any]) -> None:
        self.is_dirty = True
        name = record["rollout"]
        if record["event"] == "created":
            self.attempts.pop(name, None)
            self.attempts[name] = Attempt(record, *self._registry(record))
            return
        attempt = self.attempts.get(name)
        if attempt is not None and attempt.number == record["attempt"]:
            before = attempt.is_exposed
            attempt.take(record)
            if attempt.is_exposed and not before:
                self._take_open_alerts(attempt, number)
            if record["event"] == "move":
                self.metrics.count("headworks_rollout_moves", name, record["move"])

    def _take_open_alerts(self, attempt: Attempt, number: int) -> None:
        """What was open when it began. Nothing was read while no rollout ran, or waited to."""
        start = max(0, number - ALERTS_LOOKED_FOR)
        reader = LedgerReader(self.state, start)
        for _, text in reader.read(number - start):
            if b'"kind":"alert"' in text and "alert" in (record := orjson.loads(text)["record"]):
                attempt.take_alert(record)
        reader.close()

    def _fold_evidence(self, number: int, record: Mapping[str, Any]) -> None:
        attempt = self.attempts.get(record["block"]["rollout"])
        if attempt is not None and attempt.number == record["block"]["attempt"]:
            self.is_dirty = True
            try:
                attempt.take_evidence(number, record)
                self.troubles.pop(attempt.name, None)
            except Exception as error:  # a guard's mistake concerns one rollout, never the sealing
                self._trouble(attempt, error)

    def _fold_exchange(self, leaf: dict[str, Any]) -> None:
        for attempt in self._exposed():
            try:
                if self.counting.count(attempt, leaf) == "unreadable":
                    self.metrics.count("headworks_rollout_unreadable", attempt.name)
            except Exception as error:
                self._trouble(attempt, error)

    # What is done about it.

    def turn(self) -> None:
        """After each step of sealing."""
        self._adopt_narrowings()
        exposed = self._exposed()
        if exposed:
            self.follow()
        elif self.clock.steady() - self._snapped_at > IDLE_NS:
            self._skip()
            self.is_dirty = True
        for attempt in list(self.attempts.values()):
            if not attempt.settled:
                self._guarded(attempt, self._reconcile)
            if attempt.is_exposed and self._fits(attempt):
                self._guarded(attempt, self._run)
        if self.is_dirty:
            self.snapshot()

    def _skip(self) -> None:
        """Nothing runs: what was sealed says nothing to anybody, but for what we write ourselves,
        which is read at once."""
        if self._exposed():
            return
        self.reader.close()
        self.reader = LedgerReader(self.state, self.sealer.ledger.number)

    def _fits(self, attempt: Attempt) -> bool:
        """Whether the table was seen to say what the stage asks for."""
        place = (self.revisions.tables.current, attempt.stage.moves)
        return self._fitted.get(attempt.name) == place

    def _guarded(self, attempt: Attempt, act: Any) -> None:
        try:
            act(attempt)
        except (Conflict, Occupied) as error:
            log.info("%s: the table was changed meanwhile, again: %s", attempt.name, error)
        except OSError:
            raise  # the ledger or the disk: what is durable is for the next start to say
        except Exception as error:
            self._trouble(attempt, error)

    def _trouble(self, attempt: Attempt, error: Exception) -> None:
        if attempt.name not in self.troubles:
            log.error("rollout %s is not judged", attempt.name, exc_info=error)
            self.metrics.count("headworks_rollout_troubles", attempt.name)
        self.troubles[attempt.name] = f"{type(error).__name__}: {error}"[:300]

    def _run(self, attempt: Attempt) -> None:
        """Close the blocks that are over, one by one, and do what each asks for."""
        self._decide(attempt)
        passed = self._passed()
        for _ in range(BLOCKS_AT_ONCE):
            if not attempt.is_exposed or attempt.next_ends > passed or not self._fits(attempt):
                return
            block = attempt.next_block()
            if attempt.is_worth_a_leaf(block):
                told = {"name": attempt.name, "block": block.to_json(), "alerts": attempt.alerts}
                self._say(EVIDENCE, told)
            else:
                attempt.tally.look(block.number)
            self._decide(attempt)

    def _passed(self) -> int:
        """The time up to which every live worker's records are sealed."""
        now = self.clock.steady()
        passed = now - DEAD_NS
        live = [reader for source, reader in self.sealer.readers.items()
                if not source.startswith(ANALYST)
                and not (reader.caught_up and now - reader.marked_ns > DEAD_NS)]  # fmt: skip
        return min((reader.passed_ns for reader in live), default=passed)

    def _decide(self, attempt: Attempt) -> None:
        decision = attempt.decision()
        if decision is None or not attempt.plan.acts:
            attempt.decided = attempt.found
            return
        self.move(attempt, decision, CONTROLLER)

    def move(self, attempt: Attempt, decision: Decision, by: str) -> dict[str, Any]:
        """Make a move, for the controller or for a person; its record. Illegal: it is not one."""
        if not is_legal(attempt.stage, decision, attempt.plan):
            words = f"{decision.move} is not possible while it is {attempt.stage.phase}"
            raise Illegal(words)
        over = resumed_over(self.revisions.current()[1], attempt) if by != CONTROLLER else None
        at, identity = self.clock.steady(), str(uuid.uuid4())
        record = attempt.record_of(decision, by, at, identity, over)
        if decision.move in (Move.ROLL_BACK, Move.ABORT):
            self.narrowings.write(record)
            take_back(self.revisions, record)
            self._say(ROLLOUT, record)
            self.narrowings.done(attempt.name)
        else:
            self._say(ROLLOUT, record)
            self._guarded(attempt, self._reconcile)
        log.info("rollout %s: %s by %s: %s", attempt.name, decision.move, by, decision.why)
        return record

    def tell(self, attempt: Attempt, event: str, by: str, more: Mapping[str, Any]) -> None:
        """A leaf of what was asked for or approved."""
        told = {"name": attempt.name, "rollout": attempt.name, "attempt": attempt.number,
                "event": event, "at": self.clock.steady(), "by": by}  # fmt: skip
        self.say(told | dict(more))

    def say(self, record: dict[str, Any]) -> None:
        """A leaf of kind `rollout`, durable and read back."""
        self._say(ROLLOUT, record)

    def _say(self, kind: str, record: dict[str, Any]) -> None:
        self._skip()
        self.sealer.notary.tell(kind, record)
        self.sealer.ledger.commit()
        self.follow()

    def _adopt_narrowings(self) -> None:
        """Record what was narrowed and not recorded, by a crash of ours or without us."""
        for told in list(self.narrowings.waiting()):
            attempt = self.attempts.get(told["rollout"])
            fits = attempt is not None and attempt.number == told["attempt"]
            if attempt is None or attempt.number < told["attempt"]:
                take_back(self.revisions, told)
                self._adopt_unknown(told)
            elif attempt is not None and fits and not attempt.is_over:
                take_back(self.revisions, told)
                move, phase = Move(told["move"]), told["phase"]
                step = attempt.stage.step
                self._say(ROLLOUT, told | {"number": attempt.stage.moves + 1, "step": step,
                                           "move": move, "phase": phase})  # fmt: skip
            self.narrowings.done(told["rollout"])

    def _adopt_unknown(self, told: dict[str, Any]) -> None:
        """Of an attempt that this state has lost: the move that follows its last one, if that is
        not it already."""
        last: dict[str, Any] = {"id": None, "number": 0, "step": -1}
        for leaf in Chronicle(self.state).leaves(told["rollout"], told["attempt"]):
            if leaf.record.get("event") == "move":
                last = leaf.record
        if last["id"] != told["id"]:
            self._say(ROLLOUT, told | {"number": last["number"] + 1, "step": last["step"]})

    def _reconcile(self, attempt: Attempt) -> None:
        """Let the table say what the stage asks for."""
        if self._fits(attempt):
            return
        revision, document = self.revisions.current()
        held = held_by(document, attempt)
        if attempt.is_over:
            self._end(attempt, held)
            return
        wanted = attempt.entry()
        if wanted is not None and is_swapped(document, attempt):
            self._taken_away(attempt, document, "changed its versions")
            return
        if wanted is not None and held != wanted:
            if attempt.fitted != attempt.stage.moves and held == attempt.published:
                revision = self._publish(attempt, Rollout.read(wanted), revision)
            elif held is None or not is_narrower(held, wanted):
                self._taken_away(attempt, document, "has the rule")
                return
            elif not is_paused(attempt.stage):
                self._narrowed(attempt, document)
                return
        if attempt.fitted != attempt.stage.moves:
            attempt.fitted, self.is_dirty = attempt.stage.moves, True
        self._fitted[attempt.name] = (revision, attempt.stage.moves)

    def _publish(self, attempt: Attempt, entry: Rollout, expected: str) -> str:
        settings = attempt.settings
        done = self.revisions.change(
            lambda told: set_rollout(told, settings.model, settings.rule, entry),
            author=settings.owner or attempt.author, reason=f"rollout {attempt.name}",
            origin="rollout", expected=expected,
        )  # fmt: skip
        self.metrics.set("headworks_rollout_weight_ppm", entry.weight_ppm, attempt.name)
        return done.revision

    def _end(self, attempt: Attempt, held: dict[str, Any] | None) -> None:
        settings = attempt.settings
        if held is not None:
            self.revisions.change(
                lambda told: end_rollout(told, settings.model, settings.rule, attempt.ends_with()),
                author=settings.owner or attempt.author,
                reason=f"rollout {attempt.name}: {attempt.stage.phase}", origin="rollout",
            )  # fmt: skip
        self.metrics.set("headworks_rollout_weight_ppm", 0, attempt.name)
        attempt.settled, self.is_dirty = True, True

    def _taken_away(self, attempt: Attempt, document: Mapping[str, Any], what: str) -> None:
        """Somebody else's revision did it: that was an abort, and is recorded as theirs."""
        by = str(document["author"])
        why = f"another revision {what}: {document['reason']}"
        self.move(attempt, abort(attempt.stage, why), by if by != CONTROLLER else "local")

    def _narrowed(self, attempt: Attempt, document: Mapping[str, Any]) -> None:
        """A revision brought back has a smaller weight: held there, until somebody resumes."""
        by = str(document["author"])
        why = f"a revision narrowed it: {document['reason']}"
        self.move(attempt, pause(attempt.stage, why), by if by != CONTROLLER else "local")

    def words(self) -> list[str]:
        """Rollouts that somebody has to look at; from any thread."""
        found = []
        for name, attempt in list(self.attempts.items()):
            held = attempt.stage.held
            if (trouble := self.troubles.get(name)) is not None and not attempt.is_over:
                found.append(f"rollout {name} cannot be judged: {trouble}")
            elif held is not None:
                found.append(f"rollout {name} is held: {held.why}")
        unread = self.troubles.keys() - self.attempts.keys()
        return found + [f"rollout {name}: {self.troubles[name]}" for name in sorted(unread)]

    def close(self) -> None:
        """A clean end: the next start reads nothing twice."""
        self.follow()
        self.snapshot()
        self.bodies.close()
