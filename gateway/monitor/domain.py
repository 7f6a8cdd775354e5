"""A domain classifier: can a model tell the window's rows from the reference's?

It sees what no test of one feature can: that features which look as ever no longer belong together.
A ridge-regularised discriminant on the features, their squares and products is learned on one half
of the rows, and the area under its ROC curve is read off the other half, which it has never seen.
So under no drift the area is a Mann-Whitney statistic, whatever was learned, and its p-value holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gateway.card import Card, Feature
from gateway.monitor.column import numbers_of, single

ROWS_AT_MOST = 5_000
"""Reference rows that are kept; windows are compared with the same ones."""
PRODUCTS_AT_MOST = 30
"""Columns up to which each product of two is looked at too."""
RIDGE = 0.1
"""Added to the variances of the standardised columns."""
FAR = 5.0
"""Standard deviations beyond which a value is taken as this far: one row must not decide."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Rows as a discriminant needs them: `scatter` is the sum of squares and products about the
    mean."""

    n: int
    mean: Floats
    scatter: Floats

    @staticmethod
    def of(rows: Floats) -> Cloud:
        mean = rows.mean(axis=0)
        centred = rows - mean
        return Cloud(len(rows), mean, centred.T @ centred)


@dataclass(frozen=True, eq=False)
class Domain:
    """The reference as the classifier sees it. `places`: mean and spread of a number, levels of a
    category, of the features that the reference has."""

    features: tuple[int, ...]
    places: tuple[tuple[float, float] | tuple[str, ...], ...]
    rows: Floats

    @cached_property
    def halves(self) -> tuple[Floats, Floats]:
        """For learning and for judging, as `tell_apart` takes them: made once, used each window."""
        learned, judged = halved(self.rows)
        return expanded(learned), expanded(judged)

    @cached_property
    def learned(self) -> Cloud:
        return Cloud.of(self.halves[0])

    @staticmethod
    def of(card: Card, columns: Mapping[str, NDArray[Any]]) -> Domain:
        """`columns` as `Reference.of` takes them; rows are taken evenly where there are many."""
        known = [(place, f) for place, f in enumerate(card.features) if f.name in columns]
        places = tuple(_place(feature, columns[feature.name]) for _, feature in known)
        length = len(next(iter(columns.values())))
        kept = np.unique(np.linspace(0, length - 1, min(length, ROWS_AT_MOST)).astype(np.int64))
        values = [columns[feature.name][kept].tolist() for _, feature in known]
        return Domain(tuple(p for p, _ in known), places, _encode(places, values))

    def encode(self, rows: Sequence[Sequence[object]]) -> Floats:
        """Rows in the order of the card's features."""
        by_feature = list(zip(*rows))
        return _encode(self.places, [by_feature[place] for place in self.features])


def _place(feature: Feature, values: NDArray[Any]) -> tuple[float, float] | tuple[str, ...]:
    if feature.type == "category":
        return feature.categories or ()
    numbers = single(np.asarray(values, dtype=np.float64))
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return (0.0, 1.0)
    return (float(finite.mean()), float(finite.std()) or 1.0)


def _encode(places: Sequence[Any], values: Sequence[Sequence[object]]) -> Floats:
    """Numbers in standard deviations, categories as a column a level; missing is the mean, and
    what is broken is for data quality to say."""
    columns: list[Floats] = []
    for place, column in zip(places, values):
        if place and isinstance(place[0], str):
            columns += [np.array([v == level for v in column], np.float64) for level in place[1:]]
            continue
        numbers = single(numbers_of(column)[0])
        scaled = np.clip((numbers - place[0]) / place[1], -FAR, FAR)
        columns.append(np.where(np.isnan(scaled), 0.0, scaled))
    return np.stack(columns, axis=1)


def tell_apart(reference: Domain, window: Floats) -> tuple[float, float]:
    """Area under the curve on rows the classifier has not seen, and its one-sided p-value.

    0.5 and 1.0 where too few rows differ for learning and for judging.
    """
    learned, judged = (expanded(half) for half in halved(window))
    halves = (reference.halves, (learned, judged))
    if min(len(half) for pair in halves for half in pair) < 2:
        return 0.5, 1.0
    weights = discriminant(reference.learned, Cloud.of(learned))
    then, now = (side[1] @ weights for side in halves)
    return mann_whitney(now, then)


def mann_whitney(now: Floats, then: Floats) -> tuple[float, float]:
    """The share of pairs in which `now` is larger, and the one-sided p-value by the normal law,
    with corrections for ties and continuity, as scipy's `mannwhitneyu`."""
    n, m = now.size, then.size
    ordered = np.sort(then)
    below = ordered.searchsorted(now, "left").sum() + ordered.searchsorted(now, "right").sum()
    ends = np.flatnonzero(np.diff(np.sort(np.concatenate([then, now]))))
    ties = np.diff(ends, prepend=-1, append=n + m - 1).astype(np.float64)
    corrected = float((ties**3 - ties).sum()) / ((n + m) * (n + m - 1))
    larger, spread = float(below) / 2, sqrt(n * m / 12 * (n + m + 1 - corrected))
    chance = float(special.ndtr(-(larger - n * m / 2 - 0.5) / spread)) if spread else 1.0
    return larger / (n * m), chance


def halved(rows: Floats) -> tuple[Floats, Floats]:
    """Rows for learning and for judging, by a checksum of each and in an order of their own, so
    that the order in which they came changes no bit; equal rows stay together."""
    ordered = np.ascontiguousarray(rows[np.lexsort(rows.T)])
    odd = np.array([crc32(row.tobytes()) & 1 for row in ordered], dtype=np.bool_)
    return ordered[~odd], ordered[odd]


def expanded(rows: Floats) -> Floats:
    """The columns, and the products of each two, squares included, where they are not too many."""
    count = rows.shape[1]
    if count > PRODUCTS_AT_MOST:
        return np.concatenate([rows, rows**2], axis=1)
    first, second = np.triu_indices(count)
    return np.concatenate([rows, rows[:, first] * rows[:, second]], axis=1)


def discriminant(reference: Cloud, window: Cloud) -> Floats:
    """Fisher's direction between two samples, on columns of unit variance, with a ridge."""
    scatter = (reference.scatter + window.scatter) / (reference.n + window.n)
    spread = np.sqrt(np.diag(scatter))
    spread[spread < 1e-9] = np.inf  # a constant column says nothing
    covariance = scatter / np.outer(spread, spread)
    covariance[np.diag_indices_from(covariance)] += RIDGE
    gap = (window.mean - reference.mean) / spread
    return np.asarray(np.linalg.solve(covariance, gap) / spread, dtype=np.float64)
