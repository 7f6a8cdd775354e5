"""How a rule's buckets are shared between versions: pure.

A split lays its versions side by side: the first is stable and takes what is left, the others lie
from 0 upward in the order listed. A rollout lays nested slices instead, so that a weight that grows
only ever adds units to the canary:

    0          w           max(500000, w)      + e                1000000 - h          1000000
    |  canary  |   stable  |      control      |      stable      |       holdout      |

The control is as wide as the canary where that much of stable is left below the holdout: `e`. Only
the first `e` buckets of the canary are compared with it (`Rollout.evidence_ppm`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.condition import Condition, compile_conditions
from gateway.declaration import MILLION
from gateway.exchange import Arm

HALF = MILLION // 2


@dataclass(frozen=True, slots=True)
class Interval:
    """Buckets `low <= ppm < high` go to `version`, as `arm`."""

    low: int
    high: int
    version: str
    arm: Arm = "canary"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout's hand on its rule: what the table has of it. `source` is stable until it ends.

    Shares in ppm of buckets; `noise_ppm` of primaries are asked twice, to know their own noise.
    """

    name: str
    attempt: int
    source: str
    target: str
    weight_ppm: int
    holdout_ppm: int
    shadow_ppm: int
    noise_ppm: int

    @staticmethod
    def read(told: Mapping[str, Any]) -> Rollout:
        """From a document. ValueError names what no table can have."""
        rollout = Rollout(
            name=told["name"],
            attempt=told["attempt"],
            source=told["from"],
            target=told["to"],
            weight_ppm=told["weight_ppm"],
            holdout_ppm=told.get("holdout_ppm", 0),
            shadow_ppm=told.get("shadow_ppm", 0),
            noise_ppm=told.get("noise_ppm", 0),
        )
        for share in ("weight_ppm", "holdout_ppm", "shadow_ppm", "noise_ppm"):
            if not 0 <= getattr(rollout, share) <= MILLION:
                raise ValueError(f"{share}: {getattr(rollout, share)} is no share of {MILLION}")
        if rollout.weight_ppm + rollout.holdout_ppm > MILLION:
            raise ValueError("weight_ppm and holdout_ppm are more than all buckets")
        if rollout.source == rollout.target:
            raise ValueError(f"from and to are both {rollout.source}")
        return rollout

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "attempt": self.attempt, "from": self.source, "to": self.target,
            "weight_ppm": self.weight_ppm, "holdout_ppm": self.holdout_ppm,
            "shadow_ppm": self.shadow_ppm, "noise_ppm": self.noise_ppm,
        }  # fmt: skip

    def salt(self, model: str, rule: str) -> bytes:
        """Another attempt draws other units, so that the same ones are not always first."""
        return f"{model}/{rule}/{self.name}#{self.attempt}".encode()

    @property
    def evidence_ppm(self) -> int:
        """Width of the canary's slice `[0, e)` that is compared with the control."""
        left = MILLION - self.holdout_ppm - max(HALF, self.weight_ppm)
        return max(0, min(self.weight_ppm, left))

    def intervals(self) -> tuple[Interval, ...]:
        """In order, without the stable ones between them."""
        weight, below = self.weight_ppm, MILLION - self.holdout_ppm
        start = max(HALF, weight)
        found = (
            Interval(0, weight, self.target, "canary"),
            Interval(start, start + self.evidence_ppm, self.source, "control"),
            Interval(below, MILLION, self.source, "holdout"),
        )
        return tuple(interval for interval in found if interval.low < interval.high)


def shared(split: Sequence[Sequence[Any]], holdout: int = 0) -> tuple[str, tuple[Interval, ...]]:
    """The stable version and the intervals of the others, of a split in its order: a version and
    its share, if it is told, each."""
    (stable, _), *others = split
    intervals, low = [], 0
    for version, share in others:
        if share:
            intervals.append(Interval(low, low + share, version))
            low += share
    assert low <= MILLION - holdout
    if holdout:
        intervals.append(Interval(MILLION - holdout, MILLION, stable, "holdout"))
    return stable, tuple(intervals)


@dataclass(frozen=True, slots=True)
class Copied:
    """A version that gets copies: of `share` ppm of the exchanges of which all conditions hold."""

    version: str
    share: int
    conditions: tuple[Condition, ...] = ()


def copied(told: Sequence[Sequence[Any]], rollout: Rollout | None) -> tuple[Copied, ...]:
    """From a document's `shadow`: version, share and, in some, a condition. A rollout's version is
    copied to as it says, or more where the rule wants more without condition."""
    found = {
        version: Copied(version, share, compile_conditions(when[0]) if when else ())
        for version, share, *when in told
    }
    if rollout is not None and rollout.shadow_ppm:
        before = found.get(rollout.target)
        wanted = before.share if before is not None and not before.conditions else 0
        share = max(rollout.shadow_ppm, wanted)
        found[rollout.target] = Copied(rollout.target, share)
    return tuple(found.values())
