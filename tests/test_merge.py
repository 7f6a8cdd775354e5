"""Merging a changed file into a changed table: for every history of both."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.revision.merge import digests, merge, units

RULES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3)
MODEL = st.tuples(RULES, st.integers(0, 1), st.booleans())
DOCUMENT = st.tuples(
    st.dictionaries(st.sampled_from(["m", "n"]), MODEL, max_size=2), st.integers(0, 1)
)


def made(told: Any) -> dict[str, Any]:
    models, people = told
    return {
        "callers": [], "people": [people], "telemetry": {}, "alerts": {},
        "models": {
            name: {
                "durability": kind,
                "rules": [
                    {"name": rule, "split": value, "rollout": None}
                    for rule, value in sorted(rules.items(), reverse=turned)
                ],
            }
            for name, (rules, kind, turned) in models.items()
        },
    }  # fmt: skip


@given(DOCUMENT, DOCUMENT)
def test_who_alone_changed_something_has_it_so(one: Any, other: Any) -> None:
    """An unchanged file keeps the table, an unchanged table takes the file; no clash either way."""
    base, changed = made(one), made(other)
    assert merge(digests(base), changed, base) == (changed, [])
    assert merge(digests(base), base, changed) == (changed, [])
    assert merge(digests(base), changed, changed) == (changed, [])


@given(DOCUMENT, DOCUMENT, DOCUMENT)
def test_every_unit_is_ones_or_the_others_and_clashes_are_told(
    was: Any, here: Any, there: Any
) -> None:
    """By the definition of a three-way merge, unit by unit."""
    base, table, file = made(was), made(here), made(there)
    merged, clashes = merge(digests(base), table, file)
    clashing = {clash.unit for clash in clashes}
    old, ours, theirs = (dict(units(document)) for document in (base, table, file))
    for unit in {**old, **ours, **theirs}:
        one, two, three = old.get(unit), ours.get(unit), theirs.get(unit)
        assert (unit in clashing) == (one != three and one != two and two != three)
    if not clashes:
        found = {unit: value for unit, value in units(merged) if unit[-1] != "order"}
        for unit, value in found.items():
            assert value in (ours.get(unit), theirs.get(unit))
            unchanged = theirs.get(unit) == old.get(unit)
            assert value == (ours if unchanged else theirs).get(unit)


@given(DOCUMENT)
def test_a_rollout_is_no_part_of_what_is_compared(told: Any) -> None:
    """It stays in its rule, whatever the file says."""
    table = made(told)
    for model in table["models"].values():
        for rule in model["rules"]:
            rule["rollout"] = {"name": "trees"}
    assert merge(digests(made(told)), table, made(told)) == (table, [])
