"""Plain features of prompts and answers: counted from any body, and never a text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import openai
from gateway.protocol.generation import read_asked
from gateway.protocol.message import Message
from gateway.protocol.textfeatures import FEATURES, FINISHES, NAMES, read_features

STREAM = (("content-type", "text/event-stream"),)
texts = st.text(max_size=60)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.floats(allow_nan=False)
    | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from((
        "choices", "message", "delta", "content", "text", "refusal", "tool_calls", "function",
        "name", "arguments", "finish_reason", "usage", "completion_tokens", "error", "index",
        "messages", "prompt", "input", "temperature", "data")), inner, max_size=4), max_leaves=25,
)  # fmt: skip


def told(request: Any, response: bytes, headers: Any = ()) -> dict[str, Any]:
    asked, answer = Message.of(orjson.dumps(request), ()), Message.of(response, headers)
    return read_features(read_asked(asked), openai.read_completion(answer), asked, answer)


def chunks(*events: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(e) + b"\n\n" for e in events) + b"data: [DONE]\n\n"


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=3),
       st.integers(0, 3), st.sampled_from([*FINISHES[:5], None, "eos"]), st.booleans())  # fmt: skip
def test_a_whole_answer_and_its_stream_say_the_same(
    prompts: list[str], answers: list[str], calls: int, finish: str | None, refused: bool
) -> None:
    """Lengths are of all messages and choices, in characters, however the answer came."""
    request = {"messages": [{"role": "user", "content": text} for text in prompts],
               "temperature": 0.5}  # fmt: skip
    called = [{"function": {"name": f"f{n}", "arguments": "{}"}} for n in range(calls)]
    said = {"refusal": "no"} if refused else {}
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    whole = {"choices": [{"index": n, "finish_reason": finish, "message": {
        "content": text, "tool_calls": called if n == 0 else None, **said}}
        for n, text in enumerate(answers)], "usage": usage}  # fmt: skip
    events: list[Any] = [{"choices": [{"index": n, "delta": {"content": text[:2], **said}}]}
                         for n, text in enumerate(answers)]  # fmt: skip
    events += [{"choices": [{"index": n, "delta": {"content": text[2:]}, "finish_reason": finish}]}
               for n, text in enumerate(answers)]  # fmt: skip
    events += [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in called]
    events.append({"choices": [], "usage": usage})
    found = told(request, orjson.dumps(whole))
    assert found == told(request, chunks(*events), STREAM)
    assert found == {
        "prompt_length": sum(map(len, prompts)),
        "messages": len(prompts),
        "answer_length": sum(map(len, answers)),
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "finish": {None: "unsaid", "eos": "other"}.get(finish, finish),
        "refusal": "yes" if refused or finish == "content_filter" else "no",
        "tool_calls": calls,
        "temperature": 0.5,
    }


@given(json, json, st.booleans())
def test_whatever_is_sent_gives_numbers_and_known_words(
    request: Any, response: Any, streamed: bool
) -> None:
    """Any JSON on either side: a number, a word of the description, or nothing."""
    body = chunks(response, request) if streamed else orjson.dumps(response)
    found = told(request, body, STREAM if streamed else ())
    assert tuple(found) == NAMES
    for feature in FEATURES:
        value = found[feature.name]
        if isinstance(value, str):
            assert value in (feature.categories or ())
        else:
            assert value is None or (feature.type != "category" and type(value) in (int, float))


@pytest.mark.parametrize(
    ("request_", "length"),
    [
        ({"prompt": "abc"}, 3),
        ({"prompt": ["abc", "de"]}, 5),
        ({"prompt": [1, 2, 3]}, None),
        ({"messages": [{"content": [{"type": "text", "text": "abcd"}, {"type": "image_url"}]}]}, 4),
        ({"messages": [{"content": None}]}, 0),
        ({}, None),
    ],
)
def test_the_length_of_a_prompt(request_: Any, length: int | None) -> None:
    """Tokens and pictures have none; what a message leaves out is empty."""
    assert told(request_, b"{}")["prompt_length"] == length


def test_without_bodies_the_leaf_says_what_it_can() -> None:
    """Erased or cut bodies leave what was sealed: settings, usage, finish."""
    completion = {"usage": "measured", "completion_tokens": 12, "finish": "stop", "error": None,
                  "tool_calls": True}  # fmt: skip
    found = read_features({"messages": 2}, completion, None, None)
    known = {"messages": 2, "completion_tokens": 12, "finish": "stop", "tool_calls": 1}
    assert {name: value for name, value in found.items() if value is not None} == known


def test_pieces_of_a_stream_are_no_tokens() -> None:
    """Usage that was only estimated is unknown; the text is counted all the same."""
    answer = chunks({"choices": [{"delta": {"content": "ab"}, "finish_reason": "stop"}]})
    found = told({"messages": []}, answer, STREAM)
    assert (found["completion_tokens"], found["answer_length"]) == (None, 2)
