"""The response reader against malformed, cut and mutated bytes, without sockets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataplane.response import Framing, MalformedResponse, ResponseReader

START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = START + b"Content-Length: 2\r\n\r\nok"
CHUNKS = CHUNKED + b"2;a=b\r\nok\r\n3\r\n...\r\n0\r\nX-Trailer: t\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH


def read(*pieces: bytes, bodiless: bool = False) -> tuple[ResponseReader, bytes]:
    body: list[bytes] = []
    reader = ResponseReader(1024, 10, bodiless, body.append)
    for piece in pieces:
        reader.feed(piece)
    return reader, b"".join(body)


MALFORMED = {
    "a different second length": START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "the same length twice": START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": START + b"Content-Length: 2, 2\r\n\r\nok",
    "a signed length": START + b"Content-Length: +2\r\n\r\nok",
    "an empty length": START + b"Content-Length:\r\n\r\nok",
    "an overflowing length": START + b"Content-Length: 99999999999999999999\r\n\r\nok",
    "length before chunked": START
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked before length": START
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "another coding": START + b"Transfer-Encoding: gzip\r\n\r\nok",
    "a coding below chunked": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": START
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding almost chunked": START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\nok",
    "a chunk size in C": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"f" * 17 + b"\r\nok",
    "a space after the size": CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
    "a chunk longer than said": CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
    "bare line feeds in chunks": CHUNKED + b"2\nok\n0\n\n",
    "a length in the trailers": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "endless extensions": CHUNKED + b"2;" + b"a" * 2000,
    "endless trailers": CHUNKED + b"0\r\nX: " + b"a" * 2000,
    "a folded header": START + b"X: a\r\n b\r\n\r\n",
    "a folded length": START + b"Content-Length: 2\r\n 3\r\n\r\nok",
    "a space before the colon": START + b"Content-Length : 2\r\n\r\nok",
    "a header without a name": START + b": v\r\n\r\n",
    "NUL in a header": START + b"X: a\0b\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "CR in a header": START + b"X: a\rb\r\n\r\n",
    "LF in a header": START + b"X: a\nSet-Cookie: b\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nX: a\r\n\r\n",
    "a head too long": START + b"X: " + b"a" * 1024 + b"\r\n\r\n",
    "a head too long and unfinished": START + b"X: " + b"a" * 1024,
    "too many headers": START + b"X: a\r\n" * 11 + b"\r\n",
    "blank lines first": b"\r\n\r\n" + LENGTH,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "status 99": b"HTTP/1.1 099 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "endless interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 9,
}

TOO_LONG = {
    "one byte after the length": LENGTH + b"!",
    "a line end after the length": LENGTH + b"\r\n",
    "a second answer": LENGTH + LENGTH,
    "a byte after the chunks": CHUNKS + b"!",
    "a line end after the chunks": CHUNKS + b"\r\n",
    "a line feed after the chunks": CHUNKS + b"\n",
    "a carriage return after the chunks": CHUNKS + b"\r",
    "a body with 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_malformed_answers_are_refused_however_they_are_cut(name: str, size: int) -> None:
    """What HTTP/1.1 does not allow never becomes a complete answer, whatever the segments."""
    data = MALFORMED[name]
    with pytest.raises(MalformedResponse):
        reader, _ = read(*(data[at : at + size] for at in range(0, len(data), size)))


@pytest.mark.parametrize("name", TOO_LONG)
def test_bytes_after_the_end_spoil_the_answer(name: str) -> None:
    """An answer whose last segment has a byte too many is refused, even if it is CR or LF."""
    with pytest.raises(MalformedResponse):
        read(TOO_LONG[name])


@pytest.mark.parametrize(
    ("data", "body"),
    [(LENGTH, b"ok"), (CHUNKS, b"ok..."), (INTERIM, b"ok"), (START + b"\r\nuntil", b"until")],
)
def test_any_two_cuts_give_the_same_answer(data: bytes, body: bytes) -> None:
    """An answer in three segments is the answer in one, wherever the cuts lie."""
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            reader, got = read(data[:first], data[first:second], data[second:])
            assert reader.end()
            assert reader.head is not None
            assert (reader.head.status, got) == (200, body)


def test_no_proper_prefix_is_complete() -> None:
    """A message with an exact end is complete at its last byte and not one earlier."""
    for data in (LENGTH, CHUNKS, INTERIM):
        for cut in range(len(data)):
            reader, _ = read(data[:cut])
            assert not reader.end()


def test_headers_keep_order_case_and_repetition() -> None:
    """Headers arrive as sent, without the white space around their values and the trailers."""
    data = (
        START + b"X-B: 1 \r\nx-a:\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: t\r\n\r\n"
    )
    reader, _ = read(data)
    assert reader.head is not None
    assert reader.head.headers[:3] == [(b"X-B", b"1"), (b"x-a", b""), (b"X-B", b"2")]
    assert len(reader.head.headers) == 4


@pytest.mark.parametrize(
    ("status", "bodiless"), [(b"204 No Content", False), (b"304 N", False), (b"200 OK", True)]
)
def test_answers_without_a_body_end_with_their_head(status: bytes, bodiless: bool) -> None:
    """204, 304 and answers to HEAD have no body, whatever length they tell."""
    reader, body = read(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n", bodiless=bodiless)
    assert reader.head is not None
    assert (reader.complete, reader.head.keep_alive, body) == (True, True, b"")


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
@pytest.mark.parametrize("length", [0, 2])
def test_keep_alive_follows_version_and_connection(
    head: bytes, keep_alive: bool, length: int
) -> None:
    """HTTP/1.1 goes on unless it says close, HTTP/1.0 closes unless it says keep-alive."""
    reader, _ = read(head + b"Content-Length: %d\r\n\r\n" % length + b"ok"[:length])
    assert reader.head is not None
    assert (reader.complete, reader.head.keep_alive) == (True, keep_alive)


def mutate(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, inserted in edits:
        at %= len(data) + 1
        data = data[:at] + inserted + data[at + removed :]
    return data


EDITS = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.integers(0, 3),
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b"0", b":", b"\r\n\r\n"]),
            st.sampled_from([b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n"]),
        ),
    ),
    max_size=4,
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([LENGTH, CHUNKS, INTERIM]), EDITS, st.integers(1, 64))
def test_mutated_answers_are_read_or_refused(
    data: bytes, edits: list[tuple[int, int, bytes]], size: int
) -> None:
    """Any bytes are an answer, an unfinished one, or MalformedResponse, the same for each cut."""
    data = mutate(data, edits)
    outcomes = {outcome(data, step) for step in (size, len(data) or 1)}
    assert len(outcomes) == 1


def outcome(data: bytes, step: int) -> tuple[object, ...]:
    body: list[bytes] = []
    reader = ResponseReader(1024, 10, False, body.append)
    try:
        for at in range(0, len(data), step):
            if reader.complete:
                return ("refused",)
            reader.feed(data[at : at + step])
    except MalformedResponse:
        return ("refused",)
    if reader.head is None:
        assert reader.framing is Framing.HEAD
        return ("unfinished",)
    return (reader.head.status, tuple(reader.head.headers), b"".join(body), reader.complete)
