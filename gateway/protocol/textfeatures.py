"""Plain features of a prompt and its answer, for monitoring: counts, flags and finish words. Pure.

Text has no card that could say its features, so they are the same for every model that speaks
OpenAI's protocol, and described here. A value is None where it cannot be known: a body that was
cut, erased or is in another coding, a server that told no usage, a setting left to the server.
Usage is taken where it was measured only: the pieces of a stream are no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.card import Card, Feature, Outputs, Score, Training
from gateway.protocol import openai
from gateway.protocol.message import Message
from gateway.protocol.sse import EVENT_TYPE, Events
from gateway.protocol.tensor import Unreadable

COUNT_MAX = float(1 << 31)
FINISHES = ("stop", "length", "tool_calls", "function_call", "content_filter", "error", "other",
            "unsaid")  # fmt: skip
"""Also of what servers say in words of their own: `other`, and of what they leave out: `unsaid`."""


VERSION = "1"
"""Of this description: what was counted by another is not compared with."""


def _count(name: str, meaning: str, unit: str) -> Feature:
    """`used=False`: a Parquet reference need not have every column."""
    return Feature(name=name, type="integer", meaning=meaning, unit=unit, range=(0, COUNT_MAX),
                   used=False)  # fmt: skip


def _word(name: str, meaning: str, words: tuple[str, ...]) -> Feature:
    return Feature(name=name, type="category", meaning=meaning, categories=words, used=False)


FEATURES = (
    _count("prompt_length", "Text of all messages, the prompt or the input.", "characters"),
    _count("messages", "Messages that were sent.", "messages"),
    _count("answer_length", "Text of all choices.", "characters"),
    _count("prompt_tokens", "Tokens read, as the server measured.", "tokens"),
    _count("completion_tokens", "Tokens written, as the server measured.", "tokens"),
    _word("finish", "Why the answer ended.", FINISHES),
    _word("refusal", "Whether the answer is marked a refusal or was filtered.", ("no", "yes")),
    _count("tool_calls", "Tools that the answer calls.", "calls"),
    Feature(
        name="temperature", type="number", meaning="Temperature, if set.", range=(0, 2), used=False
    ),
)
CARD = Card(
    format=1,
    model="openai",
    version=VERSION,
    summary="Plain features of prompts and answers, the same for every model.",
    features=FEATURES,
    outputs=Outputs(score=Score(tensor="none", kind="quantity", meaning="Text has no score.")),
    training=Training(data={}, code_commit="", configuration={}, seed=0),
    metrics={},
)
NAMES = tuple(feature.name for feature in FEATURES)


def read_features(
    asked: Mapping[str, Any],
    completion: Mapping[str, Any],
    request: Message | None,
    response: Message | None,
) -> dict[str, int | float | str | None]:
    """By name, in the order of `FEATURES`. `asked` and `completion` are the leaf's; a message is
    None where it was not kept whole."""
    measured = completion if completion.get("usage") == "measured" else {}
    document = None if request is None else _object(request)
    texts, refused, calls = (None, None, None) if response is None else _answered(response)
    finish = _finish(completion)
    if completion.get("tool_calls"):
        calls = max(calls or 0, 1)
    if finish == "content_filter":
        refused = True
    found = {
        "prompt_length": None if document is None else _prompt_length(document),
        "messages": asked.get("messages"),
        "answer_length": texts,
        "prompt_tokens": measured.get("prompt_tokens"),
        "completion_tokens": measured.get("completion_tokens"),
        "finish": finish,
        "refusal": None if refused is None else ("no", "yes")[refused],
        "tool_calls": calls,
        "temperature": _number(asked.get("temperature")),
    }
    return {name: found[name] for name in NAMES}


def _number(value: Any) -> int | float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def _finish(completion: Mapping[str, Any]) -> str:
    if completion.get("error"):
        return "error"
    said = completion.get("finish")
    return "unsaid" if said is None else said if said in FINISHES else "other"


def _object(message: Message) -> dict[str, Any] | None:
    try:
        document = orjson.loads(message.plain())
    except (Unreadable, orjson.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


def _prompt_length(document: Mapping[str, Any]) -> int | None:
    """None where the prompt is tokens, whose text only the server knows."""
    messages = document.get("messages")
    if isinstance(messages, list):
        contents = [one.get("content") for one in messages if isinstance(one, dict)]
        return sum(_length(content) or 0 for content in contents)
    return _length(document.get("prompt", document.get("input")))


def _length(content: Any) -> int | None:
    """Of a text, of several, or of a message's parts that are text."""
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list):
        return None
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    found = [len(text) for text in texts if isinstance(text, str)]
    return sum(found) if found or not content else None


def _answered(response: Message) -> tuple[int | None, bool | None, int | None]:
    """Characters, whether one of the choices is a refusal, and calls of tools; None: unknown."""
    documents = list(_documents(response))
    if not any(isinstance(document.get("choices"), list) for document in documents):
        return None, None, None
    refused = any(part.get("refusal") for document in documents for part in _parts(document))
    try:
        rows = openai.read_rows(response)
    except Unreadable:
        return None, refused, None
    choices = [row for row in rows if isinstance(row, dict) and "text" in row]
    lengths = [_length(choice["text"]) or 0 for choice in choices]
    return sum(lengths), refused, sum(len(choice["tools"]) for choice in choices)


def _documents(response: Message) -> Iterator[dict[str, Any]]:
    """The whole answer, or each event of a stream."""
    try:
        body = response.plain()
    except Unreadable:
        return
    streamed = response.content_type == EVENT_TYPE.decode()
    for piece in Events().feed(body + b"\n") if streamed else (body,):
        try:
            document = orjson.loads(piece)
        except orjson.JSONDecodeError:
            continue  # [DONE], and what no client reads either
        if isinstance(document, dict):
            yield document


def _parts(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What each choice says: chat's message or, in a stream, its delta."""
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        part = (choice.get("message") or choice.get("delta")) if isinstance(choice, dict) else None
        if isinstance(part, dict):
            yield part
