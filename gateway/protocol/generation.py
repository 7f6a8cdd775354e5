"""What decided a generated answer, as far as it can be said without its text. Pure.

Of the request its settings, of the answer the log-probabilities in sum: numbers, flags and words of
the protocol. Prompts, answers, names of tools and of users are never among them: what is read here
stands in a leaf, in clear.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocol.message import Message
from gateway.protocol.sse import Events
from gateway.protocol.tensor import Unreadable

SETTINGS = ("temperature", "top_p", "n", "max_tokens", "max_completion_tokens", "seed", "stream",
            "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "best_of",
            "parallel_tool_calls", "dimensions")  # fmt: skip
WORDS = {
    "reasoning_effort": frozenset(("none", "minimal", "low", "medium", "high", "xhigh")),
    "tool_choice": frozenset(("none", "auto", "required")),
    "service_tier": frozenset(("auto", "default", "flex", "scale", "priority")),
    "encoding_format": frozenset(("float", "base64")),
}
FORMATS = frozenset(("text", "json_object", "json_schema"))
COUNTED = {"messages": "messages", "tools": "tools", "functions": "tools"}
LOGPROB_LEAST = -1e4
"""Servers write -9999 for a token that they hold impossible."""


def read_asked(request: Message) -> dict[str, Any]:
    """The settings of a request; {}: it cannot be read."""
    try:
        document = orjson.loads(request.plain())
    except (Unreadable, orjson.JSONDecodeError):
        return {}
    if not isinstance(document, dict):
        return {}
    told = {name: document[name] for name in SETTINGS if _is_number(document.get(name))}
    for name, known in WORDS.items():
        if (value := document.get(name)) is not None:
            told[name] = value if isinstance(value, str) and value in known else "other"
    for name, said in COUNTED.items():
        if isinstance(value := document.get(name), list):
            told[said] = len(value)
    wanted = document.get("response_format")
    if isinstance(wanted, dict):
        kind = wanted.get("type")
        told["response_format"] = kind if kind in FORMATS else "other"
    return told


def _is_number(value: Any) -> bool:
    """A flag or a number that canonical JSON can say; never a text."""
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 53)


def read_logprobs(response: Message) -> dict[str, Any] | None:
    """Number, mean and least of the log-probabilities of the tokens; None: none were given."""
    try:
        body = response.plain()
        if response.content_type == "text/event-stream":
            documents = [_parsed(data) for data in Events().feed(body + b"\n")]
        else:
            documents = [_parsed(body)]
    except Unreadable:
        return None
    found = [value for document in documents for value in _logprobs(document)]
    if not found:
        return None
    return {"tokens": len(found), "mean": sum(found) / len(found), "least": min(found)}


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _logprobs(document: Any) -> list[float]:
    """Of all choices: chat's `content[].logprob`, completions' `token_logprobs`."""
    choices = document.get("choices") if isinstance(document, dict) else None
    found: list[float] = []
    for choice in choices if isinstance(choices, list) else ():
        told = choice.get("logprobs") if isinstance(choice, dict) else None
        if not isinstance(told, dict):
            continue
        content, plain = told.get("content"), told.get("token_logprobs")
        values = [item.get("logprob") for item in content if isinstance(item, dict)] if isinstance(
            content, list) else []  # fmt: skip
        values += plain if isinstance(plain, list) else []
        found += [
            max(float(value), LOGPROB_LEAST)
            for value in values
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
    return found
