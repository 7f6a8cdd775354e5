"""The nouns of the data path, not changed once made: who asked, what was chosen, what came back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Arm = Literal["stable", "canary", "control", "shadow", "forced", "holdout", "fallback", "explain"]

Headers = list[tuple[bytes, bytes]]
NEVER_KEPT = frozenset(
    (b"authorization", b"cookie", b"set-cookie", b"x-api-key", b"api-key", b"x-headworks-session")
)
"""Headers that are in no record: whoever has them may act in another's name."""


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    may: frozenset[str]


ANONYMOUS = Caller("anonymous", frozenset())


@dataclass(frozen=True, slots=True)
class Context:
    """Governance context of one exchange: one value for all rows, or one a row."""

    subjects: tuple[str, ...] = ()
    groups: tuple[dict[str, str], ...] = ()


NO_CONTEXT = Context()


@dataclass(slots=True, init=False)
class Choice:
    """Which version answers, and why: enough to say it again from the record. `unit_digest`, of a
    rule that a rollout owns: the 64 bits whose first ones are the bucket, in hex. Whoever knows the
    unit can make it, so it is only ever sealed."""

    version: str
    arm: Arm
    rule: str
    unit_kind: str
    bucket_ppm: int
    unit_digest: str | None

    def __init__(
        self, version: str, arm: Arm, rule: str, unit_kind: str, bucket_ppm: int,
        unit_digest: str | None = None,
    ) -> None:  # fmt: skip
        """Written out, here and below, since one that a dataclass makes is never compiled."""
        self.version, self.arm, self.rule = version, arm, rule
        self.unit_kind, self.bucket_ppm, self.unit_digest = unit_kind, bucket_ppm, unit_digest


@dataclass(slots=True, init=False)
class Reply:
    """What a version answered, whole. `trailers`: gRPC's metadata behind the message."""

    status: int
    headers: Headers
    body: bytes
    trailers: Headers | None

    def __init__(
        self, status: int, headers: Headers, body: bytes, trailers: Headers | None = None
    ) -> None:
        self.status, self.headers, self.body, self.trailers = status, headers, body, trailers


VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def exchange_id(now_ns: int, random: bytes | None = None) -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, 74 random bits; `random` is 10 bytes."""
    text = ((now_ns // 1_000_000).to_bytes(6, "big") + (random or os.urandom(10))).hex()
    return f"{text[:8]}-{text[8:12]}-7{text[13:16]}-{VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


class Randomness:
    """The system's random bytes, a page at a time: a call of its own costs more than what it
    gives. Never shared by two processes: each makes its own."""

    def __init__(self) -> None:
        self._page, self._at = b"", 0

    def take(self, size: int) -> bytes:
        at, end = self._at, self._at + size
        if end > len(self._page):
            self._page, at, end = os.urandom(max(4096, size)), 0, size
        self._at = end
        return self._page[at:end]
