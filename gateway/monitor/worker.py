"""Windows over the ledger: which decision goes into which window, and when one closes.

A fold: the same leaves give the same windows. What persists is, per series, the state behind its
last closed window and where its open window began (a leaf and a decision, no values); after a
restart the open windows are filled again by reading the ledger from there.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

from gateway.artifacts import Artifacts
from gateway.card import Card
from gateway.detectors.foreign import Foreign
from gateway.explain.worker import Explanations
from gateway.monitor.alert import Sighting
from gateway.monitor.familyqueue import FamilyQueue
from gateway.monitor.feed import Feed
from gateway.monitor.flaws import level_of, rests_on_one_value, stuck_lately
from gateway.monitor.judge import judge
from gateway.monitor.readability import Readability, count
from gateway.monitor.report import WindowReport
from gateway.monitor.room import LET_GO, Room
from gateway.monitor.sequential import Alarm, Heard
from gateway.monitor.sightings import heard, unread
from gateway.monitor.state import SeriesState
from gateway.monitor.window import Decision, Window, WindowSettings
from gateway.monitor.yardsticks import Yardsticks, panel_key
from gateway.table import Model, Version

SERIES_MAX = 1000
log = logging.getLogger("headworks.monitor")
SCORED_ARMS = ("stable", "canary", "control", "shadow", "holdout", "fallback")


Told = WindowReport | Sighting


@dataclass(slots=True)
class Series:
    """`feed`: None where no detector runs; `fed_by`: the artifact and settings it was made for."""

    window: Window | None
    state: SeriesState
    model: Model
    version: Version
    settings: WindowSettings
    feed: Feed | None = None
    fed_by: tuple[Any, ...] = ()
    readability: Readability = Readability()
    _told: tuple[SeriesState, dict[str, Any]] | None = None

    def state_told(self) -> dict[str, Any]:
        """The state as JSON; it changes with a window only and is asked for several times then."""
        if self._told is None or self._told[0] is not self.state:
            self._told = self.state, self.state.to_json()
        return self._told[1]

    def follow(self, model: Model, version: Version) -> None:
        """What is in force with the decision that comes."""
        if model is not self.model:
            self.settings = WindowSettings.of(model.monitor)
        self.model, self.version = model, version


class Windows:
    def __init__(
        self, artifacts: Artifacts, told: dict[str, Any], foreign: Foreign | None = None,
        explanations: Explanations | None = None,
    ) -> None:  # fmt: skip
        """`told`: what `to_json` gave at the last commit, or {}. `foreign`: the other family of
        detectors, where it is installed. `explanations`: who explains the decisions that come, and
        so explains the reference; None: attributions are not judged."""
        self.yardsticks = Yardsticks(artifacts, explanations)
        self.family = FamilyQueue(foreign)
        self.room = Room("windows", SERIES_MAX, told)
        self._told = {key: one for key, one in told.items() if key != LET_GO}
        self._series: dict[str, Series] = {}
        self.unjudged = 0

    def replay_from(self) -> int | None:
        """The first leaf that an open window holds; None: there is no open window."""
        opened = [
            told["first_leaf"] for told in self._told.values() if told["first_leaf"] is not None
        ]
        return min(opened, default=None)

    def overdue(self, at: int) -> list[WindowReport]:
        """Close what has lasted too long by a leaf's time."""
        late = [
            key
            for key, series in self._series.items()
            if series.window is not None and series.window.is_overdue(at, series.settings)
        ]
        return [report for key in sorted(late) for report in self._close(self._series[key])]

    def add(self, model: Model, version: Version, arm: str, decision: Decision) -> list[Told]:
        """Put a decision into its window; the report if that closes it, and what its detectors
        confirm before."""
        if not is_watched(model, version) or arm not in SCORED_ARMS:
            return []
        entered, told = self._enter(f"{model.name}/{version.name}/{arm}", decision.at)
        if not entered:
            return []
        series = self._find(model, version, arm)
        if series.window is not None and (
            series.version.artifact != version.artifact
            or series.model.background != model.background
        ):
            series.window.is_cut = True
            told += self._close(series)
        series.follow(model, version)
        if series.window is None:
            series.state = series.state.of_artifact(version.artifact or "")
            series.window = Window(model.name, version.name, arm)
        series.window.add(decision)
        full = series.window.is_full(series.settings)
        told += self._feed(series, whole=full)
        if full:
            told += self._close(series)
        return told

    def _enter(self, key: str, at: int) -> tuple[bool, list[Told]]:
        """Whether there is room for a series, and what is said of the one that goes for it."""
        entered, idlest = self.room.enter(key, at)
        if idlest is None:
            return entered, []
        told: list[Told] = []
        series, kept = self._series.pop(idlest, None), self._told.pop(idlest, None)
        if series is not None and series.window is not None:
            series.window.is_cut = True
            told += self._close(series)
        number = series.state.number if series is not None else kept["state"]["number"]
        self.room.leave(number)
        self.family.forget(idlest)
        log.info("series %s is let go after window %d: it was idle longest", idlest, number)
        return entered, told

    def _feed(self, series: Series, *, whole: bool) -> list[Sighting]:
        """What the detectors confirm with the newest decisions of the open window."""
        assert series.window is not None
        card = series.version.card
        feed = self._feed_of(series)
        if feed is None or card is None:
            return []
        return [
            heard(series.window.series, series.state.number + 1, alarm, decision.id, decision.at)
            for alarm, decision in feed.take(series.window, card, whole=whole)
            if alarm.confirmed and not self._is_stuck(series, alarm)
        ]

    def _is_stuck(self, series: Series, alarm: Alarm) -> bool:
        """Whether an alarm waits for its window's end, for what it saw may be a fault of data."""
        window, card = series.window, series.version.card
        assert window is not None
        assert card is not None
        reference = self.yardsticks.whole_reference(series.model, series.version)
        level = level_of(card, series.settings.drift.alpha)
        return stuck_lately(window, alarm.cause, card, reference, level) or rests_on_one_value(
            window, alarm.cause, alarm.at - alarm.begun, card, reference
        )

    def _feed_of(self, series: Series) -> Feed | None:
        """Made anew at the beginning of a window, when artifact, reference or settings changed."""
        assert series.window is not None
        if series.feed is not None and len(series.window) > 1:
            return series.feed
        key = panel_key(series.model, series.version, series.settings)
        made_for = (*key, series.settings.is_heard)
        if series.fed_by == made_for:
            return series.feed
        series.fed_by = made_for
        panel = self.yardsticks.panel(series.model, series.version)
        confirm = series.settings.drift.sequential.confirm
        series.feed = Feed(panel, series.state.sequence, confirm) if panel else None
        return series.feed

    def heard_of(
        self, model: Model, version: Version, record: dict[str, Any], *, readable: bool
    ) -> list[Sighting]:
        """Count an exchange, be it one that is put into windows or one that cannot be read."""
        arm = record["arm"]
        if model.reference is None or version.card is None or arm not in SCORED_ARMS:
            return []
        name = f"{model.name}/{version.name}/{arm}"
        if not self.room.has(name):
            return []
        self.room.enter(name, record["at"])
        series = self._find(model, version, arm)
        series.readability, raised = count(series.readability, readable=readable)
        if raised is None:
            return []
        found, number = series.readability, series.state.number + 1
        return [unread(name, number, found, record["id"], record["at"], raised=raised)]

    def replay(self, model: Model, version: Version, arm: str, decision: Decision) -> None:
        """As `add`, for leaves that were folded before: fills open windows, closes none."""
        told = self._told.get(f"{model.name}/{version.name}/{arm}")
        if told is None or told["first_leaf"] is None or not is_watched(model, version):
            return
        begun = (told["first_leaf"], _row(told["first_id"]))
        if (decision.leaf, _row(decision.id)) < begun:
            return
        series = self._find(model, version, arm)
        series.follow(model, version)
        series.window = series.window or Window(model.name, version.name, arm)
        series.window.add(decision)
        self._feed(series, whole=False)

    def _find(self, model: Model, version: Version, arm: str) -> Series:
        key = f"{model.name}/{version.name}/{arm}"
        series = self._series.get(key)
        if series is None:
            told = self._told.get(key)
            state = (
                SeriesState.from_json(told["state"])
                if told
                else SeriesState(number=self.room.number)
            )
            series = self._series[key] = Series(
                None, state, model, version, WindowSettings.of(model.monitor)
            )
            if told and "readability" in told:  # else a former release's
                series.readability = Readability(**told["readability"])
            if told and (lost := told.get("asked")) is not None:
                self.family.lose(key, lost)
        return series

    def _close(self, series: Series) -> list[WindowReport]:
        """One report; none where the window cannot be judged, which must not stop the fold."""
        assert series.version.card is not None
        self._feed(series, whole=True)
        window, series.window = series.window, None
        assert window is not None
        said = Heard(series.state.sequence) if series.feed is None else series.feed.heard()
        try:
            reference = self.yardsticks.whole_reference(series.model, series.version)
            verdict = self.family.exchange(
                series.model, series.version, window, series.state.number + 1, reference,
                series.settings.drift, series.settings.minimum,
            )  # fmt: skip
            report, series.state = judge(
                window, reference, series.version.card, series.settings, series.state, said,
                verdict, self.yardsticks.attributions(series.model, series.version),
            )  # fmt: skip
        except Exception:
            log.exception("%r cannot be judged", window)
            self.unjudged += 1
            # The detectors heard it all the same: a restart goes on from there, as they do.
            series.state = replace(series.state, sequence=said.state)
            return []
        return [report]

    def close(self) -> None:
        self.yardsticks.close()
        self.family.close()

    def to_json(self) -> dict[str, Any]:
        """What a restart needs; nothing personal."""
        told: dict[str, Any] = self._told | self.room.to_json()
        for key, series in self._series.items():
            first = series.window.decisions[0] if series.window and len(series.window) else None
            told[key] = {
                "state": series.state_told(),
                "first_leaf": first.leaf if first else None,
                "first_id": first.id if first else None,
                "n": len(series.window) if series.window else 0,
                "readability": asdict(series.readability),
                "asked": self.family.asked(key),
                "seen": self.room.seen(key),
            }
        return told


def is_watched(model: Model, version: Version) -> bool:
    """Windows need a card's features and something to compare them with: a sample of them or, of
    text, whose card is no version's own, the windows before."""
    moving = model.protocol == "openai" and model.monitor.get("baseline", "none") != "none"
    return version.card is not None and (model.reference is not None or moving)


def _row(identity: str) -> int:
    return int(identity.rpartition("/")[2])


def decisions_of(
    card: Card, leaf: int, record: dict[str, Any], outcomes: list[dict[str, Any]],
    rows: dict[str, list[Any]], groups: list[dict[str, str]],
    explained: list[dict[str, Any]] | None = None,
) -> list[Decision]:  # fmt: skip
    """One exchange's rows as the monitor takes them; `explained`: the rows of its explanation."""
    found = []
    for place, decision in enumerate(outcomes):
        group = groups[place if len(groups) > 1 else 0] if groups else {}
        values = tuple(rows[feature.name][place] for feature in card.features)
        found.append(
            Decision(
                leaf=leaf,
                at=record["at"],
                id=f"{record['id']}/{place}",
                score=decision["score"],
                outcome=decision["outcome"],
                values=values,
                groups=group,
                attributions=tuple(explained[place]["values"]) if explained else None,
                flaw=decision.get("flaw"),
            )
        )
    return found
