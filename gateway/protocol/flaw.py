"""What stands in a column where a value is not of its feature's type: no value, and not missing.

Not among the modules that are compiled: compiled classes do not inherit from numbers or texts.
"""

from __future__ import annotations

from typing import Any


class Flaw(float):
    """Where a number should be and none is. To whoever calculates it is NaN, as what is missing."""

    def __new__(cls, words: str) -> Flaw:
        return super().__new__(cls, "nan")

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return f"({self.words})"


NO_NUMBER = Flaw("no number")
INFINITE = Flaw("beyond all numbers")


class Converted(str):
    """What stood for a category and was no text, as text: a category, if the card names it."""


def shown(value: Any) -> Any:
    """A value of a column as JSON holds it."""
    return repr(value) if isinstance(value, Flaw) else value
