"""What a witness shows of itself: a page of text for people, numbers for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.clock import isoformat
from gateway.witness.state import ALARMS_PER_LOG_MAX, WitnessState

NANO = 1_000_000_000


@dataclass
class Seen:
    """Counted since the start. `answers` by what was answered."""

    started: int
    answers: Counter[str] = field(default_factory=Counter)
    connections_refused: int = 0
    alarms_not_kept: int = 0


def page(state: WitnessState, seen: Seen) -> str:
    """Alarms first; then each log with the size and time of its last cosigned checkpoint."""
    lines = [
        f"Headworks witness {state.key.name}",
        f"vkey      {state.key.verifier}",
        f"started   {isoformat(seen.started * NANO)}",
        f"logs      {len(state.logs)}",
        f"alarms    {len(state.alarms) or 'none'}",
        f"answers   {', '.join(f'{name} {n}' for name, n in sorted(seen.answers.items()))}",
        "",
    ]
    for alarm in sorted(state.alarms.values(), key=lambda each: each.at):
        lines += [
            f"ALARM {isoformat(alarm.at * NANO)} {alarm.kind}: {alarm.origin}",
            f"      refused: {alarm.size} leaves, root {alarm.root}",
            f"      {alarm.words}",
            f"      evidence: alarms/{alarm.file}",
            "",
        ]
    if state.alarms:
        more = f"{seen.alarms_not_kept} more since the start were refused and not kept"
        lines += [f"{ALARMS_PER_LOG_MAX} alarms of one log are kept at most; {more}.", ""]
    for origin, held in sorted(state.logs.items()):
        root = held.checkpoint.root.hex()
        lines.append(f"{isoformat(held.at * NANO)} {held.checkpoint.size:>12} {root} {origin}")
    return "\n".join(lines) + "\n"


class _Numbers(Collector):
    def __init__(self, state: WitnessState, seen: Seen) -> None:
        self._state, self._seen = state, seen

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        size = GaugeMetricFamily("witness_log_size", "Leaves cosigned.", labels=["origin"])
        at = GaugeMetricFamily(
            "witness_log_cosigned_seconds", "POSIX time of the last cosignature.", labels=["origin"]
        )
        for origin, held in self._state.logs.items():
            size.add_metric([origin], held.checkpoint.size)
            at.add_metric([origin], held.at)
        yield size
        yield at
        yield GaugeMetricFamily(
            "witness_alarms", "Refused forks on record.", value=len(self._state.alarms)
        )
        answers = CounterMetricFamily("witness_answers", "Submissions.", labels=["answer"])
        for name, number in self._seen.answers.items():
            answers.add_metric([name], number)
        yield answers
        yield CounterMetricFamily(
            "witness_connections_refused",
            "Connections closed at once: too many were open.",
            value=self._seen.connections_refused,
        )


def metrics(state: WitnessState, seen: Seen) -> bytes:
    """The numbers in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Numbers(state, seen))
    return generate_latest(registry)
