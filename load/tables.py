"""Samples of a run as tables of figures. Pure: medians over rounds, ratios within rounds."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from load.figures import Spread, ratios, spread
from load.scenario import SCENARIOS
from load.trial import Sample

MAIN, AT = "json-200", 32
ALONE = "alone"
"""The gateway while governor and analyst stand still, as if they had cores of their own."""
Figure = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Samples:
    """All samples of a run, asked by cell. A cell's rounds are told apart by their number."""

    all: Sequence[Sample]

    def cell(self, contender: str, scenario: str, concurrency: int) -> list[Sample]:
        """Closed-loop samples that had answers."""
        return [
            sample for sample in self.all
            if (sample.contender, sample.scenario, sample.concurrency)
            == (contender, scenario, concurrency) and not sample.rate and sample.requests
        ]  # fmt: skip

    def rounds(
        self, contender: str, scenario: str, concurrency: int, figure: Figure
    ) -> dict[int, float]:
        found = {s.round: figure(s) for s in self.cell(contender, scenario, concurrency)}
        return {number: value for number, value in found.items() if value is not None}

    def middle(
        self, contender: str, scenario: str, concurrency: int, figure: Figure
    ) -> Spread | None:
        values = list(self.rounds(contender, scenario, concurrency, figure).values())
        return spread(values) if values else None

    def ratio(
        self, ours: tuple[str, str], theirs: tuple[str, str], concurrency: int, figure: Figure
    ) -> Spread | None:
        """Of (contender, scenario) to (contender, scenario), within rounds."""
        return ratios(
            self.rounds(*ours, concurrency, figure), self.rounds(*theirs, concurrency, figure)
        )

    def contenders(self, scenario: str) -> list[str]:
        """In the order of their first sample's place in any round, direct first, ours last."""
        names = {s.contender for s in self.all if s.scenario == scenario and s.requests}
        order = ("direct", "nginx", "envoy", "mlserver", "portkey", "litellm", "headworks",
                 ALONE, "bounded", "receipts", "source")  # fmt: skip
        return [name for name in order if name in names]

    def concurrencies(self, scenario: str) -> list[int]:
        return sorted({s.concurrency for s in self.all if s.scenario == scenario and not s.rate})

    def added(self, contender: str, share: str) -> Spread | None:
        """Latency added over direct at the same rate in the same round, in milliseconds."""
        direct = {
            (s.round, s.rate): s for s in self.all if s.contender == "direct" and s.rate
        }  # fmt: skip
        found = []
        for sample in self.all:
            base = direct.get((sample.round, sample.rate))
            if sample.contender != contender or not sample.rate or base is None:
                continue
            if sample.latency is not None and base.latency is not None:
                more = getattr(sample.latency, share) - getattr(base.latency, share)
                found.append(more / 1e3)
        return spread(found) if found else None

    def rate(self, contender: str) -> Spread | None:
        """Of the open loop, requests a second."""
        values = [s.rate for s in self.all if s.contender == contender and s.rate]
        return spread(values) if values else None

    def at_half(self, contender: str, figure: Figure) -> Spread | None:
        """A figure of the open loop, over the rounds."""
        asked = (s for s in self.all if s.contender == contender and s.rate)
        values = [value for s in asked if (value := figure(s)) is not None]
        return spread(values) if values else None

    def origin_busiest(self, scenario: str) -> float:
        """The largest share of a core that one process of the origin took behind a contender."""
        return max(
            (s.origin_busy for s in self.all if s.scenario == scenario and s.contender != "direct"),
            default=0.0,
        )

    def memory(
        self, contender: str, scenarios: Container[str] = tuple(SCENARIOS)
    ) -> dict[str, float]:
        """Largest seen after these scenarios, MiB by role."""
        found: dict[str, float] = {}
        for sample in self.all:
            if sample.contender == contender and sample.scenario in scenarios:
                for name, size in sample.memory.items():
                    found[name] = max(found.get(name, 0.0), size / 2**20)
        return found

    def errors(self) -> list[Sample]:
        return [s for s in self.all if s.errors]


def cpu_path(sample: Sample) -> float | None:
    return sample.cpu_path


def cpu_all(sample: Sample) -> float | None:
    return sample.cpu_all


def per_second(sample: Sample) -> float | None:
    return sample.per_second


def commit_ms(sample: Sample) -> float | None:
    return 1e3 * sample.commit_s / sample.commits if sample.commits else None


def per_commit(sample: Sample) -> float | None:
    return sample.requests / sample.commits if sample.commits else None


def share(name: str) -> Figure:
    """A percentile of the latency, in milliseconds."""
    return lambda sample: getattr(sample.latency, name) / 1e3 if sample.latency else None


def first_event(sample: Sample) -> float | None:
    return sample.first_event.p50 / 1e3 if sample.first_event else None


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, thousands with commas; a dash where there is nothing."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - (len(str(int(abs(value)))) - 1))}f}"


def ranged(value: Spread | None, unit: str = "") -> str:
    """`median (least–most)`."""
    if value is None:
        return "–"
    return f"{number(value.median)}{unit} ({number(value.least)}–{number(value.most)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
