"""The goals of the data path, held against a run. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from load.figures import Spread, ratios
from load.scenario import CONCURRENCY, SCENARIOS
from load.tables import ALONE, AT, MAIN, Samples, cpu_path, number, per_second, ranged, share

WORKER_MIB = 120
TIMES = {("mlserver", MAIN): 5, ("portkey", "chat"): 15, ("litellm", "chat"): 80}
"""How many times a peer's requests a second ours are to be, by peer and scenario."""
ADDED_MS = {"p50": 0.5, "p99": 2.0}
"""What may be added at half of saturation, at the most."""
SHORT = tuple(name for name in SCENARIOS if name != "binary-1m")
LONG = max(CONCURRENCY)
"""So many bodies are held together: what bounds them is a setting, `overload.bodies`."""


@dataclass(frozen=True, slots=True)
class Goal:
    """`verdict`: met, missed (by how much), or not measured."""

    words: str
    wanted: str
    found: str
    verdict: str


def judge(words: str, found: Spread | None, *, most: float = 0, least: float = 0,
          unit: str = "") -> Goal:  # fmt: skip
    """One goal: the median at `most`, or at `least`, whichever is given."""
    wanted = f"≤ {most:g}{unit}" if most else f"≥ {least:g}{unit}"
    if found is None:
        return Goal(words, wanted, "–", "not measured")
    met = found.median <= most if most else found.median >= least
    factor = found.median / most if most else least / max(found.median, 1e-9)
    verdict = "met" if met else f"**missed** by {number(factor)} ×"
    return Goal(words, wanted, ranged(found, unit), verdict)


def goals(samples: Samples) -> Iterator[Goal]:
    """Each goal of the design, in its order."""
    ours, main = ("headworks", MAIN), "v2 JSON 200 B"
    envoy = samples.ratio(ours, ("envoy", MAIN), AT, cpu_path)
    yield judge(f"CPU, {main}, {AT} connections, of Envoy's: bar", envoy, most=1.5, unit=" ×")
    yield judge("the same: aim", envoy, most=1.0, unit=" ×")
    for name, how in (("headworks", ""), (ALONE, ", workers alone")):
        mlserver = samples.ratio((name, MAIN), ("mlserver", MAIN), AT, per_second)
        words = f"requests/s, of MLServer's with an empty model{how}"
        yield judge(words, mlserver, least=TIMES["mlserver", MAIN], unit=" ×")
        for peer, title in (("portkey", "Portkey"), ("litellm", "LiteLLM")):
            chat = samples.ratio((name, "chat"), (peer, "chat"), AT, per_second)
            words = f"requests/s, chat body, of {title}'s{how}"
            yield judge(words, chat, least=TIMES[peer, "chat"], unit=" ×")
    hop = samples.ratio(("headworks", "onnx"), ours, AT, cpu_path)
    yield judge("CPU, ONNX in the process, of our own HTTP hop", hop, most=1.0, unit=" ×")
    yield judge("the same, of that hop and the server it leads to", _served(samples), most=1.0,
                unit=" ×")  # fmt: skip
    for name, how in (("headworks", ""), (ALONE, ", workers alone")):
        for kind, most in ADDED_MS.items():
            added = samples.added(name, kind)
            yield judge(f"added {kind} at half of saturation{how}", added, most=most, unit=" ms")
    tail = samples.ratio(ours, ("envoy", MAIN), 256, share("p99"))
    yield judge("p99 at 256 connections, of Envoy's", tail, most=3, unit=" ×")
    chunks = samples.ratio(("headworks", "sse"), ("envoy", "sse"), AT, per_second)
    yield judge(f"SSE chunks/s, {AT} streams, of Envoy's", chunks, least=0.5, unit=" ×")
    for words, scenarios in (("", SHORT), (f", {LONG} bodies of 1 MB at once", ("binary-1m",))):
        worker = samples.memory("headworks", scenarios).get("worker")
        size = Spread(worker, worker, worker) if worker else None
        yield judge(f"memory of a worker{words}", size, most=WORKER_MIB, unit=" MiB")


def _served(samples: Samples) -> Spread | None:
    """ONNX in the process by the same model behind a hop: the hop's CPU and MLServer's."""
    inside, hop, there = (
        samples.rounds(name, scenario, AT, cpu_path)
        for name, scenario in (("headworks", "onnx"), ("headworks", MAIN), ("mlserver", "onnx"))
    )
    both = {number: hop[number] + there[number] for number in hop.keys() & there.keys()}
    return ratios(inside, both)
