"""The verifier's tree against the writer's: two hands, one RFC 6962."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.merkle import RightEdge
from gateway.ledger.tiles import TileEdge
from gateway.verify.folder import split, tile_name
from gateway.verify.tree import WIDTH, Tree, leaf_hashes


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1600), st.lists(st.integers(0, 1600), max_size=8))
def test_roots_at_any_size_are_the_writers(size, asked):
    """Growing by bundles gives the root of every size asked for on the way."""
    entries = [b"%d" % number for number in range(size)]
    tree, found = Tree(), {}
    for first in range(0, max(size, 1), WIDTH):
        tree.begin(leaf_hashes(entries[first : first + WIDTH]))
        for each in (*asked, size):
            if first <= each <= tree.size:
                found[each] = tree.root_at(each)
        if len(tree.rows[0]) == WIDTH:
            tree.finish()
    for each, root in found.items():
        edge = RightEdge()
        edge.extend(sha256(b"\0" + entry).digest() for entry in entries[:each])
        assert root == edge.root()
    assert size in found


def test_tiles_of_three_levels_are_the_writers():
    """Full and unfinished tiles, up to the third level, have the writer's names and bytes."""
    hashes = [sha256(b"%d" % number).digest() for number in range(WIDTH * WIDTH + 300)]
    written = {tile.path: data for tile, data in TileEdge().extend(hashes)}
    tree, made = Tree(), {}
    for first in range(0, len(hashes), WIDTH):
        tree.begin(hashes[first : first + WIDTH])
        if len(tree.rows[0]) == WIDTH:
            made |= {tile_name(str(level), at): row for level, at, row in tree.finish()}
    for level, number, row in tree.unfinished():
        made[f"{tile_name(str(level), number)}.p/{len(row) // 32}"] = row
    assert made == written


@given(st.lists(st.binary(max_size=40), max_size=20), st.binary(max_size=3))
def test_bundles_split_into_their_entries(entries, rest):
    """Whole entries come out; a cut one at the end does not."""
    data = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    cut = b"\xff\xff" + rest
    assert split(data + cut) == (entries, len(data))
