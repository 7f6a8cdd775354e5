"""The rows an explanation compares with.

Regulation B, comment 9(b)(2)-5, accepts as principal reasons the factors on which an applicant
fell furthest below the average of the applicants at or slightly above the passing score. So the
background is, of the candidates that the version itself puts on the side that is not adverse,
those closest to the cut-off. A card without outcome words has no cut-off: its first rows are it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from gateway.card import Card
from gateway.explain.attribution import Columns, Floats
from gateway.explain.rows import canonical

ROWS_AT_MOST = 50


def choose(card: Card, scores: Floats) -> NDArray[np.intp]:
    """Candidates chosen, nearest the cut-off first; equally near ones in their given order.

    ValueError if no candidate lies on the side that is not adverse.
    """
    words = card.outputs.outcome
    if words is None:
        return np.arange(min(len(scores), ROWS_AT_MOST))
    if words.adverse == words.at_or_above:
        passing = np.flatnonzero(scores < words.threshold)
    else:
        passing = np.flatnonzero(scores >= words.threshold)
    if not len(passing):
        raise ValueError(f"background: all {len(scores)} candidates are {words.adverse}")
    nearest = np.argsort(np.abs(scores[passing] - words.threshold), kind="stable")
    return np.asarray(passing[nearest[:ROWS_AT_MOST]])


def digest(card: Card, background: Columns) -> str:
    """SHA-256 over the rows' canonical bytes, each after its length: used features, card order."""
    hashed = hashlib.sha256()
    for row in canonical(card.used, background):
        hashed.update(len(row).to_bytes(4, "little") + row)
    return hashed.hexdigest()
