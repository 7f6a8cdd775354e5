"""The life of a rollout: which moves are legal, and which one the evidence asks for. Pure.

    Draft -> Approved -> Shadowing -> Running <-> Held -> Baking -> Promoted
                             `------------`---------`--------`--> RolledBack | Aborted

Invariants:
1. A move that is not in `LEGAL` does not happen, whoever asks for it.
2. Narrowing (hold, roll back, abort) is legal from every phase that exposes somebody to the
   candidate, and needs no approval.
3. A move has a number; making it a second time changes nothing. What a stage is follows from the
   moves that the ledger holds, and from nothing else.
4. Time is that of the blocks that closed, so that whoever reads the evidence later decides alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal


class Phase(StrEnum):
    DRAFT = "draft"
    APPROVED = "approved"
    SHADOWING = "shadowing"
    RUNNING = "running"
    HELD = "held"
    BAKING = "baking"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


class Move(StrEnum):
    APPROVE = "approve"
    NEXT = "next"
    HOLD = "hold"
    RESUME = "resume"
    ROLL_BACK = "roll_back"
    ABORT = "abort"


EXPOSED = frozenset({Phase.SHADOWING, Phase.RUNNING, Phase.HELD, Phase.BAKING})
OVER = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})
NARROWING = frozenset({Move.HOLD, Move.ROLL_BACK, Move.ABORT})
WIDENED = frozenset({Phase.SHADOWING, Phase.RUNNING, Phase.BAKING, Phase.PROMOTED})

LEGAL: Mapping[tuple[Phase, Move], frozenset[Phase]] = {
    (Phase.DRAFT, Move.APPROVE): frozenset({Phase.APPROVED}),
    (Phase.DRAFT, Move.ABORT): frozenset({Phase.ABORTED}),
    (Phase.APPROVED, Move.NEXT): frozenset({Phase.SHADOWING, Phase.RUNNING, Phase.BAKING}),
    (Phase.APPROVED, Move.ABORT): frozenset({Phase.ABORTED}),
    (Phase.SHADOWING, Move.NEXT): frozenset({Phase.SHADOWING, Phase.RUNNING, Phase.BAKING}),
    (Phase.RUNNING, Move.NEXT): frozenset({Phase.RUNNING, Phase.BAKING}),
    (Phase.BAKING, Move.NEXT): frozenset({Phase.PROMOTED}),
    (Phase.HELD, Move.NEXT): WIDENED,
    (Phase.HELD, Move.RESUME): frozenset({Phase.SHADOWING, Phase.RUNNING, Phase.BAKING}),
    **{(phase, Move.HOLD): frozenset({Phase.HELD}) for phase in EXPOSED},
    **{(phase, Move.ROLL_BACK): frozenset({Phase.ROLLED_BACK}) for phase in EXPOSED},
    **{(phase, Move.ABORT): frozenset({Phase.ABORTED}) for phase in EXPOSED},
}

Kind = Literal["person", "health", "worse", "inconclusive", "alert"]
"""Why a rollout is held. Only one held for its health goes on by itself, once that is well."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step's exposure in ppm, and what lets it go on. Times in ns; `most_ns` None: no limit.

    `approval`: the role whose holder has to approve before the step after this one; such a step
    keeps the exposure of the one before it. `bake`: the last step, at 100 % but the holdout.
    """

    shadow_ppm: int = 0
    noise_ppm: int = 0
    weight_ppm: int = 0
    least_ns: int = 0
    most_ns: int | None = None
    require: frozenset[str] = frozenset()
    approval: str | None = None
    expires_ns: int = 0
    bake: bool = False

    @property
    def phase(self) -> Phase:
        """The phase that a rollout is in at this step."""
        if self.bake:
            return Phase.BAKING
        return Phase.RUNNING if self.weight_ppm else Phase.SHADOWING


@dataclass(frozen=True, slots=True)
class Plan:
    """What the file says, as far as moves depend on it. `digest`: of the whole file's meaning,
    which approvals are bound to."""

    steps: tuple[Step, ...]
    digest: str
    author: str
    acts: bool = True
    on_inconclusive: Literal["hold", "rollback", "advance"] = "hold"
    on_alert: Literal["ignore", "hold", "rollback"] = "ignore"
    undecided: Mapping[str, str] = field(default_factory=dict)
    """Guards with an `on_inconclusive` of their own."""

    @property
    def first(self) -> int:
        """The place of the first step that exposes somebody; before it are approvals alone."""
        return next(place for place, step in enumerate(self.steps) if step.approval is None)


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody's yes to one step of one plan, at `at` (ns)."""

    by: str
    step: int
    digest: str
    at: int


@dataclass(frozen=True, slots=True)
class Held:
    """Why a rollout is held: `causes` are names of guards, checks of its health, or alerts."""

    kind: Kind
    why: str
    causes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, told: Mapping[str, Any] | None) -> Held | None:
        return told and cls(told["kind"], told["why"], tuple(told["causes"])) or None


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a rollout is. `step`: its place in the plan, -1 before the first one; `since`: when its
    time began, in ns; `moves`: how many were made; `overruled`: causes of a hold that a person
    went on from, which hold this attempt no more."""

    phase: Phase = Phase.DRAFT
    step: int = -1
    since: int = 0
    moves: int = 0
    held: Held | None = None
    approvals: tuple[Approval, ...] = ()
    overruled: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"overruled": sorted(self.overruled)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Stage:
        return cls(
            Phase(told["phase"]), told["step"], told["since"], told["moves"],
            Held.from_json(told["held"]), tuple(Approval(**one) for one in told["approvals"]),
            frozenset(told["overruled"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What one closed block shows. `at`: its end, in ns; `limits`: sentences; `unhealthy` and
    `alerts`: a sentence by the name of each; `worse`: what to do, by the guard that found the
    candidate worse."""

    at: int
    limits: tuple[str, ...] = ()
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    worse: Mapping[str, Literal["hold", "rollback"]] = field(default_factory=dict)
    safe: frozenset[str] = frozenset()
    alerts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """A move that is wanted, where it leads, and why in words."""

    move: Move
    phase: Phase
    step: int
    why: str
    held: Held | None = None

    @property
    def narrows(self) -> bool:
        return self.move in NARROWING


def is_legal(stage: Stage, decision: Decision, plan: Plan) -> bool:
    """By the table; no step is left out downward, none entered that there is not; and what is held
    is held anew by a person alone, once."""
    if decision.phase not in LEGAL.get((stage.phase, decision.move), frozenset()):
        return False
    if decision.move is Move.HOLD and stage.phase is Phase.HELD:
        return is_paused(replace(stage, held=decision.held)) and not is_paused(stage)
    if decision.move is Move.NEXT and decision.phase is not Phase.PROMOTED:
        fits = stage.step < decision.step < len(plan.steps)
        return fits and plan.steps[decision.step].phase is decision.phase
    return decision.step == stage.step


def make(stage: Stage, decision: Decision, number: int, at: int, by_person: bool) -> Stage:
    """The stage after a move; a move whose number was made already changes nothing. A step's time
    begins anew when a rollout goes on, and what it was held for is overruled if a person says so.
    """
    if number <= stage.moves:
        return stage
    anew = decision.move in (Move.NEXT, Move.RESUME)
    causes = stage.held.causes if stage.held and anew and by_person else ()
    return replace(
        stage, phase=decision.phase, step=decision.step, since=at if anew else stage.since,
        moves=number, held=decision.held, overruled=stage.overruled | set(causes),
    )  # fmt: skip


def approve(stage: Stage, approval: Approval) -> Stage:
    """With one more yes; the same one again changes nothing."""
    if approval in stage.approvals:
        return stage
    return replace(stage, approvals=(*stage.approvals, approval))


def is_approved(plan: Plan, stage: Stage, place: int, at: int) -> bool:
    """Whether somebody's yes to the step at `place` is in force: of this plan, not expired."""
    return any(
        one.step == place
        and one.digest == plan.digest
        and at - one.at <= plan.steps[place].expires_ns
        for one in stage.approvals
    )


def is_paused(stage: Stage) -> bool:
    """Whether a person holds it: then nothing but a person lets it go on."""
    return stage.held is not None and stage.held.kind == "person"


def hold(stage: Stage, kind: Kind, why: str, causes: Iterable[str] = ()) -> Decision:
    held = Held(kind, why, tuple(sorted(causes)))
    return Decision(Move.HOLD, Phase.HELD, stage.step, why, held)


def pause(stage: Stage, why: str) -> Decision:
    """A person's hold; whoever resumes from it overrules what it was held for before, too."""
    return hold(stage, "person", why, stage.held.causes if stage.held else ())


def roll_back(stage: Stage, why: str) -> Decision:
    return Decision(Move.ROLL_BACK, Phase.ROLLED_BACK, stage.step, why)


def abort(stage: Stage, why: str) -> Decision:
    return Decision(Move.ABORT, Phase.ABORTED, stage.step, why)


def resume(plan: Plan, stage: Stage, why: str) -> Decision:
    return Decision(Move.RESUME, plan.steps[stage.step].phase, stage.step, why)


def go_on(plan: Plan, stage: Stage, why: str, step: int | None = None) -> Decision:
    """To the next step, or to `step`; behind the last one: promoted."""
    place = stage.step + 1 if step is None else step
    if place >= len(plan.steps):
        return Decision(Move.NEXT, Phase.PROMOTED, stage.step, why)
    return Decision(Move.NEXT, plan.steps[place].phase, place, why)


def advance(plan: Plan, stage: Stage, finding: Finding) -> Decision | None:
    """The move that a closed block asks for, by the first of these that holds: a limit was
    passed; the experiment is not sound; an alert; a guard found the candidate worse; the step has
    shown what it had to; its time is over. None: wait."""
    if stage.phase not in EXPOSED:
        return None
    if finding.limits:
        return roll_back(stage, "; ".join(finding.limits))
    unhealthy = {name: words for name, words in finding.unhealthy.items()
                 if name not in stage.overruled}  # fmt: skip
    if unhealthy:
        return _held(stage, "health", "; ".join(unhealthy.values()), unhealthy)
    if (found := _alarmed(plan, stage, finding) or _worse(stage, finding)) is not None:
        return found
    if stage.phase is Phase.HELD:
        healed = stage.held is not None and stage.held.kind == "health"
        if not healed or _would_hold(plan, stage, finding):
            return None
        return resume(plan, stage, "the experiment is sound again")
    return _in_time(plan, stage, finding)


def _held(stage: Stage, kind: Kind, why: str, causes: Iterable[str]) -> Decision | None:
    return None if stage.phase is Phase.HELD else hold(stage, kind, why, causes)


def _would_hold(plan: Plan, stage: Stage, finding: Finding) -> bool:
    """Whether it would be held again at once, for another reason."""
    going = replace(stage, phase=plan.steps[stage.step].phase)
    return (_alarmed(plan, going, finding) or _worse(going, finding)) is not None


def _alarmed(plan: Plan, stage: Stage, finding: Finding) -> Decision | None:
    alerts = {name: words for name, words in finding.alerts.items() if name not in stage.overruled}
    if not alerts or plan.on_alert == "ignore":
        return None
    why = "alert: " + "; ".join(alerts.values())
    if plan.on_alert == "rollback":
        return roll_back(stage, why)
    return _held(stage, "alert", why, alerts)


def _worse(stage: Stage, finding: Finding) -> Decision | None:
    worse = {name: do for name, do in finding.worse.items() if name not in stage.overruled}
    why = f"worse by the evidence: {', '.join(sorted(worse))}"
    if "rollback" in worse.values():
        return roll_back(stage, why)
    return _held(stage, "worse", why, worse) if worse else None


def _in_time(plan: Plan, stage: Stage, finding: Finding) -> Decision | None:
    step = plan.steps[stage.step]
    lasted = finding.at - stage.since
    if step.approval is not None:
        if is_approved(plan, stage, stage.step, finding.at):
            return go_on(plan, stage, "approved")
        if lasted > step.expires_ns:
            careful = "rollback" if plan.on_inconclusive == "rollback" else "hold"
            return _inconclusive(plan, stage, f"no {step.approval} approved in time", {careful})
        return None
    lacking = lacks(step, finding.safe)
    if lasted >= step.least_ns and not lacking:
        return go_on(plan, stage, "shown safe" if step.require else "the step's time has passed")
    if step.most_ns is not None and lasted >= step.most_ns:
        return _inconclusive(
            plan, stage, f"not shown safe in time: {', '.join(lacking)}",
            {plan.undecided.get(name, plan.on_inconclusive) for name in lacking},
        )  # fmt: skip
    return None


def lacks(step: Step, safe: frozenset[str]) -> list[str]:
    """Guards that the step waits for."""
    return sorted(step.require - safe)


def _inconclusive(plan: Plan, stage: Stage, why: str, wishes: Collection[str]) -> Decision:
    """Of several guards' wishes the most careful one."""
    if "rollback" in wishes:
        return roll_back(stage, why)
    if "hold" in wishes:
        return hold(stage, "inconclusive", why)
    return go_on(plan, stage, why)
