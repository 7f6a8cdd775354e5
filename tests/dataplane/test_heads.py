"""Heads that came before: whatever is sent, in whatever pieces, the answers are the same."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dataplane import heads
from gateway.dataplane.limits import ClientLimits
from gateway.dataplane.server import Protocol
from gateway.dataplane.turn import Turn
from gateway.settings import Clients

LIMITS = ClientLimits.of(Clients(), 1)
POST = b"POST /v2/models/a/infer HTTP/1.1\r\nhost: a\r\n"
MESSAGES = (
    POST + b"content-length: 5\r\n\r\nhello",
    POST + b"content-length: 5\r\n\r\nworld",
    POST + b"content-length: 0\r\n\r\n",
    POST + b"Content-Length: 2\r\nX-A: b\r\n\r\n\r\n",
    POST + b"content-length: 4\r\n\r\n\r\n\r\n",
    POST + b"content-length: 7\r\nexpect: 100-continue\r\n\r\nawaited",
    POST + b"content-length: 3\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nold",
    POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    POST + b"content-length: 3\r\nconnection: close\r\n\r\nend",
    POST + b"content-length: 3\r\nx-request-id: 7\r\n\r\none",
    POST + b"\r\n",
    b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /x HTTP/1.0\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"x_headworks_id: 1\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"\r\n\r\n",
    b"",
)


class App:
    """Answers with what it was asked, so that answers tell how requests were read."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits, self.draining = limits, False
        self.codes: list[str] = []

    async def answer(self, turn: Turn) -> None:
        body, more = b"", True
        while more:
            piece, more = await turn.receive()
            body += piece
        seen = (turn.method, turn.path, turn.query, turn.headers, turn.first, turn.old, body)
        turn.answer(200, [], repr(seen).encode())

    def refused(self, code: str) -> None:
        self.codes.append(code)


class Transport:
    """A connection to nowhere."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


def heard(
    pieces: list[bytes], limits: ClientLimits, *, forget: bool, turns: int = 8
) -> tuple[bytes, Any, bool]:
    """What one connection is answered, with or without a memory of heads; `turns` of the loop pass
    between two pieces."""

    async def story() -> tuple[bytes, Any, bool]:
        app, transport = App(limits), Transport()
        server = SimpleNamespace(connections=set(), tasks=set())
        protocol = Protocol(SimpleNamespace(app=app), server, None)
        protocol.connection_made(transport)  # type: ignore[arg-type]
        for piece in pieces:
            if forget:
                heads._known.clear()
            if piece and not transport.closed:
                protocol.data_received(piece)
            for _ in range(turns):
                await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport.written, app.codes, transport.closed

    told, codes, closed = asyncio.run(story())
    dates = [line for line in told.split(b"\r\n") if not line.startswith(b"date: ")]
    return b"\r\n".join(dates), codes, closed


def cut(sent: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(sent) + 1) for place in places), len(sent)]
    return [sent[low:high] for low, high in zip(edges, edges[1:])]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(MESSAGES), st.lists(st.integers(0, 300), max_size=2))),
    st.sampled_from([32, 1]),
    st.sampled_from([0, 1, 8]),
)
@example([(message, []) for message in MESSAGES[:5] * 3], 32, 8)
@example([(message, []) for message in MESSAGES[:2]], 1, 8)
@example([(MESSAGES[0], []), (MESSAGES[0] + MESSAGES[1], []), (MESSAGES[0], [60])], 32, 0)
def test_a_memory_of_heads_changes_no_answer(
    sent: list[tuple[bytes, list[int]]], headers: int, turns: int
) -> None:
    """Also of heads that other connections, with other limits, have made known."""
    limits = ClientLimits.of(Clients(headers=headers), 1)
    pieces = [piece for message, places in sent for piece in cut(message, places)]
    heard([MESSAGES[0], MESSAGES[11]], LIMITS, forget=False)
    known = heard(pieces, limits, forget=False, turns=turns)
    assert known == heard(pieces, limits, forget=True, turns=turns)


def test_a_head_is_known_by_its_second_time() -> None:
    """Else the test above would say nothing."""
    heads._known.clear()
    heard([MESSAGES[0], MESSAGES[1], MESSAGES[11]], LIMITS, forget=False)
    assert len(heads._known) == 2
    found = heads.find_known(MESSAGES[1])
    assert found is not None
    assert (found.path, found.length) == ("/v2/models/a/infer", 5)
    assert heads.find_known(MESSAGES[1] + b"G") is None
    assert heads.find_known(MESSAGES[1][:-1]) is None


def test_only_so_many_are_known() -> None:
    """The oldest is forgotten; what is long, ends the connection or is one request's own never
    becomes known."""
    heads._known.clear()
    many = [b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(heads.KNOWN_MAX + 3)]
    heard(many, LIMITS, forget=False)
    assert len(heads._known) == heads.KNOWN_MAX
    assert heads.find_known(many[2]) is None
    assert heads.find_known(many[3]) is not None
    heads._known.clear()
    long = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * heads.KNOWN_BYTES_MAX + b"\r\n\r\n"
    heard([long, *MESSAGES[5:11]], LIMITS, forget=False)
    assert not heads._known
