"""The same streams judged by alibi-detect's detectors, in their own interpreter, and by ours."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.detectors import foreign as foreign_process
from gateway.detectors.environment import Family
from gateway.detectors.foreign import Broken, Foreign, Specification
from gateway.monitor.family import CATEGORIES, FLAGS, NUMBERS, Floats
from gateway.monitor.reference import Reference
from load import mixed
from load.altered import CHANGES, ROWS, Columns, encoded_all, reference_of, whole
from load.chance import THUMBS, significant, thumbs
from load.online import decision_by_decision
from load.pages import Table
from load.synthetic import judged, settings_of

BATCH = ("KSDrift", "CVMDrift", "ChiSquareDrift", "FETDrift", "TabularDrift", "ClassifierDrift",
         "MMDDrift", "LSDDDrift")  # fmt: skip
TORCH = ("MMDDrift", "LSDDDrift")
DEAR, EACH = ("ClassifierDrift", "MMDDrift"), 4
"""Half a second a window: they are asked of each fourth stream."""
WINDOW, REFERENCES = 500, 4
PATIENCE_S = 3600.0
"""A loaded machine is no reason to leave a detector out."""
OF_TORCH = {"n_permutations": 100}
OURS = ("significant", "over the floor", "paged by the second")
DUMMY = "dummy: each hundredth by dice"


def beside(scale: float, folder: Path | None) -> list[Table]:
    """Single windows by each batch detector, then decision by decision by the online ones."""
    if folder is None:
        raise SystemExit("beside: --alibi FOLDER names alibi-detect's interpreter")
    for limit in ("START_S", "JUDGE_S", "MAKE_S"):
        setattr(foreign_process, limit, PATIENCE_S)
    foreign = Foreign(Family(str(folder / "bin" / "python"), ""))
    try:
        return [_windows(scale, foreign), decision_by_decision(scale, foreign)]
    finally:
        foreign.close()


def _windows(scale: float, foreign: Foreign) -> Table:
    repeats = max(EACH, round(80 * scale))
    references = [reference_of(seed) for seed in range(REFERENCES)]
    theirs = Theirs(foreign)
    names = [*OURS, *THUMBS, DUMMY, *BATCH]
    told = {name: [f"ours, {name}" if name in OURS else name] for name in names}
    for change, make in CHANGES.items():
        found: Counter[str] = Counter()
        streams = 4 * repeats if change == "nothing" else repeats
        for seed in range(streams):
            dice = np.random.default_rng([seed, 110])
            windows = [whole(dice, WINDOW) for _ in range(2)]
            for window in windows:
                make(dice, window)
            at = seed // EACH % REFERENCES
            found.update(_ours(references[at], windows, dice))
            asked = BATCH if seed % EACH == 0 else [one for one in BATCH if one not in DEAR]
            found.update(theirs.of(asked, references[at], at, windows[0], seed))
        for name in names:
            share = found[name] / (len(range(0, streams, EACH)) if name in DEAR else streams)
            told[name].append(theirs.silent.get(name) or f"{100 * share:.0f} %")
        print(change, dict(found), file=sys.stderr, flush=True)
    note = (f"One window of {WINDOW} against {ROWS:,} rows (MMD and LSDD: {WINDOW}), level 0.01; "
            f"{repeats} streams of each change, {4 * repeats} of nothing ({' and '.join(DEAR)}: "
            f"each fourth), {REFERENCES} references. A detector is given the features that it "
            "reads. A page takes two windows: of the rule of windows, or an alarm and its "
            "confirmation, decision by decision.")  # fmt: skip
    return "Beside alibi-detect 0.11.4: windows", note, ["detector", *CHANGES], list(told.values())


def _ours(reference: Reference, windows: list[Columns], dice: Any) -> list[str]:
    decisions = (mixed.decisions_of(dice, WINDOW, at * WINDOW, one, explained=False)
                 for at, one in enumerate(windows))  # fmt: skip
    first, second = judged(reference, settings_of(), decisions, mixed.CARD)
    drifts = [f.drift for f in first.features] + [first.joint, first.score.drift]
    drifts += [first.outcome.drift] if first.outcome is not None else []
    said = thumbs(first)
    said += ["significant"] if significant(first) else []
    said += ["over the floor"] if any(one.running for one in drifts) else []
    said += ["paged by the second"] if first.opened or second.opened else []
    return said + ([DUMMY] if dice.random() < 0.01 else [])


class Theirs:
    """alibi-detect's batch detectors. `silent`: why one says nothing; it is not asked again."""

    def __init__(self, foreign: Foreign) -> None:
        self.silent: dict[str, str] = {}
        self._foreign = foreign

    def of(
        self, asked: Sequence[str], reference: Reference, number: int, window: Columns, seed: int
    ) -> list[str]:  # fmt: skip
        """Those that see a drift."""
        said = []
        for name in asked:
            features, categories = _read(name)
            then, now = (encoded_all(one, features) for one in (reference.values, window))
            arguments: dict[str, Any] = {}
            if name in TORCH:
                then, arguments = then[:WINDOW], OF_TORCH
            detector = Specification(f"{name} {number}", name, 0.01, then, categories, arguments)
            if name not in self.silent and self._sees(detector, now, seed):
                said.append(name)
        return said

    def _sees(self, asked: Specification, now: Floats, seed: int) -> bool:
        try:
            return bool(self._foreign.judge(asked, now, seed)["is_drift"])
        except Broken as error:
            print(asked.detector, error, file=sys.stderr, flush=True)
            self.silent[asked.detector] = (
                "not installed: torch" if asked.detector in TORCH and "torch" in str(error).lower()
                else str(error)
            )  # fmt: skip
            return False


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
