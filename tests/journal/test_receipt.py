"""Receipts: pure, canonical, and agreeing with an independent Merkle tree."""

import asyncio
import hashlib
import os

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from test_journal import opened

from gateway.journal import record
from gateway.journal.reader import JournalReader
from gateway.journal.receipt import (
    BadReceipt,
    ReceiptKey,
    decode,
    leaf_hash,
    path_of,
    statement,
    tree,
)
from gateway.ledger import merkle

KEY = ReceiptKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
COMMITMENT = "ab" * 32


@given(st.integers(1, 80))
def test_the_batch_s_tree_is_rfc_6962_s(size):
    """Root and each path are those of the ledger's own, independently tested, Merkle code."""
    leaves = [b"%d" % number for number in range(size)]
    levels = tree([leaf_hash(leaf) for leaf in leaves])
    edge = merkle.RightEdge()
    edge.extend(merkle.leaf_hash(leaf) for leaf in leaves)

    assert levels[-1] == [edge.root()]
    for index, leaf in enumerate(leaves):
        merkle.verify_inclusion(
            merkle.leaf_hash(leaf), index, size, path_of(levels, index), edge.root()
        )


@given(st.integers(1, 40))
def test_a_receipt_is_decoded_and_verified(size):
    """Text and back gives the same receipt, which verifies under the key and no other."""
    told = [
        (f"id-{number}", 1_700_000_000_000_000_000 + number, COMMITMENT) for number in range(size)
    ]
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    for receipt in KEY.sign(told):
        read = decode(receipt.encode())

        assert read == receipt
        read.verify(KEY.public)
        with pytest.raises(BadReceipt):
            read.verify(other)


def test_a_receipt_s_bytes_are_those_that_were_published():
    """The released format, to the byte, and its signature made outside this module."""
    told = ("0199-x", 1_763_900_000_000_000_000, COMMITMENT)
    text = KEY.sign([told])[0].encode()
    root = hashlib.sha256(
        b"\0" + b"headworks receipt v1\n0199-x\n1763900000000000000\n" + COMMITMENT.encode() + b"\n"
    ).hexdigest()
    public = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    key = hashlib.sha256(public).hexdigest()[:16]
    fields = text.split(".")

    assert statement(*told).startswith(b"headworks receipt v1\n")
    assert fields[:8] == ["1", "0199-x", "1763900000000000000", COMMITMENT, "0", "1", "", key]
    signed = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(
        f"headworks receipts v1\n{key}\n1\n{root}\n".encode()
    )
    assert decode(text).signature == signed


@pytest.mark.parametrize("index", [0, 4, 6])
def test_no_changed_character_leaves_a_receipt_valid(index):
    """Each single character replaced is refused at reading or does not verify."""
    told = [(f"id{number}", number, COMMITMENT) for number in range(7)]
    text = KEY.sign(told)[index].encode()
    decode(text).verify(KEY.public)
    for at, letter in enumerate(text):
        for other in {"0", "1", "A", "b", "-", "."} - {letter}:
            with pytest.raises(BadReceipt):
                decode(text[:at] + other + text[at + 1 :]).verify(KEY.public)


@given(st.text(max_size=200))
def test_any_other_text_is_no_receipt(text):
    """Whatever is given, the answer is BadReceipt and nothing else."""
    with pytest.raises(BadReceipt):
        decode(text)


def test_receipts_come_with_one_signature_a_commit_and_agree_with_the_records(tmp_path):
    """Those who asked get one, others none; key and commitments are read back from the journal."""

    def entry(number):
        parts = record.encode_parts({"salt": os.urandom(16).hex()}, record.EMPTY, record.EMPTY)
        return {"id": f"x{number}", "at": number, "commitment": record.commitment(parts)}, parts

    async def main():
        journal = await opened(tmp_path, receipt_key=KEY)
        some = await asyncio.gather(
            *(journal.append(*entry(n), receipt=n % 2 == 0, durable=n % 3 > 0) for n in range(9))
        )
        none = await journal.append(*entry(99))
        await journal.close()
        return journal, some, none

    journal, some, none = asyncio.run(main())
    first, *records = [
        (orjson.loads(each.header), each.parts) for each in JournalReader(journal.folder).read(99)
    ]

    assert (first[0]["kind"], first[0]["id"]) == ("receipt_key", KEY.id)
    assert (none, [each is not None for each in some]) == (None, [True, False] * 4 + [True])
    assert (journal.statistics.receipts, journal.statistics.signatures) == (5, 1)
    for receipt in filter(None, some):
        header, parts = next(each for each in records if each[0]["id"] == receipt.id)
        receipt.verify(bytes.fromhex(first[0]["public"]))
        assert (receipt.commitment, receipt.time) == (record.commitment(parts), header["at"])
