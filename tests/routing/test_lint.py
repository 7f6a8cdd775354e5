"""Warnings about rules: against every request of a small world."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import CALLERS, config, table

from gateway.condition import compile_conditions, first_failed
from gateway.exchange import Caller, Context
from gateway.routing.lint import covers, meet, oddities
from gateway.routing.question import Question
from gateway.table import Rule

PATHS = ["/a", "/a/b", "/b"]
WORLD = [
    Question(
        method, path, {b"x-h": header} if header else {}, Caller(caller, frozenset()),
        Context((), ({"k": key},)), body,
    )
    for method, path, header, caller, key, body in product(
        ["GET", "PUT"], PATHS, [b"1", b"2", b""], ["x", "y"], ["u", "v"], [b'{"f": 1}', b'{"f": 2}']
    )
]  # fmt: skip
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "method": st.lists(st.sampled_from(["GET", "PUT"]), min_size=1, unique=True),
        "path": st.sampled_from(["/a", "/a*", "/a/*", "/*", "/b", "/c*"]),
        "header": st.sampled_from([{"x-h": "1"}, {"x-h": "2"}]),
        "caller": st.lists(st.sampled_from(["x", "y"]), min_size=1, unique=True),
        "context": st.sampled_from([{"k": "u"}, {"k": "v"}]),
        "body": st.sampled_from([{"/f": 1}, {"/f": 2}]),
    },
)


def rule(when: dict[str, Any]) -> Rule:
    conditions = compile_conditions(when)
    return Rule("r", conditions, "v1", (), (), b"s", "default", {}, {})


@given(WHEN, WHEN)
def test_what_is_said_to_be_covered_or_apart_is(one: dict[str, Any], other: dict[str, Any]) -> None:
    """No request of the world meets a covered rule and not the covering one, or two rules that are
    said never to meet."""
    wide, narrow = rule(one), rule(other)
    both = [
        (first_failed(wide.conditions, q) is None, first_failed(narrow.conditions, q) is None)
        for q in WORLD
    ]
    if covers(wide, narrow):
        assert (False, True) not in both
    if not meet(wide, narrow):
        assert (True, True) not in both
    elif "/c*" not in (one.get("path"), other.get("path")):
        assert (True, True) in both


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("[{name: a, split: {v1: 100%}}, {name: b, when: {method: GET}, split: {v2: 100%}}]",
         [(1, "is never reached: all it matches falls to 'a' before it")]),
        ("[{name: a, when: {path: /v2/*}, split: {v1: 100%}},"
         " {name: b, when: {path: /v2/x*, method: GET}, split: {v2: 100%}}]",
         [(1, "is never reached: all it matches falls to 'a' before it")]),
        ("[{name: a, when: {header: {x-a: '1'}}, split: {v1: 100%}},"
         " {name: b, when: {header: {x-b: '1'}}, split: {v2: 100%}}, {name: c, split: {v1: 100%}}]",
         [(1, "overlaps with 'a', which wins where both match")]),
        ("[{name: a, when: {header: {x-a: '1'}}, split: {v1: 100%}},"
         " {name: b, when: {header: {x-a: '2'}}, split: {v2: 100%}}, {name: c, split: {v1: 100%}}]",
         []),
        ("[{name: a, when: {caller: nobody}, split: {v1: 100%}}, {name: c, split: {v1: 100%}}]",
         [(0, "is never reached: caller is nobody is no caller's name")]),
    ],
)  # fmt: skip
def test_odd_rules_are_told(rules: str, told: list[tuple[int, str]]) -> None:
    """Unreachable ones, and those whose order decides; a special rule before a general one is how
    rules are meant."""
    text = "versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}}\nrules: " + rules
    found = table(config(text, callers=CALLERS))
    model = found.models["mortgage"]
    assert [(one.rule, one.words) for one in oddities(model, found.callers)] == told


def test_context_that_nobody_may_send_is_told() -> None:
    """A rule on routable context needs a caller with `context`."""
    text = """
context: {routable: [channel]}
versions: {v1: {upstream: 'http://a'}}
rules: [{name: a, when: {context: {channel: web}}, split: {v1: 100%}}, {name: b, split: {v1: 100%}}]
"""
    found = table(config(text, callers=""))
    (one,) = oddities(found.models["mortgage"], found.callers)
    assert one.words == "is never reached: no caller may send `context`"
