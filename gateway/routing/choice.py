"""Which version answers: pure, and the same on every host, for ever.

`bucket = first 8 bytes of keyed BLAKE2b(unit) as an integer * 1,000,000 >> 64`, keyed by the rule's
salt (a salt over 64 bytes by its digest). Raising a version's share only ever adds buckets to it,
so a unit that has it keeps it. `tests/routing/test_choice.py` publishes vectors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b

from gateway.condition import Asked, first_failed
from gateway.declaration import MILLION
from gateway.exchange import Arm, Choice
from gateway.table import Model, Rule


def bucket_bits(salt: bytes, unit: str) -> int:
    """64 bits of a header's bytes as sent: what is no UTF-8 is in `unit` as surrogates."""
    hashed = _keyed(salt).copy()
    hashed.update(unit.encode("utf-8", "surrogateescape"))
    return int.from_bytes(hashed.digest(), "big")


@lru_cache(maxsize=1024)
def _keyed(salt: bytes) -> blake2b:
    """A hash that has taken its key, to be copied: half of the work of a short unit."""
    return blake2b(digest_size=8, key=salt if len(salt) <= 64 else blake2b(salt).digest())


def bucket_ppm(salt: bytes, unit: str) -> int:
    """0 .. 999,999."""
    return bucket_bits(salt, unit) * MILLION >> 64


def unit_of(chain: tuple[str, ...], headers: dict[bytes, bytes], exchange: str) -> tuple[str, str]:
    """(kind, unit): the first source of the chain that is present and not empty."""
    for source in chain:
        if source == "exchange":
            break
        if source.startswith("header:"):
            value = headers.get(source[7:].encode())
            if value:
                return source, value.decode("utf-8", "surrogateescape")
    return "exchange", exchange


def choose(
    model: Model,
    rule: Rule,
    headers: dict[bytes, bytes],
    exchange: str,
    sequence: str | None = None,
) -> Choice:
    """A sequence stays where it began, whoever asks: its server keeps state between requests."""
    if sequence is not None:
        kind, unit = "sequence", sequence
    else:
        kind, unit = unit_of(model.unit, headers, exchange)
    bits = bucket_bits(rule.salt, unit)
    ppm = bits * MILLION >> 64
    digest = f"{bits:016x}" if rule.rollout is not None else None
    for interval in rule.intervals:
        if interval.low <= ppm < interval.high:
            return Choice(interval.version, interval.arm, rule.name, kind, ppm, digest)
    return Choice(rule.stable, "stable", rule.name, kind, ppm, digest)


def force(version: str, rule: Rule) -> Choice:
    """A version that an allowed caller asked for: outside all evidence."""
    return Choice(version, "forced", rule.name, "forced", -1)


def keep(version: str, rule: Rule, choice: Choice) -> Choice:
    """The version that a session's pin names. Where it is not what the hash says, the exchange is
    outside statistical evidence, as its unit kind tells."""
    if version == choice.version:
        return choice
    arm: Arm = "stable" if version == rule.stable else "canary"
    return replace(choice, version=version, arm=arm, unit_kind="session")


def shadow_salt(rule: Rule, version: str) -> bytes:
    return rule.salt + b"/shadow/" + version.encode()


def shadows(rule: Rule, version: str, exchange: str, asked: Asked) -> list[str]:
    """Versions that get a copy of this exchange: each drawn by a hash of its own, where its
    conditions hold."""
    return [
        copied.version
        for copied in rule.shadows
        if copied.version != version
        and bucket_ppm(shadow_salt(rule, copied.version), exchange) < copied.share
        and (not copied.conditions or first_failed(copied.conditions, asked) is None)
    ]


def asked_again(rule: Rule, share: int, exchange: str) -> bool:
    """Whether the version that answered is asked a second time, to know its own noise; `share` in
    ppm."""
    return share > 0 and bucket_ppm(rule.salt + b"/noise", exchange) < share
