"""The Merkle tree of RFC 6962: hashing, growing at its right edge, proofs made and checked.

Invariants:
1. Leaves and nodes are hashed with different first bytes (RFC 6962, 2.1), so no entry can pass
   for a node and no node for an entry.
2. A node is named (height, index) and covers the leaves [index << height, (index + 1) << height).
   Only full nodes have names; they never change again, whatever is appended.
3. `RightEdge` keeps one full node for each bit set in the size: enough to append and to give the
   root. It forgets all others; proofs read them from the tiles.
4. A proof is checked to its last hash: too few, too many, or a hash of another length is
   `Unproven`. Checking raises rather than answering, so that no caller can forget to look.

An inclusion proof binds leaf, number and root; the tree's size only as far as it shapes the path
(leaf 0 has one path in all trees of 5 to 8 leaves). The size is believed because the checkpoint
signs it together with the root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

HASH_BYTES = 32
SIZE_MAX = 2**63 - 1  # leaves; what a signed 64-bit reader elsewhere still holds
EMPTY_ROOT = sha256(b"").digest()

NodeHash = Callable[[int, int], bytes]
"""(height, index) -> hash of that full node."""


class Unproven(Exception):
    """The proof does not show what it should; the message says where it fails."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 of 0x00 and the entry's bytes (RFC 6962, 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children's hashes (RFC 6962, 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """The hashes of the nodes above: one for each pair; an odd last one has none yet."""
    pairs = iter(hashes)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs)]


@dataclass
class RightEdge:
    """The full nodes that cover a tree of `size` leaves, at most one a height.

    `nodes[height]` is there exactly where bit `height` of `size` is set.
    """

    size: int = 0
    nodes: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, size: int, node: NodeHash) -> RightEdge:
        """The edge of a tree whose nodes can be read."""
        nodes = {height: node(height, index) for height, index in cover(0, size)}
        return cls(size, nodes)

    def extend(self, leaf_hashes: Iterable[bytes]) -> list[list[bytes]]:
        """Append leaves by their hashes; the nodes that became full, by height, left to right."""
        new = list(leaf_hashes)
        if self.size + len(new) > SIZE_MAX:
            raise OverflowError(f"a tree holds at most {SIZE_MAX} leaves")
        self.size += len(new)
        finished = []
        height = 0
        while new:
            finished.append(new)
            waiting = self.nodes.pop(height, None)
            row = new if waiting is None else [waiting, *new]
            if len(row) % 2:
                self.nodes[height] = row[-1]
            new = parents(row)
            height += 1
        return finished

    def root(self) -> bytes:
        """The Merkle Tree Hash of all leaves (RFC 6962, 2.1)."""
        return _fold([self.nodes[height] for height in sorted(self.nodes, reverse=True)])


def cover(first: int, last: int) -> list[tuple[int, int]]:
    """Fewest full nodes over the leaves [first, last), left to right, as (height, index).

    `first` must be divisible by a power of two not below `last - first`, as it is for every
    subtree that RFC 6962 names; the nodes then grow smaller to the right.
    """
    nodes = []
    while first < last:
        height = (last - first).bit_length() - 1
        nodes.append((height, first >> height))
        first += 1 << height
    return nodes


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The hash over full nodes of falling height: the smallest two are joined first."""
    if not hashes:
        return EMPTY_ROOT
    folded = hashes[-1]
    for left in reversed(hashes[:-1]):
        folded = node_hash(left, folded)
    return folded


def root_of(size: int, node: NodeHash) -> bytes:
    """The root of the tree's first `size` leaves."""
    return _subtree(0, size, node)


def _subtree(first: int, last: int, node: NodeHash) -> bytes:
    return _fold([node(height, index) for height, index in cover(first, last)])


def _split(leaves: int) -> int:
    """The largest power of two below `leaves`: where RFC 6962 divides a tree."""
    return 1 << ((leaves - 1).bit_length() - 1)


def prove_inclusion(number: int, size: int, node: NodeHash) -> tuple[bytes, ...]:
    """PATH(number, D[0:size]) of RFC 6962, 2.1.1: from the leaf's sibling up to the root's child.

    ValueError unless 0 <= number < size.
    """
    if not 0 <= number < size:
        raise ValueError(f"leaf {number} is not in a tree of {size}")
    first, last = 0, size
    path = []
    while last - first > 1:
        middle = first + _split(last - first)
        if number < middle:
            path.append(_subtree(middle, last, node))
            last = middle
        else:
            path.append(_subtree(first, middle, node))
            first = middle
    return tuple(reversed(path))


def prove_consistency(before: int, after: int, node: NodeHash) -> tuple[bytes, ...]:
    """PROOF(before, D[0:after]) of RFC 6962, 2.1.2; empty for equal sizes.

    ValueError unless 1 <= before <= after: an empty tree is consistent with everything.
    """
    if not 1 <= before <= after:
        raise ValueError(f"no consistency proof leads from {before} to {after} leaves")
    first, last = 0, after
    path = []
    while last != before:
        middle = first + _split(last - first)
        if before <= middle:
            path.append(_subtree(middle, last, node))
            last = middle
        else:
            path.append(_subtree(first, middle, node))
            first = middle
    if first > 0:  # else this is the whole old tree, whose root the verifier has
        path.append(_subtree(first, last, node))
    return tuple(reversed(path))


def _check_lengths(hashes: Iterable[bytes]) -> None:
    if any(len(given) != HASH_BYTES for given in hashes):
        raise Unproven(f"a hash is not {HASH_BYTES} bytes long")


def verify_inclusion(
    leaf: bytes, number: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Unproven unless the leaf of hash `leaf` has place `number` under `root` (RFC 9162, 2.1.3.2).

    Hashes are 32 bytes; `number` counts from 0.
    """
    _check_lengths((leaf, root, *proof))
    if not 0 <= number < size <= SIZE_MAX:
        raise Unproven(f"leaf {number} is not in a tree of {size}")
    place, last, computed = number, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Unproven("the proof has more hashes than the tree has levels")
        if place & 1 or place == last:
            computed = node_hash(sibling, computed)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise Unproven("the proof ends below the root")
    if computed != root:
        raise Unproven("the proof leads to another root")


def verify_consistency(
    before: int, after: int, proof: Sequence[bytes], root_before: bytes, root_after: bytes
) -> None:
    """Unproven unless the older tree is a prefix of the newer one (RFC 9162, 2.1.4.2).

    Nothing can be shown of an empty older tree: `before` = 0 is Unproven, as public verifiers do.
    """
    _check_lengths((root_before, root_after, *proof))
    if not 1 <= before <= after <= SIZE_MAX:
        raise Unproven(f"no consistency proof leads from {before} to {after} leaves")
    if before == after:
        if proof or root_before != root_after:
            raise Unproven("trees of one size need equal roots and no proof")
        return
    if not proof:
        raise Unproven("the proof is empty")
    place, last = before - 1, after - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    # Where the older tree is one full node, its root starts the proof and is not sent.
    hashes = [root_before, *proof] if before & (before - 1) == 0 else list(proof)
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise Unproven("the proof has more hashes than the tree has levels")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise Unproven("the proof ends below the root")
    if old != root_before:
        raise Unproven("the proof leads to another older root")
    if new != root_after:
        raise Unproven("the proof leads to another newer root")
