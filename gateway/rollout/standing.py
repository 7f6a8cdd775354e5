"""How a rollout stands, as a document: for the API, the command and the page. Pure.

Evidence is told as a bar: how much there is of how much is needed. Nobody needs statistics to read
"7.9 of 20"; whoever knows them finds an e-value and its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.clock import isoformat
from gateway.declaration import MILLION
from gateway.rollout.attempt import Attempt
from gateway.rollout.lifecycle import Phase, Step, lacks

SECOND = 1_000_000_000
AHEAD_BLOCKS = 360
"""How far ahead is looked: an hour of blocks of ten seconds."""


def summary(attempt: Attempt, troubles: Mapping[str, str]) -> dict[str, Any]:
    """One line of a list."""
    settings, stage = attempt.settings, attempt.stage
    step = attempt.plan.steps[stage.step] if stage.step >= 0 else None
    return {
        "rollout": attempt.name, "attempt": attempt.number, "model": settings.model,
        "rule": settings.rule, "from": settings.from_, "to": settings.to,
        "phase": stage.phase, "step": stage.step + 1, "steps": len(attempt.plan.steps),
        "exposure": _exposure(attempt, step),
        "weight_ppm": step.weight_ppm if step is not None and attempt.is_exposed else 0,
        "mode": settings.mode, "why": why(attempt), "trouble": troubles.get(attempt.name),
    }  # fmt: skip


def standing(attempt: Attempt, now: int, troubles: Mapping[str, str]) -> dict[str, Any]:
    """Everything; `now` in ns."""
    stage, settings = attempt.stage, attempt.settings
    lasted = (now - stage.since) // SECOND if attempt.is_exposed else 0
    return summary(attempt, troubles) | {
        "author": attempt.author, "owner": settings.owner, "reason": settings.reason,
        "ticket": settings.ticket, "digest": attempt.plan.digest,
        "began": isoformat(attempt.created["at"]),
        "since": isoformat(stage.since) if stage.since else None, "lasted_s": lasted,
        "plan": [
            _step(step, place, stage.step + (stage.phase is Phase.PROMOTED))
            | {"how": attempt.left.get(place)}
            for place, step in enumerate(attempt.plan.steps)
        ],
        "held": {"kind": stage.held.kind, "why": stage.held.why, "causes": list(stage.held.causes)}
        if stage.held else None,
        "overruled": sorted(stage.overruled),
        "asked": {"what": attempt.asked.what, "by": attempt.asked.by, "why": attempt.asked.why}
        if attempt.asked else None,
        "approvals": [{"by": one.by, "step": one.step + 1, "at": isoformat(one.at)}
                      for one in stage.approvals],
        "evidence": {
            "alpha": settings.evidence.alpha, "beta": settings.evidence.beta,
            "block_s": settings.evidence.block, "blocks": attempt.judging.blocks,
            "late": attempt.judging.late, "units_refused": attempt.tally.units_refused,
        },
        "guards": attempt.judging.verdicts(),
        "outlook": attempt.judging.outlooks(AHEAD_BLOCKS * settings.evidence.block)
        if attempt.is_exposed else [],
        "counts": attempt.judging.counts(),
        "pairs": attempt.judging.pairs(),
        "unhealthy": dict(attempt.finding.unhealthy) if attempt.finding else {},
        "would": would(attempt),
    }  # fmt: skip


def _exposure(attempt: Attempt, step: Step | None) -> str:
    if attempt.stage.phase is Phase.PROMOTED:
        return "everybody"
    return exposure(step) if step is not None and not attempt.is_over else "nobody"


def exposure(step: Step) -> str:
    """Who is exposed at a step, in words."""
    if step.bake and step.weight_ppm == MILLION:
        return "everybody, baking by limits alone: there is no holdout to compare with"
    if step.bake:
        return f"{step.weight_ppm / 10_000:g} % of units, baking"
    if step.weight_ppm:
        return f"{step.weight_ppm / 10_000:g} % of units"
    return f"shadow of {step.shadow_ppm / 10_000:g} %" if step.shadow_ppm else "nobody"


def _step(step: Step, place: int, at: int) -> dict[str, Any]:
    return {
        "step": place + 1,
        "what": f"approval by a {step.approval}" if step.approval else exposure(step),
        "min_s": step.least_ns // SECOND,
        "max_s": step.most_ns // SECOND if step.most_ns is not None else None,
        "requires": sorted(step.require),
        "state": "done" if place < at else "now" if place == at else "ahead",
    }


def would(attempt: Attempt) -> str | None:
    """What a rollout that only observes would have done, in words."""
    if attempt.plan.acts or (decision := attempt.wish()) is None:
        return None
    return f"{decision.move}: {decision.why}"


def why(attempt: Attempt) -> str:
    """Why it is where it is, in one sentence."""
    stage = attempt.stage
    if stage.phase is Phase.DRAFT:
        asked = attempt.asked
        return f"waits for a second person: {asked.what}" if asked else "waits for an approval"
    if stage.phase is Phase.APPROVED:
        return f"is about to begin: {attempt.last_why}"
    if stage.held is not None:
        return f"held ({stage.held.kind}): {stage.held.why}"
    if attempt.is_over:
        return attempt.last_why
    step = attempt.plan.steps[stage.step]
    if step.approval is not None:
        return f"waits for the approval of a {step.approval}"
    finding = attempt.finding
    at = finding.at if finding is not None else stage.since
    left = step.least_ns - (at - stage.since)
    lacking = lacks(step, finding.safe if finding is not None else frozenset())
    if left > 0 and not lacking:
        return f"the step lasts another {-(-left // SECOND)} s at least"
    if lacking:
        return f"not shown safe yet: {', '.join(lacking)}"
    return "goes on with the next block"
