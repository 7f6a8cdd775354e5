"""What windows are held against: references, their explanations, detectors with their thresholds.

Each takes from a tenth of a second to many to make, and hangs on nothing but digests and settings.
So it is made once, by whoever asks first: `prepare`, beside the fold, for all that a revision may
need; or the fold, where its decisions came sooner. Whoever asks meanwhile waits: a window is never
judged by less than it would be later, and so says the same after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.artifacts import Artifacts
from gateway.explain.rows import take
from gateway.explain.scorer import Scorer
from gateway.explain.worker import Explanations, as_columns, read_parquet
from gateway.monitor import attribution
from gateway.monitor.attribution import ROWS_AT_MOST, AttributionReference
from gateway.monitor.panel import Panel, panel_of
from gateway.monitor.reference import Reference
from gateway.monitor.window import WindowSettings
from gateway.table import Model, Table, Version

Thing = TypeVar("Thing")
log = logging.getLogger("headworks.monitor")


MADE_MAX = 256
"""Of each kind; a further one takes the place of the one made first, which is made again if asked
for: a version that nobody runs any more takes no memory for ever."""


class Made(Generic[Thing]):
    """Things by what they are made of. One that could not be made raises, and is tried again."""

    def __init__(self) -> None:
        self._things: dict[Any, tuple[Thing]] = {}
        self._making: dict[Any, Lock] = {}

    def get(self, key: Any, make: Callable[[], Thing]) -> Thing:
        if (found := self._things.get(key)) is not None:
            return found[0]
        try:
            with self._making.setdefault(key, Lock()):
                if (found := self._things.get(key)) is None:
                    found = self._things[key] = (make(),)
        except BaseException:
            self._making.pop(key, None)  # else what never can be made would leave its lock for ever
            raise
        for former in list(self._things)[:-MADE_MAX]:
            self._things.pop(former, None)
            self._making.pop(former, None)
        return found[0]


class Yardsticks:
    def __init__(self, artifacts: Artifacts, explanations: Explanations | None) -> None:
        """`explanations`: who explains the decisions that come, and so explains the reference;
        None: attributions are not judged."""
        self._artifacts, self._explanations = artifacts, explanations
        self._references: Made[Reference] = Made()
        self._panels: Made[Panel | None] = Made()
        self._attributed: Made[AttributionReference | None] = Made()
        self._unreadable: set[Any] = set()
        self._stopping = Event()
        self._beside = ThreadPoolExecutor(1, "yardsticks")

    def follow(self, table: Table) -> None:
        """Have ready what a revision needs, without waiting for it."""
        self._beside.submit(self.prepare, table)

    def close(self) -> None:
        """After the version that is being prepared."""
        self._stopping.set()
        self._beside.shutdown(cancel_futures=True)

    def prepare(self, table: Table) -> None:
        """All that the windows of a revision may need."""
        steps = (self.reference, self.attributions, self.panel, self._learn)
        for model in table.models.values():
            for version in model.versions.values():
                for step in steps if version.card is not None and model.reference else ():
                    if self._stopping.is_set():
                        return
                    try:
                        step(model, version)
                    except Exception:  # the fold meets it again and says what it means
                        log.exception("%s/%s: not prepared", model.name, version.name)

    def _learn(self, model: Model, version: Version) -> None:
        """What is calculated at a first comparison and kept then."""
        settings = WindowSettings.of(model.monitor)
        if (found := self.reference(model, version)) is not None:
            _ = found.domain.learned
        if (attributed := self.attributions(model, version)) is not None:
            attribution.chances(attributed, settings.count, settings.drift)

    def reference(self, model: Model, version: Version) -> Reference | None:
        """None: there is none, or it cannot be read."""
        key = (model.reference, version.artifact or version.name)
        if model.reference is None or version.card is None or key in self._unreadable:
            return None
        try:
            return self.whole_reference(model, version)
        except Exception:
            log.exception("no reference of %s/%s", model.name, version.name)
            self._unreadable.add(key)
            return None

    def whole_reference(self, model: Model, version: Version) -> Reference:
        """Raises where it cannot be read; of a model that has none, one without rows."""
        assert version.card is not None
        if model.reference is None:
            return Reference.absent(version.card)
        key = (model.reference, version.artifact or version.name)
        return self._references.get(key, lambda: self._read(model, version))

    def _read(self, model: Model, version: Version) -> Reference:
        assert model.reference is not None
        assert version.card is not None
        rows = read_parquet(self._artifacts.whole_file(model.reference))
        card = version.card
        known = tuple(one for one in card.features if one.used or one.name in rows)
        columns = as_columns(card.model_copy(update={"features": known}), rows)
        return Reference.of(card, columns, self._scores(version, columns), model.reference)

    def _scores(self, version: Version, columns: Any) -> NDArray[np.float64] | None:
        """The version's own scores of the reference rows."""
        if version.artifact is None or version.card is None:
            return None
        model = (self._artifacts.whole(version.artifact) / "model.onnx").read_bytes()
        return Scorer(version.card, model).scores(columns)

    def panel(self, model: Model, version: Version) -> Panel | None:
        """The sequential detectors; None where none runs, or where they cannot be made, which must
        not stop the fold; nor is it tried again."""
        settings = WindowSettings.of(model.monitor)
        if not settings.is_heard or model.reference is None:
            return None
        key = panel_key(model, version, settings)
        return self._panels.get(key, lambda: self._panel(model, version, settings))

    def _panel(self, model: Model, version: Version, settings: WindowSettings) -> Panel | None:
        rules = settings.drift.sequential
        try:
            assert version.card is not None
            reference = self.whole_reference(model, version)
            return panel_of(version.card, reference, rules.shift, rules.run)
        except Exception:
            log.exception("%s/%s: no sequential detectors", model.name, version.name)
            return None

    def attributions(self, model: Model, version: Version) -> AttributionReference | None:
        """The reference's rows explained; None where they cannot be, nor is it tried again."""
        if model.reference is None or self._explanations is None:
            return None
        if model.explain["method"] == "off":
            return None
        key = (model.reference, version.artifact, model.background)
        return self._attributed.get(key, lambda: self._explained(model, version))

    def _explained(self, model: Model, version: Version) -> AttributionReference | None:
        assert self._explanations is not None
        try:
            explainer = self._explanations.explainer(model, version)
            if explainer is None:
                return None
            rows = self.whole_reference(model, version)
            chosen = np.unique(np.linspace(0, rows.rows - 1, ROWS_AT_MOST).astype(int))
            found = explainer.explain(take(rows.values, chosen))
            return AttributionReference.of(found.features, found.values, found.background)
        except Exception:
            log.exception("%s/%s: attributions are not judged", model.name, version.name)
            return None


def panel_key(model: Model, version: Version, settings: WindowSettings) -> tuple[Any, ...]:
    """What a panel is made of."""
    rules = settings.drift.sequential
    return (version.artifact, model.reference, *rules.model_dump().items())
