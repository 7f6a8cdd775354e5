"""The frozen sample that a version's windows are compared with.

It is built once per artifact and never learns from traffic: a reference that moves with the traffic
learns slow drift in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card
from gateway.monitor.column import Column, of_numbers, single
from gateway.monitor.domain import Domain
from gateway.monitor.places import (
    Places,
    places_of_feature,
    places_of_numbers,
    places_without_reference,
)

Columns = Mapping[str, NDArray[Any]]
"""Feature name -> n values: float64 for number and integer (NaN missing), object for category."""


BINS = 20
"""Bins of a number where counts stand for values."""


@dataclass(frozen=True, eq=False)
class Reference:
    """`columns` by feature name, `domain` all of them together, `values` as they came; `scores` and
    `adverse` (a count of `scores`) where known. `places`: where values fall, to be counted by;
    `placed`: which of a decision's values each is of."""

    digest: str
    rows: int
    duplicates: int
    columns: Mapping[str, Column]
    scores: Column | None
    adverse: int | None
    domain: Domain
    values: Columns
    places: tuple[Places, ...]
    placed: tuple[int, ...]

    @staticmethod
    def absent(card: Card) -> Reference:
        """Of a card whose features nobody gave a sample of: no columns, only places to count by."""
        return Reference(
            digest=f"none/{card.model}/{card.version}",
            rows=0,
            duplicates=0,
            columns={},
            scores=None,
            adverse=None,
            domain=Domain((), (), np.empty((0, 0))),
            values={},
            places=tuple(places_without_reference(feature) for feature in card.features),
            placed=tuple(range(len(card.features))),
        )

    @staticmethod
    def of(card: Card, rows: Columns, scores: NDArray[Any] | None, digest: str) -> Reference:
        """Raises ValueError when a used feature is absent, or columns differ in length."""
        absent = [feature.name for feature in card.used if feature.name not in rows]
        if absent:
            raise ValueError(f"reference: no column for {', '.join(absent)}")
        known = [feature for feature in card.features if feature.name in rows]
        lengths = {len(rows[feature.name]) for feature in known}
        if scores is not None:
            lengths.add(len(scores))
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"reference: columns of {sorted(lengths)} rows; one length is needed")
        columns = {f.name: Column.of_reference(f, rows[f.name]) for f in known}
        known_scores = None if scores is None else score_column(scores, bounds_of(card))
        places = [(places_of_feature(feature, columns[feature.name], BINS)[0], at)
                  for at, feature in enumerate(card.features)
                  if feature.name in columns and columns[feature.name].comparable]  # fmt: skip
        if known_scores is not None and known_scores.comparable:
            places.append((places_of_numbers("score", known_scores, BINS)[0], -1))
        return Reference(
            digest=digest,
            rows=lengths.pop(),
            duplicates=duplicates(zip(*(rows[feature.name].tolist() for feature in known))),
            columns=columns,
            scores=known_scores,
            adverse=None if scores is None else adverse_count(card, scores),
            domain=Domain.of(card, {f.name: rows[f.name] for f in known}),
            values=rows,
            places=tuple(place for place, _ in places),
            placed=tuple(at for _, at in places),
        )


def bounds_of(card: Card) -> tuple[float, float] | None:
    """Where scores may lie; a probability may be beyond by what single precision rounds."""
    return (-1e-6, 1 + 1e-6) if card.outputs.score.kind == "probability" else None


def score_column(
    scores: NDArray[Any], bounds: tuple[float, float] | None = None, wrong_type: int = 0
) -> Column:
    """`wrong_type`: of the NaN, how many are no numbers instead of missing."""
    values = np.asarray(scores, dtype=np.float64)
    kept = single(values[~np.isnan(values)])
    return of_numbers(bounds, kept, values.size - kept.size - wrong_type, wrong_type, None)


def adverse_count(card: Card, scores: NDArray[Any]) -> int | None:
    """How many of the finite scores the card's threshold turns into the adverse outcome."""
    words = card.outputs.outcome
    if words is None:
        return None
    finite = scores[np.isfinite(scores)].tolist()
    return sum(words.of(score) == words.adverse for score in finite)


def duplicates(rows: Iterable[tuple[object, ...]]) -> int:
    """Rows that repeat an earlier one in every value; compared as text, since values may be odd:
    value by value, for most rows differ from all others in the first already."""
    alike = [list(rows)]
    for place in range(len(alike[0][0]) if alike[0] else 0):
        alike = [some for group in alike for some in parted(group, place) if len(some) > 1]
    return sum(len(some) - 1 for some in alike if some)


def parted(rows: list[tuple[object, ...]], place: int) -> Iterable[list[Any]]:
    """Rows by the text of one of their values."""
    by_text: dict[str, list[Any]] = {}
    for row in rows:
        by_text.setdefault(repr(row[place]), []).append(row)
    return by_text.values()
