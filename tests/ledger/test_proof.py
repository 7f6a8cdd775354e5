"""Proofs in one file: they come back as written, verify by a policy, and break when touched."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.checkpoint import Checkpoint, Policy
from gateway.ledger.merkle import (
    SIZE_MAX,
    Unproven,
    leaf_hash,
    parents,
    prove_inclusion,
    root_of,
)
from gateway.ledger.note import Malformed, Note, SignatureType, SigningKey, Unsigned, cosign
from gateway.ledger.proof import EXTRA_BYTES_MAX, HASHES_MAX, Proof, read, verify

LOG = SigningKey("log.example/a", SignatureType.ED25519, b"\x01" * 32)
WITNESS = SigningKey("witness.example/w", SignatureType.COSIGNATURE, b"\x02" * 32)
POLICY = Policy(LOG.verifier, (WITNESS.verifier,), 1)
ENTRIES = [f"entry {number}".encode() for number in range(40)]
ROWS = [[leaf_hash(entry) for entry in ENTRIES]]
while len(ROWS[-1]) > 1:
    ROWS.append(parents(ROWS[-1]))
# The example of tlog-proof.md; its extra data and signatures are shortened there, so not here.
EXAMPLE_HEAD = """\
c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

"""
EXAMPLE_CHECKPOINT = """\
example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog AAAAAAA=
"""


def node(height: int, index: int) -> bytes:
    return ROWS[height][index]


def published(size: int) -> bytes:
    point = Checkpoint(LOG.name, size, root_of(size, node))
    return Note(point.text, (point.sign(LOG), cosign(point.text, WITNESS, 1_700_000_000))).encode()


def proof_of(number: int, size: int, extra: bytes = b"") -> Proof:
    return Proof(number, prove_inclusion(number, size, node), published(size), extra)


def proves(entry: bytes, data: bytes, policy: Policy = POLICY) -> bool:
    try:
        verify(entry, read(data), policy)
    except (Malformed, Unsigned, Unproven):
        return False
    return True


def test_the_example_of_the_specification():
    """The head of tlog-proof.md's example is read: index, five hashes, extra; and written again."""
    data = (EXAMPLE_HEAD + EXAMPLE_CHECKPOINT).encode()
    proof = read(data)
    assert (73894, 5, b"age-v1.2.1-darwin-arm64.tar.gz") == (
        proof.number,
        len(proof.path),
        proof.extra,
    )
    assert "812" == proof.path[0].hex()[:3]
    assert EXAMPLE_CHECKPOINT.encode() == proof.checkpoint
    assert data == proof.encode()


@settings(deadline=None)
@given(
    st.integers(0, SIZE_MAX - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=HASHES_MAX),
    st.binary(max_size=200),
    st.binary(max_size=200),
)
def test_proofs_come_back(number, path, checkpoint, extra):
    """Any proof comes back from its file; the checkpoint's bytes are untouched."""
    proof = Proof(number, tuple(path), checkpoint, extra)
    assert proof == read(proof.encode())


def test_every_entry_of_every_tree_verifies():
    """Each entry of all trees up to 40 is proven by its own proof, and no other entry is."""
    for size in range(1, 41):
        note = published(size)
        for number in range(size):
            proof = Proof(number, prove_inclusion(number, size, node), note)
            witnessed = verify(ENTRIES[number], proof, POLICY)
            assert (size, LOG.name) == (witnessed.checkpoint.size, witnessed.checkpoint.origin)
            assert [1_700_000_000] == [each.timestamp for each in witnessed.cosignatures]
            with pytest.raises(Unproven):
                verify(ENTRIES[(number + 1) % 40], proof, POLICY)


@pytest.mark.parametrize(("number", "size"), [(0, 1), (0, 6), (5, 6), (12, 40)])
def test_every_flipped_bit_is_refused(number, size):
    """Each bit of entry or file, flipped, leaves nothing proven."""
    data, entry = proof_of(number, size).encode(), ENTRIES[number]
    assert proves(entry, data)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert not proves(entry, bytes(changed)), bit
    for bit in range(8 * len(entry)):
        other = bytearray(entry)
        other[bit // 8] ^= 1 << bit % 8
        assert not proves(bytes(other), data), bit


def test_every_shortened_file_is_refused():
    """A file cut anywhere, or with a byte more, proves nothing."""
    data = proof_of(5, 6).encode()
    assert [] == [end for end in range(len(data)) if proves(ENTRIES[5], data[:end])]
    assert not proves(ENTRIES[5], data + b"\n")


def test_the_size_is_bound_by_the_checkpoint():
    """Leaf 0 has one path in trees of 5 to 8, but a checkpoint with another size is not signed."""
    data = proof_of(0, 6).encode()
    assert 1 == data.count(b"\n6\n")
    assert not proves(ENTRIES[0], data.replace(b"\n6\n", b"\n7\n"))


def test_a_proof_of_another_tree_does_not_fit():
    """A path made for one size does not verify under the checkpoint of another."""
    for size in (7, 8, 12, 39):
        mixed = Proof(5, proof_of(5, 6).path, published(size))
        with pytest.raises(Unproven):
            verify(ENTRIES[5], mixed, POLICY)


def test_extra_data_is_no_part_of_the_verdict():
    """Extra data comes along and changes nothing: nobody signed it."""
    proof = proof_of(5, 6, b"context")
    assert b"context" == read(proof.encode()).extra
    assert proves(ENTRIES[5], proof.encode())
    assert proves(ENTRIES[5], proof_of(5, 6, b"another").encode())


def test_the_policy_decides():
    """Without the policy's witness, or by another log's policy, nothing is proven."""
    data = proof_of(5, 6).encode()
    stranger = SigningKey("log.example/a", SignatureType.ED25519, b"\x09" * 32).verifier
    absent = SigningKey("v", SignatureType.COSIGNATURE, b"\x08" * 32).verifier
    assert proves(ENTRIES[5], data, Policy(LOG.verifier))
    assert not proves(ENTRIES[5], data, Policy(stranger))
    assert not proves(ENTRIES[5], data, Policy(LOG.verifier, (absent,), 1))
    assert not proves(ENTRIES[5], data, Policy(LOG.verifier, (WITNESS.verifier, absent), 2))


HEAD = "c2sp.org/tlog-proof@v1\n"
HASH = base64.b64encode(ROWS[0][0]).decode() + "\n"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 0\n",
        "\ufeff" + HEAD + "index 0\n",
        HEAD,
        HEAD + "index\n",
        HEAD + "index \n",
        HEAD + "index 00\n",
        HEAD + "index -1\n",
        HEAD + "index  1\n",
        HEAD + f"index {SIZE_MAX}\n",
        HEAD + "Index 0\n",
        HEAD + "extra \nindex 0\n",
        HEAD + "extra AAA\nindex 0\n",
        HEAD + "extra AAA=\nextra AAA=\nindex 0\n",
        HEAD + "index 0\nextra AAA=\n",
        HEAD + "index 0\nindex 0\n",
        HEAD + "index 0\n" + HASH[:-2] + "\n",
        HEAD + "index 0\nAAAA\n",
        HEAD + "index 0\r\n",
        HEAD + "index 0\n" + HASH * (HASHES_MAX + 1),
        HEAD + "extra " + "A" * 200_000 + "\nindex 0\n",
        HEAD + "extra " + base64.b64encode(bytes(EXTRA_BYTES_MAX + 1)).decode() + "\nindex 0\n",
    ],
)
def test_malformed_proofs(head):
    """What is not exactly a proof's head is malformed."""
    assert 0 == read((HEAD + "index 0\n\n").encode() + published(1)).number
    with pytest.raises(Malformed):
        read((head + "\n").encode() + published(1))


def test_the_largest_extra_data_fits():
    """Extra data and path of the allowed size are read back."""
    proof = Proof(3, (ROWS[0][0],) * HASHES_MAX, published(1), bytes(EXTRA_BYTES_MAX))
    assert proof == read(proof.encode())


@pytest.mark.parametrize(
    ("number", "path", "size", "extra"),
    [
        (-1, (), 9, b""),
        (SIZE_MAX, (), 9, b""),
        (0, (b"short",), 9, b""),
        (0, (bytes(32),) * (HASHES_MAX + 1), 9, b""),
        (0, (), 2**20 + 1, b""),
        (0, (), 9, bytes(EXTRA_BYTES_MAX + 1)),
    ],
)
def test_parts_beyond_the_format(number, path, size, extra):
    """A proof is not made of parts that its reader would refuse."""
    with pytest.raises(Malformed):
        Proof(number, path, bytes(size), extra)
