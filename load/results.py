"""All that a run found out, as it is written down and read again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from load.trial import ROOT, Sample, sample_of


@dataclass(slots=True)
class Results:
    """`skipped`: what was left out, and why. `instructions`, `hotspots` and `machine_code`: by
    scenario."""

    command: str
    machine: dict[str, Any]
    date: str
    commit: str
    versions: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    instructions: dict[str, Any] = field(default_factory=dict)
    hotspots: dict[str, Any] = field(default_factory=dict)
    machine_code: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    def joined(self, more: Results) -> Results:
        """A later run's rounds behind this one's; what both say is as the later one has it."""
        behind = 1 + max((sample.round for sample in self.samples), default=-1)
        commits = list(dict.fromkeys((self.commit, more.commit)))
        further = {f"further {name}" if name.startswith("round ") else name: why
                   for name, why in more.skipped.items()}  # fmt: skip
        return Results(
            f"{self.command}` and `{more.command}", more.machine, f"{self.date} and {more.date}",
            " and ".join(commits), self.versions | more.versions, self.titles | more.titles,
            self.skipped | further,
            [*self.samples, *(replace(one, round=one.round + behind) for one in more.samples)],
            self.instructions | more.instructions, more.hotspots or self.hotspots,
            more.machine_code or self.machine_code, self.seconds + more.seconds,
        )  # fmt: skip


def read(path: Path) -> Results:
    document = json.loads(path.read_text())
    document["samples"] = [sample_of(sample) for sample in document["samples"]]
    return Results(**document)


def machine() -> dict[str, Any]:
    """Where the run is made."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """Of the sources that are measured; `-dirty` where they differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"
