"""Signed notes: a text and the signatures of those who stand for it (c2sp.org/signed-note).

Invariants:
1. A note has exactly one encoding: base64 is canonical, numbers have no leading zeros, nothing
   follows the last line. Who changes a byte of the text or of a known signature changes the
   verdict.
2. Signatures of unknown keys are kept and ignored; one of a known key that is wrong refuses the
   whole note; without a right one of a known key there is no note.
3. A key signs one way: Ed25519 over the text (0x01) or, as a witness, `cosignature/v1` over time
   and text (0x04, c2sp.org/tlog-cosignature). The way is part of the key's ID.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NOTE_BYTES_MAX = 1024**2
SIGNATURES_MAX = 64  # the specification asks for 16 at least
TIMESTAMP_MAX = 2**63 - 1
KEY_BYTES = 32
ID_BYTES = 4
DASH = "\u2014 "
TIMESTAMP = struct.Struct(">Q")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
KEY_ID = re.compile(r"[0-9a-f]{8}")
PRIVATE = "PRIVATE+KEY+"


class Malformed(ValueError):
    """The bytes are not of the format they should have; the message says where."""


class Unsigned(Exception):
    """A signature that is needed is missing, or one of a known key is wrong."""


class SignatureType(IntEnum):
    """The first byte of a key ("Signature types")."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Standard base64 in its one canonical form; Malformed otherwise."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"not base64: {text[:80]!r}") from error
    if encode_base64(data) != text:
        raise Malformed(f"not canonical base64: {text[:80]!r}")
    return data


def _check_name(name: str) -> None:
    """Key names are not empty and have neither Unicode spaces nor plus nor control characters."""
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise Malformed(f"not a key name: {name[:80]!r}")


def _check_text(text: str) -> None:
    if not text.endswith("\n") or CONTROL.search(text):
        raise Malformed("a note's text ends in a newline and has no other control character")


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name and the way it signs under; `str()` is its vkey."""

    name: str
    type: SignatureType
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public) != KEY_BYTES:
            raise Malformed(f"a public key of {len(self.public)} bytes instead of {KEY_BYTES}")

    @property
    def id(self) -> bytes:
        """First four bytes of SHA-256(name, newline, type, public key) ("Signatures")."""
        named = self.name.encode() + b"\n" + bytes([self.type]) + self.public
        return sha256(named).digest()[:ID_BYTES]

    def __str__(self) -> str:
        """`<name>+<hex ID>+<base64 of type and key>` ("Verifier keys")."""
        key = encode_base64(bytes([self.type]) + self.public)
        return f"{self.name}+{self.id.hex()}+{key}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Malformed for another form, an unknown type or an ID that is not the key's."""
        key = cls(*_key_parts(vkey))
        _check_id(vkey, key)
        return key


@dataclass(frozen=True)
class SigningKey:
    """A private key: the 32-byte seed of RFC 8032, which no repr shows."""

    name: str
    type: SignatureType
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.seed) != KEY_BYTES:
            raise Malformed(f"a seed of {len(self.seed)} bytes instead of {KEY_BYTES}")

    @property
    def verifier(self) -> VerifierKey:
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return VerifierKey(self.name, self.type, public)

    def encode(self) -> str:
        """`PRIVATE+KEY+<name>+<hex ID>+<base64 of type and seed>`, the form of Go's note package.

        The specification leaves private keys to the implementation. Not `str()`, so that no log
        line prints it by accident.
        """
        key = encode_base64(bytes([self.type]) + self.seed)
        return f"{PRIVATE}{self.name}+{self.verifier.id.hex()}+{key}"

    @classmethod
    def parse(cls, skey: str) -> SigningKey:
        """Malformed as for a vkey; the message never holds the key."""
        if not skey.startswith(PRIVATE):
            raise Malformed(f"a signing key begins with {PRIVATE}")
        encoded = skey.removeprefix(PRIVATE)
        try:
            key = cls(*_key_parts(encoded))
            _check_id(encoded, key.verifier)
        except Malformed:
            raise Malformed("not a signing key") from None
        return key


def _key_parts(encoded: str) -> tuple[str, SignatureType, bytes]:
    """Name, type and key bytes of `<name>+<hex ID>+<base64>`."""
    parts = encoded.split("+", 2)
    if len(parts) != 3 or not KEY_ID.fullmatch(parts[1]):
        raise Malformed(f"not <name>+<ID>+<key>: {encoded[:200]!r}")
    key = decode_base64(parts[2])
    if key[:1] not in (b"\x01", b"\x04"):
        raise Malformed(f"{parts[0]}: signature type 0x{key[:1].hex()} is not known")
    return parts[0], SignatureType(key[0]), key[1:]


def _check_id(encoded: str, key: VerifierKey) -> None:
    if encoded.split("+", 2)[1] != key.id.hex():
        raise Malformed(f"{key.name}: the key's ID is {key.id.hex()}, not the one given")


@dataclass(frozen=True)
class Signature:
    """One signature line: who says to have signed, and 1 or more bytes of signature."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True)
class Note:
    """A text, ending in a newline, and its signatures in order. Not verified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return (self.text + "\n" + "".join(map(str, self.signatures))).encode()


@dataclass(frozen=True)
class Signed:
    """A signature that was checked. `timestamp`: POSIX seconds of a cosignature, None without."""

    key: VerifierKey
    timestamp: int | None = None


def _read_signature(line: str) -> Signature:
    parts = line.removeprefix(DASH).split(" ")
    if not line.startswith(DASH) or len(parts) != 2:
        raise Malformed(f"not a signature line: {line[:80]!r}")
    _check_name(parts[0])
    data = decode_base64(parts[1])
    if len(data) <= ID_BYTES:
        raise Malformed(f"the signature of {parts[0]} is empty")
    return Signature(parts[0], data[:ID_BYTES], data[ID_BYTES:])


def read(data: bytes) -> Note:
    """A note from its bytes, as "Format" has it; Malformed otherwise.

    Over NOTE_BYTES_MAX bytes or SIGNATURES_MAX signatures is malformed too.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise Malformed(f"a note of {len(data)} bytes; at most {NOTE_BYTES_MAX} are read")
    try:
        decoded = data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("a note is UTF-8") from error
    _check_text(decoded)
    # The text itself may hold empty lines: the last one separates.
    before, separator, behind = decoded[:-1].rpartition("\n\n")
    if not separator:
        raise Malformed("a note has an empty line between text and signatures")
    lines = behind.split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise Malformed(f"a note of {len(lines)} signatures; at most {SIGNATURES_MAX} are read")
    return Note(before + "\n", tuple(map(_read_signature, lines)))


def sign(text: str, key: SigningKey) -> Signature:
    """An Ed25519 signature over the text ("Ed25519 signatures")."""
    assert key.type is SignatureType.ED25519
    _check_text(text)
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    return Signature(key.name, key.verifier.id, private.sign(text.encode()))


def cosign(text: str, key: SigningKey, timestamp: int) -> Signature:
    """A witness's `cosignature/v1` over a checkpoint's text at `timestamp`, POSIX seconds."""
    assert key.type is SignatureType.COSIGNATURE
    assert 0 <= timestamp <= TIMESTAMP_MAX
    _check_text(text)
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    signature = private.sign(_cosigned(text, timestamp))
    return Signature(key.name, key.verifier.id, TIMESTAMP.pack(timestamp) + signature)


def _cosigned(text: str, timestamp: int) -> bytes:
    """The message of tlog-cosignature, "Ed25519 signed message"."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def _check(text: str, key: VerifierKey, signature: bytes) -> Signed:
    message, timestamp = text.encode(), None
    if key.type is SignatureType.COSIGNATURE:
        if len(signature) < TIMESTAMP.size:
            raise Unsigned(f"the cosignature of {key.name} is too short")
        timestamp = TIMESTAMP.unpack_from(signature)[0]
        if timestamp > TIMESTAMP_MAX:
            raise Unsigned(f"the cosignature of {key.name} has an impossible time")
        message, signature = _cosigned(text, timestamp), signature[TIMESTAMP.size :]
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature as error:
        raise Unsigned(f"the signature of {key.name} is wrong") from error
    return Signed(key, timestamp)


def verify(note: Note, keys: Sequence[VerifierKey]) -> tuple[Signed, ...]:
    """Who of `keys` signed: each key once, with its first signature in the note.

    Unsigned if one of them has a wrong signature or none has a right one ("Signatures").
    ValueError for two keys of one name and ID.
    """
    known = _by_name_and_id(keys)
    signed: dict[VerifierKey, Signed] = {}
    for line in note.signatures:
        key = known.get((line.name, line.key_id))
        if key is not None:
            signed.setdefault(key, _check(note.text, key, line.signature))
    if not signed:
        raise Unsigned("no known key signed the note")
    return tuple(signed.values())


def _by_name_and_id(keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise ValueError(f"two keys are named {key.name} and have the ID {key.id.hex()}")
    return known
