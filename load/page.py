"""docs/performance.md from the results of a run. Pure but for `write`, which draws the plot too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load.figures import Spread
from load.goals import goals
from load.obstacles import obstacles
from load.results import Results
from load.scenario import CHUNKS, SCENARIOS
from load.tables import (
    AT,
    MAIN,
    Samples,
    commit_ms,
    cpu_all,
    cpu_path,
    first_event,
    number,
    per_commit,
    per_second,
    ranged,
    share,
    table,
)

METHOD = """## How it is measured
* **Interleaved.** In each round every contender takes its turn at a cell before the next cell
  begins, in an order that turns; all others are frozen (SIGSTOP) meanwhile. Ratios are taken within
  a round; medians over rounds are shown, with the least and the most in parentheses.
* **CPU** is user and system time of the whole process tree from /proc, by the answers it gave.
  *CPU* is that of those who answer (our worker; a peer's whole tree); *CPU, all* adds supervisor,
  governor and analyst until the backlog of the trial is sealed, explained and in the catalog: work
  that no peer does. *Requests/s a core* is 1 s of CPU by *CPU*.
* **Load**: wrk, one thread, as fast as it goes; streams and the open loop by a generator of our own
  (`load/generator.py`; Poisson arrivals, waiting for a free connection counts). Latencies of the
  closed loop say how long the queue is at saturation; *added latency* is taken at half of what each
  contender carried at 32 connections in that round, less direct at the same rate. The same request
  is sent and answered again and again, so whoever remembers heads finds what he knows: we do
  (places of paths, heads of answers up to 1 KiB); a new head each time costs us about 5 µs more.
* **Headworks** runs governed: a caller's key is checked, a canary takes 5 %, a shadow gets 1 %,
  limits and metrics are on, each answer waits for the fdatasync of its record with both bodies.
  `bounded` may lose what one commit holds on power loss.
* **Envoy** writes a JSON access log, splits 95/5, mirrors 1 %, has circuit breakers; one thread.
  **nginx** only relays, without any log. **MLServer** is no proxy: its models are in its process
  (`json`: one that computes nothing; ONNX: the same model, the same onnxruntime settings), and it
  always answers with one number. **LiteLLM** and **Portkey** relay OpenAI's API and keep no record
  here. Each runs as one worker.
* **Memory** is the proportional set size of the tree, the largest that was seen, at rest after a
  trial; a worker's alone is under *Roles*.
* Load, origin and contender share the machine's cores, as the first line says."""

MACHINE_CODE = f"""## Where a worker's time goes, by machine code

perf's samples of the event loop's thread in the form that was measured, {AT} connections, nothing
left out. What the runtime does is done for our functions and for the libraries' alike."""

OURS = ("headworks", "bounded", "receipts", "source")


def front(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"# Performance\n\nMade by `{results.command}`: {results.date}, commit {results.commit}, "
        f"{results.seconds / 60:.0f} min.\n{machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}; "
        f"load before the start {machine['load_before']}.\n{versions}."
    )


def goal_table(results: Results, samples: Samples) -> str:
    rows = [(goal.words, goal.wanted, goal.found, goal.verdict) for goal in goals(samples)]
    return "## Goals\n\n" + table(("goal", "wanted", "measured", ""), rows)


def scenario_table(results: Results, samples: Samples, scenario: str) -> str:
    """All concurrencies of one scenario; the ratio is Headworks' CPU by the contender's."""
    title = SCENARIOS[scenario].title
    stream = SCENARIOS[scenario].stream
    head = ["", "conn.", "chunks/s" if stream else "requests/s", "requests/s a core", "CPU µs",
            "CPU, all µs", "p50 ms", "p99 ms", "p99.9 ms", "MiB", "Headworks' CPU ÷"]  # fmt: skip
    if stream:
        head.insert(9, "first event ms")
    rows = []
    for concurrency in samples.concurrencies(scenario):
        for name in samples.contenders(scenario):
            row = contender_row(results, samples, scenario, concurrency, name)
            if row:
                rows.append(row)
    return f"## {title}\n\n" + table(head, rows)


def contender_row(
    results: Results, samples: Samples, scenario: str, concurrency: int, name: str
) -> list[str]:
    """[] where there is nothing."""
    cell = (name, scenario, concurrency)
    rate = samples.middle(*cell, per_second)
    if rate is None:
        return []
    path, every = samples.middle(*cell, cpu_path), samples.middle(*cell, cpu_all)
    stream = SCENARIOS[scenario].stream
    times = CHUNKS if stream else 1
    ours = samples.ratio(("headworks", scenario), (name, scenario), concurrency, cpu_path)
    compared = name not in ("headworks", "direct")
    memory = sum(samples.memory(name).values())
    latencies = [number(_median(samples.middle(*cell, share(p)))) for p in ("p50", "p99", "p999")]
    if stream:
        latencies.append(number(_median(samples.middle(*cell, first_event))))
    return [
        results.titles.get(name, name), str(concurrency), number(rate.median * times),
        number(1e6 / path.median) if path and path.median else "–", number(_median(path)),
        number(_median(every)), *latencies, number(memory), ranged(ours) if compared else "",
    ]  # fmt: skip


def _median(value: Spread | None) -> float | None:
    return value.median if value else None


def added_table(results: Results, samples: Samples) -> str:
    rows = []
    for name in samples.contenders(MAIN):
        rate = samples.rate(name)
        if name != "direct" and rate is not None:
            shares = [ranged(samples.added(name, p)) for p in ("p50", "p99", "p999")]
            commits = [ranged(samples.at_half(name, what)) for what in (commit_ms, per_commit)]
            rows.append([results.titles.get(name, name), number(rate.median), *shares, *commits])
    head = ("", "at requests/s", "p50 ms", "p99 ms", "p99.9 ms", "a commit, ms", "answers a commit")
    return (
        "## Added latency at half of saturation\n\nOver direct at the same rate, "
        f"{SCENARIOS[MAIN].title}, open loop. An answer of a durable model waits for the commit "
        "that is\nunder way when its record is made, and for its own: about one and a half.\n\n"
        + table(head, rows)
    )


def role_table(results: Results, samples: Samples) -> str:
    """What each process of the gateway costs: CPU a request, and memory."""
    roles = ("worker", "governor", "analyst", "main")
    rows = []
    for scenario in SCENARIOS:
        for name in OURS:
            found = [
                samples.middle(name, scenario, AT, lambda s, role=role: s.cpu.get(role))
                for role in roles
            ]
            if any(found):
                every = samples.middle(name, scenario, AT, cpu_all)
                row = [number(_median(one)) for one in (*found, every)]
                rows.append(
                    [f"{results.titles.get(name, name)}: {SCENARIOS[scenario].title}", *row]
                )
    memory = samples.memory("headworks")
    rows.append(["memory, MiB", *(number(memory.get(role)) for role in roles),
                 number(sum(memory.values()))])  # fmt: skip
    head = (f"CPU µs a request, {AT} connections", "worker", "governor", "analyst", "supervisor",
            "together")  # fmt: skip
    return "## Roles\n\n" + table(head, rows)


def origin_table(samples: Samples) -> str:
    rows = []
    for scenario in SCENARIOS:
        direct = samples.middle("direct", scenario, AT, per_second)
        if direct is not None:
            fastest = max(
                (found.median for name in samples.contenders(scenario) if name != "direct"
                 if (found := samples.middle(name, scenario, AT, per_second))), default=None,
            )  # fmt: skip
            busy = samples.origin_busiest(scenario)
            rows.append([SCENARIOS[scenario].title, number(direct.median), number(fastest),
                         f"{busy:.0%}"])  # fmt: skip
    head = ("", "direct, requests/s", "fastest contender", "busiest origin process, of a core")
    words = "The origin is the bottleneck of nobody whose load leaves its processes idle time."
    return f"## The origin\n\n{words}\n\n" + table(head, rows)


def instruction_table(counts: dict[str, Any]) -> str:
    rows = []
    for count in counts.values():
        figures = sorted(count["rounds"])
        middle = figures[len(figures) // 2]
        spread_ = (figures[-1] - figures[0]) / middle
        scenario, comma, more = count["scenario"].partition(",")
        rows.append(
            [
                SCENARIOS[scenario].title + comma + more,
                count.get("form", ""),
                number(middle),
                f"{spread_:.1%}",
            ]
        )
    words = (
        "User-space instructions a request of one worker under callgrind, one connection, a commit "
        "each\n(`scripts/benchmark --instructions`): a regression shows here on a noisy machine."
    )
    head = ("", "runs", "instructions a request", "spread of the rounds")
    return f"## Instructions\n\n{words}\n\n" + table(head, rows)


def _percent(pairs: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[str(name), f"{value:.1%}"] for name, value in pairs]


def machine_table(recorded: dict[str, Any]) -> str:
    parts = [MACHINE_CODE]
    for scenario, found in recorded.items():
        parts.append(
            f"**{SCENARIOS[scenario].title}**: of {found['samples']:,} samples {found['own']:.1%} "
            f"lie in compiled functions of ours, {found['interpreted']:.1%} in the interpreter's "
            f"loop; the goal is less than 10 % for both.\n\n"
            + table(("what the code is", "share"), _percent(found["places"]))
            + "\n\n"
            + table(("function (itself)", "share"),
                    _percent([(f"`{name}`", value) for name, value in found["top"]]))
        )  # fmt: skip
    return "\n\n".join(parts)


def hotspot_table(hotspots: dict[str, Any], form: str) -> str:
    parts = [
        "## Where a worker's time goes, by stage\n\nSamples of the event loop's thread by "
        f"py-spy, {form}, {AT} connections;\na system call's time is its caller's."
    ]
    for scenario, found in hotspots.items():
        top = [(f"`{frame}`", value) for frame, value in found["top"]]
        parts.append(
            f"**{SCENARIOS[scenario].title}**: {found['own']:.0%} of {found['samples']:,} samples "
            "end in a Python function of ours.\n\n"
            + table(("stage (inclusive)", "share"), _percent(found["stages"]))
            + "\n\n"
            + table(("function (itself)", "share"), _percent(top))
        )
    return "\n\n".join(parts)


def remarks(results: Results, samples: Samples) -> str:
    lines = [f"* **{name}**: {reason}" for name, reason in results.skipped.items()]
    faults: dict[str, int] = {}
    for sample in samples.errors():
        at = f" at {sample.rate:,.0f}/s" if sample.rate else ""
        key = f"{results.titles.get(sample.contender, sample.contender)}, {sample.scenario}, " \
              f"{sample.concurrency} connections{at}: {sample.note}"  # fmt: skip
        faults[key] = faults.get(key, 0) + sample.errors
    lines += [f"* {count} errors: {key}" for key, count in faults.items()]
    return "## Left out, and errors\n\n" + ("\n".join(lines) if lines else "Nothing, and none.")


def page(results: Results, plot: str | None) -> str:
    samples = Samples(results.samples)
    scenarios = [name for name in SCENARIOS if samples.contenders(name)]
    parts = [front(results), goal_table(results, samples)]
    parts += [found] if (found := obstacles(results, samples)) else []
    if plot:
        parts.append(f"![CPU a request and added latency]({plot})")
    parts += [scenario_table(results, samples, name) for name in scenarios]
    parts += [added_table(results, samples)] if samples.rate("headworks") else []
    parts += [role_table(results, samples), origin_table(samples)]
    parts += [instruction_table(results.instructions)] if results.instructions else []
    parts += [machine_table(results.machine_code)] if results.machine_code else []
    if results.hotspots:
        form = "running from source" if "source" in results.titles else "as it runs"
        parts.append(hotspot_table(results.hotspots, form))
    parts += [remarks(results, samples), METHOD]
    return "\n\n".join(parts) + "\n"


def panels(results: Results) -> list[dict[str, Any]]:
    """What the plot shows: CPU a request of the small bodies, and added latency."""
    samples = Samples(results.samples)

    def bar(name: str, label: str, value: Spread | None) -> list[dict[str, Any]]:
        if value is None:
            return []
        ours = name in OURS
        return [{"name": label, "median": value.median, "least": value.least, "most": value.most,
                 "ours": ours}]  # fmt: skip

    drawn = []
    for scenario in SCENARIOS:
        bars = [
            one for name in samples.contenders(scenario) if name != "direct"
            for one in bar(name, results.titles.get(name, name),
                           samples.middle(name, scenario, AT, cpu_path))
        ]  # fmt: skip
        if bars:
            title = f"CPU µs a request, {SCENARIOS[scenario].title}, {AT} connections"
            wide = max(b["median"] for b in bars) > 100 * min(b["median"] for b in bars)
            drawn.append({"title": title, "log": wide, "bars": bars})
    for kind in ("p50", "p99"):
        bars = [
            one for name in samples.contenders(MAIN)
            if name != "direct"
            for one in bar(name, results.titles.get(name, name), samples.added(name, kind))
        ]  # fmt: skip
        if bars:
            title = f"added {kind}, ms, at half of saturation, {SCENARIOS[MAIN].title}"
            drawn.append({"title": title, "log": False, "bars": bars})
    return drawn


def write(results: Results, target: Path, cache: Path) -> None:
    """The page, and its plot beside it where matplotlib's environment is there."""
    python = cache / "plot" / "bin" / "python"
    figures, plot = cache / "panels.json", target.with_suffix(".svg")
    drawn = python.exists()
    if drawn:
        figures.write_text(json.dumps(panels(results)))
        command = [str(python), str(Path(__file__).with_name("plot.py")), str(figures), str(plot)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            print(f"no plot: {done.stderr.strip()[-300:]}", file=sys.stderr)
            drawn = False
    target.write_text(page(results, plot.name if drawn else None))
