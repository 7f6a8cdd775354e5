"""Where a worker's time goes: py-spy's samples of its main thread, added up.

py-spy lives in an environment of its own (`scripts/benchmark` makes it). Threads that wait for a
pipe or for work look busy to it, so only stacks of the event loop are counted.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from load.processes import only_worker

LOOP = "Runner.run"
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Hotspots:
    """Shares of the samples of the event loop. `own` is code of this project."""

    samples: int
    own: float
    top: list[tuple[str, float]]
    stages: list[tuple[str, float]]


STAGES = (
    ("read and parse the request", "Protocol.data_received"),
    ("the story up to the upstream", "Handler._story"),
    ("of it: call the version", "Backend.call"),
    ("record: header, parts, append", "Handler._durable"),
    ("commit: write, submit", "Journal._commit"),
    ("commit: completed, waiters woken", "Journal._synced"),
    ("answer", "Turn.answer"),
    ("shadow", "Lane._work"),
    ("metrics", "Handler._count"),
)
"""What a request goes through, by the function that holds it; inclusive, so they may overlap."""


def parse(lines: Iterable[str]) -> Hotspots:
    """From py-spy's raw format: `frame;frame;frame count`, the outermost frame first."""
    own, total = 0, 0
    leaves: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for line in lines:
        stack, _, number = line.rstrip("\n").rpartition(" ")
        frames = stack.split(";")
        if not any(frame.startswith(LOOP) for frame in frames):
            continue
        times = int(number)
        total += times
        leaves[frames[-1]] += times
        own += times * ("(gateway/" in frames[-1])
        for name in {frame.partition(" ")[0] for frame in frames}:
            inside[name] += times
    if not total:
        raise ValueError("no sample of the event loop")
    top = [(frame, times / total) for frame, times in leaves.most_common(20)]
    stages = [(words, inside[name] / total) for words, name in STAGES if inside[name]]
    return Hotspots(total, own / total, top, stages)


class Recording:
    """py-spy beside a load: started before it, read after it."""

    def __init__(self, cache: Path, folder: Path, root: int, seconds: float) -> None:
        self.path = folder / "py-spy.raw"
        command = [str(cache / "py-spy" / "bin" / "py-spy"), "record",
                   "--pid", str(only_worker(root)), "--duration", str(max(1, round(seconds))),
                   "--rate", "400", "--format", "raw", "--function",
                   "--output", str(self.path)]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def read(self) -> Hotspots:
        """RuntimeError with py-spy's words where it may not look into another process."""
        _, words = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode:
            raise RuntimeError(words.strip()[-300:])
        return parse(self.path.read_text().splitlines())
