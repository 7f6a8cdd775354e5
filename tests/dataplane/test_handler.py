"""The story of a request, told by the real worker on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from origins import Line, Origin, answering, echo, origin, silent, stalling
from world import (
    INFER,
    LOCAL,
    World,
    applicants,
    remote,
    request,
    running,
    soon,
    until,
)

BY_PATH = b"/v2/models/mortgage/versions/v2/infer"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def local(world: World) -> World:
    world.run(world.serve(LOCAL))
    return world


# In the worker.


def test_an_answer_has_its_record(local: World) -> None:
    """What left is what the journal says: version, arm, bytes, score, and in whose name."""

    async def story() -> None:
        body = applicants()
        headers = (
            b"x-headworks-subject: ann",
            b"x-headworks-groups: race=black",
            b"x-request-id: r",
        )
        reply = await local.ask(body, headers=(*headers, b"x-applicant: zo\xc3\xab"))
        told = await local.record_of(reply)
        assert (reply.status, reply.error) == (200, None)
        assert reply.get(b"x-headworks-version") == told.header["version"].encode()
        assert reply.get(b"x-headworks-arm") == told.header["arm"].encode()
        assert reply.get(b"x-headworks-revision") == told.header["revision"].encode()
        assert reply.all(b"x-request-id") == [b"r"]
        assert (told.request.kept, told.response.kept) == (body, reply.body)
        assert told.context["subjects"] == ["ann"]
        assert told.context["groups"] == [{"race": "black"}]
        assert told.context["request_id"] == "r"
        assert told.header["caller"] == "loans-app"
        assert told.header["unit"] == "header:x-applicant"
        (decision,) = told.findings.decisions
        assert decision["score"] == pytest.approx(reply.json()["outputs"][0]["data"][0])
        assert decision["outcome"] == "approve"
        assert b"demo-key" not in str(told).encode()

    local.run(story())


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"key": None}, 401, "unauthorised"),
        ({"key": "wrong"}, 401, "unauthorised"),
        ({"target": b"/"}, 404, "unknown_path"),
        ({"target": b"/-/feedback/x"}, 404, "unknown_path"),
        ({"target": b"/v2/models/mortgage//infer"}, 404, "unknown_path"),
        ({"target": b"/v2/models/other/infer"}, 404, "unknown_model"),
        ({"target": b"/v2/models/mortgage/versions/v9/infer"}, 404, "unknown_version"),
        ({"headers": (b"x-headworks-version: v9",)}, 404, "unknown_version"),
        ({"method": b"GET"}, 405, "method_not_allowed"),
        ({"method": b"DELETE"}, 405, "method_not_allowed"),
        ({"key": "plain-key", "headers": (b"x-headworks-version: v2",)}, 403, "force_not_allowed"),
        ({"key": "plain-key", "target": BY_PATH}, 403, "force_not_allowed"),
        ({"body": b"{"}, 400, "bad_body"),
        ({"body": b'{"inputs":' + b"[" * 10_000}, 400, "bad_body"),
        ({"body": b'{"id":"\xff"}'}, 400, "bad_body"),
        ({"body": b'"}},"kind":"exchange","status":200}\n\0'}, 400, "bad_body"),
        ({"body": applicants(dir=None)}, 400, "bad_tensor"),
        ({"headers": (b"content-encoding: gzip",)}, 400, "bad_body"),
        ({"headers": (b"x-headworks-groups: race",)}, 400, "bad_context"),
        ({"headers": (b"x-headworks-subject: a;b",)}, 400, "bad_context"),
        ({"body": b"x" * 65_537}, 413, "request_too_large"),
        ({"target": b"/v2/models/mortgage/explain"}, 404, "unknown_path"),
    ],
)  # fmt: skip
def test_refusals(local: World, more: dict[str, object], status: int, code: str) -> None:
    """Each is JSON of our shape with its code, echoes the request's id, is counted and recorded."""

    async def story() -> None:
        more.setdefault("body", applicants())
        headers = (*more.pop("headers", ()), b"x-request-id: mine", b"x-headworks-id: forged")  # type: ignore[misc]
        before = local.count("headworks_refusals", code=code)
        reply = await local.ask(headers=headers, **more)  # type: ignore[arg-type]
        assert (reply.status, reply.error) == (status, code)
        assert reply.all(b"content-type") == [b"application/json"]
        assert list(reply.json()) == ["error"]
        assert reply.all(b"x-request-id") == [b"mine"]
        assert reply.id not in ("", "forged")
        told = await local.record_of(reply)
        assert (told.header["status"], told.header["error"]) == (status, code)
        assert told.response.kept == reply.body
        assert told.findings.decisions == ()
        assert local.count("headworks_refusals", code=code) == before + 1
        assert local.idle()

    local.run(story())


def test_a_chunked_body_is_refused_at_its_limit(local: World) -> None:
    """413 comes before the body's end: nobody waits for what will not be taken."""

    async def story() -> None:
        client = await local.connect()
        head = request(key="demo-key").replace(b"content-length: 0", b"transfer-encoding: chunked")
        await client.say(head + b"10001\r\n" + b"x" * 0x10001 + b"\r\n")
        reply = await soon(client.answer())
        assert (reply.status, reply.error) == (413, "request_too_large")
        client.leave()

    local.run(story())


def test_chunked_bodies_are_taken(local: World) -> None:
    """The record has the body, not its chunks."""

    async def story() -> None:
        client = await local.connect()
        head = request(key="demo-key").replace(b"content-length: 0", b"transfer-encoding: chunked")
        body = applicants()
        pieces = b"".join(b"%x;ext=1\r\n%b\r\n" % (1, body[n : n + 1]) for n in range(len(body)))
        await client.say(head + pieces + b"0\r\ntrailer: x\r\n\r\n")
        reply = await soon(client.answer())
        assert reply.status == 200
        assert (await local.record_of(reply)).request.kept == body
        client.leave()

    local.run(story())


@pytest.mark.parametrize(
    ("path", "headers"),
    [(BY_PATH, ()), (INFER, (b"x-headworks-version: v2",))],
)
def test_a_forced_version_has_an_arm_of_its_own(
    local: World, path: bytes, headers: tuple[bytes, ...]
) -> None:
    """Who may force gets the version, and the record says that nobody drew it."""

    async def story() -> None:
        reply = await local.ask(applicants(), target=path, headers=headers)
        assert reply.status == 200
        assert reply.json()["model_version"] == "v2"
        told = await local.record_of(reply)
        assert (told.header["arm"], told.header["version"]) == ("forced", "v2")

    local.run(story())


def test_rules_choose_by_header_first(local: World) -> None:
    """The pilot tenant has its version, whoever it asks for."""

    async def story() -> None:
        for unit in (b"a", b"b", b"c", b"d"):
            headers = (b"x-tenant: pilot", b"x-applicant: " + unit)
            reply = await local.ask(applicants(), headers=headers, key="plain-key")
            assert reply.get(b"x-headworks-version") == b"v2"
            assert (await local.record_of(reply)).header["rule"] == "pilot"

    local.run(story())


def test_context_is_one_or_n_values(local: World) -> None:
    """Two rows take one value or two; three are refused, naming both counts."""

    async def story() -> None:
        for subjects, status in ((b"a", 200), (b"a;b", 200), (b"a;b;c", 400)):
            reply = await local.ask(applicants(2), headers=(b"x-headworks-subject: " + subjects,))
            assert reply.status == status
        assert (
            reply.json()["error"] == "x-headworks-subject: 3 values for 2 rows; 1 or 2 are wanted"
        )

    local.run(story())


def test_context_of_others_is_dropped_and_counted(local: World) -> None:
    """It is in no record; a counter says that it came."""

    async def story() -> None:
        before = local.count("headworks_context_dropped")
        reply = await local.ask(
            applicants(), key="plain-key", headers=(b"x-headworks-subject: a;b;c",)
        )
        assert reply.status == 200
        told = await local.record_of(reply)
        assert told.context["subjects"] == []
        assert local.count("headworks_context_dropped") == before + 1

    local.run(story())


def test_the_models_own_endpoints(local: World) -> None:
    """Metadata and readiness of the version chosen, and nothing but GET."""

    async def story() -> None:
        base = b"/v2/models/mortgage"
        told = (await local.ask(target=base, method=b"GET")).json()
        assert told["name"] == "mortgage"
        ready = await local.ask(target=base + b"/ready", method=b"GET")
        assert ready.json() == {"name": "mortgage", "ready": True}
        assert (await local.ask(target=base)).status == 405

    local.run(story())


# Probes.


def test_probes_are_answered_without_a_key(local: World) -> None:
    """They say how this process is, and are nobody's exchange."""

    async def story() -> None:
        before = len(local.records())
        for path, told in (
            (b"/-/live", {"live": True}),
            (b"/-/ready", {"ready": True, "table": True, "journal": True, "draining": False}),
            (b"/v2/health/live", {"live": True}),
            (b"/v2/health/ready", {"ready": True}),
        ):
            reply = await local.ask(target=path, method=b"GET", key=None)
            assert (reply.status, reply.json()) == (200, told)
        assert (await local.ask(target=b"/v2", method=b"GET", key=None)).json()[
            "name"
        ] == "headworks"
        marker = await local.ask(applicants())
        await local.record_of(marker)
        assert len(local.records()) == before + 1

    local.run(story())


def test_the_protocols_readiness_is_the_stable_versions(world: World) -> None:
    """503 while the stable upstream is down or says no; our own readiness never asks it."""

    async def story() -> None:
        async with origin(answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")) as seen:
            await world.serve(remote(seen.url))
            assert (await world.ask(target=b"/v2/health/ready", method=b"GET")).status == 503
            assert (await world.ask(target=b"/-/ready", method=b"GET")).status == 200
        async with origin(answering(HEAD % 0 + b"\r\n")) as seen:
            await world.serve(remote(seen.url))
            assert (await world.ask(target=b"/v2/health/ready", method=b"GET")).status == 200
        await world.serve(remote(seen.url, "timeouts: {connect: 900ms}"))
        assert (await world.ask(target=b"/v2/health/ready", method=b"GET")).status == 503

    world.run(story())


# Through an upstream.


@pytest.mark.parametrize("raw", [b"304 Not Modified\r\nContent-Length: 5", b"204 No\r\nETag: x"])
def test_answers_without_a_body_end(world: World, raw: bytes) -> None:
    """A length that speaks of another answer's body keeps nobody waiting."""

    async def story() -> None:
        async with origin(answering(b"HTTP/1.1 " + raw + b"\r\n\r\n")) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            ask = request(target=b"/v2/models/mortgage", method=b"GET")
            await client.say(ask + ask)
            assert [(await soon(client.head())).status for _ in range(2)] == [int(raw[:3])] * 2
            client.leave()

    world.run(story())


async def resetting(seen: Origin, line: Line) -> None:
    await line.request()
    line.reset()


FAILURES = {
    "reset": (resetting, 502, "upstream_reset"),
    "closed": (answering(b"", close=True), 502, "upstream_reset"),
    "garbage": (answering(b"SSH-2.0-OpenSSH\r\n"), 502, "upstream_protocol_error"),
    "short": (answering(HEAD % 9 + b"\r\nhi", close=True), 502, "upstream_reset"),
    "slow": (silent, 504, "upstream_timeout"),
    "half": (stalling(HEAD % 9 + b"\r\nhi"), 504, "upstream_timeout"),
    "double": (answering(HEAD % 2 + HEAD[17:] % 3 + b"\r\nhi!"), 502, "upstream_protocol_error"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILURES)
def test_an_upstreams_failure_is_ours_to_tell(world: World, kind: str) -> None:
    """502 or 504 with a code that says what happened; recorded; nothing is leaked or retried."""

    async def story() -> None:
        serve, status, code = FAILURES[kind]
        async with origin(serve) as seen:
            await world.serve(remote(seen.url, "timeouts: {request: 150ms}"))
            reply = await world.ask(b"hi")
            assert (reply.status, reply.error) == (status, code)
            assert reply.all(b"content-type") == [b"application/json"]
            told = await world.record_of(reply)
            assert (told.header["status"], told.header["error"]) == (status, code)
            assert told.header["attempts"] == 1
            assert len(seen.lines) == 1
            await until(world.idle)

    world.run(story())


def test_an_upstream_that_is_down_is_a_502(world: World) -> None:
    """Nobody listens there."""

    async def story() -> None:
        async with origin(silent) as seen:
            pass
        await world.serve(remote(seen.url))
        reply = await world.ask(b"hi")
        assert (reply.status, reply.error) == (502, "upstream_connect_failed")

    world.run(story())


@pytest.mark.parametrize(
    ("limits", "code"),
    [("{in_flight: 1}", "overloaded"), ("{connections: 1, pending: 0}", "upstream_overloaded")],
)
def test_above_the_limit_is_a_503(world: World, limits: str, code: str) -> None:
    """At once, with retry-after; the exchange under way goes on."""

    async def story() -> None:
        async with origin(silent) as seen:
            await world.serve(remote(seen.url, f"limits: {limits}\ntimeouts: {{request: 400ms}}"))
            first = asyncio.ensure_future(world.ask(b"one"))
            await until(lambda: seen.requests)
            second = await world.ask(b"two")
            assert (second.status, second.error) == (503, code)
            assert second.get(b"retry-after") in (b"1", b"2", b"3", b"4")
            assert (await first).error == "upstream_timeout"
            await until(world.idle)

    world.run(story())


SCORE = '{"outputs":[{"name":"score","datatype":"FP32","shape":[1,1],"data":[%s]}]}'


@pytest.mark.parametrize(
    "body",
    [
        b'"}},"status":200,"kind":"exchange"}\n{"kind":"mark"}',
        b"\xff\xfe\0\r\n",
        b"[" * 10_000,
        b'{"outputs":' + b"[" * 10_000,
        (SCORE % "{}").encode(),
        (SCORE % "[[1]]").encode(),
        (SCORE % "1e999").encode(),
        b'{"outputs":[{"name":"score","datatype":"FP32","shape":[-1],"data":[]}]}',
        b"",
    ],
)
def test_no_body_breaks_the_journal(world: World, body: bytes) -> None:
    """Whatever an application sends or a model answers is recorded as sent and read again."""

    async def story() -> None:
        raw = HEAD % len(body) + b"Inference-Header-Content-Length: \xff\r\n\r\n" + body
        async with origin(answering(HEAD % len(body) + b"\r\n" + body, raw)) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            for _ in range(2):
                await client.say(request(body))
                reply = await soon(client.answer())
                assert (reply.status, reply.body) == (200, body)
                told = await world.record_of(reply)
                assert (told.request.kept, told.response.kept) == (body, body)
                assert told.findings.decisions == ()
                assert told.findings.unreadable
            client.leave()

    world.run(story())


def test_a_remote_score_becomes_a_decision(world: World) -> None:
    """Read from the answer's bytes, judged by the card's threshold."""

    async def story() -> None:
        body = (SCORE % "0.9").encode()
        async with origin(answering(HEAD % len(body) + b"\r\n" + body)) as seen:
            await world.serve(remote(seen.url))
            told = await world.record_of(await world.ask(b"{}"))
            assert told.findings.decisions == ({"score": 0.9, "outcome": "deny"},)

    world.run(story())


# Leaving and reloading.


def test_a_client_that_leaves_within_its_request_leaves_a_record(world: World) -> None:
    """Half a body is no request: 499 is recorded and nothing is held."""

    async def story() -> None:
        async with origin(echo) as seen:
            await world.serve(remote(seen.url))
            before = world.count("headworks_refusals", code="client_gone")
            client = await world.connect()
            await client.say(request(b"half", headers=(b"x-request-id: gone",))[:-2])
            await until(lambda: world.worker.handler.in_flight)
            client.leave()
            told = await world.record(lambda told: told.context.get("request_id") == "gone")
            assert (told.header["status"], told.header["error"]) == (499, "client_gone")
            assert world.count("headworks_refusals", code="client_gone") == before + 1
            assert seen.requests == []
            await until(world.idle)

    world.run(story())


def test_a_client_that_leaves_before_its_answer_leaves_a_record(world: World) -> None:
    """The model was asked, so there is a record of what it said; nothing is held."""

    async def story() -> None:
        gate = asyncio.Event()

        async def gated(seen: Origin, line: Line) -> None:
            seen.requests.append(await line.request())  # type: ignore[arg-type]
            await gate.wait()
            await line.write(HEAD % 2 + b"\r\nok")

        async with origin(gated) as seen:
            await world.serve(remote(seen.url))
            client = await world.connect()
            await client.say(request(b"hi", headers=(b"x-request-id: left",)))
            await until(lambda: seen.requests)
            client.leave()
            await asyncio.sleep(0.02)
            gate.set()
            told = await world.record(lambda told: told.context.get("request_id") == "left")
            assert told.response.kept == b"ok"
            await until(world.idle)

    world.run(story())


def test_a_full_journal_refuses(local: World) -> None:
    """Above its disk budget the gateway answers no more: 503, with its own code."""

    async def story() -> None:
        object.__setattr__(local.worker.settings, "journal_at_most", 1)
        try:
            await until(lambda: local.worker.handler.journal_full)
            reply = await local.ask(applicants())
            assert (reply.status, reply.error) == (503, "journal_full")
        finally:
            object.__setattr__(local.worker.settings, "journal_at_most", 8 << 30)
        await until(lambda: not local.worker.handler.journal_full)
        assert (await local.ask(applicants())).status == 200

    local.run(story())
