"""Headers on their way: hop-by-hop and ours are taken out, all else passes as it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.headers import HOP_BY_HOP, as_dict, kept, to_client, to_upstream
from gateway.exchange import Headers

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(str.encode)
LISTS = st.lists(st.tuples(NAMES | st.sampled_from(sorted(HOP_BY_HOP)), st.binary(max_size=9)))
OURS = [b"x-headworks-id", b"traceparent"]


def sent(headers: Headers, *, own_authorization: bool = False, traffic: bytes | None = None):  # type: ignore[no-untyped-def]
    return to_upstream(
        headers,
        as_dict(headers),
        host=b"upstream.test",
        exchange="the-id",
        trace=b"the-trace",
        traffic=traffic,
        own_authorization=own_authorization,
    )


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
        (b"host", b"upstream.test"), (b"x-b", b"1"), (b"accept-encoding", b"gzip"),
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
    assert kept(headers, frozenset((b"x-ssn",))) == [["x-b", "ÿ"]]


def test_the_first_value_of_a_name_counts() -> None:
    """A header sent twice means what its first says."""
    assert as_dict([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1", b"b": b"2"}
