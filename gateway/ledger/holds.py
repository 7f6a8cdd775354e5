"""Legal holds: what must neither be dropped nor erased, and the erasures that wait for them.

    state/holds.json     {"format": 1, "holds": [...], "deferred": [...]}, written whole

A hold is of a model, or of some exchanges by place and key numbers. It is in force before its leaf
is written, and its release is a leaf before it ends: a crash between leaves more held, never less.
Several holds of one thing are apart: each ends by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.disk import write_durably

FORMAT = 1
HOLDS_MAX = 1000
DEFERRED_MAX = 10_000


class HoldRefused(ValueError):
    """A hold or a deferral that cannot be: known already, unknown, or one too many."""


@dataclass(frozen=True, slots=True)
class HeldExchange:
    """One exchange under a hold: its id, the file of its body, its key numbers."""

    id: str
    file: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """`model`, or `exchanges`; `at`: steady nanoseconds."""

    id: str
    reason: str
    by: str
    at: int
    model: str | None = None
    exchanges: tuple[HeldExchange, ...] = ()

    def models(self) -> frozenset[str]:
        """The models of which it holds something."""
        found = {exchange.file.partition("/")[0] for exchange in self.exchanges}
        return frozenset(found | {self.model}) if self.model else frozenset(found)

    def holds_file(self, file: str) -> bool:
        """Whether a daily file of bodies has to stay."""
        if self.model is not None and file.partition("/")[0] == self.model:
            return True
        return any(exchange.file == file for exchange in self.exchanges)


@dataclass(frozen=True, slots=True)
class Deferred:
    """An erasure that waits for the release of what holds it back."""

    id: str
    numbers: tuple[int, ...]
    reason: str
    by: str
    at: int


def against(
    holds: Iterable[Hold], numbers: Collection[int], files: Collection[str]
) -> tuple[Hold, ...]:
    """The holds that forbid erasing these key numbers, whose bodies lie in these files: pure."""
    wanted = set(numbers)
    return tuple(
        hold
        for hold in holds
        if (hold.model is not None and any(f.partition("/")[0] == hold.model for f in files))
        or any(not wanted.isdisjoint(exchange.numbers) for exchange in hold.exchanges)
    )


class Holds:
    """The governor's; every change is durable on return."""

    def __init__(self, state: Path) -> None:
        self._path = state / "holds.json"
        self.holds: dict[str, Hold] = {}
        self.deferred: dict[str, Deferred] = {}
        if self._path.exists():
            self._read(orjson.loads(self._path.read_bytes()))

    def _read(self, document: dict[str, Any]) -> None:
        if document["format"] != FORMAT:
            raise ValueError(f"{self._path} has format {document['format']}; {FORMAT} is known")
        for told in document["holds"]:
            exchanges = tuple(
                HeldExchange(one["id"], one["file"], tuple(one["numbers"]))
                for one in told.pop("exchanges")
            )
            self.holds[told["id"]] = Hold(**told, exchanges=exchanges)
        for told in document["deferred"]:
            self.deferred[told["id"]] = Deferred(**told | {"numbers": tuple(told["numbers"])})

    def _write(self) -> None:
        document = {
            "format": FORMAT,
            "holds": [asdict(hold) for hold in self.holds.values()],
            "deferred": [asdict(deferred) for deferred in self.deferred.values()],
        }
        write_durably(self._path, orjson.dumps(document, option=orjson.OPT_SORT_KEYS))

    def hold(self, hold: Hold) -> None:
        """Put a hold in force; its leaf follows. HoldRefused."""
        if hold.id in self.holds or len(self.holds) >= HOLDS_MAX:
            raise HoldRefused(f"hold {hold.id}: known already, or one more than {HOLDS_MAX}")
        if (hold.model is None) == (not hold.exchanges):
            raise HoldRefused(f"hold {hold.id}: a model or some exchanges, one of both")
        self.holds[hold.id] = hold
        self._write()

    def release(self, id: str) -> Hold:
        """End a hold whose release is a leaf already. HoldRefused: there is none."""
        if id not in self.holds:
            raise HoldRefused(f"hold {id}: not in force; in force: {', '.join(self.holds) or '-'}")
        found = self.holds.pop(id)
        self._write()
        return found

    def against(self, numbers: Collection[int], files: Collection[str]) -> tuple[Hold, ...]:
        """The holds that forbid erasing these numbers, whose bodies lie in these files."""
        return against(self.holds.values(), numbers, files)

    def defer(self, deferred: Deferred) -> None:
        """Keep an erasure until nothing holds it back; its leaf (`deferred`) follows."""
        if len(self.deferred) >= DEFERRED_MAX:
            raise HoldRefused(f"{DEFERRED_MAX} erasures wait already")
        self.deferred[deferred.id] = deferred
        self._write()

    def done(self, id: str) -> None:
        """Forget a deferred erasure that was carried out."""
        if self.deferred.pop(id, None) is not None:
            self._write()
