"""What a series remembers between windows: counts and names, nothing about any one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.monitor.baseline import Baseline
from gateway.monitor.bias import Block
from gateway.monitor.sequential import SequenceState


@dataclass(frozen=True)
class SeriesState:
    """`number` of the last window (0 = none yet); the rest by cause (`feature/lvr`, `score`).

    `running`: windows in a row with drift. `alarms`: causes that are alarming now. `pending`: by
    `key/value`, decisions since a group was first seen below the ratio. `blocks`: group counts of
    the last windows, oldest first. `sequence`: of the detectors at the last window's end;
    `baseline`: what production was until then.
    """

    number: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    pending: Mapping[str, int] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    sequence: SequenceState = SequenceState()
    baseline: Baseline = Baseline()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SeriesState:
        """Read what `to_json` wrote; raises KeyError or TypeError for anything else."""
        return SeriesState(
            number=int(data["number"]),
            running=dict(data["running"]),
            alarms=tuple(data["alarms"]),
            pending=dict(data["pending"]),
            blocks=tuple(
                {
                    key: {value: (int(good), int(bad)) for value, (good, bad) in counts.items()}
                    for key, counts in block.items()
                }
                for block in data["blocks"]
            ),
            baseline=Baseline.from_json(data.get("baseline") or asdict(Baseline())),
            sequence=SequenceState.from_json(data.get("sequence") or asdict(SequenceState())),
        )
