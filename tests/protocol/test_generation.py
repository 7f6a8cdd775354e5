"""Settings and log-probabilities of generated answers: numbers and known words, never a text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.protocol.generation import read_asked, read_logprobs
from gateway.protocol.message import Message

STREAM = (("content-type", "text/event-stream"),)
SECRET = "Ann's secret"


def asked(**document: Any) -> dict[str, Any]:
    return read_asked(Message.of(orjson.dumps(document), ()))


def test_settings_are_told_and_texts_are_not() -> None:
    """Numbers, flags and the protocol's own words; whatever else a caller writes is left out."""
    told = asked(
        model=SECRET, messages=[{"role": "user", "content": SECRET}] * 3, user=SECRET, stop=SECRET,
        temperature=0.2, max_tokens=128, seed=7, stream=True, logprobs=True, top_p=SECRET,
        tools=[{"function": {"name": SECRET}}], tool_choice={"function": {"name": SECRET}},
        reasoning_effort="low", service_tier=SECRET, metadata={"a": SECRET},
        response_format={"type": "json_schema", "json_schema": {"name": SECRET}},
    )  # fmt: skip
    assert told == {
        "temperature": 0.2, "max_tokens": 128, "seed": 7, "stream": True, "logprobs": True,
        "messages": 3, "tools": 1, "tool_choice": "other", "reasoning_effort": "low",
        "service_tier": "other", "response_format": "json_schema",
    }  # fmt: skip
    assert SECRET not in str(told)


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b'{"temperature": [1], "n": "two"}'])
def test_what_cannot_be_read_says_nothing(body: bytes) -> None:
    """No settings, no error."""
    assert read_asked(Message.of(body, ())) == {}
    assert read_logprobs(Message.of(body, ())) is None


def test_log_probabilities_in_sum() -> None:
    """Of chat and of completions, whole and streamed: how many, their mean, the least."""
    chat: Any = {"choices": [{"logprobs": {"content": [
        {"token": SECRET, "logprob": -0.5}, {"token": SECRET, "logprob": -1.5}]}}]}  # fmt: skip
    plain: Any = {"choices": [{"logprobs": {"token_logprobs": [None, -2.0, -9999.0, "x", True]}}]}
    expected = {"tokens": 2, "mean": -1.0, "least": -1.5}
    assert read_logprobs(Message.of(orjson.dumps(chat), ())) == expected
    assert read_logprobs(Message.of(orjson.dumps(plain), ())) == {
        "tokens": 2, "mean": -5000.5, "least": -9999.0}  # fmt: skip
    halves = [{"choices": [{"logprobs": {"content": [item]}}]}
              for item in chat["choices"][0]["logprobs"]["content"]]  # fmt: skip
    body = b"".join(b"data: %b\n\n" % orjson.dumps(half) for half in halves) + b"data: [DONE]\n\n"
    assert read_logprobs(Message.of(body, STREAM)) == expected
    assert read_logprobs(Message.of(orjson.dumps({"choices": [{"logprobs": None}]}), ())) is None
