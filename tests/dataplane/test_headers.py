"""Headers on their way: hop-by-hop and ours are taken out, all else passes as it came."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from origins import answering, echo, origin
from world import CALLERS, INFER, World, config, remote, running

from gateway.dataplane.headers import (
    HOP_BY_HOP,
    as_dict,
    kept,
    left_out,
    to_client,
    to_upstream,
)
from gateway.dataplane.request import upstream_fields
from gateway.exchange import Headers

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n"
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(str.encode)
LISTS = st.lists(st.tuples(NAMES | st.sampled_from(sorted(HOP_BY_HOP)), st.binary(max_size=9)))
OURS = [b"x-headworks-id", b"traceparent"]


def sent(headers: Headers, *, own_authorization: bool = False, traffic: bytes | None = None):  # type: ignore[no-untyped-def]
    less = left_out(headers, as_dict(headers), traffic=traffic, own_authorization=own_authorization)
    listed = to_upstream(headers, less, exchange="the-id", trace=b"the-trace", traffic=traffic)
    lines = [name + b": " + value for name, value in listed]
    if not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines):
        fields = upstream_fields(headers, less, "the-id", b"the-trace", traffic)
        assert fields == b"".join(b"\r\n" + line for line in lines)
    return listed


def test_what_an_upstream_gets() -> None:
    """Order, repetition, bytes and unknown names stay; our id and trace are added, once."""
    headers: Headers = [
        (b"host", b"gateway"), (b"x-b", b"1"), (b"accept-encoding", b"gzip"), (b"x-b", b"\xff"),
        (b"connection", b"keep-alive, X-Hop"), (b"x-hop", b"h"), (b"keep-alive", b"5"),
        (b"te", b"trailers"), (b"x-request-id", b"r"), (b"traceparent", b"theirs"),
        (b"content-length", b"3"), (b"x-headworks-subject", b"ann"), (b"x-headworks-id", b"forged"),
        (b"authorization", b"Bearer k"), (b"x_y", b""),
    ]  # fmt: skip
    assert sent(headers) == [
        (b"x-b", b"1"), (b"accept-encoding", b"gzip"),
        (b"x-b", b"\xff"), (b"x-request-id", b"r"), (b"authorization", b"Bearer k"), (b"x_y", b""),
        (b"x-headworks-id", b"the-id"), (b"traceparent", b"the-trace"),
    ]  # fmt: skip


def test_our_own_token_goes_no_further() -> None:
    """A caller's key is not shown to upstreams; another's token passes."""
    headers: Headers = [(b"authorization", b"Bearer k")]
    assert b"authorization" not in as_dict(sent(headers, own_authorization=True))
    assert b"authorization" in as_dict(sent(headers))


def test_shadow_traffic_is_marked() -> None:
    """An upstream can tell a copy from a request that counts."""
    assert (b"x-headworks-traffic", b"shadow") in sent([], traffic=b"shadow")
    assert b"x-headworks-traffic" not in as_dict(sent([(b"x-headworks-traffic", b"explain")]))


@pytest.mark.parametrize("through", [sent, to_client])
def test_every_connection_header_is_heeded(through) -> None:  # type: ignore[no-untyped-def]
    """Several connection headers name hop-by-hop ones together."""
    headers: Headers = [
        (b"connection", b"close"), (b"x-a", b"1"), (b"connection", b"x-a , X-B"), (b"x-b", b"2"),
        (b"x-c", b"3"),
    ]  # fmt: skip
    assert [
        item for item in through(headers) if item[0].startswith(b"x-") and item[0] not in OURS
    ] == [(b"x-c", b"3")]


@given(LISTS)
def test_hop_by_hop_never_passes_and_all_else_does(headers: Headers) -> None:
    """Both ways; no name is invented but host, our id and the trace."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    expected = [item for item in headers if item[0] not in HOP_BY_HOP and item[0] not in named]
    assert to_client(headers) == expected
    own = (b"host", b"content-length", *OURS)
    assert [item for item in sent(headers) if item[0] not in own] == [
        item for item in expected if item[0] not in own
    ]


def test_an_upstream_cannot_speak_in_our_name() -> None:
    """Headers of ours in an upstream's answer are dropped, in any case of letters."""
    answer: Headers = [
        (b"X-Headworks-Error", b"no_rule"),
        (b"x-headworks-id", b"i"),
        (b"X-B", b"1"),
    ]
    assert to_client(answer) == [(b"X-B", b"1")]


def test_secrets_are_never_kept() -> None:
    """The record's headers are without credentials and what the operator dropped."""
    headers: Headers = [
        (b"authorization", b"a"), (b"Cookie", b"b"), (b"set-cookie", b"c"), (b"x-api-key", b"d"),
        (b"Proxy-Authorization", b"e"), (b"x-ssn", b"f"), (b"x-b", b"\xff"),
    ]  # fmt: skip
    assert kept(headers, frozenset((b"x-ssn",))) == [("x-b", "ÿ")]


def test_the_first_value_of_a_name_counts() -> None:
    """A header sent twice means what its first says."""
    assert as_dict([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1", b"b": b"2"}


# Through the worker.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


def test_a_request_reaches_an_upstream_as_it_was(world: World) -> None:
    """Bytes, order, repetition and unknown headers stay; nothing is injected but id and trace."""

    async def story() -> None:
        async with origin(echo) as seen:
            await world.serve(remote(seen.url))
            body = bytes(range(256)) * 3
            trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            headers = (
                b"X-B: 1", b"x-a: \xff", b"X-b: 2", b"content-encoding: gzip", b"x-request-id: r",
                b"Connection: x-hop", b"x-hop: 1", b"te: trailers", b"x-headworks-subject: ann",
                b"x-headworks-id: forged", b"traceparent: " + trace, b"tracestate: a=b",
                b"seldon_model: m",
            )  # fmt: skip
            target = INFER + b"?a=%2F&b=%FF"
            reply = await world.ask(body, target=target, headers=headers, key="upstreams-own")
            assert reply.body == body
            (sent,) = seen.requests
            assert sent.body == body
            line, *found = sent.head[:-4].split(b"\r\n")
            assert line == b"POST " + target + b" HTTP/1.1"
            assert found == [
                b"host: " + seen.url[7:].encode(), b"x-b: 1", b"x-a: \xff", b"x-b: 2",
                b"content-encoding: gzip", b"x-request-id: r", b"tracestate: a=b",
                b"seldon_model: m", b"authorization: Bearer upstreams-own",
                b"x-headworks-id: " + reply.id.encode(),
                b"traceparent: " + trace[:36] + reply.id.replace("-", "")[16:].encode() + b"-01",
                b"content-length: %d" % len(body),
            ]  # fmt: skip
            told = await world.record_of(reply)
            assert told.header["trace"]["parent"] == "b7ad6b7169203331"

    world.run(story())


def test_a_callers_key_stays_here(world: World) -> None:
    """A key of our own callers is never shown to an upstream, whatever the caller is called."""

    async def story() -> None:
        async with origin(echo) as seen:
            text = remote(seen.url)
            for callers in (CALLERS, CALLERS.replace("loans-app", "anonymous")):
                await world.serve(callers + text)
                await world.ask(b"x")
            assert [sent.header(b"authorization") for sent in seen.requests] == [None, None]

    world.run(story())


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"X-B: 1\r\nX-A: \xff\r\nX-B: 2\r\nContent-Type: text/Plain; charset=x\r\n", b"\0\xff"),
        (b"", b""),
        (b"Content-Encoding: gzip\r\n", gzip.compress(b"hello" * 100)),
        (b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", b"x"),
        (b"X-Request-Id: the upstream's own\r\n", b"x"),
    ],
)
def test_an_answer_comes_back_as_it_was(world: World, head: bytes, body: bytes) -> None:
    """Status, headers in order, body bytes; no content-type where there was none."""

    async def story() -> None:
        raw = b"HTTP/1.1 418 Teapot\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        async with origin(answering(raw)) as seen:
            await world.serve(remote(seen.url))
            reply = await world.ask(b"hi")
            assert (reply.status, reply.body) == (418, body)
            lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[:-1]]
            ours = (b"date", b"content-length", b"x-headworks-id")
            assert [item for item in reply.headers if item[0] not in ours] == [
                (name.lower(), value) for name, value in lines
            ]
            assert (await world.record_of(reply)).response.kept == body

    world.run(story())


def test_an_upstreams_date_is_the_only_one(world: World) -> None:
    """A proxy passes the date on (RFC 9110, 6.6.1) and adds none beside it."""

    async def story() -> None:
        when = b"Sun, 06 Nov 1994 08:49:37 GMT"
        async with origin(answering(HEAD % 0 + b"Date: " + when + b"\r\n\r\n")) as seen:
            await world.serve(remote(seen.url))
            assert (await world.ask(b"hi")).all(b"date") == [when]

    world.run(story())


def test_the_callers_request_id_replaces_the_upstreams(world: World) -> None:
    """It is the caller's: echoed once, as sent."""

    async def story() -> None:
        async with origin(answering(HEAD % 0 + b"X-Request-Id: theirs\r\n\r\n")) as seen:
            await world.serve(remote(seen.url))
            reply = await world.ask(b"hi", headers=(b"x-request-id: mine",))
            assert reply.all(b"x-request-id") == [b"mine"]

    world.run(story())


@pytest.mark.parametrize("status", [b"200 OK", b"500 No"])
def test_an_upstream_never_speaks_in_our_name(world: World, status: bytes) -> None:
    """Its errors are passed as they came, its x-headworks- headers and hop-by-hop ones are not."""

    async def story() -> None:
        raw = (
            b"HTTP/1.1 " + status + b"\r\nX-Headworks-Error: no_rule\r\nX-Headworks-Id: forged\r\n"
            b"Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nno"
        )
        async with origin(answering(raw)) as seen:
            await world.serve(remote(seen.url))
            reply = await world.ask(b"hi")
            assert reply.error is None
            assert reply.all(b"x-headworks-id") != [b"forged"]
            assert len(reply.all(b"x-headworks-id")) == 1
            assert reply.get(b"x-hop") is reply.get(b"keep-alive") is None
            assert (await world.record_of(reply)).header["error"] is None

    world.run(story())


def test_what_is_not_exposed_is_not_shown(world: World) -> None:
    """A model whose `expose` is empty answers without any header of ours."""

    async def story() -> None:
        async with origin(echo) as seen:
            text = config(
                f"expose: []\nversions: {{v1: {{upstream: '{seen.url}'}}}}\n"
                "rules: [{name: all, split: {v1: 100%}}]"
            )
            await world.serve(text)
            reply = await world.ask(b"hi")
            assert reply.status == 200
            assert not [name for name, _ in reply.headers if name.startswith(b"x-headworks-")]

    world.run(story())
