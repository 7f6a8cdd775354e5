"""Receipts on the wire: who gets one, what it says, and that it fits the record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from origins import Line, Origin, answering, origin
from test_stream import HOLD, LONG, PIECES, chunk
from world import Reply, World, applicants, remote, running

from gateway.journal.receipt import Receipt, decode

EXPOSE = "expose: [id, receipt]\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


async def proven(world: World, reply: Reply, kind: str) -> Receipt:
    """The reply's receipt, checked against the key and the record in the journal."""
    text = reply.all(b"x-headworks-receipt")
    assert len(text) == 1
    receipt = decode(text[0].decode())
    told = await world.record(lambda t: (t.header["id"], t.header["kind"]) == (reply.id, kind))
    key = await world.record(lambda t: t.header["kind"] == "receipt_key")
    receipt.verify(bytes.fromhex(key.header["public"]))
    assert key is world.records()[0]
    assert (receipt.id, receipt.time) == (reply.id, told.header["at"])
    assert receipt.commitment == told.header["commitment"]
    assert len(bytes.fromhex(told.context["salt"])) == 16
    assert "bucket" not in told.header
    assert 0 <= told.context["bucket"] < 1_000_000
    return receipt


@pytest.mark.parametrize("mode", ["durable", "bounded", "strict_intent"])
def test_an_exposed_receipt_fits_the_record(world: World, mode: str) -> None:
    """In each mode the answer's receipt is of the exchange's record, under the worker's key."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(remote(seen.url, f"{EXPOSE}durability: {mode}\n"))
            await proven(world, await world.ask(applicants()), "exchange")

    world.run(story())


def test_a_stream_s_head_carries_the_intent_s_receipt(world: World) -> None:
    """The head leaves before the end is known: what it proves is the intent."""

    async def stream(_: Origin, line: Line) -> None:
        await line.request()
        await line.write(LONG)
        for piece in PIECES:
            await line.write(chunk(piece))
        await line.write(b"0\r\n\r\n")

    async def story() -> None:
        async with origin(stream) as seen:
            await world.serve(remote(seen.url, EXPOSE + HOLD))
            reply = await world.ask(b"hi")
            assert reply.body == b"".join(PIECES)
            await proven(world, reply, "intent")

    world.run(story())


def test_our_own_refusals_have_receipts_too_and_nobody_else_does(world: World) -> None:
    """A recorded refusal of a known model has one; a model that exposes none gives none."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(remote(seen.url, EXPOSE + "limits: {request: 10B}\n"))
            refused = await world.ask(applicants())
            assert refused.status == 413
            text = refused.get(b"x-headworks-receipt")
            assert text is not None
            assert decode(text.decode()).id == refused.id
            await world.serve(remote(seen.url))
            assert (await world.ask(b"hi")).get(b"x-headworks-receipt") is None

    world.run(story())


def test_little_room_on_the_disk_stops_copies_and_spare_bodies_only(world: World) -> None:
    """An inference keeps its bodies; a refusal leaves length and digest; a copy is counted."""

    async def story() -> None:
        async with origin(answering(OK)) as seen, origin(answering(OK)) as other:
            await world.serve(
                remote(seen.url)
                .replace("split: {v1: 100%}}", "split: {v1: 100%}, shadow: {v2: 100%}}")
                .replace("versions: {", f"versions: {{v2: {{upstream: '{other.url}'}}, ")
            )
            world.worker._climb = lambda: None  # type: ignore[method-assign]
            world.worker.handler.frugal = world.worker.shadow.frugal = True
            try:
                kept = await world.record_of(await world.ask(b"hello"))
                spared = await world.record_of(await world.ask(b"hello", method=b"GET"))
            finally:
                del world.worker._climb
            assert (kept.request.kept, kept.response.kept) == (b"hello", b"ok")
            assert spared.header["status"] != 200
            assert (spared.response.kept, spared.response.truncated) == (b"", True)
            assert world.count("headworks_shadow_dropped", model="mortgage", reason="disk") == 1
            assert other.requests == []

    world.run(story())
