"""Copies: nobody waits for them, every one is a record or a counted drop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """While copies vanish, primaries are answered; each copy is a record or a counted drop."""
    reasons = ("queue_items", "breaker_open", "deadline")

    async def story() -> None:
        async with origin(silent) as seen:
            await world.serve(shadowed(seen.url, "{items: 3, concurrency: 2, timeout: 300ms}"))
            before = [dropped(world, reason) for reason in reasons]
            replies = [await world.ask(applicants()) for _ in range(30)]
            assert {reply.status for reply in replies} == {200}
            ids = {reply.id for reply in replies}

            def told() -> set[str]:
                found = [t.header for t in world.records() if t.header.get("primary") in ids]
                assert {header["error"] for header in found} <= {"upstream_timeout"}
                return {header["primary"] for header in found}

            def lost() -> float:
                return sum(dropped(world, reason) for reason in reasons) - sum(before)

            await until(lambda: len(told()) + lost() == 30)
            assert lost() >= 15
            assert told()
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
    monkeypatch.setattr("gateway.dataplane.lane.AGE_S_MAX", 0.05)

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


async def gated(gate: asyncio.Event, seen: Origin, line: Line) -> None:
    """Answers nothing until the gate is open."""
    while (request := await line.request()) is not None:
        seen.requests.append(request)
        await gate.wait()
        await line.write(OK)


def test_a_slow_shadow_is_waited_for_by_nobody(world: World) -> None:
    """Every primary is answered before the shadow answers its first copy; a client that has left
    by then cancels nothing."""

    async def story() -> None:
        gate = asyncio.Event()
        async with origin(lambda seen, line: gated(gate, seen, line)) as seen:
            await world.serve(shadowed(seen.url))
            replies = [await world.ask(applicants()) for _ in range(12)]
            assert {reply.status for reply in replies} == {200}
            ids = {reply.id for reply in replies}
            assert not [t for t in world.records() if t.header.get("primary") in ids]
            gate.set()
            await until(
                lambda: len([t for t in world.records() if t.header.get("primary") in ids]) == 12
            )
            await until(world.idle)

    world.run(story())


def test_a_resetting_shadow_is_left_alone(world: World) -> None:
    """Five copies in a row without an answer: the breaker opens, drops are counted and recorded,
    and each copy was sent once, whatever `retries` says for answers."""

    async def resets(seen: Origin, line: Line) -> None:
        seen.requests.append(await line.request())  # type: ignore[arg-type]
        line.reset()

    async def story() -> None:
        async with origin(resets) as seen:
            text = shadowed(seen.url, "{concurrency: 1}") + "    retries: {attempts: 3}\n"
            await world.serve(text)
            before = dropped(world, "breaker_open")
            replies = []
            for _ in range(40):
                replies.append(await world.ask(applicants()))
                await asyncio.sleep(0.005)  # copies are sent while primaries go on
            assert {reply.status for reply in replies} == {200}
            await until(world.idle)
            ids = {reply.id for reply in replies}
            told = [t for t in world.records() if t.header.get("primary") in ids]
            assert {t.header["error"] for t in told} == {"upstream_reset"}
            assert len(seen.requests) == len(told) < 15
            assert len(told) + dropped(world, "breaker_open") - before == 40

            def counted() -> int:
                records = [t for t in world.records() if t.header["kind"] == "not_copied"]
                drops = [drop for t in records for drop in t.header["drops"]]
                return sum(n for rule, name, reason, n in drops if reason == "breaker_open")

            await until(lambda: counted() == dropped(world, "breaker_open"))

    world.run(story())


def test_long_bodies_pass_by_and_long_answers_are_left(world: World) -> None:
    """10 MiB asked: no copy. 10 MiB answered by a shadow: not read to its end, no record."""

    async def story() -> None:
        long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 << 20)
        async with origin(answering(long + b"x" * (10 << 20))) as seen, origin(echo) as primary:
            await world.serve(
                config(
                    f"""
versions: {{v1: {{upstream: '{primary.url}'}}, v3: {{upstream: '{seen.url}'}}}}
rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
"""
                )
            )
            before = dropped(world, "body_too_large"), dropped(world, "answer_too_large")
            body = b"y" * (10 << 20)
            reply = await world.ask(body)
            assert reply.body == body
            await until(lambda: dropped(world, "body_too_large") == before[0] + 1)
            assert seen.requests == []
            small = await world.ask(b"{}")
            await until(lambda: dropped(world, "answer_too_large") == before[1] + 1)
            assert small.status == 200
            await until(world.idle)
            assert not [t for t in world.records() if t.header.get("primary") == small.id]
            opened = dropped(world, "breaker_open")
            for _ in range(20):
                assert (await world.ask(b"{}")).status == 200
                await asyncio.sleep(0.005)
            await until(world.idle)
            assert len(seen.requests) < 12
            assert dropped(world, "breaker_open") > opened

    world.run(story())


def test_bytes_that_wait_are_bounded(world: World) -> None:
    """Whatever comes, the queue of a black hole holds no more than its bound; it is let go."""

    async def story() -> None:
        async with origin(silent) as seen, origin(answering(OK)) as primary:
            await world.serve(
                config(
                    f"""
shadow: {{bytes: 300KiB, concurrency: 1, timeout: 400ms}}
versions: {{v1: {{upstream: '{primary.url}'}}, v3: {{upstream: '{seen.url}'}}}}
rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
"""
                )
            )
            before = dropped(world, "queue_bytes")
            for _ in range(10):
                assert (await world.ask(b"x" * (100 << 10))).status == 200
            lane = world.worker.shadow._lanes["mortgage", "v3"]
            assert lane._bytes <= 300 << 10
            assert dropped(world, "queue_bytes") - before >= 6
            await until(world.idle)
            assert lane._bytes == 0

    world.run(story())


def test_copies_have_connections_of_their_own(world: World) -> None:
    """A shadow at the very server of the primary, all its copies stuck, with one connection for
    answers: they go on."""

    async def story() -> None:
        gate = asyncio.Event()

        async def serve(seen: Origin, line: Line) -> None:
            while (request := await line.request()) is not None:
                seen.requests.append(request)
                if request.header(b"x-headworks-traffic") is not None:
                    await gate.wait()
                await line.write(OK)

        async with origin(serve) as seen:
            await world.serve(
                config(
                    f"""
limits: {{connections: 1}}
versions: {{v1: {{upstream: '{seen.url}'}}, v3: {{upstream: '{seen.url}'}}}}
rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
"""
                )
            )
            assert [(await world.ask(b"{}")).status for _ in range(8)] == [200] * 8
            gate.set()
            await until(world.idle)

    world.run(story())


def test_a_shadow_gets_its_own_credentials_and_an_unchanged_host(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the caller's, nor what records drop; the rest as the primary gets it."""
    monkeypatch.setenv("SHADOW_TOKEN", "Bearer its-own")
    headers = (
        b"cookie: session=1", b"x-api-key: k", b"x-secret: s", b"x-request-id: r1", b"x-note: n",
        b"authorization: Bearer the-callers",
    )  # fmt: skip

    async def story() -> None:
        async with origin(answering(OK)) as seen, origin(answering(OK)) as primary:
            await world.serve(
                config(
                    f"""
headers: {{drop: [x-secret]}}
versions:
  v1: {{upstream: '{primary.url}'}}
  v3: {{upstream: '{seen.url}', auth: {{from: "env:SHADOW_TOKEN"}}}}
rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
""",
                    callers="",
                )
            )
            await world.ask(b"{}", headers=headers, key=None)
            await until(lambda: seen.requests)
            (given,), (sent,) = primary.requests, seen.requests
            assert given.header(b"authorization") == b"Bearer the-callers"
            assert given.header(b"cookie") == b"session=1"
            assert sent.header(b"authorization") == b"Bearer its-own"
            assert [sent.header(n) for n in (b"cookie", b"x-api-key", b"x-secret")] == [None] * 3
            assert (sent.header(b"x-request-id"), sent.header(b"x-note")) == (b"r1", b"n")
            assert sent.header(b"host") == f"127.0.0.1:{seen.port}".encode()
            assert sent.header(b"x-headworks-traffic") == b"shadow"

    world.run(story())


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n",
     b"HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n"],
)  # fmt: skip
def test_a_primary_that_failed_is_not_copied(world: World, answer: bytes) -> None:
    """There is nothing to compare with: counted, and no gap in the evidence."""

    async def story() -> None:
        async with origin(answering(OK)) as seen, origin(answering(answer)) as primary:
            await world.serve(
                config(
                    f"""
versions: {{v1: {{upstream: '{primary.url}'}}, v3: {{upstream: '{seen.url}'}}}}
rules: [{{name: all, split: {{v1: 100%}}, shadow: {{v3: 100%}}}}]
"""
                )
            )
            before = dropped(world, "primary_failed")
            assert (await world.ask(b"{}")).status >= 400
            await until(lambda: dropped(world, "primary_failed") == before + 1)
            assert seen.requests == []

    world.run(story())


def test_what_was_not_drawn_is_counted(world: World) -> None:
    """By share as `sampled_out`, by the event loop's lag as `loop_lag`."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(shadowed(seen.url).replace("v3: 100%", "v3: 0%"))
            before = dropped(world, "sampled_out")
            await world.ask(applicants())
            await until(lambda: dropped(world, "sampled_out") == before + 1)
            await world.serve(shadowed(seen.url))
            before = dropped(world, "loop_lag")
            world.worker.shadow.sampling.share = 0.0
            await world.ask(applicants())
            await until(lambda: dropped(world, "loop_lag") == before + 1)
            world.worker.shadow.sampling.share = 1.0
            assert seen.requests == []

    world.run(story())


def test_noise_asks_the_same_version_again(world: World) -> None:
    """A second call to the primary's version beside the shadow's, marked in its record; a graph in
    the process that always says the same is never asked twice."""

    async def story() -> None:
        async with origin(answering(OK)) as seen, origin(answering(OK)) as primary:
            versions = f"v1: {{upstream: '{primary.url}'}}, v3: {{upstream: '{seen.url}'}}"
            rules = "rules: [{name: all, split: {v1: 100%}, shadow: {v3: 100%}}]"
            await world.serve(config(f"shadow: {{noise: 100%}}\nversions: {{{versions}}}\n{rules}"))
            reply = await world.ask(b"{}")

            def told() -> list[Any]:
                return [t.header for t in world.records() if t.header.get("primary") == reply.id]

            await until(lambda: len(told()) == 2)
            again, shadow = sorted(told(), key=lambda header: header["version"])
            assert (again["version"], again["arm"], again["noise"]) == ("v1", "shadow", True)
            assert (shadow["version"], "noise" in shadow) == ("v3", False)
            first, second = primary.requests
            assert first.header(b"x-headworks-traffic") is None
            assert second.header(b"x-headworks-traffic") == b"shadow"

            primary_lane = world.worker.shadow._lanes["mortgage", "v1"]
            primary_lane.breaker._until = float("inf")  # a second answer that is missing is no gap
            before = dropped(world, "breaker_open")
            await world.ask(b"{}")
            await until(lambda: dropped(world, "breaker_open") == before + 1)
            await until(world.idle)
            world.worker.shadow.each_second("0")
            await asyncio.sleep(0.1)
            drops = [drop for t in world.records() for drop in t.header.get("drops", ())]
            assert not [drop for drop in drops if drop[1] == "v1"]

            await world.serve(shadowed(seen.url, "{noise: 100%}"))
            reply = await world.ask(applicants())
            await until(told)
            await until(world.idle)
            assert [header["version"] for header in told()] == ["v3"]

    world.run(story())


def test_the_end_waits_for_no_shadow(tmp_path: Path) -> None:
    """With copies under way to a black hole and copies that wait, the process ends at once; each
    is counted, and its count is durable."""

    async def story() -> None:
        async with origin(silent) as seen:
            await world.serve(shadowed(seen.url, "{concurrency: 2, timeout: 1h}"))
            for _ in range(5):
                assert (await world.ask(applicants())).status == 200
            await until(lambda: len(seen.requests) == 2)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(world.task, 10)
            assert dropped(world, "shutting_down") == 5
            (told,) = [t for t in world.records() if t.header["kind"] == "not_copied"]
            assert told.header["drops"] == [["all", "v3", "shutting_down", 5]]

    with running(tmp_path) as world:
        world.run(story())


def test_a_limit_that_shrinks_leaves_nobody_waiting(world: World) -> None:
    """Two copies are refused at the same moment and the limit falls to one: who waits is taken up
    all the same, with no further copy to wake anybody."""
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

    async def story() -> None:
        gate = asyncio.Event()

        async def refusing(seen: Origin, line: Line) -> None:
            while (request := await line.request()) is not None:
                seen.requests.append(request)
                await gate.wait()
                line.writer.write(busy)

        async with origin(refusing) as seen:
            await world.serve(shadowed(seen.url, "{concurrency: 2}"))
            ids = {(await world.ask(applicants())).id for _ in range(4)}
            await until(lambda: len(seen.requests) == 2)
            gate.set()
            await until(
                lambda: len([t for t in world.records() if t.header.get("primary") in ids]) == 4
            )
            await until(world.idle)

    world.run(story())


def test_a_reload_between_answer_and_copy_is_a_counted_gap(world: World) -> None:
    """What was asked under a table that is in force no more is not copied by the new one."""

    async def story() -> None:
        gate = asyncio.Event()
        async with (
            origin(answering(OK)) as seen,
            origin(lambda seen, line: gated(gate, seen, line)) as primary,
        ):
            versions = f"v1: {{upstream: '{primary.url}'}}, v3: {{upstream: '{seen.url}'}}"
            rules = "rules: [{name: all, split: {v1: 100%}, shadow: {v3: 100%}}]"
            await world.serve(config(f"versions: {{{versions}}}\n{rules}"))
            before = dropped(world, "reloaded")
            asked = asyncio.get_running_loop().create_task(world.ask(b"{}"))
            await until(lambda: primary.requests)
            await world.serve(config(f"retention: 9d\nversions: {{{versions}}}\n{rules}"))
            gate.set()
            assert (await asked).status == 200
            await until(lambda: dropped(world, "reloaded") == before + 1)
            assert seen.requests == []

    world.run(story())
