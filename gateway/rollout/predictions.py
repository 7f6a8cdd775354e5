"""What the units of an attempt were answered, until a label says whether that was right.

    state/rollouts/<name>.<attempt>.answers      20 bytes each, in the order they came

An entry is the exchange's id (16 bytes), its side (0 canary, 1 control, 2 pair), which rows are
waited for, which of them were favourable and, of a pair, which of the shadow's were (a bit a row).
A pair stands under the id of its primary, whose labels are told. A later entry of the same id
stands for it: a row that was told is not waited for any more, so that a label told twice counts
once. Ids of exchanges name no person. Bounded: of more than `KEPT_MAX` the oldest are forgotten.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from gateway.rollout.slices import Side

KEPT_MAX = 100_000
ROWS_MAX = 8
ENTRY = struct.Struct("<16sBBBB")
SIDES: tuple[Side, Side] = ("canary", "control")
PAIR = 2


class Predictions:
    def __init__(self, folder: Path, name: str, remembered: int = 0) -> None:
        """`remembered`: entries that a snapshot says are in the file. ValueError: it has fewer."""
        self._path = folder / f"{name}.answers"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._waiting: OrderedDict[tuple[bytes, bool], tuple[int, int, int, int]] = OrderedDict()
        self._fresh: list[bytes] = []
        self.remembered = remembered
        self.forgotten = 0
        data = os.pread(self._file, remembered * ENTRY.size, 0)
        if len(data) != remembered * ENTRY.size:
            raise ValueError(f"{self._path} has fewer than {remembered} answers")
        os.ftruncate(self._file, len(data))
        for entry in ENTRY.iter_unpack(data):
            self._take(*entry)

    def add(self, identity: str, side: Side, favourable: tuple[bool | None, ...]) -> None:
        """An exchange that counted; rows without an outcome are not waited for."""
        if None in favourable or not favourable:
            return
        told = favourable[:ROWS_MAX]
        self._write(uuid.UUID(identity).bytes, SIDES.index(side), (1 << len(told)) - 1,
                    _bits(told), 0)  # fmt: skip

    def add_pair(self, identity: str, outcomes: tuple[tuple[bool, bool] | None, ...]) -> None:
        """Whether the primary's and the shadow's outcome was favourable, by row."""
        told = [one for one in outcomes if one is not None]
        if not told or len(told) < len(outcomes):
            return
        primary, shadow = (_bits([one[which] for one in told]) for which in (0, 1))
        self._write(uuid.UUID(identity).bytes, PAIR, (1 << len(told)) - 1, primary, shadow)

    def _write(self, identity: bytes, side: int, waiting: int, bits: int, shadows: int) -> None:
        self._fresh.append(ENTRY.pack(identity, side, waiting, bits, shadows))
        self._take(identity, side, waiting, bits, shadows)

    def _take(self, identity: bytes, side: int, waiting: int, bits: int, shadows: int) -> None:
        key = identity, side == PAIR
        if not waiting:
            self._waiting.pop(key, None)
            return
        self._waiting[key] = (side, waiting, bits, shadows)
        if len(self._waiting) > KEPT_MAX:
            self._waiting.popitem(last=False)
            self.forgotten += 1

    def settle(self, identity: str, row: int, good: bool) -> tuple[Side, bool] | None:
        """Side, and whether the answer was right; None: it is not waited for, or was told."""
        found = self._settle(uuid.UUID(identity).bytes, False, row)
        return (SIDES[found[0]], bool(found[1] >> row & 1) == good) if found is not None else None

    def settle_pair(self, identity: str, row: int, good: bool) -> tuple[bool, bool] | None:
        """Of a primary's label: whether its own answer was right, and whether the shadow's was."""
        found = self._settle(uuid.UUID(identity).bytes, True, row)
        if found is None:
            return None
        return bool(found[1] >> row & 1) == good, bool(found[2] >> row & 1) == good

    def _settle(self, identity: bytes, paired: bool, row: int) -> tuple[int, int, int] | None:
        """Side and outcomes of what is waited for; this row is not waited for any more."""
        side, waiting, bits, shadows = self._waiting.get((identity, paired), (0, 0, 0, 0))
        if row >= ROWS_MAX or not waiting >> row & 1:
            return None
        self._write(identity, side, waiting & ~(1 << row), bits, shadows)
        return side, bits, shadows

    def flush(self) -> int:
        """Make what came since the last time durable; how many entries the file has."""
        if self._fresh:
            data = b"".join(self._fresh)
            if os.pwrite(self._file, data, self.remembered * ENTRY.size) != len(data):
                raise OSError(f"a write to {self._path} was short")
            os.fdatasync(self._file)
            self.remembered += len(self._fresh)
            self._fresh.clear()
        return self.remembered

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def forget(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)


def _bits(favourable: Sequence[bool | None]) -> int:
    return sum(1 << row for row, good in enumerate(favourable) if good)
