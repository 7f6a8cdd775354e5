"""One recorded transcript a client, said again: to a server that answers as recorded, through the
gateway. What the server gets and what comes back is what was recorded, byte for byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison import models
from origins import Line, Origin, origin
from tap import Message, probe, tap
from world import World, running

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.json"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world"), models("v2", ("iris",), 1)) as found:
        yield found


def written(told: dict[str, Any], *, request: bool) -> bytes:
    """A recorded message as bytes, with a length of its own."""
    body = base64.b64decode(told["body"])
    start = f"{told['start']} HTTP/1.1\r\nhost: test" if request else f"HTTP/1.1 {told['start']} -"
    lines = [start.encode()]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in told["headers"]]
    if body or not told["start"].startswith("GET"):
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def replayed() -> list[Path]:
    return [path for path in TRANSCRIPTS if "request" in _exchanges(path)[0]]


def _exchanges(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["exchanges"]
    return found


@pytest.mark.parametrize("path", replayed(), ids=lambda path: path.stem)
def test_a_transcript_passes_unchanged(path: Path, world: World) -> None:
    """Requests reach the server as the client sent them, answers the client as the server gave."""
    told = json.loads(path.read_text())
    exchanges = [item for item in told["exchanges"] if not probe(item["request"])]
    assert exchanges

    async def story() -> None:
        answers = [written(item["answer"], request=False) for item in exchanges]

        async def server(_: Origin, line: Line) -> None:
            while await line.request() is not None:
                await line.write(answers.pop(0))

        async with origin(server) as at, tap(at.port) as behind:
            await world.serve(models(told["protocol"], tuple(told["models"]), behind.port))
            async with tap(world.port) as front:
                world_port, world.port = world.port, front.port
                try:
                    for item in exchanges:
                        client = await world.connect()
                        await client.say(written(item["request"], request=True))
                        await client.answer()
                        client.leave()
                finally:
                    world.port = world_port
            assert plain(behind.requests) == [item["request"] for item in exchanges]
            assert plain(front.answers) == [item["answer"] for item in exchanges]

    world.run(story(), 60)


def plain(messages: list[Message]) -> list[dict[str, Any]]:
    return [message.told() for message in messages]
