"""The nouns of the data path, frozen: who asked, what was chosen, what came back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

Arm = Literal["stable", "canary", "control", "shadow", "forced", "holdout", "fallback", "explain"]

Headers = list[tuple[bytes, bytes]]


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


@dataclass(frozen=True, slots=True)
class Choice:
    """Which version answers, and why: enough to say it again from the record."""

    version: str
    arm: Arm
    rule: str
    unit_kind: str
    bucket_ppm: int
    unit_digest: str | None = None
    """Of a rule that a rollout owns: the 64 bits whose first ones are the bucket, in hex. Whoever
    knows the unit can make it, so it is only ever sealed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a version answered, whole. `trailers`: gRPC's metadata behind the message."""

    status: int
    headers: Headers
    body: bytes
    trailers: Headers = field(default_factory=list)


def exchange_id(now_ns: int, random: bytes | None = None) -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, 74 random bits; `random` is 10 bytes."""
    value = bytearray((now_ns // 1_000_000).to_bytes(6, "big") + (random or os.urandom(10)))
    value[6] = value[6] & 0x0F | 0x70
    value[8] = value[8] & 0x3F | 0x80
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
