"""What a worker serves with: one revision's table and its backends, swapped whole.

A new revision is made ready beside the old one (sessions loaded and warmed); the swap is one
assignment between two requests. Sessions and pools of versions that did not change are carried
over; what is no longer used is closed when its last exchange has ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.artifacts import Artifacts
from gateway.dataplane.backend import Backend, Traffic
from gateway.dataplane.inline import Inline
from gateway.dataplane.inprocess import Session
from gateway.exchange import Caller
from gateway.routing.identity import identify
from gateway.routing.place import Place, locate
from gateway.table import Model, Rule, Table, Version

TRAFFIC: tuple[Traffic, ...] = ("live", "shadow")
PLACES_MAX, PLACE_KNOWN_MAX = 1024, 256
CALLERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Live:
    """Copies for a shadow go through a backend of their own: its limits and its connections are
    never those of the answers."""

    table: Table
    backends: dict[tuple[str, str, Traffic], Backend]
    places: dict[tuple[bytes | None, str], Place] = field(default_factory=dict)
    """Where hosts and paths lead, as far as they were asked for."""
    callers: dict[bytes, Caller] = field(default_factory=dict, repr=False)
    """Whose key an authorization header holds, as far as one was shown: it never leaves this."""

    def caller(self, headers: dict[bytes, bytes]) -> Caller:
        """As `identify`, which the table alone decides: a key is digested once."""
        shown = headers.get(b"authorization", b"")
        caller = self.callers.get(shown)
        if caller is None:
            caller = identify(self.table, headers)
            if len(self.callers) >= CALLERS_MAX:
                self.callers.clear()
            if self.table.callers:  # else anything may be shown, and nothing is asked of it
                self.callers[shown] = caller
        return caller

    def place(self, host: bytes | None, path: str) -> Place:
        """As `locate`, which the table alone decides: asked once for each short one."""
        place = self.places.get((host, path))
        if place is None:
            name = (host or b"").decode("latin-1").lower().rsplit(":", 1)[0]
            place = locate(self.table, name, path)
            if len(name) + len(path) <= PLACE_KNOWN_MAX:
                if len(self.places) >= PLACES_MAX:
                    self.places.clear()
                self.places[host, path] = place
        return place

    def backend(self, model: Model, version: str) -> Backend:
        return self.backends[model.name, version, "live"]

    def shadow(self, model: Model, version: str) -> Backend:
        return self.backends[model.name, version, "shadow"]


def prepare(
    table: Table, artifacts: Artifacts, before: Live | None, workers: int, body_s: float
) -> Live:
    """ValueError or OSError where an artifact does not load: the old table stays in force."""
    backends: dict[tuple[str, str, Traffic], Backend] = {}
    for model in table.models.values():
        copied = {name for rule in model.rules for name in _copied(model, rule)}
        for version in model.versions.values():
            session = None
            for traffic in TRAFFIC if version.name in copied else TRAFFIC[:1]:
                key = (model.name, version.name, traffic)
                old = before.backends.get(key) if before else None
                if old is not None and _same(old, model, version):
                    backends[key], session = old, old.session
                    continue
                if not version.endpoints and session is None:
                    session = _load(model, version, artifacts)
                backends[key] = Backend(model, version, session, workers, body_s, traffic)
    return Live(table, backends)


def _copied(model: Model, rule: Rule) -> set[str]:
    """Versions that may get copies by a rule: shadows and, to know their noise, who answers."""
    noise = model.shadow.get("noise", 0) or (rule.rollout is not None and rule.rollout.noise_ppm)
    found = {copied.version for copied in rule.shadows}
    return found | set(rule.versions) if found and noise else found


def _load(model: Model, version: Version, artifacts: Artifacts) -> Session:
    assert version.artifact is not None
    assert version.card is not None
    folder = artifacts.whole(version.artifact)
    session = Session(folder, model.name, version.name, version.card)
    if model.explain.get("inline") and model.background is not None:
        plan = artifacts.plan(version.artifact, model.background)
        session.inline = Inline(plan, version.card, model.explain, model.timeouts["request"])
    return session


def _same(old: Backend, model: Model, version: Version) -> bool:
    return (
        old.version == version
        and old.model.limits == model.limits
        and old.model.timeouts == model.timeouts
        and old.model.expose == model.expose
        and old.model.explain == model.explain
        and old.model.background == model.background
        and old.model.retries == model.retries
        and old.model.health == model.health
        and old.model.ejection == model.ejection
        and old.model.shadow == model.shadow
        and old.model.dropped == model.dropped
    )


async def retire(old: Live, new: Live, patience_s: float) -> None:
    """Close the backends that are not carried over, once they are idle or patience ends."""
    kept = {id(backend) for backend in new.backends.values()}
    gone = [backend for backend in old.backends.values() if id(backend) not in kept]
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while any(b.users for b in gone) and loop.time() < until:  # noqa: ASYNC110 - bounded, rare
        await asyncio.sleep(0.05)
    for backend in gone:
        await backend.aclose()
