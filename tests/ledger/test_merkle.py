"""The tree is RFC 6962's: checked by naive recursion, by public vectors and by breaking proofs."""

import base64
import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.merkle import (
    EMPTY_ROOT,
    SIZE_MAX,
    RightEdge,
    Unproven,
    cover,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)

ROOT = Path(__file__).parents[2]
VECTORS = Path(
    os.environ.get("HEADWORKS_MERKLE_VECTORS", ROOT / "../shared/data/merkle-vectors.json")
)
SIZES = st.integers(1, 300)
LEAVES = [sha256(b"\x00" + str(number).encode()).digest() for number in range(600)]


# The oracle: RFC 6962, section 2.1, word by word, on lists of leaf hashes.


def join(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def half(size: int) -> int:
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = half(len(leaves))
    return join(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = half(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = half(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def climb(m: int, size: int, leaf: bytes, proof: list[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to by recursion; None if it does not fit."""
    if size == 1:
        return leaf if not proof else None
    if not proof:
        return None
    k = half(size)
    if m < k:
        below = climb(m, k, leaf, proof[:-1])
        return below and join(below, proof[-1])
    below = climb(m - k, size - k, leaf, proof[:-1])
    return below and join(proof[-1], below)


def rebuild(m: int, size: int, proof: list[bytes], old: bytes | None):
    """(older root, newer root) that a consistency proof leads to; None if it does not fit."""
    if m == size:
        given = proof if old is None else [old, *proof]
        return (given[0], given[0]) if len(given) == 1 else None
    if not proof:
        return None
    k = half(size)
    if m <= k:
        below = rebuild(m, k, proof[:-1], old)
        return below and (below[0], join(below[1], proof[-1]))
    below = rebuild(m - k, size - k, proof[:-1], None)
    return below and (join(proof[-1], below[0]), join(proof[-1], below[1]))


def node(height: int, index: int) -> bytes:
    leaves = LEAVES[index << height : (index + 1) << height]
    assert len(leaves) == 1 << height
    return mth(leaves)


def proves(verify, *arguments) -> bool:
    try:
        verify(*arguments)
    except Unproven:
        return False
    return True


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_known_answers():
    """The empty tree, the empty leaf and RFC 6962's seven-leaf shape have their known hashes."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    a, b, c, d, e, f, g = LEAVES[:7]
    seven = join(join(join(a, b), join(c, d)), join(join(e, f), g))
    assert seven == root_of(7, node)
    assert [(2, 0), (1, 2), (0, 6)] == cover(0, 7)


def test_the_edge_has_the_root_of_every_size():
    """Appending one by one gives at each size the root of naive recursion, and so does reading."""
    edge = RightEdge()
    for size in range(260):
        assert mth(LEAVES[:size]) == edge.root() == root_of(size, node)
        assert RightEdge.of(size, node) == edge
        edge.extend([LEAVES[size]])


@settings(deadline=None)
@given(st.lists(st.integers(0, 150), max_size=4))
def test_batches_do_not_matter(batches):
    """The edge is the same however leaves were batched, and each full node is told exactly once."""
    edge = RightEdge()
    told: dict[int, list[bytes]] = {}
    for batch in batches:
        for height, hashes in enumerate(edge.extend(LEAVES[edge.size : edge.size + batch])):
            told.setdefault(height, []).extend(hashes)
    assert RightEdge.of(sum(batches), node) == edge
    for height, hashes in told.items():
        assert [node(height, index) for index in range(edge.size >> height)] == hashes


def test_a_tree_has_a_largest_size():
    """A tree refuses leaves beyond 2^63 - 1 and is unchanged."""
    edge = RightEdge(SIZE_MAX, dict.fromkeys(range(63), LEAVES[0]))
    with pytest.raises(OverflowError):
        edge.extend([LEAVES[0]])
    assert SIZE_MAX == edge.size


@settings(deadline=None)
@given(st.data(), SIZES)
def test_inclusion_proofs_are_the_standards(data, size):
    """Every inclusion proof is RFC 6962's PATH and verifies."""
    number = data.draw(st.integers(0, size - 1))
    proof = prove_inclusion(number, size, node)
    assert tuple(path(number, LEAVES[:size])) == proof
    verify_inclusion(LEAVES[number], number, size, proof, mth(LEAVES[:size]))


@settings(deadline=None)
@given(st.data(), SIZES)
def test_consistency_proofs_are_the_standards(data, size):
    """Every consistency proof is RFC 6962's PROOF and verifies."""
    before = data.draw(st.integers(1, size))
    proof = prove_consistency(before, size, node)
    assert tuple(subproof(before, LEAVES[:size], True)) == proof
    verify_consistency(before, size, proof, mth(LEAVES[:before]), mth(LEAVES[:size]))


def test_all_small_trees():
    """All proofs between all trees of up to 40 leaves are as recursion has them, and verify."""
    for size in range(1, 41):
        root = mth(LEAVES[:size])
        for number in range(size):
            proof = prove_inclusion(number, size, node)
            assert path(number, LEAVES[:size]) == list(proof)
            verify_inclusion(LEAVES[number], number, size, proof, root)
            proof = prove_consistency(number + 1, size, node)
            assert subproof(number + 1, LEAVES[:size], True) == list(proof)
            verify_consistency(number + 1, size, proof, mth(LEAVES[: number + 1]), root)


@settings(deadline=None)
@given(st.data(), SIZES)
def test_any_flipped_bit_breaks_inclusion(data, size):
    """One bit of leaf, root, number or a proof's hash flipped: unproven."""
    number = data.draw(st.integers(0, size - 1))
    leaf, root = LEAVES[number], mth(LEAVES[:size])
    proof = prove_inclusion(number, size, node)
    hashes = [leaf, root, *proof]
    which, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    hashes[which] = flip(hashes[which], bit)
    assert not proves(verify_inclusion, hashes[0], number, size, hashes[2:], hashes[1])
    wrong = number ^ 1 << data.draw(st.integers(0, 63))
    assert not proves(verify_inclusion, leaf, wrong, size, proof, root)


@settings(deadline=None)
@given(st.data(), st.integers(2, 300))
def test_any_flipped_bit_breaks_consistency(data, size):
    """One bit of either root or of a proof's hash flipped: unproven."""
    before = data.draw(st.integers(1, size - 1))
    hashes = [mth(LEAVES[:before]), mth(LEAVES[:size]), *prove_consistency(before, size, node)]
    which, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    hashes[which] = flip(hashes[which], bit)
    assert not proves(verify_consistency, before, size, hashes[2:], hashes[0], hashes[1])


def test_wrong_sizes_pass_only_where_the_shape_is_the_same():
    """A wrong size verifies exactly where recursion finds the same path for it, never else."""
    same = 0
    for size in range(1, 18):
        root = mth(LEAVES[:size])
        for number in range(size):
            proof = path(number, LEAVES[:size])
            for claimed in range(40):
                fits = number < claimed and climb(number, claimed, LEAVES[number], proof) == root
                assert fits == proves(
                    verify_inclusion, LEAVES[number], number, claimed, proof, root
                )
                same += fits and claimed != size
    assert same > 0  # leaf 0 in trees of 5 to 8: the checkpoint's signature is what binds the size


def test_wrong_sizes_of_consistency_pass_only_where_the_shape_is_the_same():
    """Wrong sizes of a consistency proof verify exactly where recursion says so."""
    for size in range(1, 14):
        for before in range(1, size + 1):
            proof = subproof(before, LEAVES[:size], True)
            roots = mth(LEAVES[:before]), mth(LEAVES[:size])
            for first in range(1, 20):
                for second in range(first, 20):
                    fits = rebuild(first, second, proof, roots[0]) == roots
                    assert fits == proves(verify_consistency, first, second, proof, *roots)


@settings(deadline=None)
@given(st.data(), SIZES)
def test_a_proof_is_neither_longer_nor_shorter(data, size):
    """A hash taken out of a proof or put into it: unproven, for both kinds."""
    number = data.draw(st.integers(0, size - 1))
    root, old = mth(LEAVES[:size]), mth(LEAVES[: number + 1])
    extra = data.draw(st.sampled_from([LEAVES[0], root, old, EMPTY_ROOT]))
    for verify, proof, around in (
        (verify_inclusion, prove_inclusion(number, size, node), (LEAVES[number], root)),
        (verify_consistency, prove_consistency(number + 1, size, node), (old, root)),
    ):
        place = data.draw(st.integers(0, len(proof)))
        shorter = [*proof[:place], *proof[place + 1 :]]
        for changed in ([*proof[:place], extra, *proof[place:]], shorter):
            if changed == list(proof):
                continue
            if verify is verify_inclusion:
                assert not proves(verify, around[0], number, size, changed, around[1])
            else:
                assert not proves(verify, number + 1, size, changed, *around)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_hashes_have_32_bytes(length):
    """A leaf, root or proof hash of another length is unproven."""
    a, b = LEAVES[:2]
    bad = (a + b)[:length]
    root = join(a, b)
    assert proves(verify_inclusion, a, 0, 2, [b], root)
    assert not proves(verify_inclusion, bad, 0, 2, [b], root)
    assert not proves(verify_inclusion, a, 0, 2, [bad], root)
    assert not proves(verify_inclusion, a, 0, 2, [b], bad)
    assert not proves(verify_inclusion, bad, 0, 1, [], bad)
    assert not proves(verify_consistency, 1, 1, [], bad, bad)
    assert not proves(verify_consistency, 1, 2, [bad], a, root)


def test_what_cannot_be_proven_is_refused():
    """No proof is made or taken for a leaf outside the tree, an empty tree, a shrunken tree."""
    a, b = LEAVES[:2]
    for number, size in ((0, 0), (2, 2), (-1, 2)):
        with pytest.raises(ValueError, match="not in a tree"):
            prove_inclusion(number, size, node)
        assert not proves(verify_inclusion, a, number, size, [], a)
    for before, after in ((0, 0), (0, 2), (2, 1), (-1, 1)):
        with pytest.raises(ValueError, match="no consistency proof"):
            prove_consistency(before, after, node)
        assert not proves(verify_consistency, before, after, [], EMPTY_ROOT, EMPTY_ROOT)
    assert not proves(verify_inclusion, a, 0, SIZE_MAX + 1, [b] * 63, a)
    assert not proves(verify_consistency, 1, 1, [a], b, b)
    assert not proves(verify_consistency, 2, 3, [], join(a, b), join(a, b))


def test_a_leaf_is_no_node():
    """The bytes of a node's children, taken as an entry, do not have the node's hash."""
    a, b = LEAVES[:2]
    assert leaf_hash(a + b) != join(a, b)
    assert not proves(verify_inclusion, leaf_hash(a + b), 0, 1, [], join(a, b))


def vectors(kind: str) -> list[dict]:
    if not VECTORS.exists():
        pytest.skip(f"{VECTORS} is not here: set HEADWORKS_MERKLE_VECTORS to the public vectors")
    return json.loads(VECTORS.read_text())[kind]


def hashes_of(vector: dict, *names: str) -> list[bytes]:
    """A root that the vectors give as the words "don't care" becomes the hash of these words.

    Public verifiers compare roots of any length, ours takes 32 bytes only: without this such a
    vector would be refused for its length and never for the reason it was made for.
    """
    given = [base64.b64decode(vector[name] or "") for name in names]
    return [sha256(each).digest() if each.startswith(b"don't care") else each for each in given]


@pytest.mark.long
def test_public_inclusion_vectors():
    """Every inclusion vector of transparency-dev/merkle is judged as its authors say."""
    wrong, judged = [], set()
    for vector in vectors("inclusion"):
        leaf, root = hashes_of(vector, "leafHash", "root")
        proof = [base64.b64decode(each) for each in vector["proof"] or []]
        given = leaf, vector["leafIdx"], vector["treeSize"], proof, root
        judged.add(vector["wantErr"])
        if proves(verify_inclusion, *given) == vector["wantErr"]:
            wrong.append(vector["name"])
    assert [] == wrong
    assert {True, False} == judged


@pytest.mark.long
def test_public_consistency_vectors():
    """Every consistency vector of transparency-dev/merkle is judged as its authors say."""
    wrong, judged = [], set()
    for vector in vectors("consistency"):
        roots = hashes_of(vector, "root1", "root2")
        proof = [base64.b64decode(each) for each in vector["proof"] or []]
        given = vector["size1"], vector["size2"], proof, *roots
        judged.add(vector["wantErr"])
        if proves(verify_consistency, *given) == vector["wantErr"]:
            wrong.append(vector["name"])
    assert [] == wrong
    assert {True, False} == judged
