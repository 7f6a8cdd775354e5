"""One attempt of a rollout, as the leaves of the ledger make it: a fold, and nothing else.

Whatever the governor decides it writes down first and reads back: a move takes hold here when its
leaf is read, and so does a block. Whoever reads the same leaves is where the governor is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.declaration import CONTROLLER
from gateway.rollout.block import Block
from gateway.rollout.judging import Judging
from gateway.rollout.lifecycle import (
    EXPOSED,
    OVER,
    Approval,
    Decision,
    Finding,
    Held,
    Move,
    Phase,
    Plan,
    Stage,
    advance,
    approve,
    make,
)
from gateway.rollout.predictions import Predictions
from gateway.rollout.rolloutsettings import BILLION, RolloutSettings, settings_of
from gateway.rollout.tally import Tally
from gateway.rollout.units import Units
from gateway.split import Rollout

EMPTY_EVERY = 6
MOVES_KEPT = 64
"""Ids of moves that are known again; older ones cannot be waiting to be recorded."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one person asked for and another one has to approve."""

    what: str
    by: str
    why: str
    at: int


Registry = Callable[[Mapping[str, Any], int, int], tuple[Units, Predictions | None]]


def waits_for_labels(settings: RolloutSettings) -> float | None:
    """How old a decision has to be for its label to count, in seconds; None: no guard asks."""
    delays = [one.label_delay or 0.0 for one in settings.guards if one.metric == "label_correct"]
    return min(delays) if delays else None


class Attempt:
    """`created`: the leaf that says what was started."""

    def __init__(
        self, created: Mapping[str, Any], units: Units | None, answers: Predictions | None = None
    ) -> None:
        """`units`: None where nothing is counted any more."""
        self.created = dict(created)
        self.settings = settings_of(created)
        self.name, self.number = str(created["rollout"]), int(created["attempt"])
        self.author = str(created["by"])
        edition = created.get("edition", 1)
        self.plan: Plan = replace(
            self.settings.plan(self.author, edition), digest=created["digest"]
        )
        self.stage = Stage()
        shadowing = frozenset(n for n, step in enumerate(self.plan.steps) if step.shadow_ppm)
        self.judging = Judging(
            self.settings, self.settings.from_, self.settings.to, shadowing or None, edition
        )
        self.block_ns = round(self.settings.evidence.block * BILLION)
        self.tally = Tally(self.block_ns, units, int(created["at"]) // self.block_ns, answers)
        self.finding: Finding | None = None
        self.found, self.decided = -1, -1  # blocks: the last one judged, and the last acted on
        self.evidence: int | None = None  # leaf of the last block
        self.asked: Asked | None = None
        self.alerts: dict[str, str] = {}
        self.moves: list[str] = []
        self.published: dict[str, Any] | None = None  # before the last move
        self.fitted = 0  # the last move after which the table was seen to say what was wanted
        self.settled = False  # it is over, and the table says so
        self.last_why = self.last_by = ""  # of the last move
        self.left: dict[int, str] = {}  # how each step was left, by its place

    def __repr__(self) -> str:
        return f"<Attempt {self.name}#{self.number} {self.stage.phase} step {self.stage.step}>"

    @property
    def is_over(self) -> bool:
        return self.stage.phase in OVER

    @property
    def is_exposed(self) -> bool:
        return self.stage.phase in EXPOSED

    @property
    def target(self) -> str:
        return self.settings.to

    def entry(self) -> dict[str, Any] | None:
        """What the table says of it while it is at this stage."""
        if not self.is_exposed:
            return None
        step = self.plan.steps[self.stage.step]
        return Rollout(
            name=self.name, attempt=self.number, source=self.settings.from_,
            target=self.settings.to, weight_ppm=step.weight_ppm,
            holdout_ppm=self.settings.holdout, shadow_ppm=step.shadow_ppm, noise_ppm=step.noise_ppm,
        ).to_json()  # fmt: skip

    def ends_with(self) -> str:
        """The version that has all of the rule when it is over."""
        return self.settings.to if self.stage.phase is Phase.PROMOTED else self.settings.from_

    # What leaves say.

    def take(self, record: Mapping[str, Any]) -> None:
        """A leaf of kind `rollout`."""
        event = record["event"]
        if event == "move":
            self._take_move(record)
        elif event == "approved":
            approval = Approval(record["by"], record["step"], record["digest"], record["at"])
            self.stage = approve(self.stage, approval)
        elif event == "asked":
            self.asked = Asked(record["what"], record["by"], record["why"], record["at"])

    def _take_move(self, record: Mapping[str, Any]) -> None:
        number = record["number"]
        if number <= self.stage.moves:
            return
        decision = Decision(
            Move(record["move"]), Phase(record["phase"]), record["step"], record["why"],
            Held.from_json(record["held"]),
        )  # fmt: skip
        if decision.phase in EXPOSED and not self.is_exposed:
            self.tally.expose(record["at"])
        self.published = record.get("over") or self.entry()
        by_person = record["by"] != CONTROLLER
        if decision.move is Move.NEXT and self.is_exposed:
            self._leave(decision, record["by"])
        self.stage = make(self.stage, decision, number, record["at"], by_person)
        self.moves = [*self.moves[-MOVES_KEPT:], record["id"]]
        self.last_why, self.last_by = record["why"], record["by"]
        self.decided = max(self.decided, record["block"] if record["block"] is not None else -1)
        self.asked = None

    def _leave(self, decision: Decision, by: str) -> None:
        """By the evidence, or by a person, who may leave steps out."""
        here = self.stage.step
        last = len(self.plan.steps) if decision.phase is Phase.PROMOTED else decision.step
        gate = self.plan.steps[here].approval is not None
        words = f"{'approved' if gate else 'promoted'} by {by}"
        self.left[here] = decision.why if by == CONTROLLER else words
        self.left |= dict.fromkeys(range(here + 1, last), f"left out by {by}")

    def take_evidence(self, number: int, record: Mapping[str, Any]) -> None:
        """A block that was closed, as its leaf has it."""
        block = Block.read(record["block"])
        if block.number <= self.found:
            return
        self.tally.close(block.number)
        self.finding = replace(self.judging.take(block), alerts=dict(record["alerts"]))
        self.found, self.evidence = block.number, number

    def take_alert(self, record: Mapping[str, Any]) -> None:
        """An alert of the version that is to answer; it counts if the file names its cause."""
        alert = record["alert"]
        if (alert["model"], alert["version"]) != (self.settings.model, self.settings.to):
            return
        named = self.settings.alerts
        if named and not any(alert["cause"].startswith(words) for words in named):
            return
        if alert["state"] == "resolved":  # muting one that is over does not bring it back
            self.alerts.pop(alert["id"], None)
        else:
            self.alerts[alert["id"]] = f"{alert['cause']} ({alert['severity']})"

    # What follows from it.

    @property
    def next_ends(self) -> int:
        """When the next block is over, in ns."""
        return (self.tally.next + 1) * self.block_ns

    def next_block(self) -> Block:
        """The next block as it would be closed now."""
        number = self.tally.next
        return self.tally.peek(number, self.name, self.number, max(0, self.stage.step))

    def decision(self) -> Decision | None:
        """What the last block asks for, if nothing was done about it yet."""
        return self.wish() if self.found > self.decided else None

    def wish(self) -> Decision | None:
        """What the last block asks for, whether anything was done or not."""
        if self.finding is None or self.finding.at < self.stage.since:
            return None
        return advance(self.plan, self.stage, self.finding)

    def record_of(
        self, decision: Decision, by: str, at: int, identity: str, over: dict[str, Any] | None
    ) -> dict[str, Any]:
        """A move as its leaf has it. `over`: what the table says, where that is not what the last
        move asked for."""
        settings, held = self.settings, decision.held
        return {
            "name": self.name, "rollout": self.name, "attempt": self.number,
            "event": "move", "id": identity, "at": at,
            "number": self.stage.moves + 1, "move": decision.move, "phase": decision.phase,
            "step": decision.step, "why": decision.why, "by": by, "over": over,
            "held": {"kind": held.kind, "why": held.why, "causes": list(held.causes)}
            if held else None,
            "block": self.found if by == CONTROLLER else None, "evidence": self.evidence,
            "verdicts": self.judging.verdicts(), "model": settings.model,
            "rule": settings.rule, "from": settings.from_, "to": settings.to,
        }  # fmt: skip

    def is_worth_a_leaf(self, block: Block) -> bool:
        """Whether a block says something: it has counts, or by its time alone something is to be
        done; and of empty ones each sixth, for what watches whether anybody comes."""
        if not self.tally.is_empty(block.number) or block.number - self.found >= EMPTY_EVERY:
            return True
        if self.finding is None:
            return False
        later = replace(self.finding, at=block.ended, alerts=dict(self.alerts))
        return advance(self.plan, self.stage, later) is not None

    def to_json(self) -> dict[str, Any]:
        """A snapshot; the units' file is durable with it."""
        return {
            "created": self.created,
            "stage": self.stage.to_json(),
            "judging": self.judging.to_json(),
            "tally": self.tally.to_json(self.name, self.number) if not self.is_over else None,
            "found": self.found, "decided": self.decided, "evidence": self.evidence,
            "finding": _told(self.finding),
            "asked": [self.asked.what, self.asked.by, self.asked.why, self.asked.at]
            if self.asked else None,
            "alerts": self.alerts, "moves": self.moves, "published": self.published,
            "fitted": self.fitted, "settled": self.settled, "last_why": self.last_why,
            "last_by": self.last_by, "left": sorted(self.left.items()),
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any], registry: Registry) -> Attempt:
        """`registry`: of a created rollout, and how many units and answers were remembered."""
        tally, created = told["tally"], told["created"]
        kept = registry(created, tally["units"], tally["answers"]) if tally else (None, None)
        attempt = cls(created, *kept)
        attempt.stage = Stage.from_json(told["stage"])
        attempt.judging.restore(told["judging"])
        if tally:
            attempt.tally.restore(tally)
        attempt.found, attempt.decided = told["found"], told["decided"]
        attempt.evidence, attempt.alerts = told["evidence"], dict(told["alerts"])
        attempt.finding = _finding(told["finding"])
        attempt.asked = Asked(*told["asked"]) if told["asked"] else None
        attempt.moves, attempt.published = list(told["moves"]), told["published"]
        attempt.fitted = told["fitted"]
        attempt.settled, attempt.last_why = told["settled"], told["last_why"]
        attempt.last_by = told.get("last_by", attempt.author)
        attempt.left = dict(told.get("left", ()))
        return attempt


def _told(finding: Finding | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    return {"at": finding.at, "limits": list(finding.limits), "unhealthy": dict(finding.unhealthy),
            "worse": dict(finding.worse), "safe": sorted(finding.safe),
            "alerts": dict(finding.alerts)}  # fmt: skip


def _finding(told: Mapping[str, Any] | None) -> Finding | None:
    if told is None:
        return None
    return Finding(told["at"], tuple(told["limits"]), told["unhealthy"], told["worse"],
                   frozenset(told["safe"]), told["alerts"])  # fmt: skip
