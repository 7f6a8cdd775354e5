"""What a log sends to a witness: `POST /add-checkpoint` of c2sp.org/tlog-witness, written and read.

    old <size>
    <base64 of a proof's hash>      none to 63 of these
                                    an empty line
    <signed checkpoint>

Reading believes nothing: signatures and proofs are judged in `gateway/witness/verdict.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ledger import note
from gateway.ledger.checkpoint import decode_decimal
from gateway.ledger.merkle import HASH_BYTES, SIZE_MAX
from gateway.ledger.note import Malformed, Note, decode_base64, encode_base64

PROOF_HASHES_MAX = 63
BODY_BYTES_MAX = 128 * 1024
"""A proof and a checkpoint with 16 of the largest signatures known (ML-DSA-44) take half of it."""


@dataclass(frozen=True)
class Submission:
    """`old`: the size from which `proof` leads to the checkpoint in `note`."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def encode(self) -> bytes:
        lines = [f"old {self.old}", *map(encode_base64, self.proof), "", ""]
        return "\n".join(lines).encode() + self.note.encode()

    @classmethod
    def read(cls, body: bytes) -> Submission:
        """Malformed where the body is not of the form above."""
        head, separator, signed = body.partition(b"\n\n")
        if not separator:
            raise Malformed("an empty line stands between proof and checkpoint")
        try:
            first, *hashes = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise Malformed("old size and proof are ASCII") from error
        if not first.startswith("old "):
            raise Malformed(f"not an old size: {first[:80]!r}")
        if len(hashes) > PROOF_HASHES_MAX:
            raise Malformed(f"a proof of {len(hashes)} hashes; at most {PROOF_HASHES_MAX} are read")
        old = decode_decimal(first.removeprefix("old "))
        if old > SIZE_MAX:
            raise Malformed(f"an old size of {old} leaves; at most {SIZE_MAX} are known")
        proof = tuple(map(decode_base64, hashes))
        if any(len(each) != HASH_BYTES for each in proof):
            raise Malformed(f"a hash of the proof is not {HASH_BYTES} bytes long")
        return cls(old, proof, note.read(signed))
