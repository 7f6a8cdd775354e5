"""Our evidence beside confseq's, which its authors wrote (Howard, Waudby-Smith and Ramdas; MIT).

It is no dependency: its build pins a pybind11 that no Python of 3.11 compiles, so that it is built
here without isolation in an environment of its own, which needs a C++ compiler and Boost's headers
(Debian's libboost-dev). Where that fails the tests are skipped and say why. What confseq does not
have (2 x 2 tables, differences of rates) is compared with exact sums in test_eprocess.py.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.rollout.block import Block
from gateway.rollout.comparison import V_SAFE, V_WORSE, Comparison
from gateway.rollout.eprocess import (
    FRACTIONS,
    STEADY,
    Paired,
    log_half_normal,
    log_mean_exp,
    log_sign,
    rho_for,
)
from gateway.rollout.guard import Plan, judge
from gateway.rollout.guardsettings import JudgeSettings

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).with_name("confseq_values.py")
FORMATS = ROOT / "tests" / "formats"
FOLDER = ROOT / ".cache" / "confseq"
PACKAGES = ["numpy<2", "scipy<1.14", "pandas<2.3", "matplotlib<3.10", "multiprocess"]
BUILD = ["pybind11>=2.11,<3", "scikit-build", "setuptools<81", "wheel", "cmake", "ninja"]
CLOSE: dict[str, float] = {"rel": 1e-9, "abs": 1e-9}


@cache
def interpreter() -> str:
    """Of the environment; made from PyPI where it is not there yet."""
    path = FOLDER / "bin" / "python"
    done = FOLDER / "built"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        pip = [str(path), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for words in (
            [*PACKAGES, *BUILD], ["--no-build-isolation", "--no-deps", "confseq==0.0.11"],
        ):  # fmt: skip
            told = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
            if told.returncode:
                pytest.skip(f"confseq cannot be installed: {told.stderr.strip()[-400:]}")
        done.touch()
    return str(path)


def confseq(**asked: Any) -> dict[str, list[float]]:
    told = subprocess.run(
        [interpreter(), str(HERE)], input=json.dumps(asked), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    found: dict[str, list[float]] = json.loads(told.stdout)
    return found


def half(level: float) -> float:
    """confseq tunes a one-sided mixture as the two-sided one of twice the level."""
    return level / 2


UNIFORM = 0.05
"""Any level: with `V_UNIFORM` its mixture of signs is ours, uniform over (1/2, 1)."""
V_UNIFORM = 0.75 / rho_for(2 * UNIFORM, 1.0)


def test_mixtures_and_boundaries():
    """The half-normal mixture at 2,000 points, its boundary, and every count of up to 80 signs."""
    rng = np.random.default_rng(2026)
    points = [
        (float(rng.normal(0, 3) * math.sqrt(v)), v, float(rng.uniform(1, 500)), level)
        for v, level in zip(rng.uniform(0.1, 800, 2000).tolist(),
                            rng.choice([0.02, 0.008, 0.004, 0.05], 2000).tolist())
    ]  # fmt: skip
    signs = [(k, n) for n in range(81) for k in range(n + 1)]
    told = confseq(
        normal=[(s, v, v_opt, half(level)) for s, v, v_opt, level in points],
        bound=[(v, level, v_opt, half(level)) for _, v, v_opt, level in points],
        sign=[(k, n, V_UNIFORM, UNIFORM) for k, n in signs],
    )
    for (s, v, v_opt, level), value, bound in zip(points, told["normal"], told["bound"]):
        rho = rho_for(level, v_opt)
        assert log_half_normal(s, v, rho) == pytest.approx(value, **CLOSE)
        # Its boundary is found by bisection, to some digits.
        assert log_half_normal(bound, v, rho) == pytest.approx(math.log(1 / level), abs=1e-4)
    for (k, n), value in zip(signs, told["sign"]):
        assert log_sign(k, n) == pytest.approx(value, rel=1e-8, abs=1e-8)


class Asked:
    """Questions to confseq, all at once; answers by the place they were given."""

    def __init__(self) -> None:
        self.normal: list[Any] = []
        self.sign: list[Any] = []
        self.bets: list[Any] = []
        self.told: dict[str, list[float]] = {}

    def put(self, kind: str, *values: Any) -> tuple[str, int]:
        questions = getattr(self, kind)
        questions.append(values)
        return kind, len(questions) - 1

    def ask(self) -> None:
        self.told = confseq(normal=self.normal, sign=self.sign, bets=self.bets)

    def __getitem__(self, place: tuple[str, int]) -> float:
        return self.told[place[0]][place[1]]


def thirds(asked: Asked, one: Paired, level: float) -> Any:
    """What `Paired.log_worse` is made of."""
    return (
        asked.put("normal", one.s, one.v, V_WORSE, half(level)),
        asked.put("sign", one.up, one.moved, V_UNIFORM, UNIFORM),
        asked.put("sign", one.far_up, one.far, V_UNIFORM, UNIFORM),
    )


ARMS = {"latency_p95": "ws", "latency_p99": "ws", "tokens": "ws", "mean": "ws", "noise": "ws",
        "errors": "w", "accuracy": "w"}  # fmt: skip
"""Guards that compare arms, and which of their two e-values has only parts that confseq has."""
QUANTILES = ("latency_p95", "latency_p99")
SHARES = ("disagreement", "flips", "shadow_accuracy")


@pytest.mark.parametrize("edition", [1, 2])
def test_the_frozen_verdicts_are_confseqs(edition):
    """Every e-value after every block of the published vectors, put together of confseq's parts:
    the ledger's blocks give the same verdicts by software that is not ours."""
    vector = json.loads((FORMATS / f"verdicts-{edition}.json").read_text())
    plan = Plan(JudgeSettings.model_validate(vector["settings"]), edition=edition)
    names = [guard.name for guard in plan.settings.guards]
    asked, wanted, state = Asked(), [], None
    seen: dict[str, list[float]] = {name: [] for name in SHARES}
    single: dict[str, list[float]] = {name: [] for name in SHARES}
    for told, expected in zip(vector["blocks"], vector["log_e"], strict=True):
        block = Block.read(told)
        state, _ = judge(plan, state, block)
        for place, name in enumerate(names):
            one, (worse, safe) = state.guards[place], expected[place]
            if name in ARMS and one.windows:
                wanted.append((_worse(asked, one, plan.alphas[place]), worse))
                if "s" in ARMS[name]:
                    signs = edition > 1 and name in QUANTILES
                    wanted.append((_safe(asked, one.paired, signs), safe))
            elif name in SHARES:
                _see(seen[name], name, block, evidence=one.looked > 0)
                mean = _mean(plan, place)
                wanted.append((_bets(asked, seen[name], mean), worse))
                below = [1 - x for x in seen[name]]
                told_safe = _bets(asked, below, 1 - mean)
                if edition > 1 and name != "shadow_accuracy":
                    _see_each(single[name], name, block, evidence=one.looked > 0)
                    told_safe = _both(
                        _bets(asked, single[name], 1 - mean),
                        _bets(asked, below, 1 - plan.questions[place].bursts, STEADY),
                    )
                wanted.append((told_safe, safe))
    asked.ask()
    assert len(wanted) > 300
    for make, value in wanted:
        assert make() == pytest.approx(value, **CLOSE)


def _worse(asked: Asked, one: Comparison, alpha: float) -> Any:
    """Half for all windows, half for those of the step: with the first bet of two, 1/2 is cash."""
    assert one.begun == 1
    whole, recent = thirds(asked, one.paired, alpha), thirds(asked, one.recent, alpha)

    def make() -> float:
        by_step = log_mean_exp((log_mean_exp([asked[part] for part in recent]), 0.0))
        return log_mean_exp((log_mean_exp([asked[part] for part in whole]), by_step))

    return make


def _safe(asked: Asked, one: Paired, signs: bool) -> Any:
    """Sizes alone, or half on signs."""
    sizes = asked.put("normal", -one.s, one.v, V_SAFE, half(0.05))
    if not signs:
        return lambda: asked[sizes]
    below = asked.put("sign", one.moved - one.up, one.moved, V_UNIFORM, UNIFORM)
    return lambda: log_mean_exp((asked[sizes], asked[below]))


def _bets(asked: Asked, xs: list[float], mean: float, parts: tuple[float, ...] = FRACTIONS) -> Any:
    places = [asked.put("bets", list(xs), mean, part / mean) for part in parts]
    return lambda: log_mean_exp([asked[place] for place in places])


def _both(one: Any, other: Any) -> Any:
    return lambda: min(one(), other())


def _see_each(xs: list[float], name: str, block: Block, *, evidence: bool) -> None:
    """Of each pair, 1 where it is well."""
    pairs = block.pairs
    events = pairs.disagreements if name == "disagreement" else pairs.flips
    if evidence:
        xs += [0.0] * events + [1.0] * (pairs.units - events)


def _mean(plan: Plan, place: int) -> float:
    guard = plan.settings.guards[place]
    if guard.max is not None:
        return guard.max / 1e6
    assert guard.worse_than is not None
    return (1 + abs(guard.worse_than.amount)) / 2


def _see(xs: list[float], name: str, block: Block, *, evidence: bool) -> None:
    """As values in [0, 1]: a block's share, or a labelled pair's (x + 1) / 2."""
    pairs = block.pairs
    if not evidence:
        return
    if name == "shadow_accuracy":
        worse, better = pairs.only_primary_right, pairs.only_shadow_right
        xs += [1.0] * worse + [0.0] * better + [0.5] * (pairs.labels - worse - better)
    elif pairs.units:
        xs.append((pairs.disagreements if name == "disagreement" else pairs.flips) / pairs.units)
