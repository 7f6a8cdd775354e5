"""Every dialect's paths, errors, and the one canonical form that their bodies come to."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.card import Card
from gateway.protocol import mlflow, openai, raw, v1, v2
from gateway.protocol.dialect import Target
from gateway.protocol.dialects import DIALECTS, dialect_at
from gateway.protocol.message import Message, decoded
from gateway.protocol.reader import Reader, reader_of
from gateway.protocol.tensor import Unreadable

CARD = Card.model_validate(
    {
        "format": 1, "model": "m", "version": "v1", "summary": "", "training": {
            "data": {}, "code_commit": "", "configuration": {}, "seed": 0}, "metrics": {},
        "artifact": {"sha256": "0" * 64},
        "features": [
            {"name": "age", "type": "number", "meaning": "", "range": [0, 99]},
            {"name": "job", "type": "category", "meaning": "", "categories": ["a", "b"]},
        ],
        "outputs": {"score": {"tensor": "score", "column": 1, "meaning": ""}},
    }
)  # fmt: skip
WANTED = {"age": [30.0, 40.0], "job": ["a", None]}
RECORDS = [{"age": 30, "job": "a"}, {"age": 40, "job": None}]
MATRIX = [[30, "a"], [40, None]]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["instances", "inputs", "dataframe_split", "data", "columns", "age", "job",
                         "predictions", "score", "choices", "usage", "error"]),
        inner, max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


def columns(protocol: str, document: Any, /, headers: Any = (), **mapping: Any) -> Any:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return Reader(DIALECTS[protocol], mapping).columns(CARD, body, headers)


def scores(protocol: str, document: Any, **mapping: Any) -> list[float]:
    return Reader(DIALECTS[protocol], mapping).scores(CARD, orjson.dumps(document), ())


@pytest.mark.parametrize(
    ("protocol", "document", "mapping"),
    [
        ("v1", {"instances": RECORDS}, {}),
        ("v1", {"instances": MATRIX}, {}),
        ("v1", {"instances": [["a", 30], [None, 40]]}, {"order": ["job", "age"]}),
        ("v1", {"inputs": {"age": [30, 40], "job": ["a", None]}}, {}),
        ("mlflow", {"dataframe_records": RECORDS}, {}),
        ("mlflow", {"instances": RECORDS}, {}),
        ("mlflow", {"inputs": {"age": [30, 40], "job": ["a", None]}}, {}),
        ("mlflow", {"inputs": MATRIX, "params": {"x": 1}}, {}),
        ("mlflow", {"dataframe_split": {"columns": ["age", "job"], "data": MATRIX}}, {}),
        ("mlflow", {"dataframe_split": {"columns": ["job", "x", "age"],
                                        "data": [["a", 9, 30], [None, 9, 40]]}}, {}),
        ("mlflow", {"dataframe_split": {"data": MATRIX}}, {}),
        ("raw", {"rows": RECORDS}, {"rows": "/rows"}),
        ("raw", RECORDS, {"rows": ""}),
        ("raw", {"q": [{"p": {"age": 30, "j/b": "a"}}, {"p": {"age": 40}}]},
         {"rows": "/q", "features": {"age": "/p/age", "job": "/p/j~1b"}}),
        ("v2", {"inputs": [
            {"name": "age", "shape": [2], "datatype": "FP32", "data": [30, 40]},
            {"name": "job", "shape": [2], "datatype": "BYTES", "data": ["a", None]}]}, None),
        ("v2", {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "BYTES",
                            "data": [["a", 30], [None, 40]]}]},
         {"layout": "matrix", "order": ["job", "age"]}),
    ],
)  # fmt: skip
def test_all_formats_come_to_the_same_columns(protocol: str, document: Any, mapping: Any) -> None:
    """A row is a row, however it travelled."""
    if mapping is None:
        document["inputs"][0]["shape"] = document["inputs"][1]["shape"] = [2, 1]
    assert columns(protocol, document, **(mapping or {})) == WANTED


@pytest.mark.parametrize(
    ("protocol", "document", "words"),
    [
        ("v1", {"instances": [[1]]}, "columns; 2 are wanted, or mapping.order"),
        ("v1", {"instances": []}, "a list of rows"),
        ("v1", {"instances": [1, {}]}, "neither all objects nor all lists"),
        ("v1", {"instances": [{"age": 1}]}, "feature 'job' is in no row"),
        ("v1", [], "an object is wanted"),
        ("mlflow", {"instances": [], "inputs": []}, "one of dataframe_split"),
        ("mlflow", {}, "one of dataframe_split"),
        ("mlflow", {"dataframe_split": {"columns": ["a", "a"], "data": MATRIX}}, "each once"),
        ("raw", {"rows": 1}, "feature 'age': nothing is at"),
        ("openai", {"messages": []}, "no features"),
        ("v2", b"\0" * 8, "mapping.datatype"),
    ],
)
def test_what_is_not_meant_is_said(protocol: str, document: Any, words: str) -> None:
    """Nothing is guessed: the reason stands where the features would."""
    headers = [("Inference-Header-Content-Length", "0")] if protocol == "v2" else ()
    with pytest.raises(Unreadable, match=words):
        columns(protocol, document, headers)


def test_csv_is_passed_not_read() -> None:
    """Its record says why it has no features."""
    with pytest.raises(Unreadable, match="text/csv is passed"):
        columns("mlflow", b"age,job\n1,a\n", [("Content-Type", "text/csv; charset=utf-8")])


@pytest.mark.parametrize(
    ("protocol", "document", "mapping"),
    [
        ("v1", {"predictions": [0.1, 0.9]}, {}),
        ("v1", {"predictions": [[0.5, 0.1], [0.5, 0.9]]}, {}),
        ("v1", {"predictions": [[0.1], [0.9]]}, {"column": 0}),
        ("v1", {"predictions": {"score": [0.1, 0.9]}}, {}),
        ("mlflow", {"predictions": [{"p": 0.1}, {"p": 0.9}]}, {"output": "p"}),
        ("mlflow", [0.1, 0.9], {}),
        ("raw", {"out": [{"p": 0.1}, {"p": 0.9}]}, {"scores": "/out", "score": "/p"}),
    ],
)
def test_all_answers_come_to_scores(protocol: str, document: Any, mapping: Any) -> None:
    """One finite number a row."""
    assert scores(protocol, document, **mapping) == [0.1, 0.9]


@given(st.sampled_from(sorted(DIALECTS)), JSON | st.binary(max_size=40))
def test_no_reader_is_stuck(protocol: str, document: Any) -> None:
    """Whatever a body holds, reading it ends in columns, scores or a reason."""
    body = document if isinstance(document, bytes) else b"{"
    if not isinstance(document, bytes) and _fits(document):
        body = orjson.dumps(document)
    for mapping in ({}, {"rows": "/0", "scores": "/predictions", "layout": "matrix"}):
        reader = Reader(DIALECTS[protocol], mapping)
        with suppress(Unreadable):
            found = reader.columns(CARD, body, ())
            assert len({len(column) for column in found.values()}) == 1
        with suppress(Unreadable):
            assert all(abs(score) < float("inf") for score in reader.scores(CARD, body, ()))
        reader.completion("chat", body, ())


def _fits(document: Any) -> bool:
    try:
        orjson.dumps(document)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("gzip", gzip.compress(b"body")),
        ("x-gzip", gzip.compress(b"bo") + gzip.compress(b"dy")),
        ("deflate", zlib.compress(b"body")),
        ("deflate", zlib.compressobj(wbits=-15).compress(b"") + b"K\xcaO\xa9\x04\x00"),
        ("", b"body"),
        ("identity", b"body"),
    ],
)
def test_codings_are_undone(coding: str, sent: bytes) -> None:
    """Deflate with its wrapping, as the standard says, and without, as some send it."""
    assert decoded(sent, coding, 100) == b"body"


@pytest.mark.parametrize(
    ("coding", "sent", "words"),
    [
        ("gzip", gzip.compress(b"\0" * 10_000), "more than 100 bytes"),
        ("deflate", zlib.compress(b"\0" * 10_000), "more than 100 bytes"),
        ("gzip", gzip.compress(b"body")[:-3], "ends too early"),
        ("gzip", b"body", "incorrect header"),
        ("br", b"body", "'br' is not read"),
        ("deflate", zlib.compress(b"body") + b"tail", "bytes stand behind|invalid"),
    ],
)
def test_codings_that_lie_are_unreadable(coding: str, sent: bytes, words: str) -> None:
    """A few bytes never become more than the limit."""
    with pytest.raises(Unreadable, match=words):
        decoded(sent, coding, 100)


@pytest.mark.parametrize(
    ("path", "dialect", "target"),
    [
        ("/v1/models/m:predict", v1, Target("m", None, "infer")),
        ("/v1/models/a%2Fb:explain", v1, Target("a/b", None, "explain")),
        ("/v1/models/m", v1, Target("m", None, "ready")),
        ("/v1/models/m:train", v1, None),
        ("/v1/chat/completions", openai, Target(None, None, "chat")),
        ("/v1/chat%2Fcompletions", openai, Target(None, None, "chat/completions")),
        ("/v1/audio/speech", openai, Target(None, None, "audio/speech")),
        ("/v1//chat/completions", openai, None),
        ("/v1/./completions", openai, None),
        ("/invocations", mlflow, Target(None, None, "infer")),
        ("/invocations/x", mlflow, None),
        ("/predict", raw, Target(None, None, "path/predict")),
        ("/a/../predict", raw, None),
        ("/v2/repository/index", v2, Target(None, None, "server/repository/index")),
        ("/v2/repository/models/m/unload", v2, Target(None, None, "control")),
        ("/v2/repository/models/m/%75nload", v2, Target(None, None, "control")),
        ("/v2/models/stats", v2, Target(None, None, "server/models/stats")),
        ("/v2/systemsharedmemory/region/r/register", v2,
         Target(None, None, "server/systemsharedmemory/region/r/register")),
    ],
)  # fmt: skip
def test_paths(path: str, dialect: Any, target: Target | None) -> None:
    """What a path asks for, by the protocol it belongs to; no spelling hides an inference."""
    assert dialect.locate(path) == target


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/m:predict", {"error": "words"}),
        ("/v2/models/m/infer", {"error": "words"}),
        ("/v1/chat/completions", {"error": {"message": "words", "type": "not_found_error",
                                            "param": None, "code": "unknown_model"}}),
        ("/invocations", {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "words"}),
    ],
)  # fmt: skip
def test_a_refusal_is_in_the_caller_s_dialect(path: str, body: Any) -> None:
    """As the clients of each protocol read errors."""
    assert orjson.loads(dialect_at(path).error_body("unknown_model", 404, "words")) == body


def test_a_sequence_is_found_where_parameters_are_readable() -> None:
    """Numbers and texts, compressed and before bytes; 0 and an empty text mean none."""
    sent = b'{"inputs":[],"parameters":{"sequence_id":%b}}'
    for value, found in ((b"42", "42"), (b'"s"', "s"), (b'"0"', "0")):
        assert v2.sequence_of(Message(sent % value), 99) == found
        packed = Message(gzip.compress(sent % value), {"content-encoding": "gzip"})
        assert v2.sequence_of(packed, 99) == found
        assert v2.sequence_of(packed, 9) is None  # longer than is looked into
    for value in (b"0", b'""', b"[1]", b"true", b"null", b"1.5"):
        assert v2.sequence_of(Message(sent % value), 99) is None
    assert v2.sequence_of(Message(b'"sequence_id"'), 99) is None
    length = {"inference-header-content-length": str(len(sent % b"7"))}
    assert v2.sequence_of(Message(sent % b"7" + b"tail", length), 99) == "7"


def events(*documents: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(document) + b"\n\n" for document in documents)


def delta(text: str | None, finish: str | None = None, **more: Any) -> Any:
    return {"choices": [{"delta": {"content": text} | more, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("sent", "whole", "said"),
    [
        (events(delta("a"), delta("b"), delta(None, "stop"),
                {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
         + b"data: [DONE]\n\n", True,
         {"usage": "measured", "prompt_tokens": 5, "completion_tokens": 2, "finish": "stop"}),
        (events(delta("a"), delta("b"), delta(None, "stop")) + b"data: [DONE]\n\n", True,
         {"usage": "estimated", "completion_tokens": 2, "prompt_tokens": None}),
        (events(delta("a"), delta("b")), False,
         {"usage": "unknown", "completion_tokens": None}),
        (events(delta("a"), {"error": {"message": "secret", "code": "overloaded"}}), True,
         {"usage": "unknown", "error": "overloaded"}),
        (events({"error": {"message": "m", "type": "a sentence about ann"}}), True,
         {"error": "other"}),
        (events(delta(None, "tool_calls", tool_calls=[{"index": 0}])), True,
         {"tool_calls": True, "finish": "tool_calls"}),
        (b"data: not json\n\ndata: [1]\n\n: comment\n", True, {"usage": "unknown"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_stream_is_metered_in_any_pieces(sent: bytes, whole: bool, said: Any, step: int) -> None:
    """Usage is measured, estimated or unknown; an error inside is an outcome; no words leak."""
    meter = openai.Meter()
    for start in range(0, len(sent), step):
        meter.add(sent[start : start + step])
    assert meter.summary(whole).items() >= said.items()


@pytest.mark.parametrize(
    "others",
    [
        [],
        [delta('say "no"')],
        [delta("é"), delta("line\n")],
        [delta("w", tool_calls=[{"index": 0}])],
        [{"choices": [], "usage": {"completion_tokens": 7}}],
        [{"choices": [{"delta": {"content": "w", "x": {"content": "w"}}}]}],
        [{"choices": [{"delta": {"content": "w"}}, {"delta": {"content": "w"}}]}],
        [delta("w", "stop")],
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [37, 1500, 100_000])
def test_like_events_are_counted_as_if_each_were_parsed(others: list[Any], step: int) -> None:
    """Among many events that differ in their text only, each other one is still read: the figures
    are those of meters that see one event each."""
    plain = [delta(f"word {number}") for number in range(40)]
    sent = [*plain, *others, *plain, delta(""), {"choices": [{"delta": {"content": None}}]}]
    broken = b'data: {"choices":[{"delta":{"content":"word" 1"},"finish_reason":null}]}\n\n'
    whole = events(*sent) + broken + events(*others) + broken[9:] + events(*plain)
    pieces, tools = 0, False
    for line in whole.splitlines():
        alone = openai.Meter()
        alone.add(line + b"\ndata: [DONE]\n")
        said = alone.summary(True)
        pieces += said["completion_tokens"] if said["usage"] == "estimated" else 0
        tools |= said["tool_calls"]
    meter = openai.Meter()
    for start in range(0, len(whole), step):
        meter.add(whole[start : start + step])
    assert meter._likes >= 1
    meter.add(b"data: [DONE]\n")
    told = meter.summary(True)
    assert pieces >= 120
    assert told["completion_tokens"] == (7 if told["usage"] == "measured" else pieces)
    assert told["tool_calls"] == tools
    assert told["finish"] == ("stop" if others == [delta("w", "stop")] else None)


def test_a_whole_answer_says_its_usage() -> None:
    """Chat and embeddings alike; a body nobody can read is unknown."""
    reader = reader_of({"protocol": "openai"}, None)
    usage = {"prompt_tokens": 3, "total_tokens": 4}
    body = orjson.dumps({"choices": [{"message": {"tool_calls": [{}]}, "finish_reason": "stop"}],
                         "usage": usage})  # fmt: skip
    said = reader.completion("chat", body, ())
    assert said == usage | {"usage": "measured", "finish": "stop", "error": None,
                            "tool_calls": True}  # fmt: skip
    assert (reader.completion("embeddings", b"\xff", ()) or {})["usage"] == "unknown"
    assert reader.completion("models", body, ()) is None


def test_tools_are_not_called_twice() -> None:
    """A shadow gets a request with tools only where its owner says that it may."""
    body = b'{"tools" : [{}], "messages": []}'
    assert openai.not_copied(body, False) == "not_idempotent"
    assert openai.not_copied(body, True) is None
    assert openai.not_copied(b'{"messages": []}', False) is None
    assert raw.not_copied(b"{}", False) == "not_idempotent"
    assert v2.not_copied(b'{"shared_memory_region": "r"}', True) == "payload_opaque"
    assert Message(b"").content_type == ""
