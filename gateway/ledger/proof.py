"""Proofs on their own: that an entry is in a log, in one text file (c2sp.org/tlog-proof).

    c2sp.org/tlog-proof@v1
    extra <base64>              only if there is some; nobody signs it
    index <number>
    <base64 hash>               from the leaf's sibling to the root's child
    <empty line>
    <the checkpoint as it was published, with all its signatures>

Invariant: the file has one encoding, and verifying needs the entry, the file and a policy, nothing
else. What is not covered by a signature, a hash or the policy (extra, unknown signatures) is never
part of the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ledger.checkpoint import Policy, Witnessed, decode_decimal, open_checkpoint
from gateway.ledger.merkle import HASH_BYTES, SIZE_MAX, leaf_hash, verify_inclusion
from gateway.ledger.note import NOTE_BYTES_MAX, Malformed, decode_base64, encode_base64

MAGIC = "c2sp.org/tlog-proof@v1"
EXTRA_BYTES_MAX = 64 * 1024
HASHES_MAX = SIZE_MAX.bit_length()
HEAD_BYTES_MAX = 128 * 1024  # the longest extra as base64, HASHES_MAX hashes, and room


@dataclass(frozen=True)
class Proof:
    """Leaf number, inclusion path of 32-byte hashes, the signed checkpoint's bytes, opaque extra.

    Nothing is verified. Malformed for parts that the format cannot hold.
    """

    number: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.number < SIZE_MAX:
            raise Malformed(f"a leaf of number {self.number}")
        if len(self.path) > HASHES_MAX or any(len(each) != HASH_BYTES for each in self.path):
            raise Malformed(f"a path is at most {HASHES_MAX} hashes of {HASH_BYTES} bytes")
        if len(self.extra) > EXTRA_BYTES_MAX:
            raise Malformed(f"{len(self.extra)} bytes of extra; at most {EXTRA_BYTES_MAX} fit")
        if len(self.checkpoint) > NOTE_BYTES_MAX:
            raise Malformed(f"a checkpoint of {len(self.checkpoint)} bytes")

    def encode(self) -> bytes:
        """The bytes of a `.tlog-proof` file ("Format")."""
        lines = [MAGIC]
        if self.extra:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.number}")
        lines += map(encode_base64, self.path)
        return "\n".join(lines).encode("ascii") + b"\n\n" + self.checkpoint


def read(data: bytes) -> Proof:
    """A proof from the bytes of a `.tlog-proof` file; Malformed otherwise. Nothing is verified."""
    end = data.find(b"\n\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        raise Malformed(f"no empty line in the proof's first {HEAD_BYTES_MAX} bytes")
    try:
        lines = data[:end].decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise Malformed("a proof's head is ASCII") from error
    if lines.pop(0) != MAGIC:
        raise Malformed(f"a proof begins with {MAGIC}")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = decode_base64(lines.pop(0).removeprefix("extra "))
        if not extra:
            raise Malformed("without extra data its line is left out")
    if not lines or not lines[0].startswith("index "):
        raise Malformed("a proof has a line with its index")
    number = decode_decimal(lines.pop(0).removeprefix("index "))
    return Proof(number, tuple(map(decode_base64, lines)), data[end + 2 :], extra)


def verify(entry: bytes, proof: Proof, policy: Policy) -> Witnessed:
    """The checkpoint that holds `entry` at the proof's number, believed by `policy`.

    The steps of "Verifying a tlog proof". Raises Malformed (the checkpoint is none), Unsigned (not
    signed as the policy asks) or Unproven (the entry is not there).
    """
    witnessed = open_checkpoint(proof.checkpoint, policy)
    checkpoint = witnessed.checkpoint
    verify_inclusion(leaf_hash(entry), proof.number, checkpoint.size, proof.path, checkpoint.root)
    return witnessed
