"""Two texts: the same after normalising, or how much they have in common. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

from gateway.comparison.outcome import SAME, Row

CHARACTERS_AT_MOST = 65_536
"""Of each text, from its begin on, that are compared."""
FEW_TOKENS = 5
"""Up to so many words an edit ratio says more than shared words do."""
_WORD = re.compile(r"\w+")


def normal(text: str) -> str:
    """NFKC, case folded, white space as single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text[:CHARACTERS_AT_MOST]).casefold().split())


def token_f1(one: str, other: str) -> float:
    """Harmonic mean of the shares of words that each has in common with the other."""
    mine, theirs = Counter(_WORD.findall(one)), Counter(_WORD.findall(other))
    if not mine or not theirs:
        return float(mine == theirs)
    shared = sum((mine & theirs).values())
    return 2 * shared / (sum(mine.values()) + sum(theirs.values()))


def likeness(one: str, other: str) -> float:
    """From 0 to 1, of normal texts."""
    few = min(len(_WORD.findall(text, 0, 1000)) for text in (one, other)) <= FEW_TOKENS
    if few and max(len(one), len(other)) <= 1000:
        return SequenceMatcher(None, one, other, autojunk=False).ratio()
    return token_f1(one, other)


def compare_texts(one: str, other: str, settings: Mapping[str, Any]) -> Row:
    mine, theirs = normal(one), normal(other)
    if mine == theirs:
        return SAME
    alike = likeness(mine, theirs)
    if alike * 1_000_000 >= settings["text"]:
        return Row(True, 1 - alike, "jitter")
    return Row(False, 1 - alike, "text")
