"""Legal holds: what must neither be dropped nor erased, and the erasures that wait for them.

    state/holds.json     {"format": 2, "sha256": ..., "told": {"holds": [...], "deferred": [...]}}

A hold is of a model, or of some exchanges by place and key numbers. It is in force before its leaf
is written, and its release is a leaf before it ends: a crash between leaves more held, never less.
Several holds of one thing are apart: each ends by itself. `sha256` is of `told` as it stands in the
file, which is written whole: where it does not fit, what is held is not known (`damage`), and
nothing may be destroyed. Format 1 had no digest and is read as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from gateway.disk import write_durably

FORMAT = 2
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
    """The governor's; every change is durable on return. `damage`: why the file cannot be believed;
    None where it can. No change is made then."""

    def __init__(self, state: Path) -> None:
        self._path = state / "holds.json"
        self.holds: dict[str, Hold] = {}
        self.deferred: dict[str, Deferred] = {}
        self.damage: str | None = None
        if self._path.exists():
            try:
                self._take(_checked(self._path.read_bytes()))
            except (ValueError, KeyError, TypeError) as error:
                self.holds, self.deferred = {}, {}
                self.damage = f"{self._path} is damaged, restore it from a backup: {error!s:.200}"

    def _take(self, told: dict[str, Any]) -> None:
        for one in told["holds"]:
            exchanges = tuple(
                HeldExchange(each["id"], each["file"], tuple(each["numbers"]))
                for each in one.pop("exchanges")
            )
            self.holds[one["id"]] = Hold(**one, exchanges=exchanges)
        for one in told["deferred"]:
            self.deferred[one["id"]] = Deferred(**one | {"numbers": tuple(one["numbers"])})

    def _write(self) -> None:
        told = orjson.dumps(
            {
                "holds": [asdict(hold) for hold in self.holds.values()],
                "deferred": [asdict(deferred) for deferred in self.deferred.values()],
            },
            option=orjson.OPT_SORT_KEYS,
        )
        head = b'{"format":%d,"sha256":"%b","told":' % (FORMAT, sha256(told).hexdigest().encode())
        write_durably(self._path, head + told + b"}")

    def _believed(self) -> None:
        if self.damage is not None:
            raise HoldRefused(self.damage)

    def hold(self, hold: Hold) -> None:
        """Put a hold in force; its leaf follows. HoldRefused."""
        self._believed()
        if hold.id in self.holds or len(self.holds) >= HOLDS_MAX:
            raise HoldRefused(f"hold {hold.id}: known already, or one more than {HOLDS_MAX}")
        if (hold.model is None) == (not hold.exchanges):
            raise HoldRefused(f"hold {hold.id}: a model or some exchanges, one of both")
        self.holds[hold.id] = hold
        self._write()

    def release(self, id: str) -> Hold:
        """End a hold whose release is a leaf already. HoldRefused: there is none."""
        self._believed()
        if id not in self.holds:
            raise HoldRefused(f"hold {id}: not in force; in force: {', '.join(self.holds) or '-'}")
        found = self.holds.pop(id)
        self._write()
        return found

    def against(self, numbers: Collection[int], files: Collection[str]) -> tuple[Hold, ...]:
        """The holds that forbid erasing these numbers, whose bodies lie in these files.
        HoldRefused where they are not known."""
        self._believed()
        return against(self.holds.values(), numbers, files)

    def defer(self, deferred: Deferred) -> None:
        """Keep an erasure until nothing holds it back; its leaf (`deferred`) follows."""
        self._believed()
        if len(self.deferred) >= DEFERRED_MAX:
            raise HoldRefused(f"{DEFERRED_MAX} erasures wait already")
        self.deferred[deferred.id] = deferred
        self._write()

    def done(self, id: str) -> None:
        """Forget a deferred erasure that was carried out."""
        if self.deferred.pop(id, None) is not None:
            self._write()


def _checked(data: bytes) -> dict[str, Any]:
    """What the file says. ValueError where its digest does not fit, or its format is not known."""
    document: dict[str, Any] = orjson.loads(data)
    if document["format"] == 1:
        return document
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}; {FORMAT} is known")
    told = data.partition(b'"told":')[2][:-1]
    if document["sha256"] != sha256(told).hexdigest():
        raise ValueError("its digest does not fit")
    found: dict[str, Any] = document["told"]
    return found
