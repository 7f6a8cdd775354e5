"""What a series remembers between windows: counts and names, nothing about any one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gateway.monitor.answers import Steps
from gateway.monitor.baseline import Baseline
from gateway.monitor.bias import Block, Fresh
from gateway.monitor.sequential import SequenceState
from gateway.monitor.slices import Slices

AGE_UNKNOWN = 2**62
"""When blocks of a former format began: they go by the count of decisions alone."""


@dataclass(frozen=True)
class SeriesState:
    """`number` of the last window (0 = none yet); the rest by cause (`feature/lvr`, `score`).

    `running`: windows in a row with drift. `suspected`: faults that the last judged window showed.
    `alarms`: causes that are alarming now. `pending`: by `key/value`, outcomes since a group was
    first seen below the ratio. `blocks`: group counts of the last decisions, oldest first; `begun`:
    when each block did. `sequence`: of the detectors at the last window's end; `baseline`: what
    production was until then; `slices`: and parts of it. `artifact`: the one that all of it is of;
    `anew`: that took the place of another since the last window; `steps`: in which scores came.
    """

    number: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    suspected: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    pending: Mapping[str, Fresh] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    begun: tuple[int, ...] = ()
    sequence: SequenceState = SequenceState()
    baseline: Baseline = Baseline()
    slices: Slices = Slices()
    artifact: str = ""
    anew: bool = False
    steps: Steps = Steps()

    def of_artifact(self, artifact: str) -> SeriesState:
        """For decisions of an artifact. What was learned of another one, under the same version
        name, says nothing of this one: only numbers go on, and alarms until they are judged."""
        if self.artifact == artifact:
            return self
        if not self.artifact:
            return replace(self, artifact=artifact)
        return SeriesState(number=self.number, alarms=self.alarms, artifact=artifact, anew=True)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SeriesState:
        """Read what `to_json` wrote; raises KeyError or TypeError for anything else."""
        return SeriesState(
            number=int(data["number"]),
            running=dict(data["running"]),
            suspected=tuple(data.get("suspected", ())),
            alarms=tuple(data["alarms"]),
            artifact=data.get("artifact", ""),
            anew=data.get("anew", False),
            steps=Steps.from_json(data.get("steps") or asdict(Steps())),
            pending={
                name: (since[0], since[1], since[2], since[3])
                for name, since in data["pending"].items()
                if not isinstance(since, int)  # a former format's count: the sight starts over
            },
            blocks=tuple(
                {
                    key: {value: (int(good), int(bad)) for value, (good, bad) in counts.items()}
                    for key, counts in block.items()
                }
                for block in data["blocks"]
            ),
            begun=tuple(data.get("begun") or (AGE_UNKNOWN for _ in data["blocks"])),
            baseline=Baseline.from_json(data.get("baseline") or asdict(Baseline())),
            slices=Slices.from_json(data.get("slices") or asdict(Slices())),
            sequence=SequenceState.from_json(data.get("sequence") or asdict(SequenceState())),
        )
