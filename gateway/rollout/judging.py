"""What the guards, limits and checks of one attempt say after each block: a fold over blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.rollout.block import Block
from gateway.rollout.lifecycle import Finding, Plan
from gateway.rollout.rolloutsettings import RolloutSettings


class Judging:
    def __init__(self, settings: RolloutSettings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.blocks = self.late = 0
        self.over: list[int] = [0] * len(settings.limits)

    def begin_step(self, step: int, at: int) -> None:
        """The rollout is at another step from `at` (ns) on."""

    def take(self, block: Block) -> Finding:
        self.blocks += 1
        self.late += block.late
        limits = []
        for place, limit in enumerate(self.settings.limits):
            arm = block.canary
            enough = arm.exchanges >= limit.min_requests
            if limit.metric != "bad_ratio" or not enough:
                continue
            share = arm.bad_exchanges / arm.exchanges
            assert isinstance(limit.above, int)
            self.over[place] = self.over[place] + 1 if share * 1e6 > limit.above else 0
            if self.over[place] >= limit.for_:
                limits.append(f"{share:.0%} of the canary's answers failed")
        return Finding(block.ended, tuple(limits))

    def verdicts(self) -> list[dict[str, Any]]:
        return []

    def counts(self) -> dict[str, Any]:
        return {}

    def to_json(self) -> dict[str, Any]:
        return {"over": self.over}

    def restore(self, told: Mapping[str, Any]) -> None:
        self.over = list(told["over"])
