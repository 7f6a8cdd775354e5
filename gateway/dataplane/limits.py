"""What is declared for the whole gateway, as one worker holds it: pure.

A number that all workers share is divided by them, never below one; 0 stays 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.settings import Clients, Overload, Settings

Priority = Literal["critical", "default", "batch", "shadow"]
SHED_ABOVE: Mapping[str, int] = {"critical": 100, "default": 90, "batch": 70, "shadow": 50}
"""Percent of `overload.in_flight` above which a class is refused."""

LULL_BYTES = 32 * 1024**2
"""Bodies that never took more leave the process's memory as it is."""


def divided(whole: int, workers: int) -> int:
    """One worker's share of a limit, rounded up."""
    return -(-whole // workers)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Of the data port, in seconds, bytes and numbers; `connections` are one worker's."""

    head_s: float
    body_s: float
    write_s: float
    idle_s: float
    head_bytes: int
    headers: int
    connections: int

    @staticmethod
    def of(clients: Clients, workers: int) -> ClientLimits:
        return ClientLimits(
            head_s=clients.head,
            body_s=clients.body,
            write_s=clients.write,
            idle_s=clients.idle,
            head_bytes=clients.head_bytes,
            headers=clients.headers,
            connections=divided(clients.connections, workers),
        )


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of one pool; at each of them something is refused, closed or counted."""

    connections: int = 128
    keep_idle_s: float = 60
    pending: int = 64
    retire_after_s: float = 600
    head_bytes: int = 32768
    header_count: int = 100
    resolve_every_s: float = 30


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_byte_s` runs from the request's last byte, `idle_s` between two reads."""

    connect_s: float = 1
    first_byte_s: float = 10
    idle_s: float = 30
    request_s: float = 10


class Load:
    """How much one worker has open, and whom it sheds for that: before a version is chosen, so that
    every arm is hit alike."""

    def __init__(self, overload: Overload, workers: int) -> None:
        whole = divided(overload.in_flight, workers)
        self.thresholds = {name: max(1, whole * part // 100) for name, part in SHED_ABOVE.items()}
        self.bodies = divided(overload.bodies, workers)
        self.in_flight = self.held_bytes = 0
        self._most_bytes = 0  # held since the last lull

    def sheds(self, priority: str) -> bool:
        """Whether an exchange of this class, already counted in `in_flight`, is one too many."""
        return self.in_flight > self.thresholds[priority]

    def hold(self, size: int) -> bool:
        """Take room for so many bytes of a request's body; False: there is none."""
        if self.held_bytes + size > self.bodies:
            return False
        self.held_bytes += size
        if self.held_bytes > self._most_bytes:
            self._most_bytes = self.held_bytes
        return True

    def is_lull(self) -> bool:
        """Whether bodies took much memory and take little of that now; once each time."""
        lull = self._most_bytes > LULL_BYTES and self.held_bytes < self._most_bytes // 8
        if lull:
            self._most_bytes = self.held_bytes
        return lull

    def release(self, size: int) -> None:
        self.held_bytes -= size


def effective(settings: Settings, workers: int) -> dict[str, int]:
    """What each worker has of the declared numbers, by their dotted keys."""
    found = {
        "clients.connections": divided(settings.clients.connections, workers),
        "overload.in_flight": divided(settings.overload.in_flight, workers),
        "overload.bodies": divided(settings.overload.bodies, workers),
    }
    for name, model in settings.models.items():
        for what in ("in_flight", "pending", "connections"):
            whole: int = getattr(model.limits, what)
            found[f"models.{name}.limits.{what}"] = divided(whole, workers)
        for what in ("items", "bytes", "concurrency"):
            most: int = getattr(model.shadow, what)
            found[f"models.{name}.shadow.{what}"] = divided(most, workers)
    return found


def retry_after(draw: int) -> bytes:
    """Seconds, 1 to 4: refused clients come back spread out. `draw` is any number."""
    return b"%d" % (1 + draw % 4)
