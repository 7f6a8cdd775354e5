"""Dialects on real sockets: models side by side, streams, sequences, what goes to shadows."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from origins import Line, Origin, origin
from world import CALLERS, MODELS, World, applicants, config, running, until

LOCAL = config(
    f"versions: {{v1: {{artifact: {MODELS}/v1}}}}\nrules: [{{name: a, split: {{v1: }}}}]"
)
CHAT = b"/v1/chat/completions"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world"), LOCAL) as found:
        yield found


def models(*texts: str) -> str:
    """A file with several models, each `name: {..}` in flow style."""
    return CALLERS + "models:\n" + "".join(f"  {text}\n" for text in texts)


def remote(at: str, more: str = "protocol: v2") -> str:
    return (
        f"{{{more}, versions: {{v1: {{upstream: '{at}'}}}}, rules: [{{name: a, split: {{v1: }}}}]}}"
    )


class Server:
    """Answers each request by `answers` and keeps what it got."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.seen = answer, []

    async def __call__(self, _: Origin, line: Line) -> None:
        while (request := await line.request()) is not None:
            self.seen.append(request)
            answer = self.answer(request) if callable(self.answer) else self.answer
            await line.write(answer)


def said(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


def url(at: Origin) -> str:
    return f"http://127.0.0.1:{at.port}"


def test_binary_outputs_say_what_json_says(world: World) -> None:
    """All outputs as bytes, one of them, or none: the same numbers, the lengths that fit."""

    async def story() -> None:
        await world.serve(LOCAL)
        plain = await world.ask(applicants(3))
        asked = orjson.loads(applicants(3))
        for asking in (
            {"parameters": {"binary_data_output": True}},
            {"outputs": [{"name": "score", "parameters": {"binary_data": True}}]},
        ):
            reply = await world.ask(orjson.dumps(asked | asking))
            length = int(reply.get(b"inference-header-content-length") or 0)
            head = orjson.loads(reply.body[:length])
            assert reply.get(b"content-type") == b"application/octet-stream"
            assert head["outputs"][0]["parameters"] == {"binary_data_size": 12}
            score = np.frombuffer(reply.body[length:], "<f4")
            assert score.tolist() == np.float32(plain.json()["outputs"][0]["data"]).tolist()
            told = await world.record_of(reply)
            assert [d["score"] for d in told.findings.decisions] == score.tolist()
        refused = await world.ask(orjson.dumps(asked | {"outputs": [{"name": "x"}]}))
        assert (refused.status, refused.error) == (400, "bad_tensor")
        raw = await world.ask(b"1234", headers=(b"Inference-Header-Content-Length: 0",))
        assert "a raw body is one tensor; expected: dir" in raw.json()["error"]

    world.run(story())


def test_compressed_requests_are_answered_and_bombs_refused(world: World) -> None:
    """gzip and deflate, in the process; a body that becomes too long is 400."""

    async def story() -> None:
        await world.serve(LOCAL)
        plain = (await world.ask(applicants())).body
        for coding, pack in ((b"gzip", gzip.compress), (b"deflate", zlib.compress)):
            packed = pack(applicants())
            reply = await world.ask(packed, headers=(b"Content-Encoding: " + coding,))
            assert (reply.status, reply.body) == (200, plain)
            told = await world.record_of(reply)
            assert told.request.kept == packed
        bomb = gzip.compress(b" " * (65 << 20))
        reply = await world.ask(bomb, headers=(b"Content-Encoding: gzip",))
        assert (reply.status, reply.error) == (400, "bad_body")
        assert "when decoded" in reply.json()["error"]

    world.run(story(), 30)


def test_protocols_live_side_by_side(world: World) -> None:
    """Each by its own paths or prefix; prefixes are not passed on; records know the protocol."""

    async def story() -> None:
        one, two = Server(said(b'{"predictions": [0.25]}')), Server(said(b'{"p": 0.5}'))
        async with origin(one) as first, origin(two) as second:
            await world.serve(
                models(
                    "iris: " + remote(url(first), "protocol: v1"),
                    "flow: " + remote(url(first) + "/base", "protocol: mlflow, path: /flow"),
                    "plain: " + remote(url(second), "protocol: raw, path: /plain, "
                                       "mapping: {predict: /score/now}"),
                    "other: " + remote(url(second), "protocol: mlflow, host: other.test"),
                )
            )  # fmt: skip
            for target, headers, seen in (
                (b"/v1/models/iris:predict", (), b"POST /v1/models/iris:predict HTTP/1.1"),
                (b"/flow/invocations?x=1", (), b"POST /base/invocations?x=1 HTTP/1.1"),
                (b"/plain/score/now", (), b"POST /score/now HTTP/1.1"),
                (b"/invocations", (b"Host: other.test:80",), b"POST /invocations HTTP/1.1"),
            ):
                before = len(one.seen) + len(two.seen)
                lines = request(b"{}", target, headers)
                client = await world.connect()
                await client.say(lines)
                reply = await client.answer()
                client.leave()
                assert reply.status == 200, target
                assert len(one.seen) + len(two.seen) == before + 1
                assert (one.seen + two.seen)[-1].head.startswith(seen) or one.seen[
                    -1
                ].head.startswith(seen)
                told = await world.record_of(reply)
                assert told.header["operation"] == "infer"
            protocols = {told.header.get("protocol") for told in world.records()}
            assert {"v1", "mlflow", "raw"} <= protocols
            lost = await world.ask(b"{}", target=b"/invocations")
            assert lost.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
            lost = await world.ask(b"{}", target=b"/v1/models/rose:predict")
            assert (lost.status, lost.error) == (404, "unknown_model")

    world.run(story(), 30)


def request(body: bytes, target: bytes, headers: tuple[bytes, ...]) -> bytes:
    host = headers or (b"Host: test",)
    lines = [b"POST %b HTTP/1.1" % target, *host, b"authorization: Bearer demo-key"]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_a_body_names_its_model(world: World) -> None:
    """Several OpenAI models on one path are told apart by the body; one alone gets everything."""

    async def story() -> None:
        one, two = Server(said(b'{"from": 1}')), Server(said(b'{"from": 2}'))
        async with origin(one) as first, origin(two) as second:
            big = "big: " + remote(url(first), "protocol: openai")
            await world.serve(
                models(big, "small: " + remote(url(second), "protocol: openai, names: [org/s, s]"))
            )
            assert (await world.ask(b'{"model": "big"}', target=CHAT)).json() == {"from": 1}
            assert (await world.ask(b'{"model": "org/s"}', target=CHAT)).json() == {"from": 2}
            for body, code in ((b'{"model": "x"}', "unknown_model"), (b"[", "bad_body")):
                refused = await world.ask(body, target=CHAT)
                assert refused.json()["error"]["code"] == refused.error == code
            listed = await world.ask(target=b"/v1/models", method=b"GET")
            assert [item["id"] for item in listed.json()["data"]] == ["big", "small"]
            await world.serve(models(big))
            assert (await world.ask(b'{"model": "x"}', target=CHAT)).json() == {"from": 1}

    world.run(story(), 30)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_stream_flows_and_its_end_waits_for_the_record(world: World) -> None:
    """The first event is there before the second is made; usage and outcome are in the record."""

    async def story() -> None:
        token = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
        failed = b'data: {"error":{"message":"m","code":"overloaded"}}\n\n'
        gates: list[bytes] = []

        async def server(_: Origin, line: Line) -> None:
            while await line.request() is not None:
                await line.write(STREAM + piece(token))
                await until(lambda: gates)
                await line.write(piece(gates.pop()) + piece(b"data: [DONE]\n\n") + b"0\r\n\r\n")

        async with origin(server) as at:
            await world.serve(models("big: " + remote(url(at), "protocol: openai")))
            for last, expected in (
                (token, {"usage": "estimated", "completion_tokens": 2, "error": None}),
                (failed, {"usage": "unknown", "completion_tokens": None, "error": "overloaded"}),
            ):
                client = await world.connect()
                await client.say(request(b'{"stream": true}', CHAT, ()))
                reply = await client.head()
                assert await client.chunk() == token
                gates.append(last)
                rest = b""
                while data := await client.chunk():
                    rest += data
                assert rest == last + b"data: [DONE]\n\n"
                told = await world.record_of(reply)
                assert told.header["completion"].items() >= expected.items()
                assert told.header["stream"]
                client.leave()

    world.run(story(), 30)


def test_a_sequence_stays_where_it_began(world: World) -> None:
    """Whatever the unit's header says, requests of one sequence meet one version; others split."""

    async def story() -> None:
        one, two = Server(said(b'{"at": 1}')), Server(said(b'{"at": 2}'))
        async with origin(one) as first, origin(two) as second:
            await world.serve(
                config(
                    "limits: {hold: 64KiB}\nunit: [header:x-applicant]\n"
                    f"versions: {{v1: {{upstream: '{url(first)}'}}, "
                    f"v2: {{upstream: '{url(second)}'}}}}\n"
                    "rules: [{name: all, split: {v1: 50%, v2: 50%}}]\n"
                )
            )
            met: dict[int, set[int]] = {}
            for number in range(48):
                sequence = 1 + number % 8
                body = b'{"inputs": [], "parameters": {"sequence_id": %d}}' % sequence
                headers = [b"x-applicant: %d" % number]
                if number % 4 == 3:  # longer than is held: its JSON part is looked into
                    headers.append(b"inference-header-content-length: %d" % len(body))
                    body += bytes(200_000)
                elif number % 3 == 1:
                    body, headers = gzip.compress(body), [*headers, b"content-encoding: gzip"]
                elif number % 3 == 2:
                    headers.append(b"inference-header-content-length: %d" % len(body))
                    body += b"bytes"
                reply = await world.ask(body, headers=tuple(headers))
                met.setdefault(sequence, set()).add(reply.json()["at"])
            assert all(len(versions) == 1 for versions in met.values())
            assert set.union(*met.values()) == {1, 2}
            long = [seen.body for seen in one.seen + two.seen if len(seen.body) > 200_000]
            assert len(long) == 12
            assert all(body.endswith(b"}}" + bytes(200_000)) for body in long)
            told = await world.record_of(reply)
            assert told.header["unit"] == "sequence"

    world.run(story(), 30)


def test_the_index_says_who_is_ready(world: World) -> None:
    """Of several servers and a version in the process the gateway makes the index: each version's
    state is its own, and `ready` asks for those that are."""

    async def story() -> None:
        well, ill = Server(said(b"{}")), Server(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
        async with origin(well) as first, origin(ill) as second:
            await world.serve(
                models(
                    f"a: {{versions: {{v1: {{upstream: '{url(first)}'}}, v2: {{upstream: "
                    f"'{url(second)}'}}}}, rules: [{{name: a, split: {{v1: }}}}]}}",
                    f"mortgage: {{versions: {{v1: {{artifact: {MODELS}/v1}}}}, "
                    "rules: [{name: a, split: {v1: }}]}",
                    "gone: " + remote("http://127.0.0.1:1"),
                )
            )
            index = b"/v2/repository/index"
            told = (await world.ask(b"", target=index)).json()
            states = {(item["name"], item["version"]): item["state"] for item in told}
            assert states == {
                ("a", "v1"): "READY",
                ("a", "v2"): "UNAVAILABLE",
                ("mortgage", "v1"): "READY",
                ("gone", "v1"): "UNAVAILABLE",
            }
            assert all(bool(item["reason"]) == (item["state"] != "READY") for item in told)
            assert well.seen[-1].head.startswith(b"GET /v2/models/a/ready ")
            told = (await world.ask(b'{"ready": true}', target=index)).json()
            assert [item["name"] for item in told] == ["a", "mortgage"]
            for wrong in (b"[", b'{"ready": 1}'):
                refused = await world.ask(wrong, target=index)
                assert (refused.status, refused.error) == (400, "bad_body")

    world.run(story(), 30)


def test_tritons_other_paths_reach_the_one_server(world: World) -> None:
    """Index, statistics, shared memory pass to it; loading needs `force`; health is its own."""

    async def story() -> None:
        server = Server(lambda request: said(request.head.split(b"\r\n")[0], b"X-Own: yes\r\n"))
        async with origin(server) as at:
            await world.serve(models("m: " + remote(url(at)), "n: " + remote(url(at))))
            for target in (
                b"/v2/repository/index",
                b"/v2/models/stats",
                b"/v2/models/m/stats",
                b"/v2/systemsharedmemory/region/r/register",
                b"/v2/logging",
            ):
                reply = await world.ask(b"{}", target=target)
                assert reply.body == b"POST %b HTTP/1.1" % target
                assert (await world.record_of(reply)).header["operation"] == "other"
            for target in (b"/v2/health/ready", b"/v2"):
                reply = await world.ask(target=target, method=b"GET", key=None)
                assert (reply.body, reply.get(b"x-own")) == (b"GET %b HTTP/1.1" % target, b"yes")
            target = b"/v2/repository/models/m/load"
            assert (await world.ask(b"{}", target=target)).status == 200
            refused = await world.ask(b"{}", target=target, key="plain-key")
            assert (refused.status, refused.error) == (403, "force_not_allowed")

    world.run(story(), 30)


def test_what_a_shadow_cannot_read_is_not_copied(world: World) -> None:
    """Shared memory and tools stay with the version that answers, each counted by its reason."""

    async def story() -> None:
        server = Server(said(b"{}"))
        async with origin(server) as at:
            both = f"versions: {{v1: {{upstream: '{url(at)}'}}, v2: {{upstream: '{url(at)}'}}}}"
            rule = "rules: [{name: a, split: {v1: }, shadow: {v2: 100%}}]"
            await world.serve(models(f"m: {{{both}, {rule}}}",
                                     f"big: {{protocol: openai, {both}, {rule}}}"))  # fmt: skip
            await world.ask(b'{"shared_memory_region": "r"}', target=b"/v2/models/m/infer")
            await world.ask(b'{"tools": []}', target=CHAT)
            await until(lambda: _dropped(world, "m", "payload_opaque"))
            await until(lambda: _dropped(world, "big", "not_idempotent"))
            assert len(server.seen) == 2
            await world.ask(b'{"messages": []}', target=CHAT)
            await until(lambda: len(server.seen) == 4)

    world.run(story(), 30)


def _dropped(world: World, model: str, reason: str) -> float:
    return world.count("headworks_shadow_dropped", model=model, reason=reason)


def test_an_explainer_s_answer_is_recorded_without_other_people_s_rows(world: World) -> None:
    """`:explain` of V1 and `/explain` of MLServer pass byte for byte; the record names the
    operation, keeps the question, and of the answer digest, length and what is about it."""
    rows = [[39, 7, 1, 1]]
    answer = orjson.dumps({"meta": {"name": "AnchorTabular"},
                           "data": {"anchor": ["a <= 1"], "raw": {"examples": rows}}})  # fmt: skip

    async def story() -> None:
        server = Server(said(answer, b"content-type: application/json\r\n"))
        async with origin(server) as at:
            await world.serve(
                models(f"iris: {remote(url(at), 'protocol: v1')}", f"rose: {remote(url(at))}")
            )
            for target in (b"/v1/models/iris:explain", b"/v2/models/rose/explain"):
                reply = await world.ask(b'{"instances": [[1]]}', target=target)
                told = await world.record_of(reply)
                assert (reply.status, reply.body) == (200, answer)
                assert told.header["operation"] == "explain"
                assert told.request.kept == b'{"instances": [[1]]}'
                assert (told.response.length, told.response.kept) == (len(answer), b"")
                assert told.context["explained"] == {
                    "explanations": [{"name": "AnchorTabular", "data": {"anchor": ["a <= 1"]}}],
                    "redacted": 1,
                }

    world.run(story())
