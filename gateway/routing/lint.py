"""What is odd about a model's rules without being wrong: pure. Told as warnings, never refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.condition import (
    BodyIs,
    CallerIs,
    Condition,
    ContextIs,
    HeaderIs,
    MethodIs,
    PathIs,
)
from gateway.exchange import Caller
from gateway.table import Model, Rule, Table


@dataclass(frozen=True, slots=True)
class Oddity:
    """`rule`: its place among the model's."""

    rule: int
    words: str


def oddities(model: Model, callers: Mapping[str, Caller]) -> Iterator[Oddity]:
    """Rules that no request reaches, and pairs of which the order decides."""
    for place, rule in enumerate(model.rules):
        yield from (Oddity(place, words) for words in _never(rule, callers))
        before = model.rules[:place]
        covering = next((earlier for earlier in before if covers(earlier, rule)), None)
        if covering is not None:
            words = f"is never reached: all it matches falls to {covering.name!r} before it"
            yield Oddity(place, words)
            continue
        for earlier in before:
            if not covers(rule, earlier) and _differ(earlier, rule) and meet(earlier, rule):
                words = f"overlaps with {earlier.name!r}, which wins where both match"
                yield Oddity(place, words)


def unwatched(table: Table) -> list[str]:
    """Models whose cards name features, and that have no sample of them: the analyst makes no
    windows of such a version."""
    return [
        name
        for name, model in table.models.items()
        if model.reference is None and any(one.card is not None for one in model.versions.values())
    ]


def _never(rule: Rule, callers: Mapping[str, Caller]) -> Iterator[str]:
    """Conditions that no caller of the table can meet."""
    names = {caller.name for caller in callers.values()} or {"anonymous"}
    asks = any(isinstance(condition, ContextIs) for condition in rule.conditions)
    if asks and not any("context" in caller.may for caller in callers.values()):
        yield "is never reached: no caller may send `context`"
    for condition in rule.conditions:
        if isinstance(condition, CallerIs) and not condition.among & names:
            yield f"is never reached: {condition} is no caller's name"


def covers(wide: Rule, narrow: Rule) -> bool:
    """Whether whatever meets `narrow` meets `wide`."""
    return all(any(implies(one, wanted) for one in narrow.conditions) for wanted in wide.conditions)


def implies(one: Condition, other: Condition) -> bool:
    """Whether `one` holding makes `other` hold."""
    if one == other:
        return True
    match one, other:
        case MethodIs(), MethodIs():
            return one.among <= other.among
        case CallerIs(), CallerIs():
            return one.among <= other.among
        case PathIs(), PathIs():
            return other.pattern.endswith("*") and one.pattern.startswith(other.pattern[:-1])
    return False


def meet(one: Rule, other: Rule) -> bool:
    """Whether some request may meet both: no condition of the one excludes one of the other."""
    return not any(
        excludes(first, second) for first in one.conditions for second in other.conditions
    )


def excludes(one: Condition, other: Condition) -> bool:
    match one, other:
        case MethodIs(), MethodIs():
            return not one.among & other.among
        case CallerIs(), CallerIs():
            return not one.among & other.among
        case PathIs(), PathIs():
            return not _paths_meet(one.pattern, other.pattern)
        case HeaderIs(), HeaderIs():
            return one.name == other.name and one.value != other.value
        case ContextIs(), ContextIs():
            return one.key == other.key and one.value != other.value
        case BodyIs(), BodyIs():
            return one.pointer == other.pointer and one != other
    return False


def _paths_meet(one: str, other: str) -> bool:
    if one.endswith("*") and other.endswith("*"):
        short, long = sorted((one[:-1], other[:-1]), key=len)
        return long.startswith(short)
    if one.endswith("*"):
        return other.startswith(one[:-1])
    return one.startswith(other[:-1]) if other.endswith("*") else one == other


def _differ(one: Rule, other: Rule) -> bool:
    """Whether it matters which of two rules a request falls to."""
    return (one.stable, one.intervals, one.limits, one.timeouts) != (
        other.stable, other.intervals, other.limits, other.timeouts
    )  # fmt: skip
