"""Two JSON values: all that is in them, less what is ignored; numbers with tolerance. Pure.

Pointers are RFC 6901's, with `*` for any one key or place. Memory and time stay in proportion to
the answers: values are counted, and what goes deeper than `DEPTH_AT_MOST` is compared as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import orjson

from gateway.comparison.number import same
from gateway.comparison.outcome import SAME, Row

DEPTH_AT_MOST = 64
VALUES_AT_MOST = 100_000
ABSENT: Any = object()
Path = tuple[str, ...]


class TooLarge(ValueError):
    """More values than are compared."""


def split(pointer: str) -> Path:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def fits(path: Path, patterns: tuple[Path, ...]) -> bool:
    """Whether a pattern names this very place."""
    return any(
        len(pattern) == len(path) and all(p in ("*", part) for p, part in zip(pattern, path))
        for pattern in patterns
    )


class Documents:
    """One comparison of two values. Reading it gives why each differing value differs."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._atol, self._rtol = settings["atol"], settings["rtol"]
        self._ignored = tuple(map(split, settings["ignore"]))
        self._unordered = tuple(map(split, settings["unordered"]))
        self.values = 0

    def differences(self, one: Any, other: Any, path: Path = ()) -> Iterator[str]:
        """A reason a value that differs: number, value, type, missing, extra, length."""
        if self._ignored and fits(path, self._ignored):
            return
        if one is ABSENT or other is ABSENT:
            self.values += 1
            yield "extra" if one is ABSENT else "missing"
        elif len(path) < DEPTH_AT_MOST and isinstance(one, dict) and isinstance(other, dict):
            for key in one.keys() | other.keys():
                mine, theirs = one.get(key, ABSENT), other.get(key, ABSENT)
                yield from self.differences(mine, theirs, (*path, key))
        elif len(path) < DEPTH_AT_MOST and isinstance(one, list) and isinstance(other, list):
            yield from self._lists(one, other, path)
        else:
            self.values += 1
            if self.values > VALUES_AT_MOST:
                raise TooLarge(f"more than {VALUES_AT_MOST} values")
            if (reason := self._scalar(one, other)) is not None:
                yield reason

    def _lists(self, one: list[Any], other: list[Any], path: Path) -> Iterator[str]:
        if self._unordered and fits(path, self._unordered):
            one, other = sorted(one, key=_order), sorted(other, key=_order)
        for place, (mine, theirs) in enumerate(zip_longest(one, other, fillvalue=ABSENT)):
            yield from self.differences(mine, theirs, (*path, str(place)))

    def _scalar(self, one: Any, other: Any) -> str | None:
        numbers = _is_number(one), _is_number(other)
        if all(numbers):
            return None if same(one, other, self._atol, self._rtol) else "number"
        if type(one) is not type(other):
            return "type"
        return None if one == other else "value"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _order(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def compare_documents(one: Any, other: Any, settings: Mapping[str, Any]) -> Row:
    """Severe as the share of values that differ. TooLarge."""
    documents = Documents(settings)
    first, count = None, 0
    for reason in documents.differences(one, other):
        first = first or reason
        count += 1
    if not count:
        return SAME
    return Row(False, count / max(documents.values, 1), first)
