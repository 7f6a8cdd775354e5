"""Windows on their way through a detector of another family, which may take a minute each.

Nobody waits for it: a window is handed over when it closes, and what the detector says of it stands
in the report of the first window of the series that closes afterwards, in order. Of each series one
window is with it at most; one that closes meanwhile is not judged by it, which is counted and said.
So is one that was with it when the analyst ended.
"""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from gateway.card import Card, Feature
from gateway.detectors.foreign import Broken, Foreign, Specification
from gateway.modelsettings import DriftSettings
from gateway.monitor.family import (
    FamilyVerdict,
    Floats,
    chosen,
    reference_rows,
    verdict_of,
    window_rows,
)
from gateway.monitor.reference import Reference
from gateway.monitor.window import Window
from gateway.table import Model, Version

log = logging.getLogger("headworks.monitor")


@dataclass(frozen=True)
class UnderWay:
    """A window that the detector has; `features` in the order of its figures."""

    window: str
    detector: str
    n: int
    features: tuple[Feature, ...]
    answer: Future[dict[str, Any]]

    def verdict(self) -> FamilyVerdict:
        found = FamilyVerdict(self.detector, self.n, window=self.window)
        try:
            said = verdict_of(self.detector, self.n, self.features, self.answer.result())
        except (Broken, KeyError, TypeError, ValueError) as error:
            why = str(error) if isinstance(error, Broken) else f"its answer is none: {error!r}"
            log.warning("%s of %s: %s", self.detector, self.window, why)
            return replace(found, why=why)
        return replace(said, window=self.window)


class FamilyQueue:
    def __init__(self, foreign: Foreign | None) -> None:
        self._foreign = foreign
        self._under_way: dict[str, UnderWay] = {}
        self._lost: dict[str, str] = {}
        self._unjudged: Counter[str] = Counter()
        self.dropped = 0
        # One thread: the family is asked one thing at a time, in the order of the windows.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="family")

    def lose(self, series: str, window: str) -> None:
        """A window was with the detector when the analyst ended: its verdict will not come."""
        self._lost[series] = window

    def asked(self, series: str) -> str | None:
        """The window of a series that is with the detector."""
        found = self._under_way.get(series)
        return self._lost.get(series) if found is None else found.window

    def forget(self, series: str) -> None:
        """A series is let go; what is said of its window then is no report's."""
        for told in (self._under_way, self._lost, self._unjudged):
            told.pop(series, None)

    def settle(self) -> None:
        """Wait for what is under way; for tests and for what may take its time."""
        for one in self._under_way.values():
            one.answer.exception()

    def exchange(
        self, model: Model, version: Version, window: Window, number: int, reference: Reference,
        rules: DriftSettings, minimum: int,
    ) -> FamilyVerdict | None:  # fmt: skip
        """Hand over a closed window and take what was said of one before it; None where the model
        names no detector, or the window is too small for one."""
        named = model.monitor.get("detector")
        if named is None or len(window) < minimum:
            return None
        about = FamilyVerdict(named, len(window), window=f"{window.series}/{number}")
        if self._foreign is None:
            return replace(about, why="alibi-detect is not installed")
        before = self._under_way.get(window.series)
        if before is not None and not before.answer.done():
            return self._counted(window.series, about, f"{before.window} is still with it")
        said = before.verdict() if before is not None else None
        self._under_way.pop(window.series, None)
        if (lost := self._lost.pop(window.series, None)) is not None:
            told = replace(about, window=lost)
            said = self._counted(window.series, told, "the analyst ended before it was answered")
        why = self._offer(self._foreign, about, model, version, window, number, reference, rules,
                          minimum)  # fmt: skip
        said = said or replace(about, why=why or "it is with the detector now")
        return replace(said, unjudged=self._unjudged[window.series])

    def _counted(self, series: str, about: FamilyVerdict, why: str) -> FamilyVerdict:
        self._unjudged[series] += 1
        self.dropped += 1
        return replace(about, why=f"not judged in time: {why}", unjudged=self._unjudged[series])

    def _offer(
        self, foreign: Foreign, about: FamilyVerdict, model: Model, version: Version,
        window: Window, number: int, reference: Reference, rules: DriftSettings, minimum: int,
    ) -> str | None:  # fmt: skip
        """Why the window is not handed over, if it is not."""
        assert version.card is not None
        card, detector = version.card, about.detector.removeprefix("alibi.")
        features = chosen(card, reference, detector)
        if not features:
            return "no feature is of its kind"
        values = [decision.values for decision in window.decisions]
        rows = window_rows(card, reference, detector, features, values)
        if len(rows) < minimum:
            return "too few rows can be read"
        asked = _specified(model, version, card, window.series, reference, rules, features)
        self._under_way[window.series] = UnderWay(
            about.window, about.detector, len(rows), features,
            self._asking.submit(_judged, foreign, asked, rows, number),
        )  # fmt: skip
        return None

    def close(self) -> None:
        self._asking.shutdown(wait=False, cancel_futures=True)
        if self._foreign is not None:
            self._foreign.close()


def _judged(foreign: Foreign, asked: Specification, rows: Floats, seed: int) -> dict[str, Any]:
    return foreign.judge(asked, rows, seed=seed)


def _specified(
    model: Model, version: Version, card: Card, series: str, reference: Reference,
    rules: DriftSettings, features: tuple[Feature, ...],
) -> Specification:  # fmt: skip
    named = str(model.monitor["detector"])
    detector = named.removeprefix("alibi.")
    arguments = model.monitor.get("detector_arguments") or {}
    return Specification(
        key=f"{series} {reference.digest} {version.artifact} {named} {rules.alpha} "
            f"{sorted(arguments.items())}",
        detector=detector,
        alpha=rules.alpha,
        reference=reference_rows(card, reference, detector, features),
        categories=[place for place, f in enumerate(features) if f.type == "category"],
        arguments=arguments,
    )  # fmt: skip
