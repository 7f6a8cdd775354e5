"""What the units of an attempt were answered, until a label says whether that was right.

    state/rollouts/<name>.<attempt>.answers      20 bytes each, in the order they came

An entry is the exchange's id (16 bytes), its side (0 canary, 1 control), which rows are waited for
and which of them were favourable (a bit a row), and a zero. A later entry of the same id stands for
it: a row that was told is not waited for any more, so that a label told twice counts once. Ids of
exchanges name no person. Bounded: of more than `KEPT_MAX` the oldest are forgotten.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections import OrderedDict
from pathlib import Path

from gateway.rollout.slices import Side

KEPT_MAX = 100_000
ROWS_MAX = 8
ENTRY = struct.Struct("<16sBBBx")
SIDES: tuple[Side, Side] = ("canary", "control")


class Predictions:
    def __init__(self, folder: Path, name: str, remembered: int = 0) -> None:
        """`remembered`: entries that a snapshot says are in the file. ValueError: it has fewer."""
        self._path = folder / f"{name}.answers"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._waiting: OrderedDict[bytes, tuple[int, int, int]] = OrderedDict()
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
        bits = sum(1 << row for row, good in enumerate(told) if good)
        self._write(uuid.UUID(identity).bytes, SIDES.index(side), (1 << len(told)) - 1, bits)

    def _write(self, identity: bytes, side: int, waiting: int, bits: int) -> None:
        self._fresh.append(ENTRY.pack(identity, side, waiting, bits))
        self._take(identity, side, waiting, bits)

    def _take(self, identity: bytes, side: int, waiting: int, bits: int) -> None:
        if not waiting:
            self._waiting.pop(identity, None)
            return
        self._waiting[identity] = (side, waiting, bits)
        if len(self._waiting) > KEPT_MAX:
            self._waiting.popitem(last=False)
            self.forgotten += 1

    def settle(self, identity: str, row: int, good: bool) -> tuple[Side, bool] | None:
        """Side, and whether the answer was right; None: it is not waited for, or was told."""
        key = uuid.UUID(identity).bytes
        side, waiting, bits = self._waiting.get(key, (0, 0, 0))
        if row >= ROWS_MAX or not waiting >> row & 1:
            return None
        self._write(key, side, waiting & ~(1 << row), bits)
        return SIDES[side], bool(bits >> row & 1) == good

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
