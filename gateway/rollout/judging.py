"""What the guards, limits and checks of one attempt say after each block: a fold over blocks.

The verdicts themselves are `guard.judge`'s; here they become what the life cycle asks for, and what
people read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.rollout import guard
from gateway.rollout.block import ArmCounts, Block, added
from gateway.rollout.guard import Judgement, LimitReached, Verdict
from gateway.rollout.guardsettings import EDITION, JudgeSettings
from gateway.rollout.lifecycle import Finding
from gateway.rollout.outlook import outlook
from gateway.rollout.sentences import foresee, say

TIMED = {"arm_degraded": "the canary was short of endpoints for {value:.0f} s"}


class Judging:
    def __init__(
        self, settings: JudgeSettings, source: str = "", target: str = "",
        shadowing: frozenset[int] | None = None, edition: int = EDITION,
    ) -> None:  # fmt: skip
        """`source`, `target`: what the versions are called in sentences. `shadowing`: the steps
        that copy, in which copies can be missed and come back; None: any may."""
        self.plan = guard.Plan(settings, edition=edition)
        self.names, self.shadowing = (source, target), shadowing
        self.state: guard.State | None = None
        self.blocks = self.late = 0
        self.canary = self.control = ArmCounts()

    def take(self, block: Block) -> Finding:
        """The next block, in order."""
        self.state, judgement = guard.judge(self.plan, self.state, block)
        self.blocks += 1
        self.late += block.late
        self.canary = added(self.canary, block.canary)
        self.control = added(self.control, block.control)
        if self.shadowing is not None and block.step not in self.shadowing:
            sound = tuple(one for one in judgement.ailments if one.name != "shadow_coverage")
            judgement = replace(judgement, ailments=sound)
        return finding(block.ended, judgement)

    def verdicts(self) -> list[dict[str, Any]]:
        """Each guard's, with e-values and the difference that was seen."""
        if self.state is None:
            return []
        asked = self.plan.settings.guards
        return [
            told(one) | {"words": say(each, one, *self.names)}
            for each, one in zip(asked, guard.readings(self.plan, self.state))
        ]

    def outlooks(self, within_s: float) -> list[dict[str, Any]]:
        """By guard, what would be found within a time and when it would be safe, at even odds."""
        if self.state is None:
            return []
        asked = {one.name: one for one in self.plan.settings.guards}
        return [
            {"guard": one.guard, "detectable": one.detectable, "safe_in_s": one.safe_in_s,
             "within_s": within_s, "words": foresee(asked[one.guard], one, within_s)}
            for one in outlook(self.plan, self.state, within_s)
        ]  # fmt: skip

    def counts(self) -> dict[str, Any]:
        """Of both arms since the attempt began."""
        return {name: arm_counts(arm) for name, arm in
                (("canary", self.canary), ("control", self.control))}  # fmt: skip

    def pairs(self) -> dict[str, int]:
        counts = self.state.counts if self.state is not None else None
        return {"eligible": counts.eligible, "compared": counts.compared} if counts else {}

    def to_json(self) -> dict[str, Any]:
        sums = Block("-", 0, 0, 0, 1, 0, self.canary, self.control)
        return {
            "state": self.plan.state_to_json(self.state) if self.state else None,
            "blocks": self.blocks, "late": self.late, "sums": sums.to_json(),
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.state = self.plan.read_state(saved["state"]) if saved["state"] else None
        self.blocks, self.late = saved["blocks"], saved["late"]
        sums = Block.read(saved["sums"])
        self.canary, self.control = sums.canary, sums.control


def finding(at: int, judgement: Judgement) -> Finding:
    """What a judgement asks for. What only warns asks for nothing."""
    unhealthy: dict[str, str] = {
        one.name: one.text for one in judgement.ailments if one.do == "hold"
    }
    worse = {one.guard: one.on_fail for one in judgement.verdicts
             if one.word == "worse" and one.on_fail != "warn"}  # fmt: skip
    reached = [one for one in judgement.limits if one.on_fail == "hold"]
    unhealthy |= {f"limit {one.metric}": _reached(one) for one in reached}
    limits = [_reached(one) for one in judgement.limits if one.on_fail == "rollback"]
    limits += [one.text for one in judgement.ailments if one.do == "rollback"]
    return Finding(
        at, tuple(limits), unhealthy,
        {name: "rollback" if do == "rollback" else "hold" for name, do in worse.items()},
        frozenset(one.guard for one in judgement.verdicts if one.word == "safe"),
    )  # fmt: skip


def _reached(limit: LimitReached) -> str:
    if limit.metric in TIMED:
        return TIMED[limit.metric].format(value=limit.value)
    if limit.metric == "bad_ratio":
        return (f"{limit.value:.1%} of the canary's answers failed, more than "
                f"{limit.above:.1%}, {limit.blocks} blocks running")  # fmt: skip
    what = limit.metric.removeprefix("latency_")
    return f"{what} of the canary is {limit.value:.3g} s, over {limit.above:g} s"


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict for the API, a leaf and the page."""
    return {
        "guard": verdict.guard, "verdict": verdict.word,
        "e_worse": _finite(verdict.top_worse), "need_worse": verdict.need_worse,
        "e_safe": _finite(verdict.log_safe), "need_safe": verdict.need_safe,
        "log_worse": verdict.top_worse, "log_safe": verdict.log_safe,
        "units": list(verdict.units), "on_fail": verdict.on_fail,
        "missing": verdict.why, "group": verdict.group, "difference": verdict.estimate,
        "interval": list(verdict.interval) if verdict.interval else None,
    }  # fmt: skip


def _finite(logarithm: float) -> float:
    return round(math.exp(min(logarithm, 60.0)), 6)


def arm_counts(arm: ArmCounts) -> dict[str, Any]:
    return {"exchanges": arm.exchanges, "failed": arm.bad_exchanges, "units": arm.units,
            "bad_units": arm.bad_units, "labels": arm.right + arm.wrong}  # fmt: skip
