"""Tiles: C2SP's names and widths, nothing written twice, every node and proof read back."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.merkle import (
    RightEdge,
    leaf_hash,
    parents,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from gateway.ledger.tiles import (
    Bundle,
    Tile,
    TileDamaged,
    TileEdge,
    decode_bundle,
    encode_bundle,
    grown_bundles,
    grown_tiles,
    nodes_from,
    tile_hashes,
)

LEAVES = [sha256(b"\x00" + str(number).encode()).digest() for number in range(70_000)]
ROWS = [LEAVES]
while len(ROWS[-1]) > 1:
    ROWS.append(parents(ROWS[-1]))
SIZES = st.one_of(st.integers(0, 1100), st.integers(65_200, 70_000))


def tile_bytes(tile: Tile) -> bytes:
    """What tlog-tiles, "Merkle Tree", says the tile holds: 256 nodes of height 8 L from 256 N."""
    first = tile.number * 256
    hashes = ROWS[8 * tile.level][first : first + tile.width]
    assert tile.width == len(hashes)
    return b"".join(hashes)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999, 1), "tile/0/999.p/1"),
        (Tile(1, 1000), "tile/1/x001/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(63, 1234067, 255), "tile/63/x001/x234/067.p/255"),
        (Bundle(0, 5), "tile/entries/000.p/5"),
        (Bundle(1234067), "tile/entries/x001/x234/067"),
    ],
)
def test_paths(tile, path):
    """Tiles and bundles have the paths of tlog-tiles, its own example among them."""
    assert path == tile.path


def test_the_examples_of_the_specification():
    """Trees of 70,000 and of 256 leaves have the tiles that tlog-tiles says they have."""
    tiles = grown_tiles(0, 70_000)
    full = [tile.level for tile in tiles if tile.width == 256]
    assert (273, 1) == (full.count(0), full.count(1))
    assert [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)] == [
        tile for tile in tiles if tile.width < 256
    ]
    assert [Tile(0, 0), Tile(1, 0, 1)] == grown_tiles(0, 256)
    assert 273 + 1 == len(grown_bundles(0, 70_000))


def all_tiles(size: int) -> set[Tile]:
    """Every tile of a tree of this size, from "Partial Tiles" and by counting."""
    tiles = set()
    for level in range(3):
        nodes = size // 256**level
        for number in range(-(-nodes // 256)):
            tiles.add(Tile(level, number, min(256, nodes - 256 * number)))
    return tiles


@settings(deadline=None)
@given(SIZES, SIZES)
def test_growth_is_the_difference(one, other):
    """Growing from a to b writes the tiles that b has and a has not, each once; so do bundles."""
    before, after = sorted((one, other))
    tiles = grown_tiles(before, after)
    assert all_tiles(after) - all_tiles(before) == set(tiles)
    assert len(tiles) == len(set(tiles))
    lowest = [(tile.number, tile.width) for tile in tiles if tile.level == 0]
    assert lowest == [(bundle.number, bundle.width) for bundle in grown_bundles(before, after)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 600), max_size=5))
def test_what_the_edge_writes(batches):
    """A growing edge gives the grown tiles, with the bytes of the standard, and the root."""
    edge = TileEdge()
    for batch in batches:
        before = edge.size
        written = edge.extend(LEAVES[before : before + batch])
        assert grown_tiles(before, before + batch) == [tile for tile, _ in written]
        assert all(tile_bytes(tile) == data for tile, data in written)
        reference = RightEdge()
        reference.extend(LEAVES[: edge.size])
        assert reference.root() == edge.root()


def test_the_edge_over_three_levels():
    """70,000 leaves at once give the tiles of three levels with their bytes."""
    written = TileEdge().extend(LEAVES)
    assert all_tiles(70_000) == {tile for tile, _ in written}
    assert all(tile_bytes(tile) == data for tile, data in written)


@settings(deadline=None)
@given(SIZES, st.integers(1, 400))
def test_an_edge_goes_on_from_its_tiles(size, more):
    """A log read back from its tiles has the same root and goes on as if never stopped."""
    more = min(more, 70_000 - size)
    edge = TileEdge.of(size, tile_bytes)
    assert (size, root_of(size, nodes_from(size, tile_bytes))) == (edge.size, edge.root())
    written = edge.extend(LEAVES[size : size + more])
    assert [(tile, tile_bytes(tile)) for tile in grown_tiles(size, size + more)] == written


@settings(deadline=None)
@given(st.data(), st.integers(1, 70_000))
def test_nodes_are_read_from_tiles(data, size):
    """Each full node of any height is what hashing all leaves gives; each tile is read once."""
    height = data.draw(st.integers(0, size.bit_length() - 1))
    index = data.draw(st.integers(0, (size >> height) - 1))
    read = []
    node = nodes_from(size, lambda tile: read.append(tile) or tile_bytes(tile))
    assert ROWS[height][index] == node(height, index) == node(height, index)
    assert 1 == len(read)
    assert set(read) <= all_tiles(size)
    with pytest.raises(IndexError):
        node(height, size >> height)


@settings(deadline=None)
@given(st.data(), SIZES.filter(lambda size: size > 0))
def test_proofs_from_tiles_verify(data, size):
    """Inclusion and consistency proofs made from tiles verify against the root."""
    number = data.draw(st.integers(0, size - 1))
    root = root_of(size, nodes_from(size, tile_bytes))
    old = root_of(number + 1, nodes_from(number + 1, tile_bytes))
    proof = prove_inclusion(number, size, nodes_from(size, tile_bytes))
    verify_inclusion(LEAVES[number], number, size, proof, root)
    proof = prove_consistency(number + 1, size, nodes_from(size, tile_bytes))
    verify_consistency(number + 1, size, proof, old, root)


def test_a_full_tile_stands_in_for_a_partial_one():
    """Where a partial tile was deleted, the full one read in its place gives the same nodes."""
    node = nodes_from(300, lambda tile: tile_bytes(Tile(tile.level, tile.number)))
    assert ROWS[2][74] == node(2, 74)


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(32), bytes(65), bytes(8193), bytes(8224)])
def test_damaged_tiles(data):
    """A tile too short, too long or not of whole hashes is damaged."""
    with pytest.raises(TileDamaged):
        tile_hashes(data, 2)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.data())
def test_bundles_come_back(entries, data):
    """A bundle gives back its entries, or the first of them; its hashes are the tile's."""
    encoded = encode_bundle(entries)
    width = data.draw(st.integers(0, len(entries)))
    assert entries[:width] == decode_bundle(encoded, width)
    assert sum(2 + len(entry) for entry in entries) == len(encoded)
    for end in range(len(encoded)):
        with pytest.raises(TileDamaged):
            decode_bundle(encoded[:end], len(entries))
    with pytest.raises(TileDamaged):
        decode_bundle(encoded + b"\x00", len(entries))


def test_the_bundle_bytes():
    """Entries stand behind their big-endian uint16 lengths; 65,535 bytes fit and no more."""
    assert b"\x00\x01a\x00\x00\x01\x02" + bytes(258) == encode_bundle([b"a", b"", bytes(258)])
    assert [bytes(65_535)] == decode_bundle(encode_bundle([bytes(65_535)]), 1)
    with pytest.raises(ValueError, match="65535"):
        encode_bundle([bytes(65_536)])
    with pytest.raises(TileDamaged):
        decode_bundle(encode_bundle([b""] * 257), 256)
    assert LEAVES[7] == leaf_hash(b"7")
