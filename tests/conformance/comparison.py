"""A client's whole story, said to its server directly and through the gateway, and held together.

What the client prints is the same both ways; so is every request as the server gets it and every
answer as the client gets it, all but framing, dates and our own headers.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
from tap import probe, tap
from world import World

CLIENTS = Path(__file__).parent / "clients"
RECORDED_BYTES = 16384
"""Exchanges with a longer body are compared, and left out of transcripts."""


@dataclass(frozen=True)
class Case:
    """`environment`: of the client; `client`: its script; `models`: names at the server."""

    environment: str
    client: str
    server: str
    protocol: str
    models: tuple[str, ...]

    @property
    def called(self) -> bool:
        """By gRPC, where no tap can listen."""
        return self.client.endswith(("grpc", "calls"))


async def say(python: str, client: str, port: int) -> str:
    """What the client prints, talking to that port."""
    process = await asyncio.create_subprocess_exec(
        python, str(CLIENTS / f"{client}.py"), f"127.0.0.1:{port}",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, error = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, error.decode()[-2000:]
    return out.decode()


def models(protocol: str, names: tuple[str, ...], upstream: int, grpc: int = 0) -> str:
    """A configuration whose models are all at one server."""
    called = f", grpc: '127.0.0.1:{grpc}'" if grpc and protocol == "v2" else ""
    version = f"{{v1: {{upstream: 'http://127.0.0.1:{upstream}'{called}}}}}"
    said = f"{{protocol: {protocol}, versions: {version}, expose: [], "
    return "models:\n" + "".join(
        f"  {name}: {said}rules: [{{name: a, split: {{v1: }}}}]}}\n" for name in names
    )


async def compare(
    case: Case, world: World, server: servers.Server, python: str
) -> list[dict[str, Any]]:
    """The exchanges that were the same, for a transcript."""
    async with tap(server.http) as before, tap(server.http) as behind:
        await world.serve(models(case.protocol, case.models, behind.port, server.grpc))
        async with tap(world.port) as front:
            first, second = before.port, front.port
            if case.called:
                first, second = server.grpc, world.worker.listener.port
            direct = await say(python, case.client, first)
            through = await say(python, case.client, second)
    assert through == direct
    if case.called:
        return [{"printed": line} for line in direct.splitlines() if len(line) < RECORDED_BYTES]
    sent = [message.told() for message in before.requests]
    asked = [message.told() for message in behind.requests]
    left = [message.told() for message in front.requests]  # a gzip body holds its time
    assert [item for item in asked if not probe(item)] == [item for item in left if not probe(item)]
    given = [message.told() for message in before.answers]
    got = [message.told() for message in front.answers]
    # A client that leaves at an error inside a stream may leave its last answer unfinished.
    whole = min(len(given), len(got))
    assert len(sent) - 1 <= whole
    assert got[:whole] == given[:whole]
    return [{"request": request, "answer": answer} for request, answer in zip(sent, given)]


def record(case: Case, exchanges: list[dict[str, Any]]) -> None:
    """The transcript that `test_transcripts.py` says again."""
    short = [
        item
        for item in exchanges
        if all(len(part["body"]) < RECORDED_BYTES for part in item.values() if "body" in part)
    ]
    told = {"client": case.client, "protocol": case.protocol, "models": case.models,
            "exchanges": short}  # fmt: skip
    path = CLIENTS.parent / "transcripts" / f"{case.client}.json"
    path.write_text(json.dumps(told, indent=1) + "\n")
