"""Checkpoints: what a log says of itself at one size, and whom we believe it from.

The text is of c2sp.org/tlog-checkpoint, the signatures of c2sp.org/signed-note. `Policy` is the
part of c2sp.org/tlog-policy that an offline reader needs: one log, its witnesses, k of n.

Invariants:
1. A log signs no two checkpoints that contradict each other. This module cannot know that: the
   caller signs only what its durable tree gives, in rising sizes.
2. A checkpoint is opened only with a right signature of the log whose name is its origin, and as
   many right cosignatures of different witnesses as the policy's quorum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.ledger import note
from gateway.ledger.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX
from gateway.ledger.note import (
    CONTROL,
    Malformed,
    Signature,
    SignatureType,
    Signed,
    SigningKey,
    Unsigned,
    VerifierKey,
    decode_base64,
    encode_base64,
)

DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def decode_decimal(text: str) -> int:
    """ASCII decimal of at most 19 digits without leading zeros; Malformed otherwise."""
    if not DECIMAL.fullmatch(text):
        raise Malformed(f"not a decimal number: {text[:80]!r}")
    return int(text)


@dataclass(frozen=True)
class Checkpoint:
    """A log's name, its number of leaves and their root ("Note text").

    `extensions` are lines that others added; we make none and believe none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line or CONTROL.search(line):
                raise Malformed(f"not a line of a checkpoint: {line[:80]!r}")
        if not 0 <= self.size <= SIZE_MAX:
            raise Malformed(f"a tree of {self.size} leaves")
        if len(self.root) != HASH_BYTES:
            raise Malformed(f"a root of {len(self.root)} bytes instead of {HASH_BYTES}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise Malformed("an empty tree has the root SHA-256 of nothing")

    @property
    def text(self) -> str:
        """Origin, size, base64 root, extensions: a line each, the last one ended too."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, text: str) -> Checkpoint:
        """A checkpoint from a note's text; Malformed otherwise. The text is not verified."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "":
            raise Malformed("a checkpoint has three lines at least, each ended by a newline")
        origin, size, root, *extensions = lines
        return cls(origin, decode_decimal(size), decode_base64(root), tuple(extensions))

    def sign(self, key: SigningKey) -> Signature:
        """The log's signature. AssertionError unless the key is named as the origin."""
        assert key.name == self.origin
        return note.sign(self.text, key)


@dataclass(frozen=True)
class Policy:
    """Whom to believe: `log` signs, and `quorum` or more of `witnesses` cosign.

    ValueError where it could not mean what it says: a key of the wrong type, one public key in two
    places (tlog-policy calls them duplicates; a log is no witness of itself), an impossible quorum.
    """

    log: VerifierKey
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        if self.log.type is not SignatureType.ED25519:
            raise ValueError(f"{self.log.name}: a log signs with Ed25519 (0x01)")
        if any(key.type is not SignatureType.COSIGNATURE for key in self.witnesses):
            raise ValueError("a witness signs with cosignature/v1 (0x04)")
        if len({key.public for key in (self.log, *self.witnesses)}) <= len(self.witnesses):
            raise ValueError("one public key is named twice")
        if not 0 <= self.quorum <= len(self.witnesses):
            raise ValueError(f"a quorum of {self.quorum} among {len(self.witnesses)} witnesses")


@dataclass(frozen=True)
class Witnessed:
    """A checkpoint that a policy accepts, and the witnesses' signatures with their times."""

    checkpoint: Checkpoint
    cosignatures: tuple[Signed, ...]


def open_checkpoint(data: bytes, policy: Policy) -> Witnessed:
    """The checkpoint in a signed note, verified. Malformed or Unsigned otherwise.

    Cosignatures of unknown witnesses are ignored; a wrong one of a known witness is Unsigned even
    where the quorum would do without.
    """
    signed_note = note.read(data)
    signed = note.verify(signed_note, (policy.log, *policy.witnesses))
    cosignatures = tuple(each for each in signed if each.key != policy.log)
    if len(cosignatures) == len(signed):
        raise Unsigned(f"the log {policy.log.name} did not sign")
    if len(cosignatures) < policy.quorum:
        raise Unsigned(f"{len(cosignatures)} witnesses cosigned; {policy.quorum} must")
    checkpoint = Checkpoint.read(signed_note.text)
    if checkpoint.origin != policy.log.name:
        raise Unsigned(f"the checkpoint is of the log {checkpoint.origin[:80]!r}")
    return Witnessed(checkpoint, cosignatures)
