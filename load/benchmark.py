"""The benchmark: every contender, scenario and concurrency, in interleaved rounds.

    scripts/benchmark [--quick] [--only json-200,chat] [--peers nginx,envoy] [--at-most 25]

Within a round each contender takes its turn at a cell before the next cell begins, in an order that
turns from round to round, while all the others are frozen: what the machine does to one it does to
its neighbours, and the ratios of one round mean something where absolute figures do not. Writes
results as JSON into the cache folder and docs/performance.md from them (`load/page.py`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway import FORM
from gateway.compiled import SWITCH
from load import headworks, hotspots, instructions, machinecode, peers
from load.page import write as write_page
from load.processes import Running, free_ports
from load.results import Results, commit, machine, read
from load.scenario import CONCURRENCY, KEY, SCENARIOS
from load.tables import ALONE
from load.trial import ROOT, Bench, Contender, Plan, Sample

MAIN = "json-200"
VARIANTS = {"headworks": "Headworks", "bounded": "Headworks, bounded",
            "receipts": "Headworks, receipts", ALONE: "Headworks, workers alone"}  # fmt: skip
SOURCE = {"source": "Headworks, from source"}
PEER_NAMES = ("", *peers.PEERS)
PATIENCE_S = 90.0
FULL_MINUTES, QUICK_MINUTES = 21.5, 3.3
"""After which no new cell begins; what follows (hot spots, instructions, the page) is bounded."""


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how often. `main` is for v2 JSON 200 B, `other` for the rest, in seconds."""

    rounds: int
    main: float
    other_rounds: int
    other: float
    concurrency: tuple[int, ...]
    half: float


FULL = Size(5, 3.0, 3, 2.0, CONCURRENCY, 4.0)
QUICK = Size(3, 1.0, 1, 1.0, (32,), 1.5)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


class Field:
    """The contenders, running. Used as a context; all of them end with it."""

    def __init__(self, cache: Path, folder: Path, wanted: tuple[str, ...], workers: int) -> None:
        self.cache, self.folder, self.wanted, self.workers = cache, folder, wanted, workers
        self.contenders: dict[str, Contender] = {}
        self.versions: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._held = ExitStack()

    def __enter__(self) -> Field:
        try:
            self._start()
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _run(
        self, name: str, command: list[str], environment: dict[str, str], port: int, cwd: Path
    ) -> Running:
        running = Running(name, command, self.folder / f"{name}.log", environment, cwd)
        self._held.callback(running.stop)
        running.wait_for(port, PATIENCE_S)
        return running

    def _start(self) -> None:
        port = free_ports(1)[0]
        command = [sys.executable, "-m", "load.origin", "--port", str(port)]
        self.origin = self._run("origin", command, {}, port, ROOT)
        self.contenders["direct"] = Contender(
            "direct", "direct", self.origin, port, {**peers.PROXIED}
        )
        for name, make in peers.PEERS.items():
            if name in self.wanted:
                self._start_peer(name, make, port)
        self._start_headworks("headworks", VARIANTS, {}, port)
        if FORM.state == "compiled":  # the sources beside it, in the same rounds
            self._start_headworks("source", SOURCE, {SWITCH: "no"}, port)

    def _start_peer(self, name: str, make: peers.Maker, origin: int) -> None:
        folder = self.folder / name
        folder.mkdir(parents=True)
        port = free_ports(3)[0]
        try:
            launch = make(self.cache, folder, port, origin)
            running = self._run(name, launch.command, dict(launch.environment), port, folder)
        except (peers.Absent, RuntimeError) as reason:
            self.skipped[peers.TITLES[name]] = str(reason)
            return
        self.versions[name] = launch.version
        self.contenders[name] = Contender(
            name, peers.TITLES[name], running, port, launch.paths, launch.headers
        )
        running.freeze()

    def _start_headworks(
        self, what: str, variants: Mapping[str, str], environment: dict[str, str], origin: int
    ) -> None:
        folder = self.folder / what
        data, admin = free_ports(2)
        made, refused = headworks.accepted(folder, (data, admin), origin, self.workers)
        for name, reason in refused.items():
            self.skipped[f"Headworks: {name}"] = f"`headworks check`: {reason}"
        path = headworks.write(folder, made)
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
        running = self._run(what, command, environment, data, ROOT)
        self.versions[what] = f"{commit()} ({FORM})" if what == "headworks" else commit()
        for name, title in variants.items():
            paths = headworks.paths(made["models"], name)
            if paths:
                self.contenders[name] = Contender(
                    name, title, running, data, paths, {"authorization": f"Bearer {KEY}"}, True,
                    ("governor", "analyst") if name == ALONE else (),
                    f"http://127.0.0.1:{admin}/metrics",
                )  # fmt: skip
        running.wait_until_ready(f"http://127.0.0.1:{data}/-/ready", PATIENCE_S)
        running.freeze()


class Run:
    """Interleaved rounds over a field."""

    def __init__(self, field: Field, bench: Bench, size: Size, only: tuple[str, ...]) -> None:
        self.field, self.bench, self.size, self.only = field, bench, size, only
        self.samples: list[Sample] = []
        self.unfit: set[tuple[str, str]] = set()
        self.silent: set[tuple[str, str, int]] = set()

    def awake(self, contender: Contender) -> ExitStack:
        """The contender thawed, and frozen again at the end."""
        held = ExitStack()
        if contender.server is not self.field.origin:
            contender.server.thaw()
            held.callback(contender.server.freeze)
        return held

    def takers(self, scenario: str, turn: int) -> list[Contender]:
        found = [
            contender for name, contender in self.field.contenders.items()
            if scenario in contender.paths and (name, scenario) not in self.unfit
        ]  # fmt: skip
        turn %= max(1, len(found))
        return found[turn:] + found[:turn]

    def prepare(self) -> None:
        """Each contender answers each scenario rightly once, and is warm; or is left out."""
        for name in self.only:
            scenario = SCENARIOS[name]
            for contender in self.takers(name, 0):
                with self.awake(contender):
                    reason = self.bench.preflight(contender, scenario)
                    if not reason:
                        self.bench.run(contender, scenario, Plan(name, 32, 1.0))
                if reason:
                    self.unfit.add((contender.name, name))
                    self.field.skipped[f"{contender.title}: {scenario.title}"] = reason
                    say(f"  left out: {contender.title}, {scenario.title}: {reason}")

    def plans(self) -> Iterator[Plan]:
        """Rounds outermost, so that a run that must end early has whole rounds."""
        for number in range(max(self.size.rounds, self.size.other_rounds)):
            for name in self.only:
                main = name == MAIN
                if number < (self.size.rounds if main else self.size.other_rounds):
                    seconds = self.size.main if main else self.size.other
                    for concurrency in self.size.concurrency:
                        yield Plan(name, concurrency, seconds, number)
                    if main and self.size.concurrency == (32,) and number == 0:
                        yield Plan(name, 1, seconds, number)
                        yield Plan(name, 256, seconds, number)

    def measure(self, until: float) -> None:
        for turn, plan in enumerate(self.plans()):
            if time.monotonic() > until:
                self.field.skipped[f"round {plan.round + 1} from {plan.scenario} on"] = (
                    "out of time"
                )
                break
            for contender in self.takers(plan.scenario, turn):
                if (contender.name, plan.scenario, plan.concurrency) not in self.silent:
                    self._one(contender, plan)
            if plan.scenario == MAIN and plan.concurrency == self.size.concurrency[-1]:
                self._half(plan.round, turn)

    def _half(self, number: int, turn: int) -> None:
        """Open loop at half of what each carried at 32 connections in this round, and direct at
        the same rate: the difference is what the contender adds."""
        rates = {
            sample.contender: sample.per_second / 2 for sample in self.samples
            if (sample.scenario, sample.concurrency, sample.round) == (MAIN, 32, number)
            and not sample.rate
        }  # fmt: skip
        for contender in self.takers(MAIN, turn):
            rate = rates.get(contender.name)
            if rate and contender.name != "direct":
                for one in (self.field.contenders["direct"], contender):
                    self._one(one, Plan(MAIN, 64, self.size.half, number, round(rate, 1)))

    def stages(self, cache: Path) -> dict[str, Any]:
        """py-spy's, by scenario: of the sources, where those run beside their compiled form. {}
        where py-spy is not installed or may not look."""
        ours = self.field.contenders.get("source", self.field.contenders["headworks"])

        def begin(seconds: float) -> hotspots.Recording:
            return hotspots.Recording(cache, self.bench.folder, ours.server.root, seconds)

        return self._recorded(ours, begin) if (cache / "py-spy").exists() else {}

    def machine_code(self) -> dict[str, Any]:
        """perf's, by scenario. {} where perf is not installed or may not look."""
        ours = self.field.contenders["headworks"]

        def begin(seconds: float) -> machinecode.Recording:
            return machinecode.Recording(self.bench.folder, ours.server.root, seconds)

        return self._recorded(ours, begin)

    def _recorded(
        self, ours: Contender, begin: Callable[[float], hotspots.Recording | machinecode.Recording]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        seconds = 2 * self.size.main
        for name in (MAIN, "onnx"):
            if ours not in self.takers(name, 0):
                continue
            with self.awake(ours):
                try:
                    recording = begin(seconds)
                    self.bench.run(ours, SCENARIOS[name], Plan(name, 32, seconds + 1))
                    found[name] = asdict(recording.read())
                except (RuntimeError, ValueError) as reason:
                    self.field.skipped["Hot spots"] = str(reason)
        return found

    def _one(self, contender: Contender, plan: Plan) -> None:
        with self.awake(contender):
            sample = self.bench.run(contender, SCENARIOS[plan.scenario], plan)
        self.samples.append(sample)
        if not sample.requests:  # what it has been asked would spoil its next cells too
            self.silent.add((contender.name, plan.scenario, plan.concurrency))
        p99 = sample.latency.p99 / 1000 if sample.latency else float("nan")
        say(
            f"  round {plan.round + 1}  {plan.scenario:9} x{plan.concurrency:<3} "
            f"{contender.name:9} {sample.per_second:8.0f}/s  CPU {sample.cpu_path:8.1f} us"
            f"  p99 {p99:7.2f} ms  origin {sample.origin_busy:4.0%}"
            + (f"  at {plan.rate:.0f}/s" if plan.rate else "")
            + (f"  settled {sample.settled_s:.1f} s" if contender.settles else "")
            + (f"  {sample.errors} errors {sample.note}" if sample.errors or sample.note else "")
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description="Speed, side by side.")
    parser.add_argument("--quick", action="store_true", help="at most 4 minutes")
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, by name")
    parser.add_argument("--peers", default=",".join(peers.PEERS), help="peers, by name")
    parser.add_argument(
        "--at-most", type=float, default=FULL_MINUTES, help="minutes; no new cell later"
    )
    parser.add_argument("--workers", type=int, default=1, help="workers of the gateway")
    parser.add_argument("--cache", type=Path, default=ROOT / ".benchmark", help="environments")
    parser.add_argument("--page", type=Path, help="the page to write (default: of a full run, "
                        "docs/performance.md)")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="only write the page of the last run")
    words = "as further rounds of the last run, whose page is written again with both"
    parser.add_argument("--more", action="store_true", help=words)
    words = "count instructions a request under callgrind, and nothing else"
    parser.add_argument("--instructions", action="store_true", help=words)
    return parser.parse_args()


def run_rounds(chosen: argparse.Namespace, only: tuple[str, ...], results: Results) -> None:
    """The whole run; what it found goes into `results`."""
    folder = chosen.cache / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = time.monotonic()
    size = QUICK if chosen.quick else FULL
    minutes = min(chosen.at_most, QUICK_MINUTES) if chosen.quick else chosen.at_most
    with Field(chosen.cache, folder, tuple(chosen.peers.split(",")), chosen.workers) as field:
        run = Run(field, Bench(folder, field.origin, shutil.which("wrk")), size, only)
        run.prepare()
        run.measure(begun + 60 * minutes)
        results.hotspots = run.stages(chosen.cache)
        results.machine_code = run.machine_code()
        results.versions, results.skipped = field.versions, field.skipped
        results.titles = {name: one.title for name, one in field.contenders.items()}
    results.samples = run.samples
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    chosen = arguments()
    only = tuple(name for name in chosen.only.split(",") if name)
    for name in (*(set(only) - set(SCENARIOS)), *(set(chosen.peers.split(",")) - set(PEER_NAMES))):
        sys.exit(f"scripts/benchmark: {name!r} is neither one of {', '.join(SCENARIOS)} "
                 f"nor of {', '.join(peers.PEERS)}")  # fmt: skip
    chosen.cache.mkdir(exist_ok=True)
    kept = chosen.cache / "results.json"
    whole = not chosen.quick and only == tuple(SCENARIOS) and not chosen.at_most < FULL_MINUTES
    target = chosen.page or (ROOT / "docs" if whole else chosen.cache) / "performance.md"
    if chosen.instructions:
        instructions.run(chosen.cache)
        return
    if not chosen.again:
        begun, command = time.monotonic(), " ".join(["scripts/benchmark", *sys.argv[1:]])
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        results = Results(command, machine(), date, commit())
        run_rounds(chosen, only, results)
        results.instructions = instructions.known(chosen.cache, count=whole)
        results.seconds = time.monotonic() - begun
        if chosen.more:
            results = read(kept).joined(results)
        results.write(kept)
        say(f"{len(results.samples)} trials in {results.seconds:.0f} s")
    write_page(read(kept), target, chosen.cache)
    say(f"{target}")


if __name__ == "__main__":
    main()
