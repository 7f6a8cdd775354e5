"""Real clients and real servers: each case direct and through the gateway, byte for byte.

The long run writes one transcript a client (`transcripts/`, said again by `scripts/test`) and
`docs/conformance.md`. Triton's clients are among the tests' own packages, so their binary encoding
is compared in every run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from comparison import Case, compare, models, record
from world import World, running

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
IRIS, TRITON, TINY = ("iris",), ("echo", "sum"), ("tiny",)
CASES = {
    "tritonclient.http": Case("triton", "triton_http", "mlserver", "v2", IRIS),
    "tritonclient.http.aio": Case("triton", "triton_aio", "mlserver", "v2", IRIS),
    "tritonclient.grpc": Case("triton", "triton_grpc", "mlserver", "v2", IRIS),
    "tritonclient.http, binary": Case("triton", "triton_tensors", "triton", "v2", TRITON),
    "tritonclient.http.aio, binary": Case("triton", "triton_aio_tensors", "triton", "v2", TRITON),
    "tritonclient.grpc, raw": Case("triton", "triton_calls", "triton", "v2", TRITON),
    "kserve.InferenceRESTClient": Case("kserve", "kserve_rest", "mlserver", "v2", IRIS),
    "kserve.InferenceRESTClient, V1": Case("kserve", "kserve_v1", "kserve", "v1", IRIS),
    "kserve.InferenceRESTClient, V2": Case("kserve", "kserve_v2", "kserve", "v2", IRIS),
    "kserve.InferenceGRPCClient": Case("kserve", "kserve_grpc", "kserve", "v2", IRIS),
    "requests": Case("mlflow", "mlflow_requests", "mlflow", "mlflow", ("flow",)),
    "openai": Case("openai", "openai_client", "openai", "openai", TINY),
    "LangChain": Case("langchain", "langchain_client", "openai", "openai", TINY),
    "LiteLLM": Case("litellm", "litellm_client", "openai", "openai", TINY),
}
OURS = [case for case in CASES.values() if case.server == "triton"]
PACKAGES = {"triton": ["tritonclient"], "kserve": ["kserve"], "mlflow": ["requests"],
            "openai": ["openai"], "langchain": ["langchain-openai", "openai"],
            "litellm": ["litellm"]}  # fmt: skip
SCRIPTS = {"openai": "tests/conformance/openai_server.py",
           "triton": "tests/conformance/triton_server.py"}  # fmt: skip
passed: dict[str, tuple[str, str, int]] = {}


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
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Servers by name, each started when first asked for."""
    with _Started(tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    text = models("v2", IRIS, 1)
    with running(tmp_path_factory.mktemp("world"), text, grpc="127.0.0.1:0") as found:
        yield found


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.client)
def test_tensors_as_bytes_are_not_changed(case: Case, world: World, started: Any) -> None:
    """Every type, coding and raw body of NVIDIA's clients: the same prints and the same bytes."""
    assert world.run(compare(case, world, started(case.server), sys.executable), 100)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
def test_a_client_sees_no_difference(name: str, world: World, started: Any) -> None:
    """Direct and through the gateway: the same prints, the same requests, the same answers."""
    case = CASES[name]
    python, server = servers.python(case.environment), started(case.server)
    exchanges = world.run(compare(case, world, server, python), 300)
    record(case, exchanges)
    behind = SCRIPTS.get(case.server) or servers.versions(case.server, case.server)
    client = servers.versions(case.environment, *PACKAGES[case.environment])
    passed[name] = (client, behind, len(exchanges))


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
