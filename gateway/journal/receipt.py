"""Receipts: what a caller keeps to show, later and to anybody, that its answer was recorded.

The records of one group commit whose callers asked are the leaves of one small RFC 6962 tree, and
the worker signs its root once. A receipt names the exchange, its time and the commitment to its
record, and carries the path to that root. The receipt key lives in a worker's memory only; its
public half is the first record of the worker's run (`receipt_key`), durable before any receipt.

    <format>.<id>.<time>.<commitment>.<index>.<size>.<path>.<key id>.<signature>

The time is in nanoseconds since 1970, as the record's `at`. Path (sibling hashes, the leaf's
first) and signature are base64url without padding.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = 1
HASH_BYTES = 32
SIZE_MAX = 2**32
TEXT_BYTES_MAX = 4096
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_IDENTITY = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,128}")  # printable, without dots and spaces
_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


class BadReceipt(ValueError):
    """The text is no receipt, or what it claims was not signed."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """`commitment` in hex; `index` of `size` statements; `path` and `signature` as bytes."""

    id: str
    time: int
    commitment: str
    index: int
    size: int
    path: tuple[bytes, ...]
    key_id: str
    signature: bytes

    def encode(self) -> str:
        path, signature = _base64(b"".join(self.path)), _base64(self.signature)
        return (
            f"{FORMAT}.{self.id}.{self.time}.{self.commitment}.{self.index}.{self.size}"
            f".{path}.{self.key_id}.{signature}"
        )

    def root(self) -> bytes:
        """The root that the path leads to (RFC 9162, 2.1.3.2). BadReceipt if it has no such
        place."""
        computed = leaf_hash(statement(self.id, self.time, self.commitment))
        place, last = self.index, self.size - 1
        for sibling in self.path:
            if last == 0:
                raise BadReceipt("the path is longer than the tree is high")
            if place & 1 or place == last:
                computed = _node_hash(sibling, computed)
                while not place & 1 and place:
                    place, last = place >> 1, last >> 1
            else:
                computed = _node_hash(computed, sibling)
            place, last = place >> 1, last >> 1
        if last:
            raise BadReceipt("the path ends below the root")
        return computed

    def verify(self, public: bytes) -> None:
        """BadReceipt unless the holder of the 32-byte public key signed it."""
        if key_id(public) != self.key_id:
            raise BadReceipt(f"key {self.key_id} is not the one given, {key_id(public)}")
        signed = root_statement(self.key_id, self.size, self.root())
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, signed)
        except (InvalidSignature, ValueError):
            raise BadReceipt("the signature does not fit") from None


def decode(text: str) -> Receipt:
    """What `Receipt.encode` made, to the letter; BadReceipt names the field that is not."""
    fields = text.split(".") if len(text) <= TEXT_BYTES_MAX else []
    if len(fields) != 9:
        raise BadReceipt(f"a receipt of nine fields joined by dots is wanted, not {text[:80]!r}")
    form, identity, time, commitment, index, size, path, key, signature = fields
    if form != str(FORMAT):
        raise BadReceipt(f"format {form[:20]!r} is not {FORMAT}, which this program reads")
    if _IDENTITY.fullmatch(identity) is None:
        raise BadReceipt(f"id: {identity[:80]!r}")
    number, of = _number("index", index), _number("size", size)
    if not number < of <= SIZE_MAX:
        raise BadReceipt(f"index {number} is not below size {of}")
    hashes = _bytes("path", path)
    if len(hashes) % HASH_BYTES:
        raise BadReceipt(f"path: {len(hashes)} bytes are no whole number of hashes")
    siblings = tuple(hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES))
    _hexadecimal("commitment", commitment, 64)
    _hexadecimal("key id", key, 16)
    signed = _bytes("signature", signature)
    if len(signed) != 64:
        raise BadReceipt(f"signature: {len(signed)} bytes, 64 are wanted")
    return Receipt(identity, _number("time", time), commitment, number, of, siblings, key, signed)


def statement(identity: str, time: int, commitment: str) -> bytes:
    return f"headworks receipt v1\n{identity}\n{time}\n{commitment}\n".encode()


def root_statement(key: str, size: int, root: bytes) -> bytes:
    """The bytes that a receipt key signs."""
    return f"headworks receipts v1\n{key}\n{size}\n{root.hex()}\n".encode()


def key_id(public: bytes) -> str:
    return sha256(public).hexdigest()[:16]


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def tree(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """The levels of an RFC 6962 tree from its leaf hashes (one at least) up to the root.

    An odd last node goes up as it is, which makes the same tree as the RFC's recursion.
    """
    levels = [list(hashes)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = iter(below)
        above = [_node_hash(left, right) for left, right in zip(pairs, pairs)]
        levels.append(above + below[-1:] if len(below) % 2 else above)
    return levels


def path_of(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    """The siblings from leaf `index` up to the root; an odd last node has none."""
    path = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index >>= 1
    return tuple(path)


class ReceiptKey:
    """A worker's signing key; the private half leaves neither this object nor memory."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def __repr__(self) -> str:
        return f"<ReceiptKey {self.id}>"

    def sign(self, records: Sequence[tuple[str, int, str]]) -> list[Receipt]:
        """Receipts for the (id, time, commitment) of one commit, under one signature."""
        levels = tree([leaf_hash(statement(*told)) for told in records])
        signature = self._private.sign(root_statement(self.id, len(records), levels[-1][0]))
        return [
            Receipt(*told, index, len(records), path_of(levels, index), self.id, signature)
            for index, told in enumerate(records)
        ]


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(field: str, text: str) -> bytes:
    if _BASE64.fullmatch(text) is None or len(text) % 4 == 1:
        raise BadReceipt(f"{field}: {text[:80]!r} is not base64url without padding")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _base64(data) != text:  # bits behind the end: a second text for the same bytes
        raise BadReceipt(f"{field}: {text[:80]!r} is not the canonical base64url of its bytes")
    return data


def _number(field: str, text: str) -> int:
    if _DECIMAL.fullmatch(text) is None:
        raise BadReceipt(f"{field}: {text[:80]!r} is not a decimal number")
    return int(text)


def _hexadecimal(field: str, text: str, digits: int) -> None:
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise BadReceipt(f"{field}: {text[:80]!r} is not {digits} lower-case hex digits")
