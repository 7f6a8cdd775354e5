"""Any v2 request, right or wrong, to MLServer directly and through the gateway: one answer."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import servers
from comparison import models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tap import Message
from world import Client, Reply, World, request, running

EXAMPLES = 2000
MADE_UP = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""MLServer's own id for a request that brings none."""

names = st.one_of(st.sampled_from(["x", "input-0", "", "predict"]), st.text(max_size=5))
kinds = st.one_of(
    st.sampled_from(["FP64", "FP32", "FP16", "INT64", "INT8", "UINT8", "BOOL", "BYTES", "BF16"]),
    st.text(max_size=4),
)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
)
parameters = st.dictionaries(
    st.sampled_from(["content_type", "binary_data", "sequence_id", "sequence_start", "headers"]),
    st.one_of(st.sampled_from(["np", "pd", "str"]), st.integers(0, 9), st.booleans()),
    max_size=2,
)


@st.composite
def right(draw: Any) -> dict[str, Any]:
    """Rows that the model takes, in one of the ways in which they may be written."""
    count = draw(st.integers(1, 4))
    values = draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2 * count, max_size=2 * count))
    nested: Any = [values[n : n + 2] for n in range(0, len(values), 2)]
    return {"name": "x", "shape": [count, 2], "datatype": draw(st.sampled_from(["FP64", "FP32"])),
            "data": nested if draw(st.booleans()) else values}  # fmt: skip


@st.composite
def odd(draw: Any) -> dict[str, Any]:
    """Tensors that may be wrong in any way."""
    data = st.recursive(st.lists(numbers, max_size=4), lambda inner: st.lists(inner, max_size=3))
    tensor = {
        "name": draw(names),
        "shape": draw(st.lists(st.integers(-1, 5), max_size=3)),
        "datatype": draw(kinds),
        "data": draw(data),
        "parameters": draw(parameters),
    }
    missing = draw(st.sets(st.sampled_from(sorted(tensor)), max_size=1))
    return {key: value for key, value in tensor.items() if key not in missing}


IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
"""MLServer writes the id into a header: with what no header takes it closes the connection, or
sends control characters, which the gateway refuses in whatever head they are (502)."""


@st.composite
def bodies(draw: Any) -> bytes:
    alone, any_of_them = right().map(lambda one: [one]), st.lists(right() | odd(), max_size=2)
    document: dict[str, Any] = {"inputs": draw(alone | alone | any_of_them)}
    if draw(st.booleans()):
        document["id"] = draw(IDS)
    if draw(st.booleans()):
        document["parameters"] = draw(parameters)
    if draw(st.booleans()):
        document["outputs"] = draw(st.lists(st.fixed_dictionaries({"name": names}), max_size=2))
    option = orjson.OPT_INDENT_2 if draw(st.booleans()) else 0
    body = orjson.dumps(document, option=option | orjson.OPT_NON_STR_KEYS)
    if draw(st.integers(0, 9)) == 0:
        body = body[: draw(st.integers(0, len(body)))]
    return body


TYPES = (b"application/json", b"text/plain", b"application/json; charset=utf-8")
PACK = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": bytes}
NAMES = (b"x-request-id", b"x-some", b"accept", b"user-agent", b"Ce-Id", b"seldon_model")
INFER = b"/v2/models/iris/infer"
TARGETS = (*[INFER] * 8, INFER + b"?a=b%20c", INFER + b"_stream", b"/v2/models/iris/nothing",
           b"/v2/models/iris/explain")  # fmt: skip


@st.composite
def requests(draw: Any) -> bytes:
    """A whole request as its bytes."""
    body = draw(bodies())
    headers = [b"content-type: " + draw(st.sampled_from(TYPES))]
    packing = draw(st.sampled_from([*[None] * 9, *PACK]))
    if packing is not None:
        body = PACK[packing](body)
        headers.append(b"content-encoding: " + packing)
    if draw(st.booleans()):
        headers.append(b"accept-encoding: " + draw(st.sampled_from([b"gzip", b"identity", b"*"])))
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=3)):
        headers.append(name + b": " + draw(st.sampled_from([b"v", b"a b", b"*/*", b"1;q=0"])))
    target = draw(st.sampled_from(TARGETS))
    return request(body, target=target, headers=tuple(headers), key=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world"), models("v2", ("iris",), 1)) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.mlserver(tmp_path_factory.mktemp("mlserver")) as found:
        yield found


async def ask(port: int, sent: bytes) -> Reply:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        await client.say(sent)
        reply = await asyncio.wait_for(client.answer(), 20)
    finally:
        client.leave()
    assert reply.whole
    return reply


def told(reply: Reply) -> tuple[int, Any, bytes]:
    """What the caller sees but for framing, our headers, ids that were made up, and the coding's
    own time."""
    body = reply.body
    if reply.get(b"content-encoding") == b"gzip":
        body = gzip.decompress(body)
    pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in reply.headers]
    headers = Message(str(reply.status), pairs).told()["headers"]
    masked = [
        (name, MADE_UP.sub(b"-", value.encode()).decode())
        for name, value in headers
        if name != "x-request-id"  # echoed by the gateway, whether the server does or not
    ]
    return reply.status, masked, MADE_UP.sub(b"-", body)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_any_request_is_answered_as_mlserver_answers_it(
    world: World, server: servers.Server, tmp_path: Path
) -> None:
    """Status, headers and bytes, whether the server takes the request or not; what is read of a
    decision never stops a reader."""
    world.run(world.serve(models("v2", ("iris",), server.http)))
    statuses: dict[int, int] = {}

    @settings(max_examples=EXAMPLES, deadline=None, database=None,
              suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    @given(requests())
    def same(sent: bytes) -> None:
        direct = world.run(ask(server.http, sent))
        through = world.run(ask(world.port, sent))
        assert through.error is None
        assert told(through) == told(direct)
        statuses[direct.status] = statuses.get(direct.status, 0) + 1

    same()
    assert sum(statuses.values()) >= EXAMPLES
    assert statuses[200] > EXAMPLES // 20
    assert len(statuses) >= 3
    kept = [item for item in world.records() if item.header["kind"] == "exchange"]
    assert len(kept) >= EXAMPLES
    print("statuses", dict(sorted(statuses.items())))
