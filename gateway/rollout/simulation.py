"""Recorded evidence under other guards: what they would have said, and when.

The exposure was what it was; only guards, limits, health and levels are those of the other file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.clock import isoformat
from gateway.rollout.block import Block
from gateway.rollout.guardsettings import JudgeSettings
from gateway.rollout.judging import Judging


def simulate(settings: JudgeSettings, blocks: Iterable[Block]) -> dict[str, Any]:
    """For each guard the first time that it was sure, and how it stands in the end; when a limit
    would have rolled back, and what would have held it."""
    judging = Judging(settings, "from", "to")
    sure: dict[str, dict[str, Any]] = {}
    acts: list[dict[str, Any]] = []
    seen: set[str] = set()
    for block in blocks:
        finding = judging.take(block)
        at = {"block": block.number, "at": isoformat(block.ended)}
        for name, word in [*((name, "worse") for name in finding.worse),
                           *((name, "safe") for name in finding.safe)]:  # fmt: skip
            if name not in sure or sure[name]["verdict"] != word:
                sure[name] = at | {"verdict": word, "after_blocks": judging.blocks}
        for do, words in [*(("rollback", words) for words in finding.limits),
                          *(("hold", words) for words in finding.unhealthy.values())]:  # fmt: skip
            key = f"{do} {words.split(',')[0].split(' ', 1)[-1]}"
            if key not in seen:
                seen.add(key)
                acts.append(at | {"do": do, "why": words})
    return {
        "blocks": judging.blocks,
        "guards": [one | {"since": sure.get(one["guard"])} for one in judging.verdicts()],
        "acts": acts,
        "counts": judging.counts(),
    }
