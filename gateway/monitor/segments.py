"""Where a shadow differs: comparisons counted by group and by feature, as leaves say them.

A fold like windows: the same leaves give the same counts. Groups and inputs are sealed beside the
ledger, so that which group a decision was of is nowhere in clear; a leaf says how many of a group,
or of a quarter of a feature's values, were compared and how many disagreed, 500 exchanges or a
minute at a time. What is not said yet is in the state that goes on over a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from gateway.card import Card
from gateway.comparison.attribution import Likeness, compare_attributions
from gateway.monitor.bias import UNKNOWN
from gateway.monitor.reference import Reference

EXCHANGES = 500
AT_MOST_NS = 60 * 10**9
VALUES_AT_MOST = 200
"""Cells of one model between two leaves; what comes beyond counts under `OTHER`."""
OTHER = "(other)"
EXPLAINED_AT_MOST = 4096
ROWS_AT_MOST = 16
Cells = dict[tuple[str, str, str], list[int]]


class Pending:
    """Of one model, since its last leaf."""

    def __init__(self, since: int) -> None:
        self.since, self.n = since, 0
        self.cells: Cells = {}
        self.likeness: dict[str, list[float]] = {}

    def to_json(self) -> dict[str, Any]:
        return {
            "since": self.since, "n": self.n,
            "counts": [[*place, *counts] for place, counts in sorted(self.cells.items())],
            "likeness": [[name, *sums] for name, sums in sorted(self.likeness.items())],
        }  # fmt: skip

    @staticmethod
    def of(told: Mapping[str, Any]) -> Pending:
        found = Pending(told["since"])
        found.n = told["n"]
        found.cells = {(v, k, g): [n, d] for v, k, g, n, d in told["counts"]}
        found.likeness = {name: list(sums) for name, *sums in told["likeness"]}
        return found


class Segments:
    def __init__(self, told: Mapping[str, Any]) -> None:
        """`told`: what `to_json` gave at the last commit, or {}."""
        self._pending = {model: Pending.of(one) for model, one in told.items()}
        self._explained: OrderedDict[str, list[dict[str, float]]] = OrderedDict()
        self._spaces: dict[str, str] = {}

    def take(self, leaf: Mapping[str, Any], segments: Sequence[Mapping[str, str]]) -> None:
        """A shadow's leaf with its comparison; `segments`: by key, what each decision was of."""
        comparison, record = leaf.get("comparison"), leaf["record"]
        if comparison is None or "not_compared" in comparison or comparison.get("noise"):
            return
        pending = self._pending.setdefault(record["model"], Pending(record["at"]))
        pending.n += 1
        for segment, agree in zip(segments, _agreements(comparison, len(segments))):
            for key, value in segment.items():
                place = (record["version"], key, value)
                if place not in pending.cells and len(pending.cells) >= VALUES_AT_MOST:
                    place = (record["version"], key, OTHER)
                cell = pending.cells.setdefault(place, [0, 0])
                cell[0] += 1
                cell[1] += not agree

    def explained(self, record: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        """An explanation: a primary's is kept for a while, a shadow's is compared with it."""
        rows = [dict(zip(said["features"], row["values"])) for row in said["rows"][:ROWS_AT_MOST]]
        primary = record.get("primary")
        if primary is None:
            self._explained[record["id"]] = rows
            self._spaces[record["id"]] = said["space"]
            if len(self._explained) > EXPLAINED_AT_MOST:
                oldest, _ = self._explained.popitem(last=False)
                del self._spaces[oldest]
            return
        given = self._explained.get(primary)
        if given is None or record.get("noise") or self._spaces[primary] != said["space"]:
            return
        pending = self._pending.setdefault(record["model"], Pending(record["at"]))
        for one, other in zip(given, rows):
            if (likeness := compare_attributions(one, other)) is not None:
                _add(pending.likeness, record["version"], likeness)

    def due(self, at: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """By model what a leaf is to say now; `at`: the time of the leaf that was taken."""
        for model, pending in sorted(self._pending.items()):
            if pending.n >= EXCHANGES or at - pending.since > AT_MOST_NS:
                told = pending.to_json()
                yield model, {"at": at, "counts": told["counts"], "likeness": told["likeness"]}
                del self._pending[model]

    def to_json(self) -> dict[str, Any]:
        return {model: pending.to_json() for model, pending in self._pending.items()}


def _add(sums: dict[str, list[float]], version: str, likeness: Likeness) -> None:
    found = sums.setdefault(version, [0, 0.0, 0.0, 0.0])
    for place, value in enumerate((1, likeness.top, likeness.signs, likeness.order)):
        found[place] += value


def _agreements(comparison: Mapping[str, Any], rows: int) -> list[bool]:
    """Whether each decision agrees; none of a batch whose leaf does not say all that differ."""
    if rows == 1:
        return [comparison["agree"]]
    if comparison["rows"] != rows:
        return []
    if comparison["disagree"] == rows:
        return [False] * rows
    differing = {row for row, *_ in comparison["differing"]}
    if comparison["disagree"] > len(differing):
        return []
    return [row not in differing for row in range(rows)]


def by_groups(keys: tuple[str, ...], groups: list[dict[str, str]], row: int = 0) -> dict[str, str]:
    """The watched groups of a decision: one for all rows, or one a row."""
    told = groups[row if len(groups) > 1 else 0] if groups else {}
    return {key: told.get(key) or UNKNOWN for key in keys}


def by_features(
    card: Card, reference: Reference | None, rows: Mapping[str, list[Any]], row: int = 0
) -> dict[str, str]:
    """The place of one decision's inputs: categories, and quarters of the reference's numbers."""
    if reference is None:
        return {}
    found = {}
    for feature in card.used:
        value = rows[feature.name][row]
        if value is None or value != value:  # NaN stands for what is no number
            found[feature.name] = "missing"
        elif feature.type == "category":
            known = value in (feature.categories or ())
            found[feature.name] = value if known else OTHER
        else:
            found[feature.name] = _quarter(reference, feature.name, value)
    return found


def _quarter(reference: Reference, name: str, value: float) -> str:
    """`at most 2`, `2 to 3.5` (without the 2) and so on; of equal bounds the first."""
    bounds = _quartiles(reference, name)
    if value <= bounds[0]:
        return f"at most {bounds[0]:.3g}"
    for low, high in pairwise(bounds):
        if value <= high:
            return f"{low:.3g} to {high:.3g}"
    return f"over {bounds[-1]:.3g}"


@lru_cache(maxsize=1024)
def _quartiles(reference: Reference, name: str) -> tuple[float, float, float]:
    values = np.asarray(reference.values[name], dtype=np.float64)
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, middle, high
