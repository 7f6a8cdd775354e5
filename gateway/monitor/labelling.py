"""Feedback meets its decisions: counts by group, as changes to what was counted before.

A fold like windows: from the same leaves come the same counts. What a leaf says is the difference
that it makes, so that a corrected label leaves one group's cell and enters another, and the same
label told again says nothing. A label may be sealed before its decision is, when another worker
wrote it; it waits, and is counted when the decision comes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from gateway.catalog import labels
from gateway.catalog.leaves import whole
from gateway.catalog.store import Catalog
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import leaf_at
from gateway.monitor.bias import group_of, with_intersections
from gateway.monitor.outcomes import COUNTS_AT_MOST, Told, case, chance_of_good, in_force
from gateway.table import Table

WAITING_MAX = 1000
Place = tuple[str, int]
Counts = dict[str, list[list[Any]]]
"""By model: rows of version, arm, day, key, group, favourable, good, count, summed score."""
log = logging.getLogger("headworks.labels")


def records_of(changes: Counts) -> Iterator[dict[str, Any]]:
    """What is said of changes: as many leaves as they need."""
    for model, counts in sorted(changes.items()):
        for start in range(0, len(counts), COUNTS_AT_MOST):
            some = counts[start : start + COUNTS_AT_MOST]
            yield {"kind": "labelled", "model": model, "counts": some}


def _is_copy(leaf: dict[str, Any] | None) -> bool:
    """A shadow's answer went to nobody: it has the label of the one that was given, and a label
    that names its own id counts nowhere."""
    return leaf is not None and leaf["record"].get("primary") is not None


class Labelling:
    """`waiting`: ids of exchanges that labels name and no leaf has had yet; the oldest first."""

    def __init__(
        self, state: Path, bodies: BodyReader, tables: Callable[[str], Table], waiting: list[str]
    ) -> None:
        self._state, self._bodies, self._tables = state, bodies, tables
        self.waiting = dict.fromkeys(waiting)
        self.dropped = 0
        self._fresh: dict[str, dict[str, Any]] = {}
        self._copies: dict[str, list[str]] = defaultdict(list)
        self._told: dict[Place, list[Told]] = defaultdict(list)

    def forget(self) -> None:
        """The catalog has by now what was taken since the last time."""
        self._fresh.clear()
        self._copies.clear()
        self._told.clear()

    def take(self, number: int, leaf: dict[str, Any], catalog: Catalog) -> Counts:
        """What a leaf changes in the counts."""
        record = leaf["record"]
        if leaf["kind"] == "exchange":
            self._fresh[record["id"]] = leaf
            if record.get("primary") is not None and not record.get("noise"):
                self._copies[record["primary"]].append(record["id"])
            if record["id"] not in self.waiting:
                return {}
            del self.waiting[record["id"]]
            if _is_copy(leaf):
                return {}
            places = [(record["id"], row) for row in range(len(leaf.get("decisions", ())))]
            with closing(catalog.cursor()) as cursor:
                told = self._known(cursor, [record["id"]])
            changes = [(place, None, in_force(told.get(place, ()))) for place in places]
            return self._count({record["id"]: leaf}, changes)
        if leaf["kind"] != "feedback":
            return {}
        ids = list(dict.fromkeys(line[0] for line in record["labels"]))
        with closing(catalog.cursor()) as cursor:
            leaves = self._leaves(cursor, ids)
            before = self._known(cursor, ids)
        for identity in ids:
            if identity not in leaves:
                self._wait(identity)
        changes = [change for change in self._changes(number, record, before)
                   if not _is_copy(leaves.get(change[0][0]))]  # fmt: skip
        with closing(catalog.cursor()) as cursor:
            copies = self._shadows(cursor, ids, leaves)
        given = [
            ((copy, row), *change)
            for (identity, row), *change in changes
            for copy in copies.get(identity, ())
        ]
        return self._count(leaves, [*changes, *given])

    def _shadows(
        self, cursor: Any, ids: list[str], leaves: dict[str, dict[str, Any]]
    ) -> dict[str, list[str]]:
        """The copies of exchanges that were sealed before their label, whose leaves are added."""
        found: dict[str, list[str]] = defaultdict(list)
        for identity in ids:
            found[identity] += self._copies.get(identity, ())
        for copy, (identity, number) in labels.shadows_of(cursor, ids).items():
            if copy not in self._fresh:
                found[identity].append(copy)
                if (leaf := self._leaf(number)) is not None:
                    leaves[copy] = leaf
        leaves |= {copy: self._fresh[copy] for copies in found.values() for copy in copies
                   if copy in self._fresh}  # fmt: skip
        return found

    def _changes(
        self, number: int, record: dict[str, Any], before: dict[Place, list[Told]]
    ) -> list[tuple[Place, Any, Any]]:
        """Decisions with the label in force before this leaf and after it."""
        after: dict[Place, list[Told]] = defaultdict(list)
        for place, (identity, row, value, observed, _) in enumerate(record["labels"]):
            told = (observed, number, place, value)
            after[identity, row].append(told)
            self._told[identity, row].append(told)
        return [
            (place, in_force(before.get(place, ())), in_force([*before.get(place, ()), *told]))
            for place, told in after.items()
        ]

    def _wait(self, identity: str) -> None:
        self.waiting[identity] = None
        if len(self.waiting) > WAITING_MAX:
            del self.waiting[next(iter(self.waiting))]
            self.dropped += 1

    def _leaves(self, cursor: Any, ids: list[str]) -> dict[str, dict[str, Any]]:
        found = {identity: self._fresh[identity] for identity in ids if identity in self._fresh}
        older = [identity for identity in ids if identity not in found]
        for identity, number in labels.leaves_of(cursor, older).items():
            if (leaf := self._leaf(number)) is not None:
                found[identity] = leaf
        return found

    def _leaf(self, number: int) -> dict[str, Any] | None:
        text = leaf_at(self._state, number)
        return None if text is None else whole(orjson.loads(text), self._bodies)

    def _known(self, cursor: Any, ids: Iterable[str]) -> dict[Place, list[Told]]:
        ids = set(ids)
        known = labels.told(cursor, list(ids))
        for place, told in self._told.items():
            if place[0] in ids:
                known.setdefault(place, []).extend(told)
        return known

    def _count(
        self, leaves: dict[str, dict[str, Any]], changes: list[tuple[Place, Any, Any]]
    ) -> Counts:
        cells: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        for (identity, row), before, after in changes:
            leaf = leaves.get(identity)
            if before == after and type(before) is type(after):
                continue
            if leaf is None or row >= len(leaf.get("decisions", ())):
                continue
            self._add(cells[leaf["record"]["model"]], leaf, row, before, after)
        return {
            model: [[*place, *total] for place, total in sorted(found.items())
                    if any(total)]
            for model, found in cells.items()
        }  # fmt: skip

    def _add(
        self, cells: dict[Any, list[float]], leaf: dict[str, Any], row: int, before: Any, after: Any
    ) -> None:
        record, decision = leaf["record"], leaf["decisions"][row]
        model = self._tables(record["revision"]).models[record["model"]]
        card = model.versions[record["version"]].card
        keys = model.monitor["groups"]
        if card is None or not keys or decision["score"] is None:
            return
        groups = self._groups(leaf, row)
        score = chance_of_good(card, decision["score"])
        for key in with_intersections(keys):
            group = group_of(groups, key)
            for value, sign in ((before, -1), (after, 1)):
                if value is None:
                    continue
                cell = cells[case(card, record, decision, key, group, value)]
                cell[0] += sign
                cell[1] += sign * score

    def _groups(self, leaf: dict[str, Any], row: int) -> dict[str, str]:
        """None where the body was erased or cannot be read: the decision counts as unknown."""
        try:
            parts = self._bodies.read(leaf["record"]["id"], leaf["body"])
            context, *_ = decode_parts(parts)
        except (ValueError, OSError, KeyError) as error:
            log.info("groups of %s are not known: %s", leaf["record"]["id"], error)
            return {}
        groups: list[dict[str, str]] = orjson.loads(context)["groups"]
        return groups[row if len(groups) > 1 else 0] if groups else {}
