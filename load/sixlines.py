"""Whole rollouts of six lines, by the guards and times that nothing is said about.

A step lasts as long as the real one: its `min`, and until what it requires is shown safe. Arms are
drawn apart from pairs, so that the shadow's length does not matter to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.rollout.guard import Plan
from gateway.rollout.rolloutsettings import RolloutSettings
from load import batch
from load.streams import Case

Array = NDArray[Any]
STEPS = ("shadow 2m", "5% 2m", "50% 2m", "100% 2m")
LEAST = 12
"""Blocks of two minutes, which each step lasts at least."""
SHADOW, WIDE = 60, 180
"""Blocks for which the shadow and the step of 50 % are waited for: ten minutes and thirty."""
NEVER = 10**6

_base = Case(
    name="", copied=1.0, shadow_blocks=SHADOW, ramp=((LEAST, 0.05), (WIDE, 0.5)),
    errors=(1e-4, 1e-4), disagree=0.002,
)  # fmt: skip
HEALTHY = (
    replace(_base, name="50 requests a second", per_block=500),
    replace(_base, name="100 requests a second"),
    replace(_base, name="200 requests a second", per_block=2000),
    replace(_base, name="100, errors 0.1 %", errors=(1e-3, 1e-3)),
    replace(_base, name="100, errors 1 %", errors=(0.01, 0.01)),
    replace(_base, name="100, errors 1 %, bursts of a block in one arm", errors=(0.01, 0.01),
            bursts=(0.02, 0.02), pair_bursts=0.03),
    replace(_base, name="100, ± 60 % over the rollout", cycle=0.6),
)  # fmt: skip
FAULTY = (
    replace(_base, name="labels in another order", disagree=0.9),
    replace(_base, name="5 % disagree", disagree=0.05),
    replace(_base, name="errors 0.01 % to 2 %", errors=(0.02, 1e-4)),
    replace(_base, name="errors 1 % to 2 %", errors=(0.02, 0.01)),
    replace(_base, name="errors 1 % to 5 %", errors=(0.05, 0.01)),
    replace(_base, name="errors 1 %, failing in bursts, 6 % of blocks", errors=(0.01, 0.01),
            bursts=(0.06, 0.0)),
    replace(_base, name="errors 0.01 %, failing in bursts, 6 % of blocks", bursts=(0.06, 0.0)),
    replace(_base, name="p95 25 % slower", slower=1.25),
    replace(_base, name="p95 50 % slower", slower=1.5),
    replace(_base, name="just tolerated: 2 % disagree", disagree=0.02),
    replace(_base, name="just tolerated: errors 0.01 % to 0.21 %", errors=(0.0021, 1e-4)),
    replace(_base, name="just tolerated: p95 15 % slower", slower=1.15),
    replace(_base, name="bursts alone, 1 % of blocks, which no eight minutes show",
            bursts=(0.01, 0.0)),
)  # fmt: skip


def lines(shadow: bool) -> Plan:
    steps = STEPS if shadow else STEPS[1:]
    return Plan(RolloutSettings.model_validate(
        {"rollout": "six", "model": "m", "rule": "all", "from": "v1", "to": "v2", "steps": steps}
    ))  # fmt: skip


@dataclass(frozen=True)
class Ends:
    """By run, in blocks from the start: when it was promoted, and when it was called worse before
    that; NEVER. `blamed`: whether any guard said worse at all, had it been let go on."""

    promoted: Array
    worse: Array
    blamed: Array


def ends(plan: Plan, case: Case, traffic: Sequence[Any]) -> Ends:
    """`traffic`: sides and pairs of each run."""
    said = batch.judged(plan, case, [one for one, _ in traffic], [one for _, one in traffic])
    start = case.shadow_blocks
    worse = {name: np.where(one.first["worse"] > 0, one.first["worse"], NEVER)
             for name, one in said.items()}  # fmt: skip
    shadowed = copies = np.zeros(len(traffic))
    if "disagreement" in said:
        shadowed = _both_safe([said["disagreement"]], LEAST)
        copies = np.where(worse["disagreement"] <= shadowed, worse["disagreement"], NEVER)
    else:
        copies = np.full(len(traffic), NEVER)
    safe = _both_safe([said["errors"], said["latency_p95"]], start + 2 * LEAST)
    found = np.minimum(worse["errors"], worse["latency_p95"])
    by_copies, through = copies < NEVER, (copies >= NEVER) & (safe < found)
    by_arms = ~by_copies & (found <= safe) & (found < NEVER)
    since = shadowed - start
    return Ends(
        np.where(through & (shadowed < NEVER), since + safe + LEAST, NEVER),
        np.where(by_copies, copies, np.where(by_arms, since + found, NEVER)),
        np.any([one < NEVER for one in worse.values()], axis=0),
    )  # fmt: skip


def joined(parts: Sequence[Ends]) -> Ends:
    return Ends(*(np.concatenate(one) for one in zip(*(
        (part.promoted, part.worse, part.blamed) for part in parts
    ))))  # fmt: skip


def _both_safe(guards: Sequence[batch.Said], least: int) -> Array:
    """The first block, from `least` on, after which all of them are safe."""
    first = np.full(guards[0].runs, NEVER)
    for each in zip(*(one.safe for one in guards)):
        place = each[0][0]
        if place >= least:
            now = np.all([safe for _, safe in each], axis=0)
            first = np.where((first == NEVER) & now, place, first)
    return first


def minutes(blocks: Array, share: float) -> str:
    """A quantile over all runs, in minutes; those that never come are the longest."""
    at = float(np.quantile(blocks, share, method="inverted_cdf"))
    return f"{at / 6:.1f}" if at < NEVER / 2 else ""
