"""Which units an attempt has seen: so that each counts once, by its first exchange.

A unit is known here only by a digest of its digest under a random key of the attempt. Key and file
go when the attempt ends: nothing that could be compared with a list of people outlives it. In
memory the registry is a Bloom filter of fixed size. A false positive leaves a fresh unit out, at
random and in both arms alike (one of 3,000 when it is full): it costs evidence, never validity.

    keys/rollouts/<name>.<attempt>.key      32 random bytes
    state/rollouts/<name>.<attempt>.units   8 bytes a unit, in the order they came

Invariant: `remembered` units of the file are durable when a snapshot says so; what lies behind them
a crash left, and it is cut and learnt again from the ledger.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from gateway.disk import sync_folder, write_durably

UNITS_MAX = 2_000_000
"""Units of one attempt; those beyond count in no statistic, and are counted as such."""
BITS = 1 << 25
HASHES = 11
UNIT_BYTES = 8


class Units:
    def __init__(self, folder: Path, keys: Path, name: str, remembered: int = 0) -> None:
        """`name`: of the attempt; `remembered`: how many units the snapshot says are in the file.

        ValueError: the file is shorter than that, or the key is gone.
        """
        self._path = folder / f"{name}.units"
        self._key_path = keys / "rollouts" / f"{name}.key"
        self._bits = bytearray(BITS // 8)
        self._fresh: list[bytes] = []
        self.remembered = 0
        self.refused = 0
        if remembered and not self._key_path.exists():
            raise ValueError(f"{self._key_path} is gone: units cannot be told apart")
        self._key = self._secret()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        sync_folder(folder)
        self._learn(remembered)

    def _secret(self) -> bytes:
        if not self._key_path.exists():
            self._key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._key_path, os.urandom(32))
        return self._key_path.read_bytes()

    def _learn(self, count: int) -> None:
        data = os.pread(self._file, count * UNIT_BYTES, 0)
        if len(data) != count * UNIT_BYTES:
            raise ValueError(f"{self._path} has fewer than {count} units")
        os.ftruncate(self._file, len(data))
        for start in range(0, len(data), UNIT_BYTES):
            self._add(data[start : start + UNIT_BYTES])
        self.remembered = count

    def is_first(self, kind: str, digest: str) -> bool:
        """Whether this is the unit's first exchange of its kind; from now on it is known.

        `kind`: arms and a shadow's pairs have registries of their own.
        """
        told = blake2b(f"{kind}/{digest}".encode(), digest_size=UNIT_BYTES, key=self._key).digest()
        if self._has(told):
            return False
        if self.remembered + len(self._fresh) >= UNITS_MAX:
            self.refused += 1
            return False
        self._add(told)
        self._fresh.append(told)
        return True

    def _places(self, told: bytes) -> list[int]:
        number = int.from_bytes(told, "big")
        first, second = number >> 32, (number & 0xFFFFFFFF) | 1
        return [(first + turn * second) % BITS for turn in range(HASHES)]

    def _has(self, told: bytes) -> bool:
        return all(self._bits[at >> 3] >> (at & 7) & 1 for at in self._places(told))

    def _add(self, told: bytes) -> None:
        for at in self._places(told):
            self._bits[at >> 3] |= 1 << (at & 7)

    def flush(self) -> int:
        """Make what came since the last time durable; how many units the file holds."""
        if self._fresh:
            data = b"".join(self._fresh)
            offset = self.remembered * UNIT_BYTES
            if os.pwrite(self._file, data, offset) != len(data):
                raise OSError(f"a write to {self._path} was short")
            os.fdatasync(self._file)
            self.remembered += len(self._fresh)
            self._fresh.clear()
        return self.remembered

    def forget(self) -> None:
        """The attempt is over: neither file nor key is of use to anybody."""
        self.close()
        for path in (self._path, self._key_path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
