"""Real clients and real servers: each case direct and through the gateway, byte for byte.

What a client prints is the same both ways; so is every request as the server gets it and every
answer as the client gets it, all but framing, dates and our own headers. The run writes one
transcript a client (`transcripts/`, replayed by `scripts/test`) and `docs/conformance.md`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from tap import tap
from world import World, config, running

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "conformance.md"
CASES = {
    "tritonclient.http": ("triton", "triton_http", "mlserver", "v2", "iris"),
    "tritonclient.http.aio": ("triton", "triton_aio", "mlserver", "v2", "iris"),
    "tritonclient.grpc": ("triton", "triton_grpc", "mlserver", "v2", "iris"),
    "kserve.InferenceRESTClient": ("kserve", "kserve_rest", "mlserver", "v2", "iris"),
    "requests": ("mlflow", "mlflow_requests", "mlflow", "mlflow", "flow"),
    "openai": ("openai", "openai_client", "openai", "openai", "tiny"),
}
PACKAGES = {"triton": ["tritonclient"], "kserve": ["kserve"], "mlflow": ["requests"],
            "openai": ["openai"]}  # fmt: skip
SERVERS = {"mlserver": ("mlserver", "mlserver"), "mlflow": ("mlflow", "mlflow"),
           "openai": ("", "tests/conformance/openai_server.py")}  # fmt: skip
passed: dict[str, tuple[str, str, int]] = {}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Servers by name, each started when first asked for."""
    with pytest.MonkeyPatch.context(), _Started(tmp_path_factory) as found:
        yield found


class _Started:
    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory, self._open, self._found = factory, [], {}  # type: ignore[var-annotated]

    def __enter__(self) -> _Started:
        return self

    def __exit__(self, *_: object) -> None:
        for manager in self._open:
            manager.__exit__(None, None, None)

    def __call__(self, name: str) -> servers.Server:
        if name not in self._found:
            manager = getattr(servers, name)(self._factory.mktemp(name))
            self._found[name] = manager.__enter__()
            self._open.append(manager)
        return self._found[name]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    versions = "versions: {v1: {upstream: 'http://127.0.0.1:1'}}"
    rules = "rules: [{name: a, split: {v1: }}]"
    text = config(f"{versions}\n{rules}", callers="", name="iris")
    with running(tmp_path_factory.mktemp("world"), text, grpc="127.0.0.1:0") as found:
        yield found


async def say(environment: str, client: str, port: int) -> str:
    """What the client prints, talking to that port."""
    command = [servers.python(environment), str(HERE / "clients" / f"{client}.py")]
    process = await asyncio.create_subprocess_exec(
        *command, f"127.0.0.1:{port}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, error.decode()[-2000:]
    return out.decode()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
def test_a_client_sees_no_difference(name: str, world: World, started: Any) -> None:
    """Direct and through the gateway: the same prints, the same requests, the same answers."""
    environment, client, server_name, protocol, model = CASES[name]
    server = started(server_name)
    world.run(_compare(name, world, server, environment, client, protocol, model), 300)
    package = servers.versions(environment, *PACKAGES[environment])
    behind = SERVERS[server_name]
    behind_words = servers.versions(*behind) if behind[0] else behind[1]
    count = len(json.loads((HERE / "transcripts" / f"{client}.json").read_text())["exchanges"])
    passed[name] = (package, behind_words, count)


async def _compare(
    name: str, world: World, server: servers.Server, environment: str, client: str,
    protocol: str, model: str,
) -> None:  # fmt: skip
    called = client.endswith("grpc")
    async with tap(server.http) as before, tap(server.http) as behind:
        more = f", grpc: '127.0.0.1:{server.grpc}'" if server.grpc else ""
        await world.serve(
            config(
                f"protocol: {protocol}\n"
                f"versions: {{v1: {{upstream: 'http://127.0.0.1:{behind.port}'{more}}}}}\n"
                "rules: [{name: a, split: {v1: }}]\nexpose: []\n", callers="", name=model,
            )
        )  # fmt: skip
        async with tap(world.port) as front:
            first, second = (
                (server.grpc, world.worker.listener.port) if called else (before.port, front.port)
            )
            direct = await say(environment, client, first)
            through = await say(environment, client, second)
    assert through == direct
    exchanges: list[dict[str, Any]] = []
    if not called:
        sent = [message.told() for message in before.requests]
        asked = [message.told() for message in behind.requests]
        left = [message.told() for message in front.requests]  # a gzip body holds its time
        assert [item for item in asked if not _probe(item)] == [
            item for item in left if not _probe(item)
        ]
        given = [message.told() for message in before.answers]
        got = [message.told() for message in front.answers]
        # A client that leaves at an error inside a stream may leave its last answer unfinished.
        whole = min(len(given), len(got))
        assert len(sent) - 1 <= whole
        assert got[:whole] == given[:whole]
        exchanges = [{"request": r, "answer": a} for r, a in zip(sent, given)]
    else:
        exchanges = [{"printed": line} for line in direct.splitlines()]
    told = {"client": name, "protocol": protocol, "model": model, "exchanges": exchanges}
    path = HERE / "transcripts" / f"{client}.json"
    path.write_text(json.dumps(told, indent=1) + "\n")


def _probe(item: dict[str, Any]) -> bool:
    """Asked at most once a second: the gateway has the answer from a moment ago."""
    return item["start"] in ("GET /v2", "GET /v2/health/live", "GET /v2/health/ready")


@pytest.mark.long
def test_the_page_says_what_passed() -> None:
    """`docs/conformance.md` is made by the run that it tells of."""
    if len(passed) < len(CASES):
        pytest.skip("not all clients were run")
    lines = [
        "# Conformance",
        "",
        "Made by `scripts/test --long tests/conformance`. Each client talked to its server",
        "directly and through the gateway; what it saw, every request as the server got it and",
        "every answer as the client got it, were the same byte for byte: all but framing, `date`,",
        "`host` and our own headers. For gRPC, each answer message and status is compared.",
        "",
        "| client | version | server | exchanges compared |",
        "|---|---|---|---|",
    ]
    for name, (package, server, count) in passed.items():
        lines.append(f"| {name} | {package} | {server} | {count} |")
    PAGE.write_text("\n".join(lines) + "\n")
    assert all(count for _, _, count in passed.values())
