"""OpenAI-compatible servers: chat, completions, embeddings, models; usage and outcomes. Pure.

Usage is never a bare number: `measured` is what the server said, `estimated` counts the pieces of a
stream that ended well without saying, `unknown` is everything else (a stream that broke off has
used what nobody knows). An error inside a stream of status 200 is an outcome of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.card import Card
from gateway.protocol.dialect import Target, segments
from gateway.protocol.message import Message
from gateway.protocol.row import Columns, Mapped
from gateway.protocol.sse import Events
from gateway.protocol.tensor import Unreadable, kind

NAME = "openai"
ERROR_TYPE = b"application/json"
METHODS: Mapping[str, str] = {"chat": "POST", "completions": "POST", "embeddings": "POST",
                              "models": "GET"}  # fmt: skip
INFERENCES = frozenset(("chat", "completions", "embeddings"))
PATHS = {("chat", "completions"): "chat", ("completions",): "completions",
         ("embeddings",): "embeddings", ("models",): "models"}  # fmt: skip
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         429: "rate_limit_error"}  # fmt: skip
TOOLS = re.compile(rb'"(?:tools|functions)"\s*:')
_WORD = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")
FIRST_BYTES = 1024
"""So much of a stream is parsed before its other events are looked at for likeness."""

LIKES_MAX = 4
"""Where each event has other bytes around its text, finding out what they are is no gain."""

_PLAIN = re.compile(rb"[ !#-\[\]-~]+")
"""ASCII that stands for itself in JSON."""
_ONE_PIECE: Mapping[str, Any] = {"finish": None, "error": None, "tool_calls": False,
                                 "completion_tokens": None, "prompt_tokens": None,
                                 "usage": "unknown"}  # fmt: skip


def locate(path: str) -> Target | None:
    """Everything under `/v1/`; the model stands in the body, if anywhere."""
    parts = segments(path) if path.startswith("/v1/") else None
    if parts is None or len(parts) < 2:
        return None
    operation = PATHS.get(tuple(parts[1:]))
    if operation is None and parts[1] == "models":
        operation = "models"
    return Target(None, None, operation or "/".join(parts[1:]))


def error_body(code: str, status: int, message: str) -> bytes:
    known = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return orjson.dumps({"error": {"message": message, "type": known, "param": None, "code": code}})


def asked(body: bytes) -> tuple[str | None, str | None]:
    """The body's `model`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None
    name = document.get("model") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None, None


def not_copied(request: bytes, idempotent: bool) -> str | None:
    """What a tool does may not be done twice."""
    return "not_idempotent" if not idempotent and TOOLS.search(request) else None


def catalogue(names: list[str]) -> bytes:
    """The list of models that a gateway in front of several servers gives."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "headworks"}
            for name in names]  # fmt: skip
    return orjson.dumps({"object": "list", "data": data})


def count_rows(mapping: Mapped, request: Message) -> int:
    return 1


def read_columns(card: Card, mapping: Mapped, request: Message) -> Columns:
    raise Unreadable("openai: text has no features")


def read_scores(card: Card, mapping: Mapped, response: Message) -> list[float]:
    raise Unreadable("openai: text has no scores")


def _word(value: Any) -> str | None:
    """A server's word for our header, which is in clear: words only, never sentences."""
    if value is None:
        return None
    return value if isinstance(value, str) and _WORD.match(value) else "other"


class Meter:
    """Reads a stream's events as they pass.

    A server's events differ in little but their text, so an event that is nothing but a piece of
    text becomes the *like* of those to come: lines that have the same bytes around a plain text
    count as one more piece each, and are not parsed.
    """

    def __init__(self) -> None:
        self._events = Events()
        self._usage: Any = None
        self._pieces = 0
        self._tool_calls = False
        self._finish: str | None = None
        self._error: str | None = None
        self._done = False
        self._like: tuple[bytes, bytes] | None = None
        self._likes = 0

    def add(self, chunk: bytes) -> None:
        if self._like is None:
            self._read(chunk[:FIRST_BYTES])
            chunk = chunk[FIRST_BYTES:]
        if self._like is not None:
            if not self._events.at_line:
                line, end, chunk = chunk.partition(b"\n")
                self._read(line + end)
            chunk = self._count(*self._like, chunk)
        self._read(chunk)

    def _count(self, start: bytes, end: bytes, chunk: bytes) -> bytes:
        """Count the lines of `start`, a text, `end`; what else there is comes back, in order."""
        *lines, last = chunk.split(b"\n")
        lines = [line for line in lines if line]
        begun, ended = len(start), len(end)
        texts: list[bytes] = []
        rest: list[bytes] = []
        for line in lines:
            if line.startswith(start) and line.endswith(end):
                texts.append(line[begun:-ended])
            else:
                rest.append(line)
        if b"" in texts or not _PLAIN.fullmatch(b"".join(texts)):  # of many together, or one by one
            rest = [
                line for line in lines
                if not (line.startswith(start) and line.endswith(end)
                        and _PLAIN.fullmatch(line, begun, len(line) - ended))
            ]  # fmt: skip
        self._pieces += len(lines) - len(rest)
        return b"\n".join((*rest, last))

    def _read(self, chunk: bytes) -> None:
        for data in self._events.feed(chunk):
            if data == b"[DONE]":
                self._done = True
                continue
            try:
                event = orjson.loads(data)
            except orjson.JSONDecodeError:
                continue
            if isinstance(event, dict):
                self._take(event)
                if self._likes < LIKES_MAX and not self._is_like(data):
                    self._learn(_like(data, event))

    def _is_like(self, data: bytes) -> bool:
        """Whether an event has the same bytes around its text as those that are counted."""
        if self._like is None:
            return False
        start, end = self._like
        return data.startswith(start.removeprefix(b"data: ")) and data.endswith(end)

    def _learn(self, like: tuple[bytes, bytes] | None) -> None:
        if like is not None:
            self._like = like
            self._likes += 1

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("error"):
            self._error = _error_word(event["error"])
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            delta = choice.get("delta")
            delta = delta if isinstance(delta, dict) else choice
            self._tool_calls |= bool(delta.get("tool_calls") or delta.get("function_call"))
            self._pieces += bool(delta.get("content") or delta.get("text"))
            self._finish = _word(choice.get("finish_reason")) or self._finish

    def summary(self, whole: bool) -> dict[str, Any]:
        """`whole`: the upstream's message came to its end."""
        ended = whole and self._error is None and (self._done or self._finish is not None)
        said = {"finish": self._finish, "error": self._error, "tool_calls": self._tool_calls}
        if self._usage is not None:
            return said | _measured(self._usage)
        counted = {"completion_tokens": self._pieces if ended else None, "prompt_tokens": None}
        return said | counted | {"usage": "estimated" if ended else "unknown"}


def _like(data: bytes, event: dict[str, Any]) -> tuple[bytes, bytes] | None:
    """What stands around the text of an event that says nothing else. None: it says more, or its
    text is not plain; replacing the text and parsing again proves where it stands."""
    try:
        delta = event["choices"][0]["delta"]
        text = delta["content"].encode()
    except (LookupError, TypeError, AttributeError, UnicodeEncodeError):
        return None
    alone = Meter()
    alone._take(event)
    if alone.summary(False) != _ONE_PIECE or alone._pieces != 1 or not _PLAIN.fullmatch(text):
        return None
    before, mark, behind = data.rpartition(b'"' + text + b'"')
    delta["content"] = text.decode() + "."
    try:
        if not mark or orjson.loads(before + b'"' + text + b'."' + behind) != event:
            return None
    except orjson.JSONDecodeError:
        return None
    return b"data: " + before + b'"', b'"' + behind


def _error_word(error: Any) -> str:
    if isinstance(error, dict):
        return _word(error.get("code")) or _word(error.get("type")) or "error"
    return "error"


def _measured(usage: dict[str, Any]) -> dict[str, Any]:
    told = {
        name: value
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        if type(value := usage.get(name)) is int and 0 <= value < 1 << 53
    }
    return told | {"usage": "measured" if told else "unknown"}


def read_completion(response: Message) -> dict[str, Any]:
    """What a whole answer says of itself: usage, finish, error, tool calls."""
    unknown = {"usage": "unknown", "finish": None, "error": None, "tool_calls": False}
    try:
        body = response.plain()
        if response.content_type == "text/event-stream":
            meter = Meter()
            meter.add(body)
            return meter.summary(True)
        document = orjson.loads(body)
    except (Unreadable, orjson.JSONDecodeError):
        return unknown
    if not isinstance(document, dict):
        return unknown
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    said = {
        "finish": _word(first.get("finish_reason")) if isinstance(first, dict) else None,
        "error": _error_word(document["error"]) if document.get("error") else None,
        "tool_calls": isinstance(message, dict) and bool(message.get("tool_calls")),
    }
    usage = document.get("usage")
    return unknown | said | (_measured(usage) if isinstance(usage, dict) else {})


def read_rows(response: Message) -> list[Any]:
    """A choice a row: `text`, and the calls of `tools` as name and arguments; of embeddings the
    vectors; anything else as one value."""
    if response.content_type == "text/event-stream":
        return _streamed(response.plain())
    document = response.object()
    if isinstance(data := document.get("data"), list):
        return [item.get("embedding") if isinstance(item, dict) else item for item in data]
    choices = document.get("choices")
    if not isinstance(choices, list):
        return [document]
    return [_choice(item) for item in choices]


def _choice(choice: Any) -> dict[str, Any]:
    if not isinstance(choice, dict):
        raise Unreadable(f"choices: an object is wanted, not {kind(choice)}")
    message = choice.get("message")
    message = message if isinstance(message, dict) else choice
    calls = message.get("tool_calls") or ()
    called = [call.get("function") for call in calls if isinstance(call, dict)]
    told = [[f.get("name"), _arguments(f.get("arguments"))] for f in called if isinstance(f, dict)]
    return {"text": message.get("content") or message.get("text") or "", "tools": told}


def _arguments(text: Any) -> Any:
    """As JSON where it is JSON: the order of its keys means nothing."""
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return text


def _streamed(body: bytes) -> list[Any]:
    """Choices put together from the pieces of a stream."""
    choices: dict[int, dict[str, Any]] = {}
    for data in Events().feed(body + b"\n"):
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue  # [DONE], and what no client reads either
        pieces = event.get("choices") if isinstance(event, dict) else None
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                place = piece.get("index")
                made = choices.setdefault(place if isinstance(place, int) else 0, {"content": ""})
                _put(made, piece)
    if not choices:
        raise Unreadable("the stream has no choices")
    return [_choice(choices[place]) for place in sorted(choices)]


def _put(made: dict[str, Any], piece: dict[str, Any]) -> None:
    delta = piece.get("delta")
    delta = delta if isinstance(delta, dict) else piece
    text = delta.get("content") or delta.get("text")
    made["content"] += text if isinstance(text, str) else ""
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        told = made.setdefault("tool_calls", [])
        if function.get("name") or not told:
            told.append({"function": {"name": function.get("name"), "arguments": ""}})
        said = function.get("arguments")
        told[-1]["function"]["arguments"] += said if isinstance(said, str) else ""
