"""Copies of requests to versions that nobody waits for.

Isolation, each clause counted where it drops something (`docs/shadow.md` has the reasons): offered
only after the primary's answer left, and only if it was one; a reference to bytes that are held
already, never a copy of an answer; a queue of its own for each version, bounded in number and
bytes; a pool, a limit, a breaker and a deadline of its own; never retried; fewer when the event
loop lags; none when the process ends. An answer becomes a record (arm `shadow`) that names its
primary. What was drawn and dropped becomes a record too, once a second, by rule, version and
reason: whoever judges by comparisons has to know how many are missing.

A *noise* copy asks the primary's own version again, to learn by how much it differs from itself;
never a version whose graph always says the same.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gateway.clock import Clock
from gateway.dataplane.account import Account
from gateway.dataplane.backend import Backend
from gateway.dataplane.lane import Lane
from gateway.dataplane.limits import Load
from gateway.dataplane.live import Live
from gateway.dataplane.restraint import Sampling
from gateway.errors import JournalUnavailable
from gateway.exchange import exchange_id
from gateway.journal.record import EMPTY, encode_parts
from gateway.journal.writer import Journal
from gateway.routing.choice import asked_again, shadows
from gateway.table import Model, Rule
from gateway.telemetry.metrics import Metrics

UNRECORDED = frozenset({"primary_failed"})
"""Exchanges that were never to be compared (`sampled_out` too): no gap in what is known."""
DROPS_A_RECORD = 256
Place = tuple[str, str, str]


class Shadow:
    """One worker's copies."""

    def __init__(
        self, journal: Journal | None, clock: Clock, metrics: Metrics, load: Load, workers: int
    ) -> None:
        self.journal, self._clock, self._metrics = journal, clock, metrics
        self._load, self._workers = load, workers
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._leaving: list[Lane] = []  # of tables that are in force no more
        self._drops: dict[str, Counter[Place]] = {}
        self._sampled_out: dict[str, int] = {}
        self._revision: str | None = None
        self.sampling = Sampling()
        self.ending = False
        self.frugal = False  # the disk has little room: no copies

    def __repr__(self) -> str:
        return f"<Shadow {list(self._lanes.values())}>"

    def consider(self, account: Account, live: Live | None) -> None:
        """After the answer has left: offer the request to the rule's shadows. Never waits."""
        choice, model = account.choice, account.model
        if choice is None or model is None or live is None or choice.arm == "forced":
            return
        if account.operation not in account.dialect.INFERENCES:
            return
        rule = _rule(model, choice.rule)
        if rule is None or not rule.shadows:
            return
        drawn = account.sequence or account.id
        names = shadows(rule, choice.version, drawn, account)
        fewer = _others(rule, choice.version) - len(names)
        if fewer:
            self._sampled_out[model.name] = self._sampled_out.get(model.name, 0) + fewer
        if not names:
            return
        if live.table.models.get(model.name) is not model:
            for name in names:
                self.drop(account, name, "reloaded")
            return
        offered = [self._offer(account, live.shadow(model, name)) for name in names]
        if any(offered) and asked_again(rule, _noise(account, rule), drawn):
            backend = live.backends.get((model.name, choice.version, "shadow"))
            if backend is not None and not backend.deterministic:
                self._offer(account, backend, noise=True)

    def _offer(self, account: Account, backend: Backend, noise: bool = False) -> bool:
        reason = self._hindered(account, backend)
        lane = self._lane(backend)
        if reason is None:
            reason = lane.refuses(len(account.request))
        if reason is not None:
            self.drop(account, backend.version.name, reason, noise)
            return False
        lane.put(account, noise)
        return True

    def _hindered(self, account: Account, backend: Backend) -> str | None:
        """Why no copy of this exchange is taken, whichever shadow it is for."""
        bounds = backend.model.shadow
        if account.error is not None or account.status >= 400:
            return "primary_failed"
        if self.ending:
            return "shutting_down"
        if self.frugal:
            return "disk"
        if account.upload is not None or len(account.request) > bounds["body"]:
            return "body_too_large"
        if self._load.sheds("shadow"):
            return "shed"
        if not self.sampling.takes(account.id):
            return "loop_lag"
        return account.dialect.not_copied(account.request, bounds.get("idempotent", False))

    def _lane(self, backend: Backend) -> Lane:
        place = (backend.model.name, backend.version.name)
        lane = self._lanes.get(place)
        if lane is None or lane.backend is not backend:
            if lane is not None:
                self._leaving.append(lane)
            lane = Lane(backend, self._workers, self.drop, self._take)
            self._lanes[place] = lane
        return lane

    def _take(self, account: Account, backend: Backend) -> None:
        if self.journal is None:
            raise JournalUnavailable("the journal does not open")
        self.journal.append(*account.entry())
        model, version = backend.model.name, backend.version.name
        self._metrics.count("headworks_exchanges", model, version, "shadow", str(account.status))

    def drop(self, account: Account, version: str, reason: str, noise: bool = False) -> None:
        """Count a copy that is not sent; of a shadow's keep the count for the next record."""
        assert account.model is not None
        assert account.choice is not None
        self._metrics.count("headworks_shadow_dropped", account.model.name, reason)
        if noise or reason in UNRECORDED:
            return
        drops = self._drops.setdefault(account.model.name, Counter())
        drops[account.choice.rule, version, reason] += 1
        self._revision = account.revision

    def each_second(self, worker: str) -> None:
        """Say what was dropped, in a record a model."""
        self.sampling.each_second()
        self._metrics.set("headworks_shadow_sampling", self.sampling.share, worker)
        for model, count in self._sampled_out.items():
            self._metrics.count("headworks_shadow_dropped", model, "sampled_out", by=count)
        self._sampled_out.clear()
        self._leaving = [lane for lane in self._leaving if not lane.idle]
        drops, self._drops = self._drops, {}
        for model, counted in drops.items():
            some = sorted(counted.items())[:DROPS_A_RECORD]
            header: dict[str, Any] = {
                "format": 1, "kind": "not_copied", "id": exchange_id(self._clock.wall()),
                "at": self._clock.steady(), "model": model, "revision": self._revision,
                "drops": [[*place, count] for place, count in some],
            }  # fmt: skip
            try:
                if self.journal is None:
                    raise JournalUnavailable("the journal does not open")
                self.journal.append(header, encode_parts({}, EMPTY, EMPTY))
            except JournalUnavailable:
                some = []
            if left := counted - Counter(dict(some)):
                self._drops[model] = left

    async def close(self) -> None:
        """Shadows get no extra time."""
        self.ending = True
        for lane in (*self._lanes.values(), *self._leaving):
            await lane.close()


def _rule(model: Model, name: str) -> Rule | None:
    for rule in model.rules:
        if rule.name == name:
            return rule
    return None


def _others(rule: Rule, version: str) -> int:
    """How many shadows would be asked, were all drawn."""
    count = 0
    for copied in rule.shadows:
        if copied.version != version:
            count += 1
    return count


def _noise(account: Account, rule: Rule) -> int:
    """Share, in ppm, of copied exchanges whose own version is asked again."""
    assert account.model is not None
    wanted: int = account.model.shadow.get("noise", 0)
    return max(wanted, rule.rollout.noise_ppm) if rule.rollout is not None else wanted
