"""Detectors that are fed decision by decision, alibi-detect's and ours, on the same streams."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from gateway.detectors.foreign import Foreign, Specification
from gateway.monitor.panel import Row, panel_of
from gateway.monitor.reference import Reference
from gateway.monitor.sequential import advance, begin
from load import mixed
from load.altered import CHANGES, Columns, encoded_all, reference_of, whole
from load.pages import Table

RUN, ROWS = 500, 1_000
"""Decisions between alarms by chance that each is asked for; of the reference. Both are small for
their sake: their thresholds take time as the run times the square of the rows."""
BOOTSTRAPS = 10 * RUN
"""Streams that alibi-detect simulates for its thresholds: ten a decision, as its manual says."""
WINDOWS = (20, 40, 160)
"""Of decisions, that alibi-detect slides over the stream: for great changes and for small ones."""
LEAD, LENGTH, PIECE = 500, 2_000, 100
"""Decisions before a change, which fill every window anew; after it at most; fed at once."""
OF_NUMBER = tuple(f"mean of one by {size:g} sigma" for size in (0.1, 0.25, 0.5, 1.0))
NUMBER = ("x3", (*OF_NUMBER, "spread of one by 1.5"))
FLAG = ("returning", ("a flag from 10 to 19 %",))
Listener = Callable[[Columns], list[int]]
"""Feeds the decisions that come next; says at which of them it alarms."""


@dataclass(frozen=True)
class Contender:
    name: str
    feature: str
    changes: tuple[str, ...]
    listener: Callable[[Foreign, Reference], Listener]
    times: int = 1
    """As many streams as the dear ones hear."""


def _theirs(detector: str, feature: str) -> Callable[[Foreign, Reference], Listener]:
    def made(foreign: Foreign, reference: Reference) -> Listener:
        """Its thresholds are simulated once, when it is first asked: that is what takes long."""
        features = [one for one in mixed.CARD.features if one.name == feature]
        arguments = {"ert": RUN, "window_sizes": WINDOWS, "n_bootstraps": BOOTSTRAPS}
        rows = encoded_all(reference.values, features)
        asked = Specification(detector, detector, 0.01, rows, (), arguments)

        def fed(columns: Columns) -> list[int]:
            return list(foreign.judge(asked, encoded_all(columns, features), 1)["alarms"])

        return fed

    return made


def _ours(feature: str) -> Callable[[Foreign, Reference], Listener]:
    def made(foreign: Foreign, reference: Reference) -> Listener:
        features = tuple(one for one in mixed.CARD.features if one.name == feature)
        card = mixed.CARD.model_copy(update={"features": features})
        alone = Reference.of(card, {feature: reference.values[feature]}, None, reference.digest)
        panel = panel_of(card, alone, 0.25, RUN)
        state = begin(panel)

        def fed(columns: Columns) -> list[int]:
            nonlocal state
            before = state.seen
            rows = [Row((value,), None, None) for value in columns[feature].tolist()]
            state, alarms = advance(panel, state, rows, 500)
            return [alarm.at - before - 1 for alarm in alarms]

        return fed

    return made


def _dummy(foreign: Foreign, reference: Reference) -> Listener:
    dice = np.random.default_rng(113)

    def fed(columns: Columns) -> list[int]:
        alarms: list[int] = np.flatnonzero(dice.random(len(columns["x3"])) < 1 / RUN).tolist()
        return alarms

    return fed


CONTENDERS = (
    Contender("ours, place and spread", *NUMBER, _ours("x3"), 5),
    Contender("CVMDriftOnline", *NUMBER, _theirs("CVMDriftOnline", "x3")),
    Contender("dummy: by dice", *NUMBER, _dummy, 5),
    Contender("ours, of a flag", *FLAG, _ours("returning"), 5),
    Contender("FETDriftOnline", *FLAG, _theirs("FETDriftOnline", "returning")),
    Contender("dummy: by dice", *FLAG, _dummy, 5),
)


def decision_by_decision(scale: float, foreign: Foreign) -> Table:
    """The run between alarms by chance, and the delay of each change."""
    repeats, quiet = max(2, round(20 * scale)), max(2_000, round(20_000 * scale))
    reference, rows = reference_of(0, ROWS), []
    for one in CONTENDERS:
        listener = one.listener(foreign, reference)
        cells = [one.name, by_chance(listener, one.times * quiet)]
        for change in (*NUMBER[1], *FLAG[1]):
            known = change in one.changes
            cells.append(delays(listener, change, one.times * repeats) if known else "")
        rows.append(cells)
        print(cells, file=sys.stderr, flush=True)
    note = (f"Each of one feature, against {ROWS:,} rows, one reference for all, and asked for a "
            f"run of {RUN:,}; theirs slide windows of {', '.join(map(str, WINDOWS))} and simulate "
            f"{BOOTSTRAPS:,} streams first. {quiet:,} decisions without a change, {repeats} "
            f"streams of each change, which begins after {LEAD} decisions without; five times as "
            f"many of ours and the dummy. Mean delay in decisions, and the share told within "
            f"{LENGTH:,}; as such a stream counts that was not.")  # fmt: skip
    return ("Beside alibi-detect 0.11.4: decision by decision", note,
            ["detector", "run measured (95 %)", *NUMBER[1], *FLAG[1]], rows)  # fmt: skip


def by_chance(listener: Listener, quiet: int) -> str:
    """The run, and its exact interval by Poisson's law."""
    dice = np.random.default_rng(114)
    alarms = sum(len(listener(whole(dice, PIECE))) for _ in range(quiet // PIECE))
    most, least = stats.chi2.ppf(0.975, 2 * alarms + 2) / 2, stats.chi2.ppf(0.025, 2 * alarms) / 2
    longest = f"{quiet / least:,.0f}" if alarms else "any"
    mean = f"{quiet / alarms:,.0f}" if alarms else "none"
    return f"{mean} ({quiet / most:,.0f} to {longest})"


def delays(listener: Listener, change: str, repeats: int) -> str:
    found = [delay(listener, change, np.random.default_rng([seed, 112])) for seed in range(repeats)]
    told = [one for one in found if one is not None]
    mean = np.mean(told + [LENGTH] * (repeats - len(told)))
    return f"{mean:,.0f} ({100 * len(told) / repeats:.0f} %)"


def delay(listener: Listener, change: str, dice: Any) -> int | None:
    """Decisions from the change to the first alarm; None: none came. What is heard before the
    change is chance, and leaves nothing of the stream before."""
    listener(whole(dice, LEAD))
    for start in range(0, LENGTH, PIECE):
        columns = whole(dice, PIECE)
        CHANGES[change](dice, columns)
        if alarms := listener(columns):
            return start + alarms[0] + 1
    return None
