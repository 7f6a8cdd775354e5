"""What a rollout is judged by: guards, limits, evidence, health; parts of the rollout's file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gateway.declaration import Duration, Name, Section, Share

Metric = Literal[
    "bad_ratio", "latency", "disagree", "flips", "positive_rate_gap", "score", "label_correct",
    "tokens",
]  # fmt: skip
Stat = Literal[
    "p50", "p90", "p95", "p99", "mean", "ks_to_reference", "psi_to_reference",
    "wasserstein_to_reference",
]  # fmt: skip
Phase = Literal["shadow", "canary"]
Action = Literal["rollback", "hold", "warn"]

_TOLERANCE = re.compile(r"^(?:x(\d+(?:\.\d+)?)|([+-]\d+(?:\.\d+)?)(pp)?)$")
_FOR = re.compile(r"^(\d+) blocks?$")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
RELATIVE = ("latency", "tokens")
"""Metrics that are compared as a ratio, `x1.15`; the others as a difference, `+0.2pp`."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse than the control is still well. `x1.15`: a factor; `+0.2pp`: a difference."""

    amount: float
    factor: bool
    text: str

    def __str__(self) -> str:
        return self.text


def _tolerance(value: object) -> Tolerance:
    if isinstance(value, Tolerance):
        return value
    match = _TOLERANCE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a tolerance is wanted, as +0.2pp, -0.5pp, +0.03 or x1.15")
    if match[1] is not None:
        return Tolerance(float(match[1]), True, match[0])
    return Tolerance(float(match[2]) / (100 if match[3] else 1), False, match[0])


def _blocks(value: object) -> int:
    match = _FOR.match(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 1000:
        raise ValueError("a number of blocks is wanted, as 2 blocks")
    return int(match[1])


WorseThan = Annotated[
    Tolerance, BeforeValidator(_tolerance),
    WithJsonSchema({"type": "string", "pattern": _TOLERANCE.pattern, "examples": ["+0.2pp"]}),
]  # fmt: skip
Blocks = Annotated[
    int, BeforeValidator(_blocks),
    WithJsonSchema({"type": "string", "pattern": _FOR.pattern, "examples": ["2 blocks"]}),
]  # fmt: skip
Fraction = Annotated[float, Field(gt=0, lt=1)]

EDITION = 2
"""Of the forms that judge. A rollout's first leaf names it, and it is judged by that to its end:
leaves of before name none, which is 1 (docs/verdicts.md says what became other)."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "errors": {"metric": "bad_ratio", "worse_than": "+0.2pp", "critical": True},
    "latency_p95": {"metric": "latency", "stat": "p95", "worse_than": "x1.15"},
    "latency_p99": {"metric": "latency", "stat": "p99", "worse_than": "x1.25"},
    "disagreement": {"metric": "disagree", "max": "2%", "on_fail": "hold"},
    "flips": {"metric": "flips", "max": "1%", "on_fail": "hold"},
    "fairness": {"metric": "positive_rate_gap", "worse_than": "+1pp", "on_fail": "hold"},
    "score_shift": {"metric": "score", "stat": "ks_to_reference", "worse_than": "+0.03",
                    "on_fail": "hold"},
    "accuracy": {"metric": "label_correct", "worse_than": "-0.5pp"},
    "tokens": {"metric": "tokens", "worse_than": "x1.1", "on_fail": "hold"},
}  # fmt: skip
"""What a guard of this name is where the file says nothing else."""

_PAIRED = ("disagree", "flips")
_STATS = {"latency": tuple(QUANTILES) + ("mean",), "score": (
    "ks_to_reference", "psi_to_reference", "wasserstein_to_reference")}  # fmt: skip
_DEFAULT_STAT = {"latency": "p95", "score": "ks_to_reference"}


class GuardSettings(Section):
    """One question that is asked of the evidence after every block."""

    name: Name = Field(description="Its name; some names bring their own settings.")
    metric: Metric = Field(description="What is compared.")
    stat: Stat | None = Field(None, description="Which statistic of it, for latency and score.")
    worse_than: WorseThan | None = Field(
        None, description="How much worse than the control is still well."
    )
    max: Share | None = Field(
        None, description="disagree, flips: largest share that is still well, in ppm or %."
    )
    corrected: bool = Field(
        False, description="disagree: beyond what the primary disagrees with itself."
    )
    by: Name | None = Field(
        None, description="Key of monitor.groups: each group is judged against the others."
    )
    min_per_group: int = Field(
        300, ge=20, le=1_000_000, description="Decisions of a group in each arm, before a verdict."
    )
    phase: Phase | None = Field(
        None, description="shadow: by pairs; canary: against the control. Absent: as the metric is."
    )
    critical: bool = Field(
        False,
        description="Gets twice the share of alpha that another guard gets; one on the "
        "share of a shadow's pairs that is not critical gets a quarter.",
    )
    independent: bool = Field(
        False,
        description="bad_ratio, label_correct: bad events never come in bursts. Then a test that "
        "counts single events joins: it finds less sooner, and is wrong when they do.",
    )  # fmt: skip
    on_fail: Action = Field("rollback", description="What is done when it is shown worse.")
    on_inconclusive: Literal["hold", "rollback", "advance"] | None = Field(
        None, description="At the step's max without a verdict; absent: as the rollout says."
    )
    share_of_alpha: Fraction | None = Field(
        None, description="Part of the rollout's alpha; absent: as `critical` says, of the rest."
    )
    label_delay: Duration | None = Field(
        None, description="label_correct: labels that come sooner do not count; absent: all do."
    )

    @model_validator(mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        """A name alone, or a name whose defaults are changed."""
        if isinstance(value, str):
            if value not in DEFAULTS:
                raise ValueError(
                    f"{value!r} is no guard by name alone; these are: {', '.join(DEFAULTS)}"
                )
            value = {"name": value}
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            defaults = DEFAULTS.get(value["name"], {})
            if value.get("metric", defaults.get("metric")) == defaults.get("metric"):
                value = {**defaults, **value}
        return value

    @model_validator(mode="after")
    def fits(self) -> GuardSettings:
        for problem in _problems(self):
            raise ValueError(f"guard {self.name}: {problem}")
        return self

    @property
    def of_pairs(self) -> bool:
        """Whether it is judged by a shadow's pairs rather than by two arms."""
        return self.metric in _PAIRED or self.phase == "shadow"

    @property
    def of_shares(self) -> bool:
        """Whether it bets on the share of a shadow's pairs in which something was so."""
        return self.max is not None and not self.corrected

    @property
    def statistic(self) -> str | None:
        return self.stat or _DEFAULT_STAT.get(self.metric)

    @property
    def higher_is_worse(self) -> bool:
        return self.metric != "label_correct"


def _problems(guard: GuardSettings) -> list[str]:
    found = []
    paired = guard.metric in _PAIRED
    if paired and guard.phase == "canary":
        found.append(f"{guard.metric} is of a shadow's pairs; phase canary has none")
    if guard.phase == "shadow" and guard.metric not in (*_PAIRED, "positive_rate_gap",
                                                        "label_correct"):  # fmt: skip
        found.append(
            f"{guard.metric} is not compared in pairs; phase shadow cannot be judged by it"
        )
    if guard.stat is not None and guard.stat not in _STATS.get(guard.metric, ()):
        wanted = ", ".join(_STATS.get(guard.metric, ())) or "none"
        found.append(f"stat {guard.stat} is not of {guard.metric}; it has {wanted}")
    if paired and (guard.max is None or guard.worse_than is not None):
        found.append(f"{guard.metric} wants max, as 2%, and no worse_than")
    if paired and guard.max is not None and not guard.max < 1_000_000:
        found.append("max is below 100%")
    if not paired and (guard.worse_than is None or guard.max is not None):
        found.append(f"{guard.metric} wants worse_than and no max")
    found += _tolerance_problems(guard)
    if guard.corrected and guard.metric != "disagree":
        found.append("corrected is for disagree")
    if (guard.by is not None) != (guard.metric == "positive_rate_gap"):
        found.append("by is for positive_rate_gap, which wants it: a key of monitor.groups")
    if guard.independent and (guard.metric not in ("bad_ratio", "label_correct")
                              or guard.of_pairs):  # fmt: skip
        found.append("independent is for bad_ratio and label_correct against a control")
    if guard.label_delay is not None and guard.metric != "label_correct":
        found.append("label_delay is for label_correct")
    return found


def _tolerance_problems(guard: GuardSettings) -> list[str]:
    tolerance = guard.worse_than
    if tolerance is None:
        return []
    if tolerance.factor != (guard.metric in RELATIVE):
        example = "a factor, as x1.15" if guard.metric in RELATIVE else "a difference, as +0.2pp"
        return [f"worse_than of {guard.metric} is {example}, not {tolerance}"]
    if tolerance.factor and not 1 <= tolerance.amount <= 100:
        return [f"worse_than {tolerance} is not in x1 .. x100"]
    if not tolerance.factor:
        worse = tolerance.amount if guard.higher_is_worse else -tolerance.amount
        if worse < 0:
            return [f"worse_than {tolerance} is not worse: {guard.metric} is worse when "
                    f"{'higher' if guard.higher_is_worse else 'lower'}"]  # fmt: skip
        if worse >= 1 and guard.metric != "score":
            return [f"worse_than {tolerance} is no difference of shares"]
    return []


class LimitSettings(Section):
    """No statistics: counts every exchange, and acts at once."""

    metric: Literal["bad_ratio", "arm_degraded", "latency_p95", "latency_p99"] = Field(
        description="What is limited, in the canary."
    )
    above: Share | Duration | None = Field(
        None, description="bad_ratio: a share, as 20%; latency: a duration, as 5s."
    )
    for_: Blocks | Duration = Field(
        2, alias="for", description="In how many blocks running, or (arm_degraded) how long."
    )
    min_requests: int = Field(
        30, ge=1, le=1_000_000, description="Exchanges in the block, else it does not count."
    )
    on_fail: Action = Field("rollback", description="What is done at the limit.")

    @model_validator(mode="before")
    @classmethod
    def typed(cls, value: Any) -> Any:
        """Which of the two units a value has depends on the metric; say the one that is wanted."""
        if not isinstance(value, dict):
            return value
        metric, above, lasts = value.get("metric"), value.get("above"), value.get("for")
        if metric == "bad_ratio" and not str(above).endswith(("%", "ppm")):
            raise ValueError(f"above: a share is wanted, as 20%, not {above!r}")
        if metric in ("latency_p95", "latency_p99") and not re.search(r"\d(ms|s|m)$", str(above)):
            raise ValueError(f"above: a duration is wanted, as 5s, not {above!r}")
        if metric == "arm_degraded":
            if above is not None:
                raise ValueError("arm_degraded has no above: it is so or not; `for` says how long")
            value = {"for": "30s", **value}
        elif isinstance(lasts, str) and not _FOR.match(lasts):
            raise ValueError(f"for: a number of blocks is wanted, as 2 blocks, not {lasts!r}")
        return value


class EvidenceSettings(Section):
    alpha: Fraction = Field(
        0.02, description="Chance that a version like the control is called worse, by any guard."
    )
    beta: Fraction = Field(
        0.05,
        description="Chance that a guard ever calls safe what is worse than it tolerates; of "
        "bursts, worse than the steps' time can exclude.",
    )
    block: Duration = Field(10.0, ge=1, le=600, description="Length of a block.")
    warmup: Duration = Field(
        60.0,
        ge=0,
        le=86400,
        description="No evidence of arms after the canary's first exchange, nor of pairs after the "
        "first one.",
    )
    min_requests: int = Field(
        200, ge=10, le=1_000_000, description="Units in each arm, before a guard gives a verdict."
    )


class NoTraffic(Section):
    after: Duration = Field(900.0, description="Without an exchange of the canary.")
    do: Literal["hold", "rollback", "warn"] = Field("hold", description="What is done then.")


class Coverage(Section):
    below: Share = Field(950_000, description="Share of eligible primaries whose shadow compared.")
    do: Literal["hold", "rollback", "warn"] = Field("hold", description="What is done then.")


class HealthSettings(Section):
    """Whether the experiment itself can be believed."""

    sample_ratio: Literal["hold", "rollback", "warn"] = Field(
        "hold", description="The arms' units do not come as the slices are wide."
    )
    no_traffic: NoTraffic = Field(NoTraffic(), description="Nothing arrives.")
    shadow_coverage: Coverage = Field(Coverage(), description="Shadows are dropped.")


class JudgeSettings(Section):
    """What verdicts depend on; the rollout's file has more."""

    guards: tuple[GuardSettings, ...] = Field(
        max_length=16, description="Questions asked of the evidence, at least one."
    )
    limits: tuple[LimitSettings, ...] = Field(
        (LimitSettings(metric="bad_ratio", above="20%"), LimitSettings(metric="arm_degraded")),
        max_length=16, description="What acts at once, without statistics.",
    )  # fmt: skip
    evidence: EvidenceSettings = Field(EvidenceSettings(), description="How sure is sure.")
    health: HealthSettings = Field(HealthSettings(), description="When evidence is not believed.")

    def blocks_planned(self, of_pairs: bool) -> float | None:
        """Blocks of evidence that the steps give to pairs, or to two arms; None: no step does."""
        return None

    @field_validator("guards")
    @classmethod
    def alpha_is_enough(cls, guards: tuple[GuardSettings, ...]) -> tuple[GuardSettings, ...]:
        names = [guard.name for guard in guards]
        if not names:
            raise ValueError("at least one guard is wanted")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"guards named twice: {', '.join(twice)}")
        asked = sum(guard.share_of_alpha or 0 for guard in guards)
        others = [guard.name for guard in guards if guard.share_of_alpha is None]
        if asked > 1 + 1e-9 or (others and asked > 1 - 1e-9):
            raise ValueError(
                f"share_of_alpha sums to {asked:g}"
                + (f" and leaves nothing for {', '.join(others)}" if others else ": more than 1")
            )
        return guards
