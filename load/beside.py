"""The same streams judged by alibi-detect's detectors, in their own interpreter, and by ours."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gateway.detectors import foreign as foreign_process
from gateway.detectors.environment import Family
from gateway.detectors.foreign import Broken, Foreign, Specification
from gateway.monitor.family import CATEGORIES, FLAGS, NUMBERS, encoded
from gateway.monitor.reference import Reference
from load import mixed
from load.chance import THUMBS, significant, thumbs
from load.pages import Table
from load.synthetic import judged, settings_of

BATCH = ("KSDrift", "CVMDrift", "ChiSquareDrift", "FETDrift", "TabularDrift", "ClassifierDrift",
         "MMDDrift", "LSDDDrift")  # fmt: skip
TORCH = ("MMDDrift", "LSDDDrift")
ONLINE: dict[str, dict[str, Any]] = {
    "CVMDriftOnline": {"ert": 2_000, "window_sizes": (20, 40), "n_bootstraps": 500},
    "FETDriftOnline": {"ert": 2_000, "window_sizes": (20, 40), "n_bootstraps": 500},
}
ROWS, WINDOW, REFERENCES = 2_000, 500, 4
TORCH_ROWS = 250
PATIENCE_S = 3600.0
"""A loaded machine is no reason to leave a detector out."""
OF_TORCH = {"n_permutations": 100}
OURS = ("significant", "over the floor", "paged by the second")
Columns = dict[str, np.typing.NDArray[Any]]
Change = Callable[[Any, Columns], None]


def _moved(size: float) -> Change:
    def made(dice: Any, columns: Columns) -> None:
        columns["x3"] += size

    return made


def _widened(dice: Any, columns: Columns) -> None:
    columns["x3"] *= 1.5


def _correlated(dice: Any, columns: Columns) -> None:
    columns["x6"] = 0.6 * columns["x3"] + 0.8 * columns["x6"]


def _rounded(dice: Any, columns: Columns) -> None:
    columns["x3"] = columns["x3"].round(0)


def _mixed(dice: Any, columns: Columns) -> None:
    turned = (columns["product"] == "a") & (dice.random(len(columns["product"])) < 0.3)
    columns["product"][turned] = "b"


def _flagged(dice: Any, columns: Columns) -> None:
    columns["returning"][dice.random(len(columns["returning"])) < 0.1] = "yes"


CHANGES: dict[str, Change] = {
    "nothing": lambda dice, columns: None,
    **{f"mean of one by {size:g} sigma": _moved(size) for size in (0.1, 0.25, 0.5, 1.0)},
    "spread of one by 1.5": _widened,
    "correlation of two, 0 to 0.6": _correlated,
    "one rounded to integers": _rounded,
    "a category from 50 to 35 %": _mixed,
    "a flag from 10 to 19 %": _flagged,
}


def whole(dice: Any, n: int) -> Columns:
    """Mixed traffic in which everything is there and can be read: what all detectors take."""
    columns = mixed.drawn(dice, n)
    for name in mixed.MISSING:
        gone = np.isnan(columns[name])
        columns[name][gone] = dice.lognormal(7, 1, n)[gone] if name == "amount" else (
            dice.normal(size=n)[gone])  # fmt: skip
    columns["channel"][columns["channel"] == "none of these"] = "agent"
    return columns


def beside(scale: float, folder: Path | None) -> list[Table]:
    """Single windows by each batch detector, then decision by decision by the online ones."""
    if folder is None:
        raise SystemExit("beside: --alibi FOLDER names alibi-detect's interpreter")
    for limit in ("START_S", "JUDGE_S", "MAKE_S"):
        setattr(foreign_process, limit, PATIENCE_S)
    foreign = Foreign(Family(str(folder / "bin" / "python"), ""))
    try:
        return [_windows(scale, foreign), _streams(scale, foreign)]
    finally:
        foreign.close()


def _windows(scale: float, foreign: Foreign) -> Table:
    repeats = max(2, round(20 * scale))
    columns = ["detector", *CHANGES]
    names = [*OURS, *THUMBS, "dummy: each hundredth by dice", *BATCH]
    told: dict[str, list[str]] = {name: [name] for name in names}
    for change, make in CHANGES.items():
        many = 4 * repeats if change == "nothing" else repeats
        found: Counter[str] = Counter()
        for seed in range(many):
            dice = np.random.default_rng([seed, 110])
            windows = [whole(dice, WINDOW) for _ in range(2)]
            for window in windows:
                make(dice, window)
            reference = _reference(seed % REFERENCES)
            found.update(_ours(reference, windows, dice))
            found.update(_theirs(foreign, reference, seed, windows[0]))
        for name in names:
            share = "blocked" if found[f"blocked {name}"] else f"{100 * found[name] / many:.0f} %"
            told[name].append(share)
        print(change, dict(found), file=sys.stderr, flush=True)
    note = (f"One window of {WINDOW} against {ROWS:,} rows (MMD and LSDD: {TORCH_ROWS} of each), "
            f"level 0.01; {repeats} streams of each change, {4 * repeats} of nothing. A detector "
            "is given the features that it reads. Windows are independent, so the mean delay is "
            "500 decisions divided by the share.")  # fmt: skip
    return "Beside alibi-detect 0.11.4: windows", note, columns, list(told.values())


def _reference(seed: int) -> Reference:
    columns = whole(np.random.default_rng([seed, 111]), ROWS)
    return Reference.of(mixed.CARD, columns, mixed.scores_of(columns), f"{seed:064d}")


def _ours(reference: Reference, windows: list[Columns], dice: Any) -> list[str]:
    decisions = (mixed.decisions_of(dice, WINDOW, at * WINDOW, one, explained=False)
                 for at, one in enumerate(windows))  # fmt: skip
    first, second = judged(reference, settings_of(), decisions, mixed.CARD)
    drifts = [f.drift for f in first.features] + [first.joint, first.score.drift]
    said = thumbs(first)
    said += ["significant"] if significant(first) else []
    said += ["over the floor"] if any(one.running for one in drifts) else []
    said += ["paged by the second"] if first.opened or second.opened else []
    return said + (["dummy: each hundredth by dice"] if dice.random() < 0.01 else [])


def _theirs(foreign: Foreign, reference: Reference, seed: int, window: Columns) -> list[str]:
    said = []
    for name in BATCH:
        features, categories = _read(name)
        then, now = (_encoded(one, features) for one in (reference.values, window))
        arguments: dict[str, Any] = {}
        if name in TORCH:
            then, now, arguments = then[:TORCH_ROWS], now[:TORCH_ROWS], OF_TORCH
        asked = Specification(
            f"{name} {seed % REFERENCES}", name, 0.01, then, categories, arguments
        )
        try:
            said += [name] if foreign.judge(asked, now, seed)["is_drift"] else []
        except Broken as error:
            print(name, error, file=sys.stderr, flush=True)
            said.append(f"blocked {name}")
    return said


def _read(detector: str) -> tuple[list[Any], list[int]]:
    """The features that it reads, and which of them are categories."""
    of_card = mixed.CARD.features
    if detector in NUMBERS or detector in TORCH or detector == "ClassifierDrift":
        return [f for f in of_card if f.type != "category"], []
    if detector in CATEGORIES:
        return [f for f in of_card if f.type == "category"], []
    if detector in FLAGS:
        return [f for f in of_card if f.name == "returning"], []
    return list(of_card), [i for i, f in enumerate(of_card) if f.type == "category"]


def _encoded(columns: Any, features: list[Any]) -> np.typing.NDArray[np.float64]:
    found = np.stack([encoded(f, columns[f.name].tolist()) for f in features], axis=1)
    amounts = [place for place, feature in enumerate(features) if feature.name == "amount"]
    found[:, amounts] = np.log(found[:, amounts])  # else one feature is all that a kernel sees
    return found


def _streams(scale: float, foreign: Foreign) -> Table:
    """Online ones: of a number, or of the flag; alarms by chance, and the delay of a change."""
    repeats, quiet = max(2, round(20 * scale)), max(2_000, round(40_000 * scale))
    rows = []
    for name, arguments in ONLINE.items():
        features = [f for f in mixed.CARD.features
                    if f.name in (("returning",) if name in FLAGS else ("x3",))]  # fmt: skip
        then = _encoded(_reference(0).values, features)
        asked = Specification(name, name, 0.01, then, (), arguments)

        def fed(make: Change, seed: int, n: int, a: Any = asked, f: Any = features) -> list[int]:
            dice = np.random.default_rng([seed, 112])
            columns = whole(dice, n)
            make(dice, columns)
            alarms: list[int] = foreign.judge(a, _encoded(columns, f), seed)["alarms"]
            return alarms

        by_chance = sum(len(fed(CHANGES["nothing"], seed, 2_000)) for seed in range(quiet // 2_000))
        cells = [name, f"{arguments['ert']:,}", f"{quiet // max(1, by_chance):,}", f"{by_chance}"]
        kinds = (["a flag from 10 to 19 %"] if name in FLAGS else
                 [f"mean of one by {size:g} sigma" for size in (0.25, 0.5, 1.0)])  # fmt: skip
        delays = []
        for kind in kinds:
            firsts = [next(iter(fed(CHANGES[kind], seed, 2_000)), 2_000) for seed in range(repeats)]
            delays.append(f"{kind}: {np.mean(firsts):,.0f}")
        rows.append([*cells, "; ".join(delays)])
        print(rows[-1], file=sys.stderr, flush=True)
    note = (f"{quiet:,} decisions without a change, in streams of 2,000; {repeats} streams of each "
            "change, which begins at once; 2,000 stands for not found. One detector of one "
            "number, one of a flag; ours of all features together are above.")  # fmt: skip
    return ("Beside alibi-detect 0.11.4: decision by decision", note,
            ["detector", "run wanted", "run measured", "alarms", "mean delay in decisions"],
            rows)  # fmt: skip
