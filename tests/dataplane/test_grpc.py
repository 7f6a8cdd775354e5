"""The gRPC port, called by NVIDIA's own client: a worker with its model, and one before another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import orjson
import pytest
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException
from world import MODELS, World, applicants, config, running

TWO = config(
    f"""
limits: {{request: 64KiB}}
expose: [id, version]
versions: {{v1: {{artifact: {MODELS}/v1}}, v2: {{artifact: {MODELS}/v2}}}}
rules: [{{name: all, split: {{v1: 100%}}}}]
"""
)
KEY = {"authorization": "Bearer demo-key"}
Pair = tuple[World, World]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world"), TWO, grpc="127.0.0.1:0") as found:
        yield found


def inputs(rows: int = 1) -> list[Any]:
    found = []
    for item in orjson.loads(applicants(rows))["inputs"]:
        dtype = object if item["datatype"] == "BYTES" else np.float32
        tensor = InferInput(item["name"], item["shape"], item["datatype"])
        tensor.set_data_from_numpy(np.array(item["data"], dtype).reshape(item["shape"]))
        found.append(tensor)
    return found


def address(world: World) -> str:
    return f"127.0.0.1:{world.worker.listener.port}"


def test_a_call_is_an_exchange_with_its_record(world: World) -> None:
    """The score is the one that REST gives; the record has the message's bytes and the decision."""

    async def story() -> None:
        async with triton.InferenceServerClient(address(world)) as client:
            answer = await client.infer(
                "mortgage", inputs(2), request_id="r7", headers=KEY | {"x-request-id": "mine"}
            )
        scores = answer.as_numpy("score")
        by_rest = (await world.ask(applicants(2))).json()["outputs"][0]["data"]
        assert np.float32(by_rest).tolist() == scores.ravel().tolist()
        assert answer.get_response().id == "r7"
        told = await world.record(lambda told: told.header.get("protocol") == "grpc")
        assert (told.header["operation"], told.header["status"]) == ("infer", 200)
        assert told.context["request_id"] == "mine"
        assert [d["score"] for d in told.findings.decisions] == scores.ravel().tolist()

    world.run(story())


def test_outputs_are_chosen_and_refused_by_name(world: World) -> None:
    """An output that the graph does not have is INVALID_ARGUMENT, naming what it has."""

    async def story() -> None:
        async with triton.InferenceServerClient(address(world)) as client:
            asked = [InferRequestedOutput("nothing")]
            with pytest.raises(InferenceServerException, match="expected: score") as refused:
                await client.infer("mortgage", inputs(), outputs=asked, headers=KEY)
            assert "INVALID_ARGUMENT" in refused.value.status()

    world.run(story())


@pytest.mark.parametrize(
    ("model", "version", "key", "code"),
    [
        ("loans", "", KEY, "NOT_FOUND"),
        ("mortgage", "v9", KEY, "NOT_FOUND"),
        ("mortgage", "", {}, "UNAUTHENTICATED"),
        ("mortgage", "v2", {}, "UNAUTHENTICATED"),
    ],
)
def test_refusals_are_statuses(
    world: World, model: str, version: str, key: dict[str, str], code: str
) -> None:
    """Each of our refusals has its gRPC status; the code of ours is in the metadata."""

    async def story() -> None:
        async with triton.InferenceServerClient(address(world)) as client:
            with pytest.raises(InferenceServerException) as refused:
                await client.infer(model, inputs(), model_version=version, headers=key)
        assert code in refused.value.status()

    world.run(story())


def test_a_message_over_the_limit_is_exhausted(world: World) -> None:
    """`limits.request` bounds messages before they are in memory."""

    async def story() -> None:
        async with triton.InferenceServerClient(address(world)) as client:
            with pytest.raises(InferenceServerException) as refused:
                await client.infer("mortgage", inputs(5000), headers=KEY)
        assert "RESOURCE_EXHAUSTED" in refused.value.status()

    world.run(story())


def test_a_limit_beyond_grpcs_own_is_taken(world: World) -> None:
    """`limits.request` may be more than INT32_MAX: messages then end there."""

    async def story() -> None:
        await world.serve(TWO.replace("64KiB", "4GiB"))
        async with triton.InferenceServerClient(address(world)) as client:
            answer = await client.infer("mortgage", inputs(5000), headers=KEY)
            assert len(answer.as_numpy("score")) == 5000
        await world.serve(TWO)

    world.run(story())


def test_bytes_that_are_no_message_are_refused(world: World) -> None:
    """INVALID_ARGUMENT, and a record of their own; nothing breaks."""

    async def story() -> None:
        path = "/inference.GRPCInferenceService/ModelInfer"
        async with grpc.aio.insecure_channel(address(world)) as channel:
            for sent in (b"\xff" * 40, b"", b"\x0a\xff\xff\xff\x7f"):
                call = channel.unary_unary(path)(sent, metadata=tuple(KEY.items()))
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
                sent_back = dict(refused.value.initial_metadata())
                assert sent_back["x-headworks-error"] in ("bad_body", "unknown_model")

    world.run(story())


def test_questions_are_answered(world: World) -> None:
    """Liveness, readiness, metadata of server and model, the repository's index."""

    async def story() -> None:
        async with triton.InferenceServerClient(address(world)) as client:
            assert await client.is_server_live(headers=KEY)
            assert await client.is_server_ready(headers=KEY)
            assert await client.is_model_ready("mortgage", headers=KEY)
            assert (await client.get_server_metadata(headers=KEY)).name == "headworks"
            told = await client.get_model_metadata("mortgage", headers=KEY)
            assert list(told.versions) == ["v1", "v2"]
            assert told.inputs[0].datatype == "FP32"
            assert list(told.inputs[0].shape) == [-1, 1]
            index = await client.get_model_repository_index(headers=KEY)
            assert {entry.version for entry in index.models} == {"v1", "v2"}

    world.run(story())


def test_a_sequence_is_one_by_both_protocols(world: World) -> None:
    """Numbers of either kind and texts keep to the version that REST finds for them; without a
    sequence, or with the id 0 that says there is none, calls split."""

    async def story() -> None:
        await world.serve(TWO.replace("{v1: 100%}", "{v1: 50%, v2: 50%}"))
        met: dict[object, set[str]] = {}
        async with triton.InferenceServerClient(address(world)) as client:
            for sequence in (*range(1, 8), "s1", "s2", "s3", 0):
                for _ in range(5 if sequence else 30):
                    answer = await client.infer(
                        "mortgage", inputs(), sequence_id=sequence, headers=KEY
                    )
                    met.setdefault(sequence, set()).add(answer.get_response().model_version)
                if sequence:
                    body = orjson.loads(applicants()) | {"parameters": {"sequence_id": sequence}}
                    reply = await world.ask(orjson.dumps(body))
                    met[sequence].add(reply.json()["model_version"])
            assert met.pop(0) == {"v1", "v2"}
            assert all(len(versions) == 1 for versions in met.values())
            assert set.union(*met.values()) == {"v1", "v2"}
            with pytest.raises(InferenceServerException, match="sent BF16"):
                await client.infer("mortgage", [_bf16(item) for item in inputs()], headers=KEY)
        await world.serve(TWO)

    world.run(story(), 30)


def _bf16(tensor: Any) -> Any:
    """The same input with two bytes a number, as Triton's BF16."""
    if tensor.datatype() != "FP32":
        return tensor
    short = InferInput(tensor.name(), tensor.shape(), "BF16")
    short.set_data_from_numpy(np.ones(tensor.shape(), ml_dtypes.bfloat16))
    return short


def test_the_index_says_who_is_ready(world: World) -> None:
    """Versions in the process and one whose server is not there; the server is not ready then."""

    async def story() -> None:
        text = TWO.replace("v2: {artifact", "v3: {upstream: 'http://127.0.0.1:1'}, v2: {artifact")
        await world.serve(text)
        async with triton.InferenceServerClient(address(world)) as client:
            index = await client.get_model_repository_index(headers=KEY)
            assert {entry.version: entry.state for entry in index.models} == {
                "v1": "READY", "v2": "READY", "v3": "UNAVAILABLE",
            }  # fmt: skip
            assert await client.is_server_ready(headers=KEY)  # the stable version is
            await world.serve(text.replace("v1: 100%", "v3: 100%"))
            assert not await client.is_server_ready(headers=KEY)
        await world.serve(TWO)

    world.run(story(), 30)


async def _serve(handler: Any) -> tuple[Any, str]:
    server = grpc.aio.server(handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


class Upstream(grpc.GenericRpcHandler):
    """A server that answers with what it was sent, its metadata and a status when asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, dict[str, Any], float]] = []

    def service(self, details: Any) -> Any:
        async def behave(message: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.seen.append((details.method, message, metadata, context.time_remaining()))
            await context.send_initial_metadata((("x-initial", "i"),))
            context.set_trailing_metadata((("x-trail", "t"), ("grpc-status-details-bin", b"\1\2")))
            if "x-fail" in metadata:
                context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
                context.set_details("not now")
                return b""
            return b"\x0a\x01m" + b"\x1a\x02id"

        return grpc.unary_unary_rpc_method_handler(behave)


def test_an_upstream_is_called_with_everything(world: World, tmp_path: Path) -> None:
    """Bytes, metadata, deadline, trailers and status details pass; our version's name does not."""

    async def story() -> None:
        upstream = Upstream()
        server, at = await _serve(upstream)
        text = config(
            f"versions: {{v1: {{upstream: 'http://127.0.0.1:1', grpc: '{at}'}}}}\n"
            "rules: [{name: all, split: {v1: 100%}}]\n"
        )
        try:
            await world.serve(text)
            path = "/inference.GRPCInferenceService/ModelInfer"
            asked = service_pb2.ModelInferRequest(model_name="mortgage", model_version="v1", id="a")
            metadata = (*KEY.items(), ("x-some", "thing"), ("x-some-bin", b"\xff\0"))
            async with grpc.aio.insecure_channel(address(world)) as channel:
                call = channel.unary_unary(path)
                done = call(asked.SerializeToString(), metadata=metadata, timeout=3)
                assert await done == b"\x0a\x01m\x1a\x02id"
                assert ("x-trail", "t") in list(await done.trailing_metadata())
                assert ("x-initial", "i") in list(await done.initial_metadata())
                failing = call(asked.SerializeToString(), metadata=(*metadata, ("x-fail", "1")))
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await failing
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert refused.value.details() == "not now"
            assert ("grpc-status-details-bin", b"\1\2") in list(refused.value.trailing_metadata())
            method, message, seen, remaining = upstream.seen[0]
            assert method == path
            asked.model_version = ""
            assert message == asked.SerializeToString()
            assert (seen["x-some"], seen["x-some-bin"]) == ("thing", b"\xff\0")
            assert "authorization" not in seen
            assert "x-headworks-id" in seen
            assert 0 < remaining < 4  # the wire rounds a deadline up
            told = await world.record(lambda told: told.header.get("grpc_status") == 9)
            assert told.header["status"] == 400
            await world.serve(text.replace(at, "127.0.0.1:1"))
            async with grpc.aio.insecure_channel(address(world)) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await channel.unary_unary(path)(message, metadata=tuple(KEY.items()))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            await server.stop(0)
            await world.serve(TWO)
            await asyncio.sleep(0)

    world.run(story(), 30)
