"""Several endpoints of a version: choice, retries, ejection, checks, fallback, credentials."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from origins import Line, Origin, Serve, answering, echo, origin, silent
from world import MODELS, World, applicants, config, running, soon, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n%b\r\nbusy"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 3\r\n\r\nbad"


def served(*urls: str, more: str = "", version: str = "") -> str:
    """One version at these endpoints."""
    listed = ", ".join(f"'{url}'" for url in urls)
    return config(
        f"versions: {{v1: {{endpoints: [{listed}]{version}}}}}\n"
        f"rules: [{{name: all, split: {{v1: 100%}}}}]\n{more}",
        callers="",
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


def events(world: World, event: str) -> float:
    world.worker._tell_numbers()
    return world.count("headworks_endpoint_events", model="mortgage", version="v1", event=event)


def test_requests_go_to_the_freer_one(world: World) -> None:
    """One endpoint holds its requests: the other one gets nearly all of the rest."""

    async def story() -> None:
        async with origin(silent) as stuck, origin(echo) as free:
            await world.serve(served(stuck.url, free.url, more="timeouts: {request: 1s}"))
            asked = [asyncio.ensure_future(world.ask(b"hi")) for _ in range(4)]
            await until(lambda: len(stuck.requests) + len(free.requests) == 4)
            held = len(stuck.requests)
            for _ in range(20):
                asked.append(asyncio.ensure_future(world.ask(b"hi")))
                await asyncio.sleep(0.005)
            replies = await asyncio.gather(*asked)
            assert held <= len(stuck.requests) <= max(held, 1) + 1
            assert sum(reply.status == 200 for reply in replies) == 24 - len(stuck.requests)
            await until(world.idle)

    world.run(story())


@pytest.mark.parametrize("policy", ["", "retries: {}\n"])
def test_a_retry_goes_elsewhere_and_is_counted(world: World, policy: str) -> None:
    """Off: the 503 is passed as it came. On: the other endpoint answers, with two attempts."""

    async def story() -> None:
        async with origin(answering(BUSY % b"")) as busy, origin(answering(OK)) as free:
            await world.serve(served(busy.url, free.url, more=policy))
            before = events(world, "retries")
            replies = [await world.ask(b"hi") for _ in range(12)]
            attempts = [(await world.record_of(r)).header["attempts"] for r in replies]
            busy_hits = len(busy.requests)
            if policy:
                assert {reply.status for reply in replies} == {200}
                assert attempts.count(2) == busy_hits
                assert events(world, "retries") - before == busy_hits
            else:
                assert {reply.status for reply in replies} == {200, 503}
                assert attempts == [1] * 12
            assert busy_hits > 0
            await until(world.idle)

    world.run(story())


def test_a_retry_stays_with_its_version_and_within_its_number(world: World) -> None:
    """Nobody listens anywhere: two attempts, then our 502, on the account of the version."""

    async def story() -> None:
        text = served("http://127.0.0.1:1", "http://127.0.0.1:2", more="retries: {}\n")
        await world.serve(text)
        reply = await soon(world.ask(b"hi"))
        assert (reply.status, reply.error) == (502, "upstream_connect_failed")
        told = await world.record_of(reply)
        assert (told.header["attempts"], told.header["version"]) == (2, "v1")

    world.run(story())


@pytest.mark.parametrize(
    ("answer", "after"), [(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "upstream_reset"),
                          (b"HTTP/1.1 2", "upstream_reset"), (b"nonsense\r\n\r\n",
                           "upstream_protocol_error")])  # fmt: skip
def test_nothing_is_retried_after_the_first_byte(world: World, answer: bytes, after: str) -> None:
    """What began to answer is not asked again, and nobody else is."""

    async def story() -> None:
        async with origin(answering(answer, close=True)) as bad:
            text = served(bad.url, bad.url + "/", more="retries: {attempts: 5}\n")
            await world.serve(text)
            reply = await soon(world.ask(b"hi"))
            assert reply.error == after
            assert len(bad.requests) == 1
            assert (await world.record_of(reply)).header["attempts"] == 1

    world.run(story())


def test_retries_have_a_budget(world: World) -> None:
    """With nothing allowed nothing is retried, and that is counted."""

    async def story() -> None:
        async with origin(answering(BUSY % b"")) as busy:
            await world.serve(served(busy.url, more="retries: {budget: 0%, at_least: 0}\n"))
            before = events(world, "retries_denied")
            assert (await world.ask(b"hi")).status == 503
            assert len(busy.requests) == 1
            assert events(world, "retries_denied") == before + 1

    world.run(story())


def test_a_retry_after_that_does_not_fit_is_honoured(world: World) -> None:
    """The upstream asks for ten minutes: its own 503 is the answer."""

    async def story() -> None:
        async with origin(answering(BUSY % b"Retry-After: 600\r\n")) as busy:
            await world.serve(served(busy.url, more="retries: {}\n"))
            reply = await soon(world.ask(b"hi"))
            assert (reply.status, reply.body, reply.error) == (503, b"busy", None)
            assert len(busy.requests) == 1

    world.run(story())


@pytest.mark.parametrize("serve", [answering(BROKEN), answering(b"garbage")])
def test_who_fails_in_a_row_is_left_out(world: World, serve: Serve) -> None:
    """After five failures one of two gets nothing more; alone it would go on being asked."""

    async def story() -> None:
        ejection = "ejection: {failures: 5, base: 1m}\n"
        async with origin(serve) as bad, origin(echo) as good:
            await world.serve(served(bad.url, good.url, more=ejection))
            before = events(world, "ejected_status") + events(world, "ejected_failure")
            replies = [await world.ask(b"hi") for _ in range(40)]
            assert len(bad.requests) == 5
            assert [reply.status == 200 for reply in replies[-10:]] == [True] * 10
            assert events(world, "ejected_status") + events(world, "ejected_failure") == before + 1
            kept = events(world, "kept")
            await world.serve(served(bad.url, more=ejection))
            for _ in range(7):
                assert (await world.ask(b"hi")).status in (500, 502)
            assert len(bad.requests) == 12
            assert events(world, "kept") > kept

    world.run(story())


async def moody(well: list[bool], seen: Origin, line: Line) -> None:
    while (request := await line.request()) is not None:
        check = b"/v2/health/ready" in request.head
        if not check:
            seen.requests.append(request)
        bad = check and not well[0]
        await line.write(BROKEN if bad else OK)


def test_checks_take_out_and_bring_back(world: World) -> None:
    """An endpoint whose readiness says no gets no requests until it says yes."""

    async def story() -> None:
        well = [True]
        health = "health: {interval: 20ms, down: 2, up: 2}\n"
        async with (
            origin(lambda seen, line: moody(well, seen, line)) as one,
            origin(lambda seen, line: moody([True], seen, line)) as two,
        ):
            await world.serve(served(one.url, two.url, more=health))
            live = world.worker.handler.live
            assert live is not None
            (backend,) = live.backends.values()
            remote = backend.remote
            assert remote is not None
            well[0] = False
            await until(lambda: remote.states()["down"] == 1)
            one.requests.clear()
            for _ in range(20):
                assert (await world.ask(b"hi")).status == 200
            assert one.requests == []
            well[0] = True
            await until(lambda: remote.states() == {"available": 2, "down": 0, "ejected": 0})
            for _ in range(20):
                await world.ask(b"hi")
            assert one.requests

    world.run(story())


def test_all_are_asked_when_too_many_are_down_but_a_canary_refuses(world: World) -> None:
    """Panic: a stable version is tried all the same; a canary's refusal is on its account."""

    async def story() -> None:
        async with origin(lambda seen, line: moody([False], seen, line)) as down:
            for split, arm in (("{v1: 100%}", "stable"), ("{v2: 0%, v1: 100%}", "canary")):
                both = f"{{v1: {{upstream: '{down.url}'}}, v2: {{upstream: '{down.url}'}}}}"
                text = config(
                    f"versions: {both}\nrules: [{{name: all, split: {split}}}]\n"
                    "health: {interval: 20ms, down: 1}\n", callers="",
                )  # fmt: skip
                await world.serve(text)
                live = world.worker.handler.live
                assert live is not None
                remotes = [backend.remote for backend in live.backends.values()]
                await until(lambda: all(r and r.states()["down"] for r in remotes))  # noqa: B023
                reply = await world.ask(b"hi")
                wanted = (200, None) if arm == "stable" else (503, "upstream_unavailable")
                assert (reply.status, reply.error) == wanted
                told = await world.record_of(reply)
                assert (told.header["arm"], told.header["version"]) == (arm, "v1")

    world.run(story())


@pytest.mark.parametrize("kind", ["refused", "broken", "silent", "model"])
def test_a_fallback_answers_and_the_failure_stays_the_first_ones(world: World, kind: str) -> None:
    """The record says who should have and who did; the metrics count both."""

    async def story() -> None:
        serve = {"broken": answering(BROKEN), "silent": silent}.get(kind, echo)
        async with origin(serve) as bad:
            url = bad.url if kind != "refused" else "http://127.0.0.1:1"
            text = config(
                f"versions: {{v1: {{artifact: {MODELS}/v1}}, v2: {{upstream: '{url}'}}}}\n"
                "rules: [{name: all, split: {v2: 100%}}]\n"
                "timeouts: {first_byte: 200ms}\nfallback: v1\nlimits: {in_flight: 1}\n", callers="",
            )  # fmt: skip
            await world.serve(text)
            if kind == "model":  # nothing fails: nobody stands in
                assert (await world.ask(b"hi")).body == b"hi"
                return
            reply = await soon(world.ask(applicants()))
            assert (reply.status, reply.error) == (200, None)
            assert reply.json()["outputs"]
            told = await world.record_of(reply)
            assert (told.header["version"], told.header["arm"]) == ("v1", "fallback")
            status = {"refused": 502, "broken": 500, "silent": 504}[kind]
            assigned = told.header["assigned"]
            assert (assigned["version"], assigned["arm"]) == ("v2", "stable")
            assert assigned["status"] == status
            for version, arm, code in (("v1", "fallback", 200), ("v2", "stable", status)):
                assert world.count("headworks_exchanges", model="mortgage", version=version,
                                   arm=arm, status=str(code)) > 0  # fmt: skip
            await until(world.idle)

    world.run(story())


def test_a_fallback_that_fails_too_leaves_the_first_failure(world: World) -> None:
    """The answer is the first one's, and the record names both."""

    async def story() -> None:
        text = config(
            "versions: {v1: {upstream: 'http://127.0.0.1:1'}, v2: {upstream: 'http://127.0.0.1:2'}}"
            "\nrules: [{name: all, split: {v2: 100%}}]\nfallback: v1\n", callers="",
        )  # fmt: skip
        await world.serve(text)
        reply = await soon(world.ask(b"hi"))
        assert reply.error == "upstream_connect_failed"
        told = await world.record_of(reply)
        assert (told.header["version"], told.header["arm"]) == ("v2", "stable")
        assert told.header["fallback"] == {"version": "v1", "error": "upstream_connect_failed"}

    world.run(story())


def test_a_credential_comes_by_reference(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file, followed when it changes, or a variable; the caller's own never gets through,
    ours is in no record, and no upstream is asked to say what it got."""

    async def story() -> None:
        secret = tmp_path / "token"
        secret.write_text("Bearer one\n")
        monkeypatch.setitem(os.environ, "MODEL_TOKEN", "from-env")
        async with origin(echo) as seen:
            auth = f", auth: {{from: 'file:{secret}'}}"
            await world.serve(served(seen.url, version=auth))
            reply = await world.ask(b"hi", key="callers-own")
            assert seen.requests[-1].header(b"authorization") == b"Bearer one"
            assert seen.requests[-1].head.lower().count(b"authorization") == 1
            told = await world.record_of(reply)
            assert "Bearer" not in str(told.context)
            secret.write_text("Bearer second\n")

            async def follows() -> bool:
                await world.ask(b"hi")
                return seen.requests[-1].header(b"authorization") == b"Bearer second"

            async with asyncio.timeout(5):
                while not await follows():
                    await asyncio.sleep(0.02)
            auth = ", auth: {header: x-api-key, from: 'env:MODEL_TOKEN'}"
            await world.serve(served(seen.url, version=auth))
            await world.ask(b"hi", headers=(b"x-api-key: callers-own",))
            assert seen.requests[-1].header(b"x-api-key") == b"from-env"
            asked = len(seen.requests)
            raw = "protocol: raw\npath: /any\nmapping: {predict: /do}"
            await world.serve(served(seen.url, version=auth, more=raw))
            traced = await world.ask(target=b"/any/thing", method=b"TRACE")
            assert (traced.status, traced.error) == (405, "method_not_allowed")
            await world.serve(served(seen.url, version=", auth: {from: 'env:HEADWORKS_NOT_SET'}"))
            reply = await world.ask(b"hi")
            assert (reply.status, reply.error) == (503, "upstream_credentials")
            assert len(seen.requests) == asked

    world.run(story())
