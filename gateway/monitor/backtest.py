"""What other settings would have said: the same leaves, folded anew, beside what was said.

The series begin empty at the first leaf asked for, so windows are cut elsewhere than they were, and
what needs a past (bias over many windows, a baseline, two windows running) has none at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gateway.artifacts import Artifacts
from gateway.catalog.leaves import read_whole
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.modelsettings import MonitorSettings
from gateway.monitor.alerts import Alerts, Happening
from gateway.monitor.inference import Readings, is_judged, is_refused, read_inference
from gateway.monitor.report import WindowReport
from gateway.monitor.worker import Windows
from gateway.table import TableStore

LEAVES_MAX = 1_000_000
DECISIONS_MAX = 200_000
"""Of one backtest; it says so when it stops there."""
CHUNK = 256
HAPPENINGS_MAX = 500
FIXED = ("reference", "detector", "detector_arguments")
"""What a backtest does not change: a file that is not in the state, an interpreter of its own."""


def read_changes(pairs: Mapping[str, str]) -> dict[str, Any]:
    """`drift.alpha: 0.05` and the like as settings of `monitor`; ValueError names key and value."""
    tree: dict[str, Any] = {}
    known = list(triable(MonitorSettings))
    for key, text in pairs.items():
        if key.split(".")[0] in FIXED:
            raise ValueError(f"{key}={text}: a backtest does not change it")
        if key not in known:
            raise ValueError(
                f"{key}={text}: no setting of `monitor` that can be tried; these can: "
                f"{', '.join(known)}"
            )
        *path, last = key.split(".")
        place = tree
        for step in path:
            place = place.setdefault(step, {})
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"{key}={text}: not a value as YAML writes them") from None
    try:
        return MonitorSettings.model_validate(tree).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        words = found["msg"].removeprefix("Value error, ")
        told = "" if where in known else f" ({where})"
        key = next((key for key in pairs if where == key or where.startswith(f"{key}.")), where)
        raise ValueError(f"{key}={pairs.get(key)}: {words}{told}") from None


def triable(section: type[BaseModel], at: str = "") -> Iterator[str]:
    """Keys of settings that a backtest may change."""
    for name, declared in section.model_fields.items():
        below = declared.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from triable(below, f"{at}{name}.")
        elif at or name not in FIXED:
            yield f"{at}{name}"


def laid(monitor: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the changes over them, section by section."""
    merged = dict(monitor)
    for key, value in changes.items():
        former = merged.get(key)
        nested = isinstance(value, dict) and isinstance(former, dict)
        merged[key] = laid(former, value) if nested and former is not None else value
    return merged


@dataclass
class Told:
    """What monitoring said: windows by state, causes that were `watch` or worse, alerts."""

    decisions: int = 0
    windows: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    happenings: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False

    def take_report(self, report: WindowReport) -> None:
        self.windows[report.state] += 1
        self.causes.update(report.opened)

    def take_happening(self, happening: Happening) -> None:
        self.events[happening.event] += 1
        if len(self.happenings) < HAPPENINGS_MAX:
            alert = happening.alert
            self.happenings.append(
                {"at": happening.at, "event": happening.event, "alert": alert.key,
                 "severity": alert.severity, "window": alert.evidence.get("window")}
            )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {"decisions": self.decisions, "windows": dict(self.windows),
                "alarms": dict(self.causes), "events": dict(self.events),
                "happenings": self.happenings, "stopped": self.stopped}  # fmt: skip


def run_backtest(
    artifacts: Artifacts, tables: TableStore, ledger: LedgerReader, bodies: BodyReader,
    model: str, changes: Mapping[str, Any],
) -> Told:  # fmt: skip
    """Fold the leaves that `ledger` begins with. Without changes: what there would have been."""
    windows, alerts, told = Windows(artifacts, {}), Alerts({}), Told()
    models: dict[str, Any] = {}
    tables_seen: dict[str, Any] = {}
    readings = Readings()

    def hear(said: list[Any]) -> None:
        for one in said:
            if isinstance(one, WindowReport):
                told.take_report(one)
                happened = alerts.take_window(one)
            else:
                happened = alerts.take_sighting(one)
            for happening in happened:
                told.take_happening(happening)

    for _ in range(LEAVES_MAX // CHUNK):
        leaves = list(read_whole(ledger, bodies, CHUNK))
        for number, leaf in leaves:
            record = leaf["record"]
            if leaf["kind"] == "exchange":
                hear(list(windows.overdue(record["at"])))
            if record.get("model") != model or record.get("noise"):
                continue
            if not (is_judged(leaf) or is_refused(leaf)):
                continue
            revision = record["revision"]
            if revision not in models:
                table = tables_seen[revision] = tables.load(revision)
                known = table.models[model]
                models[revision] = replace(known, monitor=laid(known.monitor, changes))
            found = read_inference(leaf, tables_seen[revision], bodies, readings)
            if found.is_counted or found.contradicts_card:
                readable = found.is_counted
                hear([*windows.heard_of(models[revision], found.version, record,
                                        readable=readable)])  # fmt: skip
            if not found.is_counted:
                continue
            for decision in found.decisions(number, leaf):
                told.decisions += 1
                hear(windows.add(models[revision], found.version, record["arm"], decision))
        if len(leaves) < CHUNK:
            return told
        if told.decisions >= DECISIONS_MAX:
            break
    told.stopped = True
    return told
