"""The stores on disk as the supervisor sees them: sizes, growth, the day they are full."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from typing import Any

from gateway.budget import (
    DAY_S,
    Reserve,
    Room,
    Rung,
    bytes_a_day,
    days_left,
    measure,
    rung_of,
    write_rungs,
)
from gateway.clock import Clock, isoformat
from gateway.settings import Disk
from gateway.telemetry.metrics import Metrics

SAMPLES = 360
GROWTH_S = 600
"""A growth seen for less says nothing of a day."""
DAYS_TOLD = 3650
HARMLESS = ("catalog",)
"""Stores that are derived: when their budget is used up answers go on, with a word."""
GIVEN_UP = {
    Rung.WARN: "little is left",
    Rung.SPARE: "no shadow traffic, and bodies that no decision needs are not kept",
    Rung.REFUSE: "answers are refused",
}
log = logging.getLogger("headworks.stores")


class Stores:
    """A short history of each store's size; `look` may wait for the disk."""

    def __init__(self, state: Path, disk: Disk, metrics: Metrics, clock: Clock) -> None:
        self._state, self._metrics, self._clock = state, metrics, clock
        self._reserve = Reserve(state / "reserve", disk.reserve)
        self._at_most = {
            "journal": disk.journal.at_most, "ledger": disk.ledger.at_most,
            "bodies": disk.bodies.at_most, "catalog": disk.catalog.at_most,
        }  # fmt: skip
        self._samples: dict[str, deque[tuple[float, int]]] = {
            name: deque(maxlen=SAMPLES) for name in self._at_most
        }
        self._rooms: dict[str, Room] = {}
        self._rungs: dict[str, Rung] = {}

    def look(self, at: float) -> None:
        """Measure every store at this moment (seconds) and tell the workers what it asks for."""
        free, total = self._reserve.free_beside()
        for name, at_most in self._at_most.items():
            used = measure(self._state / name)
            self._samples[name].append((at, used))
            self._rooms[name] = room = Room(used, at_most, free, total)
            rung = rung_of(room, self._reserve.size)
            if name in HARMLESS and free >= self._reserve.size:
                rung = min(rung, Rung.WARN)
            self._rungs[name] = rung
            self._metrics.set("headworks_disk_rung", rung, name)
            self._metrics.set("headworks_disk_bytes", used, name)
        asked = {name: rung for name, rung in self._rungs.items() if name != "journal"}
        try:
            write_rungs(self._state, asked)  # the journal's own budget each worker sees itself
        except OSError as error:
            log.error("the workers cannot be told of the disk: %s", error)

    def words(self) -> list[str]:
        """What is worth a word, by store."""
        return self._said((Rung.WARN, Rung.SPARE))

    def refusing(self) -> list[str]:
        """The stores for whose sake nothing is answered."""
        return self._said((Rung.REFUSE,))

    def _said(self, rungs: tuple[Rung, ...]) -> list[str]:
        return [
            f"disk: {name}: {self._rooms[name].left:.0%} left: {GIVEN_UP[rung]}"
            for name, rung in self._rungs.items()
            if rung in rungs
        ]

    def to_json(self) -> dict[str, Any]:
        return {name: self._told(name) for name in self._rooms}

    def _told(self, name: str) -> dict[str, Any]:
        room, samples = self._rooms[name], self._samples[name]
        lasted = samples[-1][0] - samples[0][0]
        growth = bytes_a_day(samples) if lasted >= GROWTH_S else None
        days = None if growth is None else days_left(room, growth)
        full = None
        if days is not None and days < DAYS_TOLD:
            full = isoformat(self._clock.wall() + int(days * DAY_S * 1e9))[:10]
        return {
            "bytes": room.used, "at_most": room.at_most, "left": round(room.left, 4),
            "bytes_a_day": None if growth is None else round(growth), "measured_s": round(lasted),
            "full_on": full, "rung": self._rungs[name].name.lower(),
        }  # fmt: skip
