"""The benchmark of verdicts: python -m load.verdicts [--runs N] [--only WORD] [--write]

Seeded, on one core, without network: the judge sees streams of blocks from healthy and from faulty
versions (in `load.batch`, which the tests hold to be the judge that ships), and others judge the
same streams. `--write` puts the tables into docs/verdicts.md; 2,000 runs take some minutes.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.rollout.block import PairCounts
from gateway.rollout.eprocess import Stratified
from gateway.rollout.guard import Plan, judge
from gateway.rollout.guardsettings import JudgeSettings
from gateway.rollout.outlook import blocks_until_worse
from load import batch, judges, sixlines
from load.streams import Arm, Case, arms, blocks, pairs

Array = NDArray[np.int64]
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
    """Of one case: the block after which each guard first said a word, by run, 0 for never; and the
    counts that others judge."""

    count: int
    said: dict[tuple[str, str], Array] = field(default_factory=dict)
    single: list[int] = field(default_factory=list)
    """Blocks at which single events alone (the stratified test) would have rolled back."""
    counts: list[Any] = field(default_factory=list)

    @property
    def any_worse(self) -> int:
        """Runs in which any guard said worse."""
        worse = [at > 0 for (_, word), at in self.said.items() if word == "worse"]
        return int(np.any(worse, axis=0).sum())

    def share(self, guard: str, word: str) -> float:
        return float((self.said[guard, word] > 0).mean())

    def median(self, guard: str, word: str) -> float | None:
        """Over all runs; those without the word are never."""
        at = self.said[guard, word]
        middle = np.median(np.where(at > 0, at, 10**9))
        return float(middle) if middle < 10**8 else None

    def others(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Bad and all exchanges of both arms, runs x blocks."""
        bad_c, bad_b, all_c, all_b = (np.stack(one) for one in zip(*self.counts))
        return (bad_c, bad_b), (all_c, all_b)


def plan_of(guards: Sequence[Any], alpha: float = ALPHA, warmup: str = "60s") -> Plan:
    return Plan(JudgeSettings.model_validate(
        {"guards": guards, "limits": [], "evidence": {"alpha": alpha, "warmup": warmup}}
    ))  # fmt: skip


def drawn(case: Case, number: int) -> tuple[tuple[Arm, Arm], list[PairCounts]]:
    """The traffic of one run: the case's name and the run's number are its seed."""
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), number])
    return arms(case, rng), pairs(case, rng)


CHUNK = 100


def run(case: Case, plan: Plan, count: int, *, others: bool = False, single: bool = False) -> Runs:
    """`others`, `single`: keep what the other judges, and single events alone, need."""
    runs = Runs(count)
    parts: dict[tuple[str, str], list[Array]] = {}
    for start in range(0, count, CHUNK):
        traffic = [drawn(case, number) for number in range(start, min(start + CHUNK, count))]
        sides, shadows = [one for one, _ in traffic], [one for _, one in traffic]
        for guard, said in batch.judged(plan, case, sides, shadows).items():
            for word, at in said.first.items():
                parts.setdefault((guard, word), []).append(at)
        if others:
            runs.counts += [(canary.bad, control.bad, canary.exchanges, control.exchanges)
                            for canary, control in sides]  # fmt: skip
        if single:
            runs.single += [_stratified(one) for one in sides]
    runs.said = {key: np.concatenate(one) for key, one in parts.items()}
    return runs


HORIZON_AT, HORIZON_RUNS = 30, 30


def horizon(faulty: Faulty, plan: Plan) -> str:
    """When, as told at block 30, a version so much worse will have been called worse."""
    place = [guard.name for guard in plan.settings.guards].index(faulty.guard)
    rules: Any = plan.questions[place]
    if faulty.difference is None:
        return ""
    told = []
    for number in range(HORIZON_RUNS):
        state = None
        for block in itertools.islice(blocks(faulty.case, *drawn(faulty.case, number)), HORIZON_AT):
            state, _ = judge(plan, state, block)
        assert state is not None
        more = blocks_until_worse(state.guards[place], rules.rules, faulty.difference)
        told.append(math.inf if more is None else HORIZON_AT + more)
    return f"{np.median(told):.0f}"


def _stratified(sides: tuple[Arm, Arm]) -> int:
    state = Stratified()
    table = zip(*(one.tolist() for side in sides for one in (side.units, side.bad_units)))
    for place, (n_c, x_c, n_b, x_b) in enumerate(table):
        state = state.after(n_c, x_c, n_b, x_b, 1.25)
        if state.log_e() >= -math.log(ALPHA):
            return place
    return -1


SINGLE_RUNS = 200


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
    names = ["Headworks, four guards", "errors alone, no tolerance", "single events (P1) alone",
             *OTHERS]  # fmt: skip
    rows = [f"| healthy version | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for case in HEALTHY:
        if only not in case.name:
            continue
        began = time.perf_counter()
        runs = run(case, plan_of(GUARDS), count, others=True)
        single = run(case, plan_of(["errors"]), min(count, SINGLE_RUNS), single=True).single
        bad, total = runs.others()
        bare = run(case, plan_of(_no_margin), count)
        told = [f"**{percent(one.any_worse / count)}** (≤ {percent(upper(one.any_worse, count))})"
                for one in (runs, bare)]  # fmt: skip
        told.append(percent(sum(at >= 0 for at in single) / len(single)))
        told += [percent(float((ask(bad, total) >= 0).mean())) for ask in OTHERS.values()]
        rows.append(f"| {case.name} | {' | '.join(told)} |")
        print(rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
    return rows


def faulty_table(count: int, only: str) -> list[str]:
    rows = ["| faulty version | found in an hour | median block | study | outlook at block 30 |",
            "|---|---|---|---|---|"]  # fmt: skip
    for faulty in FAULTY:
        if only not in faulty.case.name:
            continue
        plan = plan_of(faulty.guards, faulty.alpha, "0s" if faulty.expected else "60s")
        runs = run(faulty.case, plan, count)
        median = runs.median(faulty.guard, "worse")
        rows.append(
            f"| {faulty.case.name} | {percent(runs.share(faulty.guard, 'worse'))} "
            f"| {'' if median is None else f'{median:.0f}'} "
            f"| {faulty.expected or ''} | {horizon(faulty, plan)} |"
        )
        print(rows[-1], flush=True)
    return rows


def others_table(count: int, only: str) -> list[str]:
    """What the other judges find on the streams of faults that errors show."""
    rows = ["| faulty version | judge | found in an hour | median block |", "|---|---|---|---|"]
    for faulty in FAULTY:
        if faulty.guard != "errors" or faulty.guards is not GUARDS or only not in faulty.case.name:
            continue
        runs = run(faulty.case, plan_of(["errors"]), count, others=True)
        some = run(faulty.case, plan_of(["errors"]), min(count, SINGLE_RUNS), single=True)
        bad, total = runs.others()
        found = {"single events (P1) alone": np.array(some.single)}
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


def six_lines(count: int, only: str) -> list[str]:
    """Whole rollouts by the guards of six lines, with a shadow step and without."""
    rows = ["| healthy version | called worse, with a shadow | without | promoted "
            "| minutes, half of them | nine of ten | without a shadow, half | nine of ten |",
            "|---" * 8 + "|"]  # fmt: skip
    for case in sixlines.HEALTHY:
        if only not in case.name:
            continue
        found = _ends(case, count)
        blamed = [int(one.blamed.sum()) for one in found]
        told = [f"**{percent(n / count)}** (≤ {percent(upper(n, count))})" for n in blamed]
        told.append(percent(float((found[0].promoted < sixlines.NEVER).mean())))
        told += [sixlines.minutes(one.promoted, share) for one in found for share in (0.5, 0.9)]
        rows.append(f"| {case.name} | {' | '.join(told)} |")
        print(rows[-1], flush=True)
    rows += ["", "| faulty version | stopped, with a shadow | minutes | stopped, without | minutes "
             "| promoted, with | without |", "|---" * 7 + "|"]  # fmt: skip
    for case in sixlines.FAULTY:
        if only not in case.name:
            continue
        found = _ends(case, max(1, count // 4))
        told = []
        for one in found:
            told.append(percent(float((one.worse < sixlines.NEVER).mean())))
            told.append(sixlines.minutes(one.worse, 0.5))
        told += [percent(float((one.promoted < sixlines.NEVER).mean())) for one in found]
        rows.append(f"| {case.name} | {' | '.join(told)} |")
        print(rows[-1], flush=True)
    return rows


def _ends(case: Case, count: int) -> list[sixlines.Ends]:
    """With a shadow step and without, of the same traffic."""
    plans = [sixlines.lines(shadow) for shadow in (True, False)]
    parts: list[list[sixlines.Ends]] = [[], []]
    for start in range(0, count, CHUNK):
        traffic = [drawn(case, number) for number in range(start, min(start + CHUNK, count))]
        for plan, part in zip(plans, parts):
            part.append(sixlines.ends(plan, case, traffic))
    return [sixlines.joined(part) for part in parts]


TABLES = {"six": six_lines, "healthy": healthy_table, "faulty": faulty_table,
          "others": others_table, "tolerated": tolerated_table}  # fmt: skip


def written(page: str, name: str, rows: Sequence[str]) -> str:
    """The page with the table between its two marks."""
    begin, end = f"<!-- {name}: made by load.verdicts -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{PAGE} has no place for the table {name}"
    return before + begin + "\n".join(rows) + "\n" + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--table", choices=list(TABLES), action="append")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/verdicts.md")
    told = parser.parse_args()
    for name in told.table or TABLES:
        rows = TABLES[name](told.runs, told.only)
        if told.write:
            few = (f"{max(1, told.runs // 4):,} of faulty versions" if name == "six"
                   else f"single events {SINGLE_RUNS}")  # fmt: skip
            rows.append(f"\n{told.runs:,} runs a row; {few}.")
            PAGE.write_text(written(PAGE.read_text(), name, rows))


if __name__ == "__main__":
    main()
