"""The benchmark of verdicts: python -m load.verdicts [--runs N] [--only WORD] [--write]

Seeded, on one core, without network: the judge that ships sees streams of blocks from healthy and
from faulty versions, and others judge the same streams. `--write` puts the tables into
docs/verdicts.md; 2,000 runs take about half an hour.
"""

from __future__ import annotations

import argparse
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.rollout.block import Block
from gateway.rollout.eprocess import Stratified
from gateway.rollout.guard import Plan, judge
from gateway.rollout.guardsettings import JudgeSettings
from gateway.rollout.outlook import blocks_until_worse
from load import judges
from load.streams import Case, arms, blocks, pairs

PAGE = Path(__file__).parents[1] / "docs" / "verdicts.md"
ALPHA = 0.02
RAMP = ((30, 0.05), (60, 0.1), (150, 0.25))
"""Blocks and weights: 5, 10 and 25 minutes, after ten minutes of shadow."""
GUARDS: tuple[Any, ...] = (
    "errors", "latency_p95", "disagreement", {"name": "fairness", "by": "group"},
)  # fmt: skip

_healthy = Case(name="", ramp=RAMP, shadow_blocks=60)
_returning = replace(_healthy, shadow_blocks=0)
HEALTHY = (
    replace(_healthy, name="steady, each unit new"),
    replace(_healthy, name="bursts of a block in one arm", bursts=(0.02, 0.02), pair_bursts=0.03),
    replace(_healthy, name="bursts of half a minute in one arm", bursts=(0.03, 0.03),
            burst_blocks=3, pair_bursts=0.03),
    replace(_healthy, name="a day's cycle, ± 60 %", cycle=0.6),
    replace(_returning, name="300 returning users an arm", users=300),
    replace(_returning, name="3,000 returning users an arm", users=3_000),
    replace(_returning, name="20,000 returning users an arm", users=20_000),
    replace(_returning, name="20,000 returning, bursts and cycle", users=20_000,
            bursts=(0.02, 0.02), cycle=0.6),
)  # fmt: skip


@dataclass(frozen=True)
class Faulty:
    """A version that should be found. `expected`: blocks that the study gives, if it gives some."""

    case: Case
    guards: tuple[Any, ...]
    guard: str
    alpha: float = ALPHA
    expected: float | None = None
    difference: float | None = None
    """In the guard's own measure, for the horizon that is printed early."""


_level = Case(name="", ramp=((360, 0.1),))
_no_margin = ({"name": "errors", "worse_than": "+0pp"},)
FAULTY = (
    Faulty(replace(_level, name="errors 1 % to 2 %, no tolerance, alone at 1 %",
                   errors=(0.02, 0.01)), _no_margin, "errors", 0.01, 46, 0.01),
    Faulty(replace(_level, name="the same on the ramp 1 %, 5 %, 25 %", errors=(0.02, 0.01),
                   ramp=((60, 0.01), (60, 0.05), (120, 0.25))),
           _no_margin, "errors", 0.01, 125),
    Faulty(replace(_level, name="errors 1 % to 2 %", errors=(0.02, 0.01)), GUARDS, "errors",
           difference=0.01),
    Faulty(replace(_level, name="errors 1 % to 2 %, with bursts in both arms",
                   errors=(0.02, 0.01), bursts=(0.02, 0.02)), GUARDS, "errors"),
    Faulty(replace(_level, name="errors 1 % to 5 %", errors=(0.05, 0.01)), GUARDS, "errors"),
    Faulty(replace(_level, name="failing in bursts only, 6 % of blocks", bursts=(0.06, 0.0)),
           GUARDS, "errors"),
    Faulty(replace(_level, name="p95 25 % slower", slower=1.25), GUARDS, "latency_p95",
           difference=math.log(1.25)),
    Faulty(replace(_level, name="approval of one group 5 points lower", approval=(0.55, 0.6),
                   ramp=((360, 0.25),)), GUARDS, "fairness"),
    Faulty(replace(_level, name="3 % of labels flipped, in shadow", flips=0.03, ramp=(),
                   shadow_blocks=360), ("flips", *GUARDS), "flips"),
    Faulty(replace(_level, name="5 % disagree, in shadow", disagree=0.05, ramp=(),
                   shadow_blocks=360), GUARDS, "disagreement"),
)  # fmt: skip

TOLERATED = (
    Faulty(replace(_level, name="errors worse by 0.2 points", errors=(0.012, 0.01),
                   ramp=((360, 0.25),)), GUARDS, "errors"),
    Faulty(replace(_level, name="0.2 points worse, with bursts in both arms",
                   errors=(0.012, 0.01), ramp=((360, 0.25),), bursts=(0.02, 0.02)),
           GUARDS, "errors"),
    Faulty(replace(_level, name="0.2 points worse where errors are rare",
                   errors=(0.0021, 0.0001), ramp=((360, 0.25),)), GUARDS, "errors"),
    Faulty(replace(_level, name="0.2 points worse by bursts alone, 1 % of blocks",
                   errors=(0.0001, 0.0001), ramp=((360, 0.25),), bursts=(0.01, 0.0)),
           GUARDS, "errors"),
    Faulty(replace(_level, name="p95 slower by 15 %", slower=1.15), GUARDS, "latency_p95"),
    Faulty(replace(_level, name="2 % disagree", disagree=0.02, ramp=(), shadow_blocks=360),
           GUARDS, "disagreement"),
    Faulty(replace(_level, name="approval of one group 1 point lower", approval=(0.49, 0.5),
                   ramp=((360, 0.25),)), GUARDS, "fairness"),
)  # fmt: skip


@dataclass
class Runs:
    """Of one case: when each guard first said a word, by run; and the counts that others judge."""

    count: int
    said: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    any_worse: int = 0
    single: list[int] = field(default_factory=list)
    """Blocks at which single events alone (the stratified test) would have rolled back."""
    horizon: list[float] = field(default_factory=list)
    counts: list[list[Any]] = field(default_factory=lambda: [[], [], [], []])

    def share(self, guard: str, word: str) -> float:
        return len(self.said.get((guard, word), ())) / self.count

    def median(self, guard: str, word: str) -> float | None:
        """Over all runs; those without the word are never."""
        told = [*self.said.get((guard, word), ())]
        if len(told) * 2 <= self.count:
            return None
        return float(np.median(told + [10**9] * (self.count - len(told))))

    def others(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Bad and all exchanges of both arms, runs x blocks."""
        bad_c, bad_b, all_c, all_b = (np.stack(one) for one in self.counts)
        return (bad_c, bad_b), (all_c, all_b)


def plan_of(guards: Sequence[Any], alpha: float = ALPHA, warmup: str = "60s") -> Plan:
    return Plan(JudgeSettings.model_validate(
        {"guards": guards, "limits": [], "evidence": {"alpha": alpha, "warmup": warmup}}
    ))  # fmt: skip


def run(
    case: Case, plan: Plan, count: int, *, others: bool = False, faulty: Faulty | None = None
) -> Runs:
    """`others`: keep what the other judges need. A faulty case ends when it was found."""
    runs = Runs(count)
    for number in range(count):
        rng = np.random.default_rng([zlib.crc32(case.name.encode()), number])
        sides, shadows = arms(case, rng), pairs(case, rng)
        said = _judged(plan, blocks(sides, shadows), runs, faulty)
        runs.any_worse += any(word == "worse" for _, word in said)
        for key, block in said.items():
            runs.said.setdefault(key, []).append(block)
        if others:
            counts = (sides[0].bad, sides[1].bad, sides[0].exchanges, sides[1].exchanges)
            for kept, one in zip(runs.counts, counts):
                kept.append(one)
            runs.single.append(_stratified(sides))
    return runs


HORIZON_AT = 30


def _judged(
    plan: Plan, stream: Any, runs: Runs, faulty: Faulty | None
) -> dict[tuple[str, str], int]:
    state, said = None, {}
    for place, block in enumerate(stream, 1):
        assert isinstance(block, Block)
        state, judgement = judge(plan, state, block)
        for verdict in judgement.verdicts:
            if verdict.word != "undecided":
                said.setdefault((verdict.guard, verdict.word), place)
        if faulty is None:
            continue
        if place == HORIZON_AT and faulty.difference is not None:
            _printed(plan, state, faulty, runs)
        if (faulty.guard, "worse") in said:
            break
    return said


def _printed(plan: Plan, state: Any, faulty: Faulty, runs: Runs) -> None:
    """When, as told at block 30, a version so much worse will have been called worse."""
    place = [guard.name for guard in plan.settings.guards].index(faulty.guard)
    rules: Any = plan.questions[place]
    assert faulty.difference is not None
    more = blocks_until_worse(state.guards[place], rules.rules, faulty.difference)
    if more is not None:
        runs.horizon.append(HORIZON_AT + more)


def _stratified(sides: Any) -> int:
    state = Stratified()
    table = zip(*(one.tolist() for side in sides for one in (side.units, side.bad_units)))
    for place, (n_c, x_c, n_b, x_b) in enumerate(table):
        state = state.after(n_c, x_c, n_b, x_b, 1.25)
        if state.log_e() >= -math.log(ALPHA):
            return place
    return -1


OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "over 2 % in more than 3 minutes": lambda x, n: judges.threshold(x[0], n[0], 0.02, 3),
    "over 1 % in more than 10 minutes": lambda x, n: judges.threshold(x[0], n[0], 0.01, 10),
    "Mann-Whitney, ± 25 %": judges.mann_whitney,
    "z-test, peeked": lambda x, n: judges.peeked(x, n, ALPHA),
    "z-test, once at the end": lambda x, n: judges.once(x, n, ALPHA),
}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.9995 else "100 %"


def upper(found: int, count: int) -> float:
    """End of Wilson's 95 % interval."""
    z, share = 1.96, found / count
    middle = share + z * z / (2 * count)
    return (middle + z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))) / (
        1 + z * z / count
    )


def healthy_table(count: int, only: str) -> list[str]:
    names = ["Headworks, four guards", "single events (P1) alone", *OTHERS]
    rows = [f"| healthy version | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for case in HEALTHY:
        if only not in case.name:
            continue
        began = time.perf_counter()
        runs = run(case, plan_of(GUARDS), count, others=True)
        bad, total = runs.others()
        bound = percent(upper(runs.any_worse, count))
        told = [f"**{percent(runs.any_worse / count)}** (≤ {bound})",
                percent(sum(at >= 0 for at in runs.single) / count)]  # fmt: skip
        told += [percent(float((ask(bad, total) >= 0).mean())) for ask in OTHERS.values()]
        rows.append(f"| {case.name} | {' | '.join(told)} |")
        print(rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
    return rows


def faulty_table(count: int, only: str) -> list[str]:
    rows = ["| faulty version | found | median block | study | printed at block 30 |",
            "|---|---|---|---|---|"]  # fmt: skip
    for faulty in FAULTY:
        if only not in faulty.case.name:
            continue
        plan = plan_of(faulty.guards, faulty.alpha, "0s" if faulty.expected else "60s")
        runs = run(faulty.case, plan, count, faulty=faulty)
        horizon = f"{np.median(runs.horizon):.0f}" if runs.horizon else ""
        median = runs.median(faulty.guard, "worse")
        rows.append(
            f"| {faulty.case.name} | {percent(runs.share(faulty.guard, 'worse'))} "
            f"| {'' if median is None else f'{median:.0f}'} "
            f"| {faulty.expected or ''} | {horizon} |"
        )
        print(rows[-1], flush=True)
    return rows


def others_table(count: int, only: str) -> list[str]:
    """What the other judges find on the streams of 2 % instead of 1 % errors."""
    rows = ["| faulty version | judge | found | median block |", "|---|---|---|---|"]
    for faulty in FAULTY:
        if faulty.guard != "errors" or faulty.guards is not GUARDS or only not in faulty.case.name:
            continue
        ours = run(faulty.case, plan_of(GUARDS), count, others=True, faulty=faulty)
        bad, total = ours.others()
        found = {"single events (P1) alone": np.array(ours.single)}
        found |= {name: ask(bad, total) for name, ask in OTHERS.items()}
        for name, at in found.items():
            share = float((at >= 0).mean())
            when = np.median(np.where(at >= 0, at + 1, 10**9))
            rows.append(f"| {faulty.case.name} | {name} | {percent(share)} "
                        f"| {'' if share <= 0.5 else f'{when:.0f}'} |")  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def tolerated_table(count: int, only: str) -> list[str]:
    rows = ["| version at the guard's tolerance | called worse | called safe, in an hour |",
            "|---|---|---|"]  # fmt: skip
    for faulty in TOLERATED:
        if only not in faulty.case.name:
            continue
        runs = run(faulty.case, plan_of(faulty.guards), count)
        told = [percent(runs.share(faulty.guard, word)) for word in ("worse", "safe")]
        rows.append(f"| {faulty.case.name} | {' | '.join(told)} |")
        print(rows[-1], flush=True)
    return rows


TABLES = {"healthy": healthy_table, "faulty": faulty_table, "others": others_table,
          "tolerated": tolerated_table}  # fmt: skip


def written(page: str, name: str, rows: Sequence[str]) -> str:
    """The page with the table between its two marks."""
    begin, end = f"<!-- {name}: made by load.verdicts -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    assert after, f"{PAGE} has no place for the table {name}"
    return before + begin + "\n".join(rows) + "\n" + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--table", choices=list(TABLES), action="append")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/verdicts.md")
    told = parser.parse_args()
    for name in told.table or TABLES:
        count = told.runs if name == "healthy" else min(told.runs, 500)
        rows = TABLES[name](count, told.only)
        if told.write:
            rows.append(f"\n{count:,} runs a row.")
            PAGE.write_text(written(PAGE.read_text(), name, rows))


if __name__ == "__main__":
    main()
