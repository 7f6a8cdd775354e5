"""A record's parts: what stands in clear, what is sealed, and how bodies stay apart from our JSON.

The header is canonical JSON that we wrote ourselves: sorted keys, no spaces, nothing personal. The
personal parts (context and kept headers, request bytes, response bytes) follow as counted bytes,
each with its full length and SHA-256, and are encrypted together under the segment's key. A body is
never inside JSON of ours: whatever it contains, it cannot close a record or forge a field.

The header of a record with personal parts holds a *commitment* to them: a hash over the parts'
lengths and digests. The context carries a random `salt`, so that nobody who guesses the parts can
see from the commitment that the guess is right.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = 1
PART = struct.Struct("<QI32s")  # full length, kept length, SHA-256 of the full bytes
PARTS = 3
HEADS = struct.Struct("<" + PARTS * "QI32s")
SALT_BYTES = 16
_COMMITMENT = b"headworks commitment v1\n"


@dataclass(slots=True, init=False)
class Part:
    """Bytes as they were, or the first of them: `length` and `sha256` are of the whole."""

    length: int
    sha256: bytes
    kept: bytes

    def __init__(self, length: int, sha256: bytes, kept: bytes) -> None:
        """Written out, since one that a dataclass makes is never compiled."""
        self.length, self.sha256, self.kept = length, sha256, kept

    @classmethod
    def of(cls, body: bytes, keep: int) -> Part:
        kept = body if len(body) <= keep else body[:keep]
        return cls(len(body), hashlib.sha256(body).digest(), kept)

    @property
    def truncated(self) -> bool:
        return len(self.kept) < self.length


EMPTY = Part.of(b"", 0)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a journal, decoded: `header` in clear, the sealed parts opened."""

    header: dict[str, Any]
    context: dict[str, Any]
    request: Part
    response: Part


def encode_header(header: Mapping[str, Any]) -> bytes:
    return orjson.dumps(header, option=orjson.OPT_SORT_KEYS)


def encode_parts(context: Mapping[str, Any], request: Part, response: Part) -> bytes:
    """The sealed part in clear: three counted parts, then their bytes."""
    text = orjson.dumps(context)
    own = len(text)
    heads = HEADS.pack(
        own, own, hashlib.sha256(text).digest(),
        request.length, len(request.kept), request.sha256,
        response.length, len(response.kept), response.sha256,
    )  # fmt: skip
    return b"".join((heads, text, request.kept, response.kept))


def commitment(parts: bytes) -> str:
    """Hex of SHA-256 over the heads (lengths and digests) of what `encode_parts` made."""
    return hashlib.sha256(_COMMITMENT + parts[: HEADS.size]).hexdigest()


def decode_parts(data: bytes) -> tuple[bytes, Part, Part]:
    """Context (JSON bytes), request, response. ValueError where lengths or digests do not fit."""
    at = PART.size * PARTS
    parts = []
    for number in range(PARTS):
        length, kept, digest = PART.unpack_from(data, PART.size * number)
        piece = data[at : at + kept]
        if len(piece) != kept or (kept == length and hashlib.sha256(piece).digest() != digest):
            raise ValueError(f"part {number} of a record does not fit its length or digest")
        parts.append(Part(length, digest, piece))
        at += kept
    if at != len(data):
        raise ValueError(f"a record has {len(data) - at} bytes behind its parts")
    return parts[0].kept, parts[1], parts[2]


def seal(cipher: AESGCM, sequence: int, header: bytes, parts: bytes) -> bytes:
    """AES-256-GCM; the sequence is the nonce (one key a segment), the header is bound to it."""
    return cipher.encrypt(sequence.to_bytes(12, "big"), parts, header)


def unseal(cipher: AESGCM, sequence: int, header: bytes, sealed: bytes) -> bytes:
    return cipher.decrypt(sequence.to_bytes(12, "big"), sealed, header)


def decode(header: bytes, parts: bytes) -> Record:
    context, request, response = decode_parts(parts)
    return Record(orjson.loads(header), orjson.loads(context), request, response)
