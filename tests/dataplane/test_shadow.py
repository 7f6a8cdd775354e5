"""Copies: nobody waits for them, every one is a record or a counted drop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from origins import Line, Origin, answering, echo, origin, silent
from world import MODELS, World, applicants, config, remote, running, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


def shadowed(url: str, bounds: str = "{}") -> str:
    """v1 answers in the worker, v3 at `url` gets a copy of everything."""
    return config(
        f"""
shadow: {bounds}
versions: {{v1: {{artifact: {MODELS}/v1}}, v3: {{upstream: '{url}', artifact: {MODELS}/v3}}}}
rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
"""
    )


def dropped(world: World, reason: str) -> float:
    return world.count("headworks_shadow_dropped", model="mortgage", reason=reason)


def test_a_copy_is_its_own_record(world: World) -> None:
    """It names the primary, has its own id and arm, the same body, and says that it is a copy."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(shadowed(seen.url))
            body = applicants()
            reply = await world.ask(body, headers=(b"x-headworks-subject: ann",))
            told = await world.record(lambda told: told.header.get("primary") == reply.id)
            assert (told.header["arm"], told.header["version"]) == ("shadow", "v3")
            assert told.header["id"] != reply.id
            assert told.context["subjects"] == ["ann"]
            assert (told.request.kept, told.response.kept) == (body, b"ok")
            (sent,) = seen.requests
            assert sent.body == body
            assert sent.header(b"x-headworks-traffic") == b"shadow"
            assert sent.header(b"x-headworks-id") == told.header["id"].encode()
            primary = (await world.record_of(reply)).header
            trace = told.header["trace"]
            assert trace["traceparent"][:36] == primary["trace"]["traceparent"][:36]
            assert trace["parent"] == primary["trace"]["traceparent"][36:52]

    world.run(story())


def test_a_copys_failure_is_a_record_and_nothing_else(world: World) -> None:
    """The primary is answered; what became of the copy stands in its own record."""

    async def story() -> None:
        async with origin(answering(b"nonsense\r\n\r\n")) as seen:
            await world.serve(shadowed(seen.url))
            reply = await world.ask(applicants())
            assert reply.status == 200
            told = await world.record(lambda told: told.header.get("primary") == reply.id)
            assert (told.header["error"], told.header["status"]) == ("upstream_protocol_error", 502)

    world.run(story())


def test_a_black_hole_delays_nobody(world: World) -> None:
    """While copies vanish, primaries are answered; what does not fit the queue is counted."""

    async def story() -> None:
        async with origin(silent) as seen:
            bounds = "{items: 3, concurrency: 2, timeout: 300ms}"
            await world.serve(shadowed(seen.url, bounds))
            before = dropped(world, "queue_items"), dropped(world, "deadline")
            replies, slowest = [], 0.0
            for _ in range(30):
                started = time.perf_counter()
                replies.append(await world.ask(applicants()))
                slowest = max(slowest, time.perf_counter() - started)
            assert {reply.status for reply in replies} == {200}
            assert slowest < 0.25
            ids = {reply.id for reply in replies}

            def told() -> int:
                return len([t for t in world.records() if t.header.get("primary") in ids])

            def lost() -> float:
                return dropped(world, "queue_items") - before[0]

            await until(lambda: told() + lost() == 30)
            assert lost() >= 20
            assert told() >= 4
            errors = {t.header["error"] for t in world.records() if t.header.get("primary") in ids}
            assert errors == {"upstream_timeout"}
            await until(world.idle)

    world.run(story())


@pytest.mark.parametrize(
    ("bounds", "reason"), [("{body: 100B}", "body_too_large"), ("{bytes: 100B}", "queue_bytes")]
)
def test_a_copy_that_does_not_fit_is_counted(world: World, bounds: str, reason: str) -> None:
    """By its reason; it is not sent and not recorded."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(shadowed(seen.url, bounds))
            before = dropped(world, reason)
            reply = await world.ask(applicants())
            assert reply.status == 200
            await until(lambda: dropped(world, reason) == before + 1)
            await world.record_of(reply)
            assert not [t for t in world.records() if t.header.get("primary") == reply.id]
            assert seen.requests == []

    world.run(story())


def test_an_old_copy_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waited longer than two seconds compares with nothing any more."""
    monkeypatch.setattr("gateway.dataplane.shadow.AGE_NS_MAX", 50_000_000)

    async def story() -> None:
        async with origin(silent) as seen:
            await world.serve(shadowed(seen.url, "{concurrency: 1, timeout: 200ms}"))
            before = dropped(world, "deadline")
            await world.ask(applicants())
            await until(lambda: seen.requests)
            await world.ask(applicants())
            await until(lambda: dropped(world, "deadline") == before + 1)
            assert len(seen.requests) == 1
            await until(world.idle)

    world.run(story())


@pytest.mark.parametrize(
    "more",
    [
        {"headers": (b"x-headworks-version: v1",)},
        {"body": b"{"},
        {"body": applicants(dir=None)},
        {"target": b"/v2/models/mortgage/ready", "method": b"GET", "body": b""},
        {"key": None},
    ],
)
def test_what_is_not_copied(world: World, more: dict[str, object]) -> None:
    """Forced versions, requests that no model could read, probes and strangers."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(shadowed(seen.url))
            await world.ask(**({"body": applicants()} | more))  # type: ignore[arg-type]
            reply = await world.ask(applicants())
            await world.record(lambda told: told.header.get("primary") == reply.id)
            assert len(seen.requests) == 1

    world.run(story())


def test_a_copy_under_way_survives_a_reload(world: World) -> None:
    """Its version's connections are closed when it has ended, not before."""

    async def story() -> None:
        gate = asyncio.Event()

        async def gated(seen: Origin, line: Line) -> None:
            seen.requests.append(await line.request())  # type: ignore[arg-type]
            await gate.wait()
            await line.write(OK)

        async with origin(gated) as seen, origin(echo) as other:
            await world.serve(shadowed(seen.url))
            reply = await world.ask(applicants())
            await until(lambda: seen.requests)
            await world.serve(remote(other.url))
            await asyncio.sleep(0.15)
            gate.set()
            told = await world.record(lambda told: told.header.get("primary") == reply.id)
            assert told.header["error"] is None
            assert told.response.kept == b"ok"

    world.run(story())
