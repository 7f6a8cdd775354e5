"""A YAML file with the line of each key, so that every problem is told at its place.

Validation is the settings model's; here are the words for what it finds: the key as people write
it, the value, what is allowed, and which name was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int
    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        return f"{self.file}:{self.line}: {self.key}{value}: {self.allowed}"


class _Loader(yaml.SafeLoader):
    """Notes the line of every key, and keys that stand twice. As in YAML 1.2, only true and false
    are truth values: `on` is a word, and a key of ours."""

    yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers
                 if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }  # fmt: skip

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.lines: dict[Key, int] = {}
        self.twice: list[tuple[Key, int]] = []
        self._noted: set[int] = set()

    def note(self, node: yaml.Node, at: Key) -> None:
        """Each node once: by aliases a file may hold itself, or one list a billion times."""
        if id(node) in self._noted:
            return
        self._noted.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    continue  # constructing it will refuse it
                key = (*at, key_node.value)
                self.lines.setdefault(key, key_node.start_mark.line + 1)
                if key in seen:
                    self.twice.append((key, key_node.start_mark.line + 1))
                seen.add(key)
                self.note(value_node, key)
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.lines.setdefault((*at, number), item.start_mark.line + 1)
                self.note(item, (*at, number))


class _Sent(_Loader):
    """Of a text that was sent: without aliases, by which a few lines may be a billion."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not taken here", mark)
        return super().compose_node(parent, index)


class YamlFile:
    """One YAML file with the lines of its keys, collecting problems."""

    def __init__(self, source: Path | bytes, shown: str, problems: list[Problem]) -> None:
        self.shown, self.problems = shown, problems
        self.lines: dict[Key, int] = {}
        self.tree: Any = None
        self.data = b""
        try:
            self.data = source if isinstance(source, bytes) else source.read_bytes()
        except OSError as error:
            self.add((), "", f"cannot be read: {error.strerror}")
            return
        try:
            loader = _Sent(source) if isinstance(source, bytes) else _Loader(self.data)
            node = loader.get_single_node()
            if node is not None:
                loader.note(node, ())
                self.tree = loader.construct_document(node)
        except RecursionError:
            self.add((), "", "not settings: it is nested too deep")
            return
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            if isinstance(error, yaml.reader.ReaderError):  # bytes that are no text have no mark
                line = self.data[: error.position].count(b"\n") + 1
            words = f"not YAML: {getattr(error, 'problem', None) or error}"
            self.problems.append(Problem(self.shown, line, "(file)", "", words))
            return
        self.lines = loader.lines
        for key, line in loader.twice:
            self.problems.append(Problem(self.shown, line, dotted(key), "", "stands twice"))

    def add(self, key: Key, value: object, allowed: str) -> None:
        line = line_of(self.lines, key)
        shown = "" if value is NOTHING or value == "" else _short(value)
        self.problems.append(Problem(self.shown, line, dotted(key) or "(file)", shown, allowed))

    def validate(self, model: type[pydantic.BaseModel], tree: Any) -> Any:
        try:
            return model.model_validate(tree)
        except pydantic.ValidationError as error:
            items = error.errors(include_url=False)
            wrong = {item["loc"][:-1] for item in items}
            for item in items:
                key = _plain(item["loc"], tree)
                if item["type"] == "too_short" and item["loc"] in wrong:
                    continue  # pydantic counts only the items that are right
                if item["type"] == "extra_forbidden":
                    self.add(key, NOTHING, f"unknown key{_meant(model, key)}")
                elif item["type"] == "missing":
                    self.add(key, NOTHING, "is missing")
                else:
                    value = NOTHING if "auth" in key else item["input"]  # it may be a secret
                    self.add(key, value, item["msg"].removeprefix("Value error, "))
            return None


Model = TypeVar("Model", bound=pydantic.BaseModel)


def check_document(
    data: bytes, shown: str, model: type[Model]
) -> tuple[Model | None, Any, list[Problem]]:
    """YAML beside the configuration: what it means, what is written, what is wrong with it."""
    problems: list[Problem] = []
    file = YamlFile(data, shown, problems)
    if not problems and not isinstance(file.tree, dict):
        file.add((), file.tree, "a mapping of settings is wanted")
    if problems:
        return None, None, problems
    told = file.validate(model, file.tree)
    problems.sort(key=lambda problem: problem.line)
    return told, file.tree, problems


NOTHING = object()


def line_of(lines: Mapping[Key, int], key: Key) -> int:
    """The line of a key, or of the nearest one above it that the file has."""
    return next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 1)


def dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(location: tuple[str | int, ...], tree: Any) -> Key:
    """The location without the parts that pydantic adds for unions."""
    key: list[str | int] = []
    for part in location:
        in_map = isinstance(tree, dict) and part in tree
        if in_map or (isinstance(tree, list) and isinstance(part, int) and part < len(tree)):
            tree = tree[part]
        elif part == location[-1] and isinstance(tree, dict):
            tree = None  # a missing key
        else:
            continue
        key.append(part)
    return tuple(key)


def _meant(model: type[pydantic.BaseModel], key: Key) -> str:
    """Names that are allowed beside an unknown key, the nearest first."""
    fields = _fields_at(model, key[:-1])
    near = difflib.get_close_matches(str(key[-1]), fields, 1)
    if near:
        return f"; {near[0]} is meant?"
    return f"; known: {', '.join(fields)}" if fields else ""


def _fields_at(model: Any, key: Key) -> list[str]:
    schema = model.model_json_schema()
    node: Any = schema
    for part in key:
        node = _follow(schema, node)
        known = node.get("properties", {})
        named: Any = node.get("additionalProperties") or next(
            iter(node.get("patternProperties", {}).values()), {}
        )
        node = known.get(part) or node.get("items") or named or {}
        if node is True:
            return []
    return sorted(_follow(schema, node).get("properties", {}))


def _follow(schema: Any, node: Any) -> Any:
    """The section that a node refers to, whether or not it may be absent."""
    node = next((part for part in node.get("anyOf", ()) if "$ref" in part), node)
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
