"""Conditions: when each holds, and what it says of a request."""

from __future__ import annotations

import gzip
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.condition import ABSENT, compile_conditions, first_failed, parts_of, pointed
from gateway.exchange import Caller, Context
from gateway.protocol import grpc, openai
from gateway.protocol.message import Message
from gateway.routing.body import NoDocument, read_document
from gateway.routing.question import Question

WHEN = {
    "body": {"/parameters/tier": "gold", "/n": 2},
    "context": {"channel": "branch"},
    "header": {"x-tenant": "pilot"},
    "path": "/v2/*",
    "caller": ["loans-app", "batch"],
    "method": ["POST", "PUT"],
}
FITS: dict[str, Any] = {
    "method": "POST",
    "path": "/v2/models/m/infer",
    "first": {b"x-tenant": b"pilot"},
    "caller": Caller("batch", frozenset()),
    "context": Context((), ({"channel": "branch", "race": "black"}, {"channel": "branch"})),
    "body": b'{"parameters": {"tier": "gold"}, "n": 2.0}',
}


@pytest.mark.parametrize(
    ("other", "failed", "found"),
    [
        ({}, None, None),
        ({"method": "GET", "path": "/"}, "method is POST or PUT", "GET"),
        ({"caller": Caller("x", frozenset()), "path": "/"}, "caller is batch or loans-app", "x"),
        ({"path": "/v1"}, "path is /v2/*", "/v1"),
        ({"first": {b"x-tenant": b"Pilot"}}, "header x-tenant is pilot", "Pilot"),
        ({"first": {}}, "header x-tenant is pilot", None),
        ({"context": Context()}, "context channel is branch", None),
        (
            {"context": Context((), ({"channel": "branch"}, {"channel": "web"}))},
            "context channel is branch",
            "branch, web",
        ),
        ({"context": Context((), ({"channel": "branch"}, {}))}, "context channel is branch",
         "branch"),
        ({"body": b'{"parameters": {"tier": "silver"}}'}, 'body /parameters/tier is "gold"',
         '"silver"'),
        ({"body": b"{}"}, 'body /parameters/tier is "gold"', None),
        ({"body": b"no"}, 'body /parameters/tier is "gold"', "a body that is not read as JSON"),
        ({"body": b'{"parameters": {"tier": "gold"}, "n": true}'}, "body /n is 2", "true"),
    ],
)  # fmt: skip
def test_the_first_condition_that_fails_says_itself(
    other: dict[str, Any], failed: str | None, found: str | None
) -> None:
    """Cheap ones first, whatever their order in the document; each with what was there instead."""
    asked = Question(**(FITS | other))
    condition = first_failed(compile_conditions(WHEN), asked)
    assert (str(condition) if condition is not None else None) == failed
    assert (condition.found(asked) if condition is not None else None) == found


def test_a_body_is_read_only_where_all_else_holds() -> None:
    """A request that another condition turns away is not parsed."""

    class Watched(Question):
        def document(self) -> Any:
            raise AssertionError("it was read")

    assert str(first_failed(compile_conditions(WHEN), Watched(**(FITS | {"path": "/"})))) == (
        "path is /v2/*"
    )
    with pytest.raises(AssertionError):
        first_failed(compile_conditions(WHEN), Watched(**FITS))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(JSON, st.lists(st.text(max_size=3) | st.sampled_from(["0", "1", "-1", "00"]), max_size=4))
def test_a_pointer_finds_what_is_there_or_nothing(document: Any, keys: list[str]) -> None:
    """Against the plain walk of RFC 6901; whatever is asked for, it never raises."""
    pointer = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)
    wanted = document
    for key in keys:
        if isinstance(wanted, dict) and key in wanted:
            wanted = wanted[key]
        elif isinstance(wanted, list) and key.isascii() and key.isdigit():
            wanted = wanted[int(key)] if int(key) < len(wanted) else ABSENT
        else:
            wanted = ABSENT
        if wanted is ABSENT:
            break
    assert pointed(document, parts_of(pointer)) is wanted


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused(body: bytes) -> None:
    """A body that is no JSON makes the condition fail and nothing else."""
    message = Message(body, {"inference-header-content-length": "7"})
    for dialect in (openai, grpc):
        found: Any = "none"
        with suppress(NoDocument):
            found = read_document(dialect, message, 100)
        assert found == "none" or (dialect is openai and found == orjson.loads(body))


def test_a_body_is_read_through_its_coding_and_no_further_than_it_may() -> None:
    """gzip is undone up to the limit; of a v2 request with bytes the JSON part is read."""
    from gateway.protocol import v2

    said = b'{"n": 1}'
    packed = Message(gzip.compress(said), {"content-encoding": "gzip"})
    assert read_document(openai, packed, 100) == {"n": 1}
    mixed = Message(said + b"\0\1\2", {"inference-header-content-length": str(len(said))})
    assert read_document(v2, mixed, 100) == {"n": 1}
    bomb = Message(gzip.compress(b" " * 10_000 + said), {"content-encoding": "gzip"})
    for message, at_most, reason in (
        (Message(said), 7, "too_long"), (bomb, 500, "encoding"),
        (Message(said, {"content-encoding": "br"}), 99, "encoding"), (mixed, 99, "not_json"),
    ):  # fmt: skip
        with pytest.raises(NoDocument, match=reason):
            read_document(openai, message, at_most)
