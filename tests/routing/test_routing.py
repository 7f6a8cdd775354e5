"""Rules: what they match on, and that the first one wins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from origins import echo, origin
from world import LOCAL, World, applicants, config, remote, request, running, soon, table, until

from gateway.condition import PathIs
from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Caller
from gateway.protocol import v2
from gateway.protocol.dialect import Target
from gateway.routing.access import forced_version
from gateway.routing.place import Place, find_model, match
from gateway.routing.question import Question

TABLE = table(
    config(
        """
versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}}
rules:
  - {name: both, when: {header: {x-tenant: pilot, x-region: eu}}, split: {v2: 100%}}
  - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v2: 100%}}
  - {name: exactly, when: {path: /v2/models/mortgage/infer, caller: batch}, split: {v1: 100%}}
  - {name: below, when: {path: "/v2/models/mortgage/versions/*"}, split: {v1: 100%}}
  - {name: callers, when: {caller: [loans-app, batch]}, split: {v1: 100%}}
"""
    )
)
MODEL = TABLE.models["mortgage"]
INFER = "/v2/models/mortgage/infer"
BATCH, PLAIN = Caller("batch", frozenset()), Caller("plain", frozenset())


def ask(path: str, headers: dict[bytes, bytes], caller: Caller) -> Question:
    return Question("POST", path, headers, caller)


FORCER = Caller("loans-app", frozenset(("force",)))


@pytest.mark.parametrize(
    ("rule", "path", "headers", "caller"),
    [
        ("both", INFER, {b"x-tenant": b"pilot", b"x-region": b"eu"}, BATCH),
        ("pilot", INFER, {b"x-tenant": b"pilot", b"x-region": b"us"}, BATCH),
        ("exactly", INFER, {b"x-tenant": b"Pilot"}, BATCH),
        ("below", "/v2/models/mortgage/versions/v1/infer", {}, BATCH),
        ("callers", "/v2/models/mortgage", {}, BATCH),
        ("callers", INFER, {}, FORCER),
    ],
)
def test_the_first_rule_whose_conditions_all_hold_wins(
    rule: str, path: str, headers: dict[bytes, bytes], caller: Caller
) -> None:
    """Headers by exact value, a path whole or by its beginning, a caller by name; all of them."""
    assert match(MODEL, ask(path, headers, caller)).name == rule


def test_no_rule_is_a_404() -> None:
    """A request that no rule matches is refused, not sent somewhere."""
    with pytest.raises(Refusal) as caught:
        match(MODEL, ask(INFER, {}, PLAIN))
    assert (caught.value.code, caught.value.status) == ("no_rule", 404)


@given(st.text(), st.text())
def test_a_path_pattern_is_a_prefix_only_with_a_star(path: str, rest: str) -> None:
    """`/a*` matches what begins so; without the star only the path itself."""
    assert PathIs(path + "*").holds(Question(path=path + rest))
    if not path.endswith("*"):
        assert PathIs(path).holds(Question(path=path + rest)) == (rest == "")


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (Target("loans", None, "infer"), "unknown_model"),
        (Target("mortgage", "v9", "infer"), "unknown_version"),
        (Target("mortgage", "", "infer"), "unknown_version"),
    ],
)
def test_unknown_models_and_versions_are_404(target: Target, code: str) -> None:
    """What the table does not name is not found, under a code of its own."""
    with pytest.raises(Refusal) as caught:
        find_model(Place(v2, target, TABLE.models, INFER))
    assert (caught.value.code, caught.value.status) == (code, 404)


@pytest.mark.parametrize(
    ("version", "headers", "asked"),
    [
        ("v2", {}, "v2"),
        (None, {b"x-headworks-version": b"v2"}, "v2"),
        ("v1", {b"x-headworks-version": b"v2"}, "v1"),
        (None, {b"x-headworks-version": b""}, None),
        (None, {}, None),
    ],
)
def test_a_version_is_forced_by_path_or_header(
    version: str | None, headers: dict[bytes, bytes], asked: str | None
) -> None:
    """The path goes before the header, and an empty header asks for nothing."""
    target = Target("mortgage", version, "infer")
    assert forced_version(MODEL, version, target, headers, FORCER) == asked


def test_forcing_needs_its_permission() -> None:
    """403 for who may not, also for anonymous; 404 comes first for a version that is not there."""
    for caller in (BATCH, ANONYMOUS):
        with pytest.raises(Refusal) as caught:
            forced_version(MODEL, "v2", Target("mortgage", "v2", "infer"), {}, caller)
        assert (caught.value.code, caught.value.status) == ("force_not_allowed", 403)
    target, headers = Target("mortgage", None, "infer"), {b"x-headworks-version": b"\xff"}
    with pytest.raises(Refusal) as caught:
        forced_version(MODEL, None, target, headers, FORCER)
    assert caught.value.code == "unknown_version"


# Tables that change while requests are under way.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def local(world: World) -> World:
    world.run(world.serve(LOCAL))
    return world


def test_reloads_lose_no_request(world: World) -> None:
    """While tables are swapped, every request is answered by one of them, whole."""

    async def story() -> None:
        async with origin(echo) as first, origin(echo) as second:
            await world.serve(remote(first.url))
            statuses: list[int] = []

            async def ask_on(client_number: int) -> None:
                client = await world.connect()
                for number in range(60):
                    await client.say(request(b"%d" % number))
                    reply = await client.answer()
                    assert reply.body == b"%d" % number, reply
                    statuses.append(reply.status)
                client.leave()

            asking = [asyncio.ensure_future(ask_on(number)) for number in range(4)]
            reloads = 0
            while not all(task.done() for task in asking):
                reloads += 1
                await world.serve(remote((first, second)[reloads % 2].url))
            await asyncio.gather(*asking)
            assert statuses == [200] * 240
            assert reloads > 1
            assert first.requests
            assert second.requests

    world.run(story(), 30)


def test_a_slow_request_survives_a_reload(world: World) -> None:
    """A request that is half here when its table goes is answered by the table it came under."""

    async def story() -> None:
        async with origin(echo) as first, origin(echo) as second:
            revision = await world.serve(remote(first.url))
            client = await world.connect()
            whole = request(b"slowly")
            await client.say(whole[:-3])
            await until(lambda: world.worker.handler.in_flight)
            await world.serve(remote(second.url))
            await asyncio.sleep(0.2)
            await client.say(whole[-3:])
            reply = await soon(client.answer())
            assert (reply.status, reply.body) == (200, b"slowly")
            assert (await world.record_of(reply)).header["revision"] == revision
            assert [len(seen.requests) for seen in (first, second)] == [1, 0]
            client.leave()

    world.run(story())


def test_a_table_that_does_not_load_changes_nothing(local: World) -> None:
    """The old table stays in force and the refusal is counted."""

    async def story() -> None:
        before = local.count("headworks_table_rejected")
        revision = local.publish(LOCAL.replace("50%, v2: 50%", "40%, v2: 60%"))
        path = local.tables.path(revision)
        await until(lambda: local.worker.handler.live.table.revision == revision)  # type: ignore[union-attr]
        other = local.publish(LOCAL.replace("50%, v2: 50%", "30%, v2: 70%"))
        path = local.tables.path(other)
        path.write_bytes(path.read_bytes() + b" ")
        await until(lambda: local.count("headworks_table_rejected") > before)
        reply = await local.ask(applicants())
        assert reply.get(b"x-headworks-revision") == revision.encode()
        path.write_bytes(path.read_bytes()[:-1])

    local.run(story())
