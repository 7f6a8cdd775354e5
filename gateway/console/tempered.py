"""Figures over everything that the catalog holds, asked again no sooner than they are worth.

Such a figure takes the catalog milliseconds on the first day and seconds after a year, on the cores
on which the analyst folds; a page that is left open asks for it each few seconds.

Invariant: while a figure is asked for ever so often, finding it takes at most one part in `SHARE`
of the time, and no two are sought at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from gateway.clock import Clock

SHARE = 20
KEPT_MAX = 256


class Tempered:
    """`ask` finds a figure by a query and its arguments. From any thread."""

    def __init__(self, ask: Callable[..., Any], clock: Clock) -> None:
        self._ask, self._clock = ask, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], tuple[int, Any, int]] = OrderedDict()

    def asked(self, query: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
        """As it was found lately enough, or as it is now; and when that was (wall, ns)."""
        name = (query, *arguments)
        with self._lock:
            kept = self._kept.get(name)
            begun = self._clock.steady()
            if kept is not None and begun < kept[0]:
                return kept[1:]
            at = self._clock.wall()
            found = self._ask(query, *arguments)
            now = self._clock.steady()
            self._kept[name] = (now + SHARE * (now - begun), found, at)
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
            return found, at
