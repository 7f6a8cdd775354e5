"""Rules at a real worker: bodies, context, limits and times of a rule, sessions, shadows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from origins import Line, Origin, answering, origin
from world import MODELS, World, applicants, config, running

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def never(origin: Origin, line: Line) -> None:
    """Takes a request and says nothing."""
    await line.request()
    await line.request()


LOCAL = f"""
versions: {{v1: {{artifact: {MODELS}/v1}}, v2: {{artifact: {MODELS}/v2}}}}
unit: [header:x-applicant, exchange]
expose: [id, version, arm, revision]
context: {{routable: [channel]}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("rules")
    with running(folder) as made:
        yield made


def unread(world: World, reason: str) -> float:
    return world.count("headworks_rule_body_unread", model="mortgage", reason=reason)


def test_a_rule_may_ask_for_a_field_of_the_body(world: World) -> None:
    """By JSON pointer; what is passed on is the body as it came; what cannot be read is counted."""

    async def story() -> None:
        await world.serve(config(LOCAL + """
limits: {hold: 4KiB}
rules:
  - {name: gold, when: {body: {/parameters/tier: gold}}, split: {v2: 100%}}
  - {name: everyone, split: {v1: 100%}}
"""))  # fmt: skip
        plain = applicants()
        gold = orjson.dumps({"parameters": {"tier": "gold"}} | orjson.loads(plain))
        gold = gold.replace(b'"parameters":', b'"parameters" :  ')
        for body, rule, version in ((plain, "everyone", b"v1"), (gold, "gold", b"v2")):
            reply = await world.ask(body)
            assert (reply.status, reply.get(b"x-headworks-version")) == (200, version)
            told = await world.record_of(reply)
            assert (told.header["rule"], told.request.kept) == (rule, body)
        before = unread(world, "not_json"), unread(world, "too_long")
        assert (await world.ask(b"{no")).error == "bad_body"
        assert (await world.ask(applicants(200))).get(b"x-headworks-version") == b"v1"
        assert (unread(world, "not_json"), unread(world, "too_long")) == (
            before[0] + 1, before[1] + 1,
        )  # fmt: skip

    world.run(story())


def test_a_long_body_passes_by_a_rule_that_asks_for_it(world: World) -> None:
    """To an upstream a body over `limits.hold` streams on; the rule does not fall to it."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(config(f"""
limits: {{hold: 1KiB, request: 64KiB}}
versions: {{v1: {{upstream: '{seen.url}'}}, v2: {{upstream: '{seen.url}'}}}}
rules:
  - {{name: gold, when: {{body: {{/tier: gold}}}}, split: {{v2: 100%}}, limits: {{request: 2KiB}}}}
  - {{name: everyone, split: {{v1: 100%}}, limits: {{request: 8KiB}}}}
"""))  # fmt: skip
            long = b'{"tier": "gold", "x": "%b"}' % (b"y" * 4000)
            for body, version, status in (
                (b'{"tier": "gold"}', "v2", 200), (long, "v1", 200), (long * 3, "", 413),
            ):  # fmt: skip
                reply = await world.ask(body)
                assert reply.status == status
                told = await world.record_of(reply)
                assert told.header.get("version", "") == version
            assert [sent.body for sent in seen.requests] == [b'{"tier": "gold"}', long]

    world.run(story())


def test_a_rule_may_ask_for_routable_context(world: World) -> None:
    """From callers who may send it, one value or the same for all rows; from others never."""

    async def story() -> None:
        await world.serve(config(LOCAL + """
rules:
  - {name: branch, when: {context: {channel: branch}, method: POST}, split: {v2: 100%}}
  - {name: everyone, split: {v1: 100%}}
"""))  # fmt: skip
        said = b"x-headworks-groups: channel=branch,race=black"
        mixed = b"x-headworks-groups: channel=branch;channel=web"
        for rows, header, key, version in (
            (1, said, "demo-key", b"v2"), (2, said, "demo-key", b"v2"),
            (2, mixed, "demo-key", b"v1"), (1, said, "plain-key", b"v1"),
        ):  # fmt: skip
            reply = await world.ask(applicants(rows), headers=(header,), key=key)
            assert (reply.status, reply.get(b"x-headworks-version")) == (200, version)

    world.run(story())


def test_a_rule_has_its_own_limits_and_times(world: World) -> None:
    """413, 504 and what is kept are the rule's; a request under another rule has the model's."""

    async def story() -> None:
        async with origin(never) as silent:
            await world.serve(config(f"""
limits: {{request: 64KiB}}
versions: {{v1: {{upstream: '{silent.url}', artifact: {MODELS}/v1}}, v2: {{artifact: {MODELS}/v2}}}}
rules:
  - {{name: quick, when: {{header: {{x-quick: "1"}}}}, split: {{v1: 100%}},
      timeouts: {{first_byte: 100ms}}}}
  - {{name: short, when: {{header: {{x-quick: "2"}}}}, split: {{v1: 100%}},
      timeouts: {{request: 100ms}}}}
  - {{name: small, when: {{header: {{x-small: "1"}}}}, split: {{v2: 100%}},
      limits: {{request: 100B, keep: 10B}}}}
  - {{name: rest, split: {{v2: 100%}}, limits: {{keep: 20B}}}}
"""))  # fmt: skip
            for quick in (b"1", b"2"):
                began = asyncio.get_running_loop().time()
                reply = await world.ask(applicants(), headers=(b"x-quick: " + quick,))
                assert reply.error == "upstream_timeout"
                assert asyncio.get_running_loop().time() - began < 3
            small = await world.ask(applicants(), headers=(b"x-small: 1",))
            assert small.error == "request_too_large"
            reply = await world.ask(applicants())
            assert reply.status == 200
            assert len((await world.record_of(reply)).response.kept) == 20

    world.run(story())


def test_a_session_keeps_its_version_while_weights_move(world: World) -> None:
    """Cookie or header, both ways; a rollback voids the pin at once, and it is in no record."""

    def text(split: str, by: str) -> str:
        rule = f"{{name: all, split: {split}, sticky: {{max_age: 1h, by: {by}}}}}"
        return config(LOCAL + f"rules: [{rule}]")

    async def story() -> None:
        for by, answered, asked in (
            ("cookie", b"set-cookie", b"cookie: a=b; "),
            ("header", b"x-headworks-session", b"x-headworks-session: "),
        ):
            await world.serve(text("{v1: 0%, v2: 100%}", by))
            first = await world.ask(applicants())
            given = first.get(answered)
            assert given is not None
            pin = asked + given.partition(b";")[0]
            await world.serve(text("{v1: 99%, v2: 1%}", by))
            for number in range(5):
                reply = await world.ask(
                    applicants(), headers=(pin, b"x-applicant: unit-%d" % number)
                )
                assert reply.get(b"x-headworks-version") == b"v2"
                assert reply.get(answered) is None
                told = await world.record_of(reply)
                assert told.header["unit"] == "session"
                assert given.partition(b";")[0].decode() not in orjson.dumps(told.context).decode()
            await world.serve(text("{v1: 100%, v2: 0%}", by))
            back = await world.ask(applicants(), headers=(pin,))
            assert back.get(b"x-headworks-version") == b"v1"
            assert back.get(answered) not in (None, given)
        assert (world.keys / "session.key").stat().st_mode & 0o077 == 0

    world.run(story())


def test_a_shadow_may_have_a_condition(world: World) -> None:
    """A copy goes where share and condition both hold."""

    async def story() -> None:
        async with origin(answering(OK)) as seen:
            await world.serve(config(f"""
versions: {{v1: {{artifact: {MODELS}/v1}}, v3: {{upstream: '{seen.url}'}}}}
rules:
  - {{name: all, split: {{v1: 100%}},
      shadow: {{v3: {{share: 100%, when: {{header: {{x-tenant: pilot}}}}}}}}}}
"""))  # fmt: skip
            for tenant in (b"other", b"pilot"):
                await world.ask(applicants(), headers=(b"x-tenant: " + tenant,))
            await world.record(lambda told: told.header.get("arm") == "shadow")
            (sent,) = seen.requests
            assert sent.header(b"x-tenant") == b"pilot"

    world.run(story())
