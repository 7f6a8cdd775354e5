"""A changed file, laid over a table that others have changed since: pure.

A document falls into units: each rule, the order of a model's rules, a model without its rules,
each other section. A revision notes the digest of each unit of the file that was adopted last. What
the file did not change since then stays as the table has it; what only the file changed becomes as
the file says; what both changed, and not to the same, is refused with both shown.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

Document = dict[str, Any]
Unit = tuple[str, ...]
SECTIONS = ("callers", "people", "telemetry", "alerts")


@dataclass(frozen=True, slots=True)
class Clash:
    """A unit that the file and somebody else changed. `ours`: the table's; None: not there."""

    unit: Unit
    ours: Any
    theirs: Any


def units(document: Mapping[str, Any]) -> Iterator[tuple[Unit, Any]]:
    for section in SECTIONS:
        yield (section,), document.get(section)
    for name, model in document["models"].items():
        yield ("models", name), {key: told for key, told in model.items() if key != "rules"}
        yield ("models", name, "order"), [rule["name"] for rule in model["rules"]]
        for rule in model["rules"]:
            yield ("models", name, "rules", rule["name"]), without_rollout(rule)


def without_rollout(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {key: told for key, told in rule.items() if key != "rollout"}


def digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def digests(document: Mapping[str, Any]) -> dict[str, str]:
    """Of each unit, by its key."""
    return {"/".join(unit): digest(value) for unit, value in units(document)}


def merge(
    base: Mapping[str, str], table: Mapping[str, Any], file: Mapping[str, Any]
) -> tuple[Document, list[Clash]]:
    """The document that both make, and what they clash over; then it is the table's."""
    ours, theirs = dict(units(table)), dict(units(file))
    taken: dict[Unit, Any] = {}
    clashes = []
    for unit in {**ours, **theirs}:
        one, other = ours.get(unit), theirs.get(unit)
        was = base.get("/".join(unit))
        here, there = (digest(value) if value is not None else None for value in (one, other))
        if there in (was, here):
            taken[unit] = one
        elif here == was:
            taken[unit] = other
        else:
            taken[unit] = one
            clashes.append(Clash(unit, one, other))
    return _assembled(table, taken), clashes


def _assembled(table: Mapping[str, Any], taken: Mapping[Unit, Any]) -> Document:
    """Units put together again, with the table's rollouts in their rules."""
    rollouts = {
        (name, rule["name"]): rule.get("rollout")
        for name, model in table["models"].items()
        for rule in model["rules"]
    }
    models: dict[str, Any] = {}
    for unit, value in taken.items():
        if len(unit) == 2 and value is not None:
            models[unit[1]] = {**copy.deepcopy(value), "rules": []}
    for name, model in models.items():
        rules = {
            unit[3]: value
            for unit, value in taken.items()
            if unit[:3] == ("models", name, "rules") and value is not None
        }
        order = taken[("models", name, "order")] or []
        for rule in [*order, *(other for other in rules if other not in order)]:
            if rule in rules:
                told = copy.deepcopy(rules[rule])
                model["rules"].append({**told, "rollout": rollouts.get((name, rule))})
    return {section: taken[(section,)] for section in SECTIONS} | {"models": models}
