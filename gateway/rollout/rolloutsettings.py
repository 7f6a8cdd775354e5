"""What a rollout's file may say; each setting is declared once, as in `gateway/settings.py`.

Six lines are enough: a step may be written as one text (`shadow 30m`, `5% 30m`, `approval sre`,
`100% 24h`), and everything else has a default. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from gateway.declaration import MILLION, Duration, Name, Section, Share
from gateway.rollout.guardsettings import EDITION, GuardSettings, JudgeSettings
from gateway.rollout.lifecycle import Plan, Step

BILLION = 1_000_000_000
PATIENCE = 24
"""A step without `max` waits this many times its `min` for what it requires, and then holds."""
PATIENCE_BLOCKS = 180
"""But at least for the warm-up and so many blocks: half an hour of ten seconds."""
STEPS_MAX = 50
_TEXT = re.compile(r"^(shadow|approval|\d+(?:\.\d+)?(?:%|ppm))(?: (\S+))?$")


def _step(value: object) -> object:
    """`5% 30m` as {weight: 5%, min: 30m}; a mapping stays as it is."""
    if not isinstance(value, str):
        return value
    match = _TEXT.match(value)
    if match is None:
        words = "shadow 30m, 5% 30m, approval sre or 100% 24h is wanted, or a mapping"
        raise ValueError(words)
    what, more = match[1], match[2]
    if what == "approval":
        return {"approval": more or "sre"}
    if what == "shadow":
        return {"shadow": "100%"} | ({"min": more} if more else {})
    told = {"weight": what}
    if more:
        told["bake" if what in ("100%", "1000000ppm") else "min"] = more
    return told


class StepSettings(Section):
    shadow: Share | None = Field(None, description="A shadow step: of how much it gets a copy.")
    noise_sample: Share = Field(
        0, description="Shadow: copies that go to the stable version a second time."
    )
    weight: Share | None = Field(None, description="A canary step: the share that `to` answers.")
    approval: Literal["sre", "reviewer", "auditor", "privacy"] | None = Field(
        None, description="A step that waits for the yes of a person with this role."
    )
    expires: Duration = Field(
        86400.0,
        description="Approval: how long to wait for it, and how long one given early counts.",
    )
    min: Duration = Field(0.0, description="How long the step lasts at least.")
    max: Duration | None = Field(
        None,
        description=f"When `on_inconclusive` applies; absent: {PATIENCE} times `min`, at "
        f"least the warm-up and {PATIENCE_BLOCKS} blocks.",
    )
    require: tuple[Name, ...] | None = Field(
        None, description="Guards (or all) that must find `to` safe; absent: all, before 100 %."
    )
    bake: Duration | None = Field(
        None, description="Of 100 %: how long it is watched against the holdout."
    )

    @model_validator(mode="after")
    def is_one_thing(self) -> StepSettings:
        kinds = [self.shadow, self.weight, self.approval]
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("a step has one of `shadow`, `weight` and `approval`")
        if self.shadow == 0 or self.weight == 0:
            raise ValueError("a share above 0% is wanted")
        if self.bake is not None and self.weight != MILLION:
            raise ValueError("only `weight: 100%` bakes")
        if self.noise_sample and self.shadow is None:
            raise ValueError("`noise_sample` belongs to a shadow step")
        if self.max is not None and self.max < self.min:
            raise ValueError("`max` is shorter than `min`")
        return self


Steps = tuple[Annotated[StepSettings, BeforeValidator(_step)], ...]
Guards = tuple[GuardSettings, ...]


WITHOUT_SHADOW = ("errors", "latency_p95")


def _copies(step: object) -> bool:
    try:
        told = _step(step)
    except ValueError:  # told where the steps are read
        return False
    return isinstance(told, dict) and told.get("shadow") is not None


class RolloutSettings(JudgeSettings):
    """Everything in a rollout's file."""

    rollout: Name = Field(description="Its name.")
    model: Name = Field(description="The model.")
    rule: Name = Field(description="The model's rule whose split it owns while it runs.")
    from_: Name = Field(alias="from", description="The version that answers now.")
    to: Name = Field(description="The version that is to answer.")
    steps: Steps = Field(
        min_length=1, max_length=STEPS_MAX, description="Shadow first, then growing weights."
    )
    guards: Guards = Field(
        min_length=1, max_length=16,
        description="Questions asked of the evidence, by name; absent: errors, latency_p95 and, "
        "where a step is shadow, disagreement.",
    )  # fmt: skip
    owner: str = Field("", max_length=100, description="Who answers for it.")
    reason: str = Field("", max_length=500, description="Why; the ledger keeps it.")
    ticket: Annotated[str, StringConstraints(pattern=r"^\S*$")] = Field(
        "", max_length=100, description="Where it was asked for."
    )
    mode: Literal["act", "observe"] = Field(
        "act", description="observe: judge and say, but leave every move to people."
    )
    holdout: Share = Field(
        10_000, le=500_000, description="Stays on `from` to the end, for the bake to compare with."
    )
    second_person: bool = Field(
        False, description="Whether start, resume and promote need the yes of somebody else."
    )
    on_inconclusive: Literal["hold", "rollback", "advance"] = Field(
        "hold", description="What to do with what is undecided when a step's time is over."
    )
    on_alert: Literal["ignore", "hold", "rollback"] = Field(
        "ignore", description="What an open alert of `to` does."
    )
    alerts: tuple[str, ...] = Field(
        (), max_length=50, description="Causes of alerts that count, by their first words; all."
    )

    @model_validator(mode="before")
    @classmethod
    def guarded(cls, told: Any) -> Any:
        """Who copies and names no guard has the pairs judged: nothing else sees wrong answers."""
        if not isinstance(told, dict) or "guards" in told:
            return told
        steps = told.get("steps")
        copies = any(map(_copies, steps if isinstance(steps, list | tuple) else ()))
        return {**told, "guards": [*WITHOUT_SHADOW, *(["disagreement"] if copies else [])]}

    @model_validator(mode="after")
    def makes_sense(self) -> RolloutSettings:
        if self.from_ == self.to:
            raise ValueError("`from` and `to` are the same version")
        widths = [step.weight for step in self.steps if step.weight is not None]
        if sorted(set(widths)) != widths:
            raise ValueError("`steps`: each weight is greater than the one before it")
        if not widths or widths[-1] != MILLION:
            raise ValueError("`steps`: the last one is 100%")
        if self.steps[-1].weight != MILLION:
            raise ValueError("`steps`: nothing comes after 100%")
        first = next(n for n, step in enumerate(self.steps) if step.weight is not None)
        if any(step.shadow is not None for step in self.steps[first:]):
            raise ValueError("`steps`: shadow steps come before the first weight")
        if widths[-2:-1] and widths[-2] > MILLION - self.holdout:
            raise ValueError("`steps`: no weight below 100% is above 100% less the `holdout`")
        for place, step in enumerate(self.steps):
            known = {"all", *(guard.name for guard in self.guards)}
            if unknown := sorted(set(step.require or ()) - known):
                raise ValueError(f"`steps.{place}.require`: {unknown[0]} is no guard of it")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what it means, however it is written."""
        told = self.model_dump(mode="json", by_alias=True)
        return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def blocks_planned(self, of_pairs: bool) -> float | None:
        """By the `min` of the shadow steps, or of weights below 100 %, less the warm-up."""
        lasting = sum(
            step.min for step in self.steps
            if (step.shadow is not None if of_pairs else step.weight not in (None, MILLION))
        )  # fmt: skip
        if not lasting:
            return None
        return max(1.0, (lasting - self.evidence.warmup) / self.evidence.block)

    def plan(self, author: str, edition: int = EDITION) -> Plan:
        return Plan(
            tuple(self._steps(edition)), self.digest, author, self.mode == "act",
            self.on_inconclusive, self.on_alert,
            {one.name: one.on_inconclusive for one in self.guards if one.on_inconclusive},
        )  # fmt: skip

    def _steps(self, edition: int) -> Iterator[Step]:
        """Approvals keep the exposure of the step before them."""
        at = Step()
        for place, told in enumerate(self.steps):
            if told.approval is None:
                at = Step(
                    shadow_ppm=told.shadow or 0,
                    noise_ppm=told.noise_sample,
                    weight_ppm=min(told.weight or 0, MILLION - self.holdout),
                    bake=told.weight == MILLION,
                )
            least = told.bake if told.bake is not None else told.min
            yield Step(
                at.shadow_ppm, at.noise_ppm, at.weight_ppm, round(least * BILLION),
                self._most(told, least, edition), self._required(place), told.approval,
                round(told.expires * BILLION) if told.approval else 0, at.bake,
            )  # fmt: skip

    def _required(self, place: int) -> frozenset[str]:
        """Guards by name: those asked for; where nothing is said, all that can judge at this step,
        if it is the last shadow step or the last one before 100 %."""
        step = self.steps[place]
        shadowed = step.shadow is not None
        able = {one.name for one in self.guards if one.of_pairs == shadowed}
        able -= {one.name for one in self.guards if one.on_fail == "warn"}
        if step.require is not None:
            return frozenset(able if "all" in step.require else step.require)
        follows = [one for one in self.steps[place + 1 :] if one.approval is None]
        if step.approval is not None or step.weight == MILLION or not follows:
            return frozenset()
        last = follows[0].shadow is None if shadowed else follows[0].weight == MILLION
        return frozenset(able) if last else frozenset()

    def _most(self, told: StepSettings, least: float, edition: int) -> int | None:
        if told.max is not None:
            return round(told.max * BILLION)
        if told.bake is not None or not least:
            return None
        some = self.evidence.warmup + PATIENCE_BLOCKS * self.evidence.block
        return round(max(PATIENCE * least, some if edition > 1 else 0.0) * BILLION)


def settings_of(created: Mapping[str, Any]) -> RolloutSettings:
    """Of the leaf that created a rollout. Leaves say their guards; before that two were meant."""
    return RolloutSettings.model_validate({"guards": WITHOUT_SHADOW, **created["file"]})
