"""What would have changed an adverse outcome: the least change of one or two actionable features.

Only features that the card calls actionable are changed, only in the direction, in multiples of a
step and within the range that its `change` allows; all others stay as they were sent. Each answer
was given by the model itself, asked about that one row alone, and is least in its direction: a step
less leaves the outcome adverse. A search along a direction assumes no order: of each stage's probes
the first that passes is taken. It looks at a finite grid, so that nothing found does not prove that
there is nothing. It says what the model would have answered, and promises nothing.

What is kept of a change is where it leads, never where it came from: that is the person's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from gateway.card import Card, Change, Feature, OutcomeWords
from gateway.explain.attribution import Columns, Floats

FOUND_AT_MOST = 3
PROBES = 8
"""Probes of one direction in one stage; 8, 64, 512 steps are searched in 1, 2, 3 stages."""
STEPS_AT_MOST = 512
"""A finer step is made coarser, in multiples of it."""
PAIRED_AT_MOST = 6
"""Features tried in pairs, in the card's order: 15 pairs of 64 probes."""

Score: TypeAlias = Callable[[Columns], Floats]
Value: TypeAlias = float | str


@dataclass(frozen=True)
class Counterfactual:
    """Changes that lead to another outcome, all else as it was; `distance`: the sum of their shares
    of the features' ranges, a category's being 1."""

    changes: Mapping[str, Value]
    score: float
    outcome: str
    distance: float


@dataclass(frozen=True)
class Path:
    """One direction a feature can be changed in: values from the nearest to the furthest."""

    feature: Feature
    values: tuple[Value, ...]
    distances: tuple[float, ...]


def counterfactuals(
    card: Card, row: Mapping[str, Any], score: Score
) -> tuple[tuple[Counterfactual, ...], str | None]:
    """The nearest changes of single features, at most one a feature, nearest first; if none is
    enough, the nearest pair. Else none, and why.

    `row` holds one value a feature of the card (NaN or None: missing); `score` answers for columns
    [n]. The card has outcome words.
    """
    words = card.outputs.outcome
    assert words is not None
    search = _Search(card, words, row, score)
    if not search.adverse({}):
        return (), "the artifact does not give this outcome"
    ways = [path for feature in card.used for path in paths(feature, row[feature.name])]
    if not ways:
        return (), "no actionable feature can be changed"
    found = search.singles(ways) or search.pairs(ways[: 2 * PAIRED_AT_MOST])
    if not found:
        return (), "no change of one or two actionable features within their ranges"
    nearest: dict[tuple[str, ...], Counterfactual] = {}
    for one in sorted(found, key=lambda one: one.distance):
        nearest.setdefault(tuple(one.changes), one)
    return tuple(nearest.values())[:FOUND_AT_MOST], None


def paths(feature: Feature, own: Any) -> list[Path]:
    """The directions in which a person can change a feature from its own value; none if it is not
    actionable or missing."""
    if not feature.actionable or own is None or own != own:
        return []
    change = feature.change or Change()
    if feature.type == "category":
        to = change.to if change.to is not None else feature.categories
        return [Path(feature, (value,), (1.0,)) for value in to or () if value != own]
    assert feature.range is not None
    low, high = change.range or feature.range
    step = change.step or (1.0 if feature.type == "integer" else (high - low) / 100)
    width = feature.range[1] - feature.range[0]
    ways = []
    for sign in (-1, 1):
        if change.direction == ("increase" if sign < 0 else "decrease"):
            continue
        values = _multiples(float(own), low, high, step, sign)
        if values:
            distances = tuple(abs(value - float(own)) / width for value in values)
            ways.append(Path(feature, values, distances))
    return ways


def _multiples(own: float, low: float, high: float, step: float, sign: int) -> tuple[float, ...]:
    """Multiples of the step beyond `own` and in the range; rounded to what a form would say."""
    # Callers may send any number: from 1e308 on there are more steps than a float can count.
    start = min(max(own, low), high)
    steps = int((start - low if sign < 0 else high - start) / step) + 1
    step *= max(1, -(-steps // STEPS_AT_MOST))
    first = np.floor(start / step) if sign < 0 else np.ceil(start / step)
    multiples = first + sign * np.arange(STEPS_AT_MOST + 1)
    values = np.round(multiples * step, max(0, 3 - int(np.floor(np.log10(step)))))
    inside = (sign * (values - own) > 0) & (low <= values) & (values <= high)
    return tuple(float(value) for value in values[inside])


class _Search:
    """Asks the model about one row with some of its features changed."""

    def __init__(
        self, card: Card, words: OutcomeWords, row: Mapping[str, Any], score: Score
    ) -> None:
        self._card, self._words, self._row, self._score = card, words, row, score

    def adverse(self, changes: Mapping[str, Value]) -> bool:
        return self._words.of(self._ask([changes])[0]) == self._words.adverse

    def singles(self, ways: Sequence[Path]) -> list[Counterfactual]:
        """Where each direction first passes."""
        ends = self._narrow(
            {place: (-1, len(path.values)) for place, path in enumerate(ways)},
            lambda place, at: _changes([(ways[place], at)]),
        )
        chosen = [[(ways[place], at)] for place, at in ends.items() if at < len(ways[place].values)]
        return self._checked(chosen)

    def pairs(self, ways: Sequence[Path]) -> list[Counterfactual]:
        """The nearest pair of a coarse grid, and each of its changes then made as small as the
        other allows."""
        tried = []
        for one, other in combinations(ways, 2):
            if one.feature.name != other.feature.name:
                tried += [
                    (one, at, other, beside)
                    for at in _probes(-1, len(one.values))
                    for beside in _probes(-1, len(other.values))
                ]
        if not tried:
            return []
        scores = self._ask([_changes([(one, at), (other, b)]) for one, at, other, b in tried])
        passing = [
            (one.distances[at] + other.distances[beside], place)
            for place, (one, at, other, beside) in enumerate(tried)
            if self._words.of(scores[place]) != self._words.adverse
        ]
        if not passing:
            return []
        one, at, other, beside = tried[min(passing)[1]]
        at = self._narrow({0: (-1, at)}, lambda _, n: _changes([(one, n), (other, beside)]))[0]
        beside = self._narrow({0: (-1, beside)}, lambda _, n: _changes([(one, at), (other, n)]))[0]
        return self._checked([[(one, at), (other, beside)]])

    def _narrow(
        self, ends: dict[int, tuple[int, int]], changes: Callable[[int, int], dict[str, Value]]
    ) -> dict[int, int]:
        """For each direction the place where it first passes, or its upper end. Between a lower
        place, which does not pass, and an upper one probes are asked for until both are neighbours.
        """
        while waiting := [place for place, (low, high) in ends.items() if high - low > 1]:
            probes = [(place, at) for place in waiting for at in _probes(*ends[place])]
            scores = self._ask([changes(place, at) for place, at in probes])
            for place in waiting:
                low, high = ends[place]
                for (of, at), score in zip(probes, scores):
                    if of == place and low < at < high:
                        if self._words.of(score) == self._words.adverse:
                            low = at
                        else:
                            high = at
                ends[place] = low, high
        return {place: high for place, (_, high) in ends.items()}

    def _checked(self, chosen: Sequence[list[tuple[Path, int]]]) -> list[Counterfactual]:
        """Those that the model, asked about that row alone, answers with another outcome."""
        found = []
        for steps in chosen:
            changes = _changes(steps)
            score = self._ask([changes])[0]
            # A score is also read from its shortest text, which may lie on the other side.
            told = float(str(np.float32(score)))
            if self._words.adverse not in (outcome := self._words.of(score), self._words.of(told)):
                distance = sum(path.distances[at] for path, at in steps)
                found.append(Counterfactual(changes, score, outcome, distance))
        return found

    def _ask(self, trials: Sequence[Mapping[str, Value]]) -> list[float]:
        columns: dict[str, Any] = {}
        for feature in self._card.features:
            own = self._row[feature.name]
            column = [trial.get(feature.name, own) for trial in trials]
            columns[feature.name] = np.array(column, _DTYPES[feature.type == "category"])
        return [float(score) for score in self._score(columns)]


_DTYPES: dict[bool, Any] = {True: object, False: np.float64}


def _changes(steps: Sequence[tuple[Path, int]]) -> dict[str, Value]:
    return {path.feature.name: path.values[at] for path, at in steps}


def _probes(low: int, high: int) -> list[int]:
    """Places strictly between two, evenly spread, the furthest always among them."""
    spread = np.linspace(low, high - 1, min(PROBES, high - 1 - low) + 1)[1:]
    return sorted({int(place) for place in np.round(spread)})
