"""From leaves to counts: the sealed context of each record of a rollout's rule is opened, and what
it says is tallied. The governor does it as it seals, and `verify` again from what is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from gateway.card import Card
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.rollout.attempt import Attempt, waits_for_labels
from gateway.rollout.observation import PRIMARY, observe, observe_pair
from gateway.routing.choice import bucket_ppm, shadow_salt
from gateway.table import Model, Rule, Table, TableStore

TABLES_MAX = 8
log = logging.getLogger("headworks.rollout")
Result = Literal["counted", "unreadable"]


class Counting:
    def __init__(self, tables: TableStore, bodies: BodyReader) -> None:
        self._store, self._bodies = tables, bodies
        self._tables: dict[str, Table | None] = {}

    def count(self, attempt: Attempt, leaf: dict[str, Any]) -> Result | None:
        """Tally an exchange; None: it is not of the attempt. By the record's own revision: a worker
        may have answered by the one before."""
        record, settings = leaf["record"], attempt.settings
        if (record.get("model"), record.get("rule")) != (settings.model, settings.rule):
            return None
        found = self._rule(str(record.get("revision")), settings.model, settings.rule)
        rollout = found[1].rollout if found is not None else None
        if found is None or rollout is None:
            return None
        if (rollout.name, rollout.attempt) != (attempt.name, attempt.number):
            return None
        context = self._context(record["id"], leaf.get("body"))
        if context is None:
            return "unreadable"
        self._take(attempt, *found, leaf, context)
        return "counted"

    def _take(
        self, attempt: Attempt, model: Model, rule: Rule, leaf: dict[str, Any],
        context: Mapping[str, Any],
    ) -> None:  # fmt: skip
        record = leaf["record"]
        version = model.versions.get(record.get("version", ""))
        card = version.card if version else None
        asked = {guard.by for guard in attempt.settings.guards}
        keys = tuple(key for key in model.monitor["groups"] if key in asked)
        copies = next((one for one in rule.shadows if one.version == attempt.target), None)
        if leaf.get("decisions_at") is not None:
            leaf["decisions"] = orjson.loads(self._bodies.read(record["id"], leaf["decisions_at"]))
        if record["arm"] == "shadow":
            if copies is None or copies.conditions:
                return  # of chosen exchanges: no sample of all
            pair = observe_pair(leaf, context, attempt.target, card, keys)
            if pair is not None:
                attempt.tally.take_pair(pair)
            return
        assert rule.rollout is not None
        seen = observe(leaf, context, rule.rollout, card, keys)
        if seen is None:
            return
        attempt.tally.take(seen)
        answered = seen.arm in PRIMARY and seen.inferred and seen.version != attempt.target
        if answered and copies is not None and not copies.conditions:
            drawn = context.get("sequence") or seen.id  # as the data path draws
            if bucket_ppm(shadow_salt(rule, copies.version), drawn) < copies.share:
                attempt.tally.take_eligible(seen.at)

    def label(self, attempt: Attempt, record: Mapping[str, Any]) -> None:
        """Labels of decisions that counted; younger decisions than the guard asks for do not."""
        delay = waits_for_labels(attempt.settings)
        if delay is None or attempt.tally.answers is None:
            return
        card = self._card(attempt)
        for identity, row, value, *_ in record["labels"]:
            made_ns = int(identity.replace("-", "")[:12], 16) * 1_000_000  # RFC 9562, 5.7
            good = is_good(card, value)
            if good is not None and record["at"] - made_ns >= delay * 1e9:
                attempt.tally.take_label(record["at"], identity, row, good)

    def _card(self, attempt: Attempt) -> Card | None:
        """Of the version that is followed; both have the same words."""
        settings = attempt.settings
        found = self._rule(str(attempt.created["revision"]), settings.model, settings.rule)
        version = found[0].versions.get(settings.from_) if found is not None else None
        return version.card if version is not None else None

    def _context(self, identity: str, place: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The sealed context of a record; None: erased, gone or unreadable."""
        if place is None:
            return None
        try:
            parts = self._bodies.read(identity, place)
            found: dict[str, Any] = orjson.loads(decode_parts(parts)[0])
        except (ValueError, OSError):
            return None
        return found

    def _rule(self, revision: str, model: str, rule: str) -> tuple[Model, Rule] | None:
        if revision not in self._tables:
            if len(self._tables) >= TABLES_MAX:
                self._tables.pop(next(iter(self._tables)))
            try:
                self._tables[revision] = self._store.load(revision)
            except (OSError, ValueError) as error:
                log.error("revision %s cannot be read: %s", revision[:12], error)
                self._tables[revision] = None
        table = self._tables[revision]
        found = table.models.get(model) if table is not None else None
        named = next((one for one in found.rules if one.name == rule), None) if found else None
        return (found, named) if found is not None and named is not None else None


def is_good(card: Card | None, value: Any) -> bool | None:
    """Whether a label says that the favourable outcome was right; None: the card cannot tell."""
    words = card.outputs.outcome if card is not None else None
    if words is None:
        return None
    if isinstance(value, str):
        return value != words.adverse if value in (words.below, words.at_or_above) else None
    if value not in (0, 1) or value is None:
        return None
    return (words.at_or_above if value else words.below) != words.adverse
