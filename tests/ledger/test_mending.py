"""An index of bodies that rotted, was cut or lost is made again: by the leaves, for every byte."""

import os
from zlib import crc32

import numpy as np
import orjson
import pytest
from people import DAYS, World, files_with, parts_of

from gateway.ledger.bodies import ENTRIES, encode_entry, find, index_path
from gateway.ledger.entries import LedgerDamaged
from gateway.ledger.log import Ledger
from gateway.ledger.mending import intact, mend, unsound
from gateway.ledger.retention import unused

FILE = f"mortgage/{DAYS[0]}"
LOG = "models/mortgage/2026q4"
WHO = (("annalee",), ("bob",), ("annalee", "bob"), (), ("annalee",))


def made(folder) -> tuple[dict, dict[str, int]]:
    """Five exchanges in one file with their leaves, the last one's decisions in a blob, too."""
    world, ledger = World(folder), Ledger(folder / "state")
    told = {}
    for number, who in enumerate(WHO):
        leaf = {"kind": "exchange", "source": "0.aa", "sequence": number}
        told[f"id-{number}"] = who, world.append(f"id-{number}", who)
        leaf["body"] = told[f"id-{number}"][1].to_json()
        if number == len(WHO) - 1:
            told["more"] = who, world.append("more", who)
            leaf["decisions_at"] = told["more"][1].to_json() | {"count": 3}
        ledger.append(LOG, orjson.dumps(leaf), "0.aa", number)
    world.commit()
    ledger.commit()
    logs = {name: log.size for name, log in ledger.logs.items()}
    ledger.close()
    world.close()
    return told, logs


def offsets(state, number: int) -> list[int]:
    return [blob.offset for blob in find(state, [number])]


def test_checksums_of_many_entries_are_zlibs():
    """The tables give what `crc32` gives, for any entry; another bit is another checksum."""
    dice = np.random.default_rng(5)
    data = dice.integers(0, 256, (200, ENTRIES.itemsize), dtype=np.uint8)
    data[:, 20:] = [list(crc32(row[:20].tobytes()).to_bytes(4, "little")) for row in data]
    assert intact(data.reshape(-1).view(ENTRIES)).all()
    for at, row in enumerate(data):
        row[at % 24] ^= 1 << at % 8
    assert not intact(data.reshape(-1).view(ENTRIES)).any()


def test_every_flipped_bit_of_an_index_is_mended(tmp_path):
    """The same bytes again, whichever bit it was; nothing of the bodies is touched."""
    state = tmp_path / "state"
    told, logs = made(tmp_path)
    path, bodies = index_path(state, FILE), state / "bodies" / f"{FILE}.bodies"
    data, held = path.read_bytes(), bodies.read_bytes()
    assert (unsound(state), len(data)) == ([], 7 * 24)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert unsound(state) == [FILE]
        if bit % 11 == 0:  # each mending is several fsyncs
            assert mend(state, FILE, logs) == 0
            assert data == path.read_bytes()
    assert held == bodies.read_bytes()


@pytest.mark.parametrize("left", range(0, 7 * 24, 17))
def test_a_cut_or_lost_index_is_mended(tmp_path, left):
    """Cut anywhere, or gone."""
    state = tmp_path / "state"
    _, logs = made(tmp_path)
    path = index_path(state, FILE)
    data = path.read_bytes()
    if left:
        path.write_bytes(data[:left])
    else:
        path.unlink()
    assert unsound(state) == [FILE]
    mend(state, FILE, logs)
    assert (unsound(state), path.read_bytes()) == ([], data)


def test_what_no_leaf_names_is_overwritten_and_accounted_for(tmp_path):
    """A crash left a blob between and one at the end, and the index has neither."""
    state = tmp_path / "state"
    told, logs = made(tmp_path)
    world = World(tmp_path)
    orphan = world.append("orphan", ["annalee"])
    world.commit()
    world.close()
    bodies = state / "bodies" / f"{FILE}.bodies"
    data = bodies.read_bytes()
    ciphertext = data[orphan.offset + 24 :]
    path = index_path(state, FILE)
    path.write_bytes(path.read_bytes()[:-24])
    assert unsound(state) == [FILE]
    assert mend(state, FILE, logs) == orphan.length

    assert (unsound(state), files_with(state, ciphertext)) == ([], [])
    assert len(data) == len(bodies.read_bytes())
    assert path.read_bytes()[-24:] == encode_entry(0, orphan.offset, orphan.length)
    world = World(tmp_path)
    for identity, (who, place) in told.items():
        assert parts_of(*who) == world.read(identity, place)
    world.close()


def test_what_a_whole_entry_names_stays_though_no_leaf_does(tmp_path):
    """It is found by an erasure like any other; only what nothing names goes."""
    state = tmp_path / "state"
    _, logs = made(tmp_path)
    world = World(tmp_path)
    orphan = world.append("orphan", ["annalee"])
    world.commit()
    world.close()
    path = index_path(state, FILE)
    data = path.read_bytes()
    path.write_bytes(b"\x01" + data[1:])
    assert mend(state, FILE, logs) == 0
    assert path.read_bytes() == data
    assert orphan.offset in offsets(state, 1)


def test_a_blob_whose_head_rotted_keeps_its_entry(tmp_path):
    """Its numbers come from the entry there is, or it is nobody's; the others are as they were."""
    state = tmp_path / "state"
    told, logs = made(tmp_path)
    place = told["id-1"][1]
    with (state / "bodies" / f"{FILE}.bodies").open("r+b") as file:
        file.seek(place.offset)
        file.write(b"\xff\xff\xff\xff")
    path = index_path(state, FILE)
    data = path.read_bytes()
    path.write_bytes(b"\x05" + data[1:])
    mend(state, FILE, logs)
    assert path.read_bytes() == data
    assert unsound(state) == []


def test_nothing_is_changed_if_a_leaf_cannot_be_read(tmp_path):
    """A ledger that lacks entries says nothing of what no leaf names."""
    state = tmp_path / "state"
    _, logs = made(tmp_path)
    path = index_path(state, FILE)
    path.write_bytes(path.read_bytes()[:24])
    before = {file: file.read_bytes() for file in (state / "bodies").rglob("*") if file.is_file()}
    with pytest.raises(LedgerDamaged):
        mend(state, FILE, {LOG: logs[LOG] + 1})
    assert before == {file: file.read_bytes() for file in before}
    assert unsound(state) == [FILE]


def test_a_rotten_entry_costs_nobody_a_key(tmp_path):
    """Retention looks for keys that nothing else uses: a rotten index would hide one in use."""
    state = tmp_path / "state"
    _, logs = made(tmp_path)
    world = World(tmp_path)
    world.append("older", ["bob"], day="2026-11-01")
    world.commit()
    world.close()
    gone = ["mortgage/2026-11-01"]
    path = index_path(state, FILE)
    data = bytearray(path.read_bytes())
    assert [] == [number for numbers in unused(state, gone) for number in numbers]
    for at in range(0, len(data), 24):
        data[at] ^= 0x40
    path.write_bytes(data)
    assert [2] == [number for numbers in unused(state, gone) for number in numbers]
    assert unsound(state) == [FILE]
    mend(state, FILE, logs)
    assert [] == [number for numbers in unused(state, gone) for number in numbers]
    assert os.path.getsize(path) == len(data)
