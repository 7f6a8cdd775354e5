"""The Merkle tree of RFC 6962, recomputed from entries as they come: pure.

Invariant: what is kept is one row of at most 256 hashes for each eighth height, so memory is
bounded by the tree's height; a root can be asked for at any size within the newest bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

WIDTH = 256
EMPTY_ROOT = sha256(b"").digest()


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def fold(row: Sequence[bytes]) -> bytes:
    """The hash over one or more neighbours; an odd last one rises as it is (RFC 6962, 2.1)."""
    while len(row) > 1:
        pairs = iter(row)
        above = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs)]
        if len(row) % 2:
            above.append(row[-1])
        row = above
    return row[0]


class Tree:
    """`rows[level]`: hashes of the unfinished tile of that level; level 0 is of leaves."""

    def __init__(self) -> None:
        self.rows: list[list[bytes]] = [[]]
        self.bundles = 0

    @property
    def size(self) -> int:
        return self.bundles * WIDTH + len(self.rows[0])

    def begin(self, hashes: list[bytes]) -> None:
        """The leaves of the next bundle, up to 256; before it, the one before was finished."""
        self.rows[0] = hashes

    def root_at(self, size: int) -> bytes:
        """The root of the first `size` leaves; `size` is in the newest bundle or at its ends."""
        held = size - self.bundles * WIDTH
        assert 0 <= held <= len(self.rows[0])
        root = fold(self.rows[0][:held]) if held else None
        for row in self.rows[1:]:
            if row:
                root = fold([*row, root] if root is not None else row)
        return EMPTY_ROOT if root is None else root

    def finish(self) -> list[tuple[int, int, bytes]]:
        """Close a bundle of 256; the tiles that became full: level, number, bytes."""
        full = []
        level, number = 0, self.bundles
        while len(self.rows[level]) == WIDTH:
            row = self.rows[level]
            full.append((level, number, b"".join(row)))
            if level + 1 == len(self.rows):
                self.rows.append([])
            self.rows[level + 1].append(fold(row))
            self.rows[level] = []
            level, number = level + 1, number // WIDTH
        self.bundles += 1
        return full

    def unfinished(self) -> list[tuple[int, int, bytes]]:
        """The tiles at the right edge: level, number, bytes of as many hashes as there are."""
        size = self.size
        return [
            (level, (size >> (8 * level)) // WIDTH, b"".join(row))
            for level, row in enumerate(self.rows)
            if row
        ]
