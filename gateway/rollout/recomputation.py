"""A rollout computed again from the ledger, by whoever has its files: `headworks rollout verify`.

What is always there is the root log: what was started, each block's counts, each move. From these
the verdicts follow, and from the verdicts the moves that the controller made; both are computed
again and compared. As far as records are kept and may be read, the counts themselves are taken
again from the records. The report says how far that was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from gateway.clock import isoformat
from gateway.declaration import CONTROLLER
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.rollout.attempt import Attempt
from gateway.rollout.block import Block
from gateway.rollout.chronicle import Chronicle, Told
from gateway.rollout.counting import Counting
from gateway.rollout.lifecycle import Decision, Held, Move, Phase, is_approved, is_legal
from gateway.rollout.predictions import Predictions
from gateway.rollout.rolloutsettings import settings_of
from gateway.rollout.units import Units
from gateway.table import TableStore

CLOSE = 1e-9
PROBLEMS_MAX = 50
AT_ONCE_NS = 60 * 10**9
"""Between a person's move, when its approvals were looked at, and its leaf."""


@dataclass(slots=True)
class Report:
    """`verdicts` and `decisions`: compared; `counts`: blocks counted again from their records."""

    rollout: str
    attempt: int = 0
    blocks: int = 0
    moves: int = 0
    decisions: int = 0
    verdicts: int = 0
    counts: int = 0
    unreadable: int = 0
    counted_from: str | None = None
    phase: str = ""
    problems: list[str] = field(default_factory=list)

    def wrong(self, words: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(words)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Unknown(LookupError):
    """The ledger has no such rollout, or no such attempt of it."""


def recompute(state: Path, keys: Path | None, name: str, attempt: int | None = None) -> Report:
    """`attempt` None: the newest; `keys` None: without the records. Unknown where there is none."""
    own = _leaves(state, name, attempt)
    report = Report(name, own[0].record["attempt"])
    _judge_again(report, own)
    if keys is not None and keys.is_dir():
        _count_again(report, state, keys, own[0].record)
    return report


def recorded_blocks(state: Path, name: str, attempt: int | None = None) -> list[Block]:
    """The evidence of an attempt, in order. Unknown where there is none."""
    return [Block.read(one.record["block"]) for one in _leaves(state, name, attempt)
            if one.kind == "evidence"]  # fmt: skip


def _leaves(state: Path, name: str, attempt: int | None) -> list[Told]:
    """Of one attempt, what was created first."""
    leaves = list(Chronicle(state).leaves(name))
    numbers = [one.record["attempt"] for one in leaves if one.record.get("event") == "created"]
    if not numbers or attempt not in (None, *numbers):
        which = "" if attempt is None else f", attempt {attempt}"
        raise Unknown(f"the ledger has no rollout {name[:80]!r}{which}")
    number = numbers[-1] if attempt is None else attempt
    return [one for one in leaves if _attempt_of(one) == number]


def _attempt_of(leaf: Told) -> int:
    told = leaf.record["block"] if leaf.kind == "evidence" else leaf.record
    found: int = told["attempt"]
    return found


def _judge_again(report: Report, leaves: list[Told]) -> None:
    """Blocks to verdicts, verdicts to moves."""
    created = leaves[0].record
    digest = settings_of(created).digest
    if digest != created["digest"]:
        report.wrong("the file in the ledger does not have the digest that was approved, or its "
                     "defaults are others in this release")  # fmt: skip
    attempt = Attempt(created, None)
    due: Decision | None = None
    for leaf in leaves[1:]:
        try:
            due = _take(report, attempt, leaf, due)
        except Exception as error:  # whatever stands there: a ledger may be anybody's
            report.wrong(
                f"entry {leaf.index} cannot be read: {type(error).__name__}: {error}"[:300]
            )
    report.phase = str(attempt.stage.phase)


def _take(report: Report, attempt: Attempt, leaf: Told, due: Decision | None) -> Decision | None:
    """`due`: what the last block asks for, until somebody moves; the same after this leaf. Where
    the ledger ends, the controller may be about to."""
    record = leaf.record
    if leaf.kind == "evidence":
        if due is not None:
            report.wrong(f"entry {leaf.index}: the evidence before it asked for {due.move} "
                         f"({due.why}), and nobody did it")  # fmt: skip
        report.blocks += 1
        attempt.take_evidence(leaf.index, record)
        return attempt.decision() if attempt.plan.acts else None
    if record["event"] == "move":
        report.moves += 1
        for words in _misdone(report, attempt, record):
            report.wrong(f"move {record['number']} ({record['move']}, entry {leaf.index}): {words}")
        due = None
    elif record["event"] == "approved":
        for words in _unapproved(attempt, record):
            report.wrong(f"approval (entry {leaf.index}): {words}")
    attempt.take(record)
    return due


def _unapproved(attempt: Attempt, record: dict[str, Any]) -> Iterator[str]:
    """Why it is no yes of somebody who may say so."""
    steps, place = attempt.plan.steps, record["step"]
    role = steps[place].approval if 0 <= place < len(steps) else None
    if role is None:
        yield f"step {place + 1} waits for nobody"
    elif role not in record.get("roles", [role]):
        yield f"{record['by']} was no {role}"
    if record["by"] == attempt.author:
        yield "by the rollout's author"
    if record["digest"] != attempt.plan.digest:
        yield "of another file"


def _misdone(report: Report, attempt: Attempt, record: dict[str, Any]) -> Iterator[str]:
    """Why a move is not the one that could be made and, by the controller, had to be."""
    made = Decision(
        Move(record["move"]), Phase(record["phase"]), record["step"], record["why"],
        Held.from_json(record["held"]),
    )  # fmt: skip
    if not is_legal(attempt.stage, made, attempt.plan):
        yield f"not possible while it is {attempt.stage.phase}"
    verdicts = attempt.judging.verdicts()
    if len(record["verdicts"]) != len(verdicts) and not record.get("offline"):
        yield f"{len(record['verdicts'])} verdicts, and there are {len(verdicts)}"
    for told, again in zip(record["verdicts"], verdicts):
        report.verdicts += 1
        yield from _differing(told, again)
    if record["by"] == CONTROLLER:
        report.decisions += 1
        if (wanted := attempt.wish()) != made:
            words = f"for {wanted.move}: {wanted.why}" if wanted else "to wait"
            yield f"the evidence asks {words}"
    else:
        yield from _unallowed(attempt, made, record)


def _unallowed(attempt: Attempt, made: Decision, record: dict[str, Any]) -> Iterator[str]:
    """Approvals that a person's move passes over, or the second person that it lacks."""
    if made.move not in (Move.APPROVE, Move.NEXT, Move.RESUME):
        return
    plan, stage, at = attempt.plan, attempt.stage, record["at"] - AT_ONCE_NS
    begin = plan.first if stage.phase is Phase.APPROVED else max(0, stage.step)
    end = len(plan.steps) if made.phase is Phase.PROMOTED else made.step
    if made.move is Move.APPROVE:
        end = plan.first
    gates = [gate for gate in range(begin, end) if plan.steps[gate].approval]
    for gate in gates:
        if not is_approved(plan, stage, gate, at):
            yield f"step {gate + 1} waits for a {plan.steps[gate].approval}, who has not approved"
    asked = attempt.asked
    begun = stage.phase is Phase.APPROVED or stage.step in gates
    if not attempt.settings.second_person or begun:
        return
    if asked is None or record["by"] in (asked.by, attempt.author):
        yield "nobody else approved it, and the file wants a second person"


def _differing(told: dict[str, Any], again: dict[str, Any]) -> Iterator[str]:
    for key in ("guard", "verdict", "units"):
        if told[key] != again[key]:
            yield f"{told['guard']}: {key} was {told[key]}, and is {again[key]}"
    for key in ("log_worse", "log_safe"):
        if not math.isclose(told[key], again[key], rel_tol=1e-6, abs_tol=CLOSE):
            yield f"{told['guard']}: {key} was {told[key]:.9g}, and is {again[key]:.9g}"


def _count_again(report: Report, state: Path, keys: Path, created: dict[str, Any]) -> None:
    """Records to blocks, as far as records are kept: the same fold, over the whole ledger."""
    bodies = BodyReader(state, keys)
    counting = Counting(TableStore(state), bodies)
    reader = LedgerReader(state)
    attempt: Attempt | None = None
    name = f"{report.rollout}.{report.attempt}"
    with TemporaryDirectory() as folder:
        for _, text in reader.read(1 << 62):
            if attempt is None and b'"event":"created"' not in text:
                continue
            leaf = orjson.loads(text)
            if attempt is not None:
                _count_leaf(report, attempt, counting, leaf)
                if attempt.is_over:
                    break
            elif _is_it(leaf, created):
                answers = Predictions(Path(folder), name)
                attempt = Attempt(created, Units(Path(folder), Path(folder), name), answers)
        for kept in (attempt.tally.units, attempt.tally.answers) if attempt is not None else ():
            if kept is not None:
                kept.close()
    reader.close()
    bodies.close()


def _is_it(leaf: dict[str, Any], created: dict[str, Any]) -> bool:
    return bool(leaf["kind"] == "rollout" and leaf["record"] == created)


def _count_leaf(report: Report, attempt: Attempt, counting: Counting, leaf: dict[str, Any]) -> None:
    kind, record = leaf["kind"], leaf["record"]
    if kind == "exchange" and attempt.is_exposed:
        report.unreadable += counting.count(attempt, leaf) == "unreadable"
    elif kind == "feedback" and attempt.is_exposed:
        counting.label(attempt, record)
    elif kind == "rollout" and record["rollout"] == attempt.name:
        attempt.take(record)
    elif kind == "evidence" and record["block"]["rollout"] == attempt.name:
        block = Block.read(record["block"])
        if report.unreadable:
            attempt.take_evidence(0, record)
            return
        report.counted_from = report.counted_from or isoformat(block.began)
        again = attempt.tally.peek(block.number, block.rollout, block.attempt, block.step)
        report.counts += 1
        if again.encode() != block.encode():
            report.wrong(f"block {block.number} ({isoformat(block.began)}): its records count "
                         "otherwise")  # fmt: skip
        attempt.take_evidence(0, record)
