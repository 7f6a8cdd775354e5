"""The detectors of a version, made once from its reference: bins, scores, thresholds.

Values are read as scores that the reference's own bins give: mid-rank normal scores for the place
of a number, their squares for its spread, one indicator a level of a category. So the law of each
increment is known and finite, whatever the feature's shape, and the threshold for a wanted run
follows from it (`runlength.py`). Scores are integers, so that sums do not depend on how a stream
was cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import special

from gateway.card import Card
from gateway.monitor.places import (
    Floats,
    Gauges,
    Integers,
    Places,
    Shares,
    gauges_of,
    places_of_feature,
    places_of_numbers,
)
from gateway.monitor.reference import Reference
from gateway.monitor.runlength import Law, threshold_for

BINS = 64
"""Bins of a number, of equal share in the reference: finer ones tell hardly more."""
LEVELS_AT_MOST = 8
"""Levels of a category that are followed: the most frequent ones."""
ONE = 1 << 20
"""An increment of one, as the integers have it."""
SPREAD_SHARE = 0.2
"""Share of a number's false alarms that its spread may give; its place has the rest."""
ROWS_AT_LEAST = 500
"""A smaller reference knows its own mean too badly for runs of thousands of decisions."""


class Row(NamedTuple):
    """A decision as the panel reads it; `values` in the order of the card's features."""

    values: tuple[object, ...]
    score: float | None
    adverse: bool | None


class Track(NamedTuple):
    """One detector: the scores of its cause's bins, and the thresholds upward and downward."""

    cause: str
    aspect: str
    scores: tuple[float, ...]
    up: float
    down: float


@dataclass(frozen=True, eq=False)
class Panel:
    """`features`: places of the causes' values in a decision. `slack` is k, in deviations."""

    places: tuple[Places, ...]
    features: tuple[int, ...]
    tracks: tuple[Track, ...]
    slack: float
    digest: str

    @cached_property
    def scores(self) -> Integers:
        """Tracks x bins."""
        widest = max((len(track.scores) for track in self.tracks), default=1)
        table = np.zeros((len(self.tracks), widest), dtype=np.int64)
        for row, track in enumerate(self.tracks):
            table[row, : len(track.scores)] = np.round(np.array(track.scores) * ONE)
        return table

    @cached_property
    def thresholds(self) -> Integers:
        """2 x tracks: upward, downward."""
        both = [[track.up for track in self.tracks], [track.down for track in self.tracks]]
        found: Integers = np.ceil(np.array(both).reshape(2, -1) * ONE).astype(np.int64)
        return found

    @cached_property
    def source(self) -> Integers:
        """Of each track, which place of `places` it reads."""
        names = [place.cause for place in self.places]
        return np.array([names.index(track.cause) for track in self.tracks], dtype=np.int64)

    @cached_property
    def gauges(self) -> Gauges:
        """The places of numbers, to be read all at once."""
        return gauges_of(self.places)

    def bins(self, rows: Sequence[Row]) -> Integers:
        """Rows x places: where each value falls, -1 for what is not fed."""
        bins = np.empty((len(rows), len(self.places)), dtype=np.int64)
        by_feature = list(zip(*(row.values for row in rows)))
        numbers: list[Sequence[object]] = []
        for column, place in enumerate(self.places):
            if place.cause == "outcome":
                bins[:, column] = [-1 if row.adverse is None else row.adverse for row in rows]
            elif place.edges is None:
                bins[:, column] = place.of(by_feature[self.features[column]])
            elif place.cause == "score":
                numbers.append([row.score for row in rows])
            else:
                numbers.append(by_feature[self.features[column]])
        if numbers:
            bins[:, self.gauges.columns] = self.gauges.of(numbers)
        return bins

    def steps(self, bins: Integers) -> Integers:
        """Rows x both sides' tracks: by how much each statistic moves; not at all where nothing
        was fed, for which place -1 stands."""
        places, sides, table = self._steps
        found: Integers = table[sides, bins[:, places]]
        return found

    @cached_property
    def _steps(self) -> tuple[Integers, Integers, Integers]:
        slack = round(self.slack * ONE)
        table = np.concatenate([self.scores, -self.scores]) - slack
        table = np.concatenate([table, np.zeros_like(table[:, :1])], axis=1)
        return np.tile(self.source, 2), np.arange(len(table)), table


def panel_of(card: Card, reference: Reference, shift: float, run: float) -> Panel:
    """Detectors for shifts from `shift` deviations on, that all together alarm by chance once in
    `run` decisions; a cause whose reference is too small has none."""
    found: list[tuple[Places, Shares, int, int]] = []
    for at, feature in enumerate(card.features):
        column = reference.columns.get(feature.name)
        if column is not None:
            found.append((*places_of_feature(feature, column, BINS), at, column.comparable))
    if reference.scores is not None and reference.scores.comparable:
        place, shares = places_of_numbers("score", reference.scores, BINS)
        found.append((place, shares, -1, reference.scores.comparable))
        if reference.adverse is not None:
            share = reference.adverse / reference.scores.comparable
            shares = (1 - share, share)
            found.append((Places("outcome"), shares, -1, reference.scores.comparable))
    fit = [one for one in found if one[3] >= ROWS_AT_LEAST and _varies(one[1])]
    tracks = [
        track
        for place, shares, _, rows in fit
        for track in _tracks(place, shares, _rounded(rows), shift / 2, run * len(fit))
    ]
    said = repr((reference.digest, shift, run, tracks))
    return Panel(
        places=tuple(place for place, *_ in fit),
        features=tuple(at for _, _, at, _ in fit),
        tracks=tuple(tracks),
        slack=shift / 2,
        digest=hashlib.sha256(said.encode()).hexdigest()[:16],
    )


def _varies(shares: Shares) -> bool:
    return sum(share > 0 for share in shares) > 1


def _rounded(rows: int) -> int:
    """Two digits, downward: features of nearly the same number of rows share thresholds."""
    scale = 10 ** max(0, len(str(rows)) - 2)
    return int(rows // scale * scale)


def _tracks(place: Places, shares: Shares, rows: int, slack: float, run: float) -> list[Track]:
    """The detectors of one cause, whose alarms together come once in `run`."""
    weights = np.array(shares)
    if place.edges is not None:
        ranks = special.ndtri(np.cumsum(weights) - weights / 2)
        aspects = [("place", ranks, 1 - SPREAD_SHARE)]
        if np.count_nonzero(weights) > 2:
            middle = _standard(ranks, weights)
            aspects.append(("spread", middle**2, SPREAD_SHARE))
    else:
        order = np.argsort(-weights, kind="stable")[:LEVELS_AT_MOST].tolist()
        named = place.levels or ("favourable", "adverse")
        kept = [level for level in order if 0 < weights[level] < 1]
        if np.count_nonzero(weights) == 2:  # the one mirrors the other
            kept = kept[-1:]
        aspects = [
            (str(named[level]), np.eye(weights.size)[level], 1 / len(kept)) for level in kept
        ]
    return [
        _track(place.cause, aspect, _standard(scores, weights), weights, rows, slack, run / share)
        for aspect, scores, share in aspects
    ]


def _track(
    cause: str, aspect: str, scores: Floats, weights: Floats, rows: int, slack: float, run: float
) -> Track:
    """Each side alarms half as often as both."""
    seen = weights > 0
    up, down = (
        threshold_for(_law(sign * scores[seen], weights[seen]), slack, rows, 2 * run)
        for sign in (1, -1)
    )
    return Track(cause, aspect, tuple(scores.tolist()), up, down)


def _law(scores: Floats, weights: Floats) -> Law:
    """In ascending order and rounded, so that a symmetric law is its own mirror."""
    order = np.argsort(scores, kind="stable")
    values, shares = np.round(scores[order], 6), weights[order]
    return Law(tuple(values.tolist()), tuple(shares.tolist()))


def _standard(scores: Floats, weights: Floats) -> Floats:
    """With mean 0 and variance 1 in the reference; bins that it leaves empty count as the mean."""
    known = np.where(weights > 0, scores, 0.0)
    middle = known - float(known @ weights)
    scaled = middle / np.sqrt(float(middle**2 @ weights))
    return np.asarray(np.where(weights > 0, scaled, 0.0), dtype=np.float64)
