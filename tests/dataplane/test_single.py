"""One row read straight into arrays: never anything that the general way would read otherwise."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inprocess import LOGISTIC
from world import applicants

from gateway.dataplane.inprocess import Session
from gateway.dataplane.single import SingleRow
from gateway.errors import Refusal
from gateway.protocol import v2
from gateway.protocol.tensor import Unreadable

NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**70), 2**70) | st.booleans()
VALUES = NUMBERS | st.none() | st.sampled_from(["", "no", "yes", [0.5], [], {}])
SHAPES = [[1, 1], [1, 1.0], [True, 1], [1], [1, 1, 1], [2, 1], [], None, "1", [1, 2]]
WRONG: dict[str, list[Any]] = {
    "name": ["dir", "hir", "pbcr", "dirt", None, 1, []],
    "datatype": ["FP32", "FP64", "BYTES", "INT64", "BOOL", None, []],
    "shape": SHAPES,
    "parameters": [{}, {"binary_data_size": 4}, None],
    "more": [1],
}
CHANGES = st.one_of(
    st.tuples(st.just("data"), st.lists(VALUES, max_size=2) | VALUES),
    *[st.tuples(st.just(key), st.sampled_from(some)) for key, some in WRONG.items()],
)


def general(session: Session, body: bytes) -> tuple[dict[str, Any], v2.Request] | None:
    try:
        request = v2.read_request(body)
        return session.feeds(request), request
    except (Unreadable, Refusal):
        return None


def bits(feeds: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (array.dtype, array.shape, array.tolist() if array.dtype == object else bytes(array))
        for name, array in feeds.items()
    }


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), CHANGES), max_size=3),
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), VALUES, max_size=2),
)
def test_what_is_read_here_is_read_alike_the_general_way(
    changes: list[tuple[int, tuple[str, Any]]], more: dict[str, Any]
) -> None:
    """The same arrays to the bit, all outputs, none as bytes, the same id; else nothing is said."""
    document = orjson.loads(applicants())
    document.pop("id", None)
    for place, (key, value) in changes:
        document["inputs"][place][key] = value
    try:
        body = orjson.dumps(document | more)
    except TypeError:  # an integer that JSON of ours does not take
        return
    asked = LOGISTIC.single.read(body)
    known = general(LOGISTIC, body)
    if asked is None:
        assert known is None or changes or more
        return
    assert known is not None
    feeds, request = known
    assert bits(asked.feeds) == bits(feeds)
    assert (asked.id, request.outputs, request.binary) == (request.id, None, False)
    first, second = LOGISTIC.compute(["score"], asked.feeds, 1), LOGISTIC.run(request)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("dims", [[2, 1], [None, None], [], [None, 0]])
def test_graphs_that_take_something_else_are_left_to_the_general_way(dims: list[Any]) -> None:
    """Of a graph of fixed batches or free sizes no request is read here."""
    body = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
    )
    assert SingleRow({"x": "FP32"}, {"x": dims}).read(body) is None
    assert SingleRow({"x": "INT8"}, {"x": [None, 1]}).read(body) is None
    assert SingleRow({"x": "FP32"}, {"x": [None, 1]}).read(body) is not None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"1", b'{"inputs":{}}', b'{"inputs":[1]}'])
def test_bodies_that_are_no_request_are_left_to_the_general_way(body: bytes) -> None:
    """It has the words for what is wrong with them."""
    assert LOGISTIC.single.read(body) is None
