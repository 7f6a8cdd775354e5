"""What a rule asks of a request: pure. A rule falls to a request when each of its conditions holds.

The cheap ones stand first; the body is looked into only where all others hold. Each condition says
itself in words, for `headworks route trace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from gateway.exchange import Caller, Context

ABSENT = object()
"""What a body says that nobody can read."""


class Asked(Protocol):
    """A request, as conditions look at it. `first`: the first value of each header."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def first(self) -> Mapping[bytes, bytes]: ...

    @property
    def caller(self) -> Caller | None: ...

    @property
    def context(self) -> Context: ...

    def document(self) -> Any:
        """The body as JSON; ABSENT where it is none, or too long."""


class Condition(Protocol):
    def holds(self, asked: Asked) -> bool: ...

    def found(self, asked: Asked) -> object:
        """What the request has instead, for a person; None: nothing."""

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class MethodIs:
    among: frozenset[str]

    def holds(self, asked: Asked) -> bool:
        return asked.method in self.among

    def found(self, asked: Asked) -> object:
        return asked.method

    def __str__(self) -> str:
        return f"method is {' or '.join(sorted(self.among))}"


@dataclass(frozen=True, slots=True)
class CallerIs:
    among: frozenset[str]

    def holds(self, asked: Asked) -> bool:
        return asked.caller is not None and asked.caller.name in self.among

    def found(self, asked: Asked) -> object:
        return asked.caller.name if asked.caller is not None else None

    def __str__(self) -> str:
        return f"caller is {' or '.join(sorted(self.among))}"


@dataclass(frozen=True, slots=True)
class PathIs:
    """A trailing * matches any rest."""

    pattern: str

    def holds(self, asked: Asked) -> bool:
        if self.pattern.endswith("*"):
            return asked.path.startswith(self.pattern[:-1])
        return asked.path == self.pattern

    def found(self, asked: Asked) -> object:
        return asked.path

    def __str__(self) -> str:
        return f"path is {self.pattern}"


@dataclass(frozen=True, slots=True)
class HeaderIs:
    name: bytes
    value: bytes

    def holds(self, asked: Asked) -> bool:
        return asked.first.get(self.name) == self.value

    def found(self, asked: Asked) -> object:
        value = asked.first.get(self.name)
        return None if value is None else value.decode("utf-8", "replace")

    def __str__(self) -> str:
        return f"header {self.name.decode()} is {self.value.decode()}"


@dataclass(frozen=True, slots=True)
class ContextIs:
    """Governance context of an allowed caller: of every row, where there are several."""

    key: str
    value: str

    def holds(self, asked: Asked) -> bool:
        groups = asked.context.groups
        return bool(groups) and all(row.get(self.key) == self.value for row in groups)

    def found(self, asked: Asked) -> object:
        values = sorted({row[self.key] for row in asked.context.groups if self.key in row})
        return ", ".join(values) or None

    def __str__(self) -> str:
        return f"context {self.key} is {self.value}"


@dataclass(frozen=True, slots=True)
class BodyIs:
    """A field of a JSON body, by JSON pointer (RFC 6901), with a value of the same type."""

    pointer: str
    parts: tuple[str, ...]
    value: bool | int | float | str

    def holds(self, asked: Asked) -> bool:
        found = pointed(asked.document(), self.parts)
        if isinstance(self.value, bool) or isinstance(found, bool):
            return found is self.value
        return isinstance(found, (int, float, str)) and found == self.value

    def found(self, asked: Asked) -> object:
        document = asked.document()
        if document is ABSENT:
            return "a body that is not read as JSON"
        found = pointed(document, self.parts)
        return None if found is ABSENT else orjson.dumps(found).decode()[:80]

    def __str__(self) -> str:
        return f"body {self.pointer} is {orjson.dumps(self.value).decode()}"


def parts_of(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def pointed(document: Any, parts: Sequence[str]) -> Any:
    """What is there; ABSENT: nothing."""
    for part in parts:
        if isinstance(document, dict):
            document = document.get(part, ABSENT)
        elif isinstance(document, list) and part.isascii() and part.isdigit() and len(part) < 9:
            document = document[int(part)] if int(part) < len(document) else ABSENT
        else:
            return ABSENT
    return document


def compile_conditions(when: Mapping[str, Any]) -> tuple[Condition, ...]:
    """From a document's `when`, of any format; the cheap ones first."""
    found: list[Condition] = []
    if when.get("method"):
        found.append(MethodIs(frozenset(when["method"])))
    if when.get("caller"):
        found.append(CallerIs(frozenset(when["caller"])))
    if when.get("path") is not None:
        found.append(PathIs(when["path"]))
    for name, value in (when.get("header") or {}).items():
        found.append(HeaderIs(name.encode(), value.encode()))
    for key, value in (when.get("context") or {}).items():
        found.append(ContextIs(key, value))
    for pointer, value in (when.get("body") or {}).items():
        found.append(BodyIs(pointer, parts_of(pointer), value))
    return tuple(found)


def first_failed(conditions: Sequence[Condition], asked: Asked) -> Condition | None:
    for condition in conditions:
        if not condition.holds(asked):
            return condition
    return None
