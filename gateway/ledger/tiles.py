"""Tiles: the tree and its entries as files that any web server can hand out (c2sp.org/tlog-tiles).

Invariants:
1. A tile of level L holds the hashes of up to 256 nodes of height 8 L, side by side; a bundle holds
   the entries of up to 256 leaves. Heights between are computed from the tile, never stored.
2. A full tile never changes. A partial one has its width in its name and so never changes either:
   a growing tree writes new names only, and readers of an older checkpoint are undisturbed.
3. What is read is not believed: lengths are checked here, hashes by the proof or root made of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gateway.ledger.merkle import HASH_BYTES, NodeHash, RightEdge, parents

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES
ENTRY_BYTES_MAX = 2**16 - 1
LENGTH = struct.Struct(">H")


class TileDamaged(Exception):
    """A tile or bundle does not have the length that its name or its own fields say."""


def _path(kind: str, number: int, width: int) -> str:
    """`x001/x234/067`: three digits an element, so no file is also a folder ("Merkle Tree")."""
    groups = f"{number:,}".split(",")
    elements = [f"x{group:0>3}" for group in groups[:-1]] + [f"{groups[-1]:0>3}"]
    suffix = f".p/{width}" if width < TILE_WIDTH else ""
    return f"tile/{kind}/{'/'.join(elements)}{suffix}"


@dataclass(frozen=True)
class Tile:
    """`width` node hashes of height 8 `level`, from node `number` * 256 on."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Below the log's prefix, as "Merkle Tree" and "Partial Tiles" of tlog-tiles have it."""
        return _path(str(self.level), self.number, self.width)


@dataclass(frozen=True)
class Bundle:
    """The entries of `width` leaves, from leaf `number` * 256 on."""

    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Below the log's prefix, as "Log entries" of tlog-tiles has it."""
        return _path("entries", self.number, self.width)


ReadTile = Callable[[Tile], bytes]
"""A tile's bytes. The full tile may stand in for a partial one that has been deleted."""


def _grown(before: int, after: int) -> Iterator[tuple[int, int]]:
    """(number, width) of the files to write when one level grows from `before` to `after` items."""
    if before == after:
        return
    for number in range(before // TILE_WIDTH, after // TILE_WIDTH):
        yield number, TILE_WIDTH
    if after % TILE_WIDTH:
        yield after // TILE_WIDTH, after % TILE_WIDTH


def grown_tiles(before: int, after: int) -> list[Tile]:
    """The tiles that a tree of `after` leaves has and one of `before` has not, lowest level first.

    Partial tiles are those of `after` alone: sizes between had no checkpoint and need none.
    """
    tiles = []
    level = 0
    while after:
        tiles += [Tile(level, number, width) for number, width in _grown(before, after)]
        before, after, level = before >> TILE_HEIGHT, after >> TILE_HEIGHT, level + 1
    return tiles


def grown_bundles(before: int, after: int) -> list[Bundle]:
    """The bundles that a tree of `after` leaves has and one of `before` has not."""
    return [Bundle(number, width) for number, width in _grown(before, after)]


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Each entry behind its length as big-endian uint16. ValueError for one over 65,535 bytes."""
    parts = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise ValueError(f"an entry of {len(entry)} bytes; at most {ENTRY_BYTES_MAX} fit")
        parts += [LENGTH.pack(len(entry)), entry]
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The first `width` entries; the bundle may hold more, up to 256. TileDamaged otherwise."""
    entries = []
    at = 0
    while at < len(data):
        start = at + LENGTH.size
        if start > len(data):
            raise TileDamaged("a bundle ends within an entry's length")
        at = start + LENGTH.unpack_from(data, start - LENGTH.size)[0]
        if at > len(data):
            raise TileDamaged("a bundle ends within an entry")
        entries.append(data[start:at])
    if not width <= len(entries) <= TILE_WIDTH:
        raise TileDamaged(f"a bundle holds {len(entries)} entries where {width} were expected")
    return entries[:width]


def tile_hashes(data: bytes, width: int) -> list[bytes]:
    """The first `width` hashes; the tile may hold more, up to 256. TileDamaged otherwise."""
    if len(data) % HASH_BYTES or not width * HASH_BYTES <= len(data) <= TILE_BYTES:
        raise TileDamaged(f"a tile has {len(data)} bytes where {width} hashes were expected")
    return [data[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]


def nodes_from(size: int, read: ReadTile) -> NodeHash:
    """The nodes of a tree of `size` leaves, computed from its tiles; each tile is read once.

    A tile is kept for as long as the function is: make one function for each proof. It raises
    IndexError for a node that is not full at `size`, TileDamaged for a tile of another length.
    """
    kept: dict[Tile, list[bytes]] = {}

    def node(height: int, index: int) -> bytes:
        level, rise = divmod(height, TILE_HEIGHT)
        last = (index + 1) << rise
        if index < 0 or last << (level * TILE_HEIGHT) > size:
            raise IndexError(f"node {index} of height {height} is not full at size {size}")
        number, first = divmod(index << rise, TILE_WIDTH)
        held = (size >> (level * TILE_HEIGHT)) - number * TILE_WIDTH
        tile = Tile(level, number, min(held, TILE_WIDTH))
        if tile not in kept:
            kept[tile] = tile_hashes(read(tile), tile.width)
        row: Sequence[bytes] = kept[tile][first : first + (1 << rise)]
        while len(row) > 1:
            row = parents(row)
        return row[0]

    return node


class TileEdge:
    """The right edge of a log: enough to append leaves, give the root and write new tiles.

    Holds one hash a height and the unfinished tile of each level: at most 8 KiB a level.
    """

    def __init__(self) -> None:
        self._edge = RightEdge()
        self._unfinished: list[bytearray] = []

    @classmethod
    def of(cls, size: int, read: ReadTile) -> TileEdge:
        """Go on from a log of `size` leaves whose tiles can be read.

        The caller compares `root()` with the checkpoint's before it appends.
        """
        edge = cls()
        edge._edge = RightEdge.of(size, nodes_from(size, read))
        level = 0
        while size >> (level * TILE_HEIGHT):
            number, width = divmod(size >> (level * TILE_HEIGHT), TILE_WIDTH)
            hashes = tile_hashes(read(Tile(level, number, width)), width) if width else []
            edge._unfinished.append(bytearray(b"".join(hashes)))
            level += 1
        return edge

    @property
    def size(self) -> int:
        return self._edge.size

    def root(self) -> bytes:
        return self._edge.root()

    def extend(self, leaf_hashes: Iterable[bytes]) -> list[tuple[Tile, bytes]]:
        """Append leaves by their hashes; the new tiles with their bytes, as `grown_tiles` lists.

        The tiles must be durable before a checkpoint of the new size is published.
        """
        before = self.size
        finished = self._edge.extend(leaf_hashes)
        for level, hashes in enumerate(finished[::TILE_HEIGHT]):
            if level == len(self._unfinished):
                self._unfinished.append(bytearray())
            self._unfinished[level] += b"".join(hashes)
        tiles = []
        for tile in grown_tiles(before, self.size):
            buffer = self._unfinished[tile.level]
            tiles.append((tile, bytes(buffer[: tile.width * HASH_BYTES])))
            if tile.width == TILE_WIDTH:
                del buffer[:TILE_BYTES]
        return tiles
