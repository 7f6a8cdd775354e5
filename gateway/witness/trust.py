"""Whose logs a witness follows.

A log is named by its origin and signs with a key of that name. Headworks opens a log for each model
and quarter, `NAME/models/…`, all signed by the key of `NAME/root`: who trusts `NAME/root` trusts
that public key under the name of each origin `NAME/…`. Any other vkey stands for itself alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.ledger.note import Malformed, SignatureType, VerifierKey

ORIGIN_BYTES_MAX = 512
ROOT = "/root"


@dataclass(frozen=True)
class Trust:
    """The keys of logs, as their vkeys say."""

    keys: tuple[VerifierKey, ...]

    @classmethod
    def of(cls, vkeys: Iterable[str]) -> Trust:
        """Malformed for a vkey that is none, or not of a key with which a log signs."""
        keys = tuple(map(VerifierKey.parse, vkeys))
        for key in keys:
            if key.type is not SignatureType.ED25519:
                raise Malformed(f"{key.name}: the key of a witness; a log signs with Ed25519")
        return cls(keys)

    def keys_of(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys with which `origin` may sign; none where it is unknown."""
        if len(origin.encode()) > ORIGIN_BYTES_MAX:
            return ()
        publics = {key.public: None for key in self.keys if _covers(key.name, origin)}
        try:
            return tuple(VerifierKey(origin, SignatureType.ED25519, each) for each in publics)
        except Malformed:  # an origin that cannot be a key's name has no key
            return ()


def _covers(name: str, origin: str) -> bool:
    if name == origin:
        return True
    return name.endswith(ROOT) and origin.startswith(name.removesuffix("root"))
