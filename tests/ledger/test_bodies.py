"""Bodies by day: read back, bound, bounded, cut, and told apart when they cannot be read."""

import os
import threading

import pytest
from people import DAYS, World, killed_at, parts_of, populate

from gateway.ledger import bodies as module
from gateway.ledger.bodies import Damaged, Retired, find, index_path, overwrite
from gateway.ledger.keyfiles import Erased


def test_bodies_come_back_and_nothing_is_in_clear(tmp_path):
    """A body is read by its place, bound to its exchange, and stands nowhere in clear."""
    world = World(tmp_path)
    place = world.append("id-1", ["annalee"], parts=b"a personal thing" * 50)
    world.commit()

    assert b"a personal thing" * 50 == world.read("id-1", place)
    assert (1,) == world.reader.numbers(place.to_json())
    assert b"personal" not in (tmp_path / "state/bodies/mortgage/2026-11-22.bodies").read_bytes()
    with pytest.raises(Damaged):
        world.read("id-2", place)
    world.close()


def test_the_blob_is_as_the_format_says(tmp_path):
    """Count, numbers, nonce, AES-256-GCM over zstandard: opened here by hand."""
    import hashlib
    import struct

    import zstandard
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    world = World(tmp_path)
    place = world.append("id-1", ["annalee", "bob", "annalee"])
    world.commit()
    blob = (tmp_path / "state/bodies/mortgage/2026-11-22.bodies").read_bytes()[place.offset :]
    slots = (tmp_path / "keys/subjects/00000000.keys").read_bytes()
    key = hashlib.sha256(slots[36:68] + slots[72:104]).digest()
    packed = AESGCM(key).decrypt(blob[20:32], blob[32:], b"id-1")

    assert (2, 1, 2) == struct.unpack_from("<IQQ", blob)
    assert parts_of("annalee", "bob", "annalee") == zstandard.decompress(packed)
    assert hashlib.sha256(blob).hexdigest() == place.sha256
    world.close()


def test_many_days_and_models_at_once_with_few_files_open(tmp_path):
    """Several files get blobs in one commit; no more than the bound stay open after it."""
    world = World(tmp_path)
    places = {}
    for turn in range(2):
        for number in range(60):
            identity = f"{turn}-{number}"
            day = f"2026-{number % 12 + 1:02d}-23"
            places[identity] = world.append(identity, ["annalee"], f"model-{number % 5}", day)
        world.commit()
        assert len(world.bodies._days) <= module.FILES_OPEN_MAX
    for identity, place in places.items():
        assert parts_of("annalee") == world.read(identity, place)
    assert len(world.reader._open) <= module.FILES_OPEN_MAX
    assert 120 == len(list(find(tmp_path / "state", [1])))
    world.close()


def test_blobs_behind_a_leaf_are_cut_and_others_stay(tmp_path):
    """Files whose end is known are cut there; a file of which nothing is known goes on."""
    world = World(tmp_path)
    first = world.append("id-1", ["annalee"])
    world.append("id-2", ["bob"], parts=b"whose leaf was never written")
    other = world.append("id-3", ["annalee"], day=DAYS[1])
    world.commit()
    world.close()
    end = first.offset + first.length
    world = World(tmp_path, {first.file: end, "lost/2026-11-22": 500})
    third = world.append("id-4", ["bob"], parts=b"shorter")
    fourth = world.append("id-5", ["bob"], day=DAYS[1])
    lost = world.append("id-6", ["annalee"], model="lost")
    world.commit()

    assert end == third.offset
    assert other.offset + other.length == fourth.offset
    assert 500 == lost.offset
    assert b"shorter" == world.read("id-4", third)
    assert parts_of("bob") == world.read("id-5", fourth)
    bobs = {(blob.file, blob.offset, blob.length) for blob in find(tmp_path / "state", [2])}
    assert {(place.file, place.offset, place.length) for place in (third, fourth)} == bobs
    world.close()


def test_a_stale_entry_never_reaches_a_neighbour(tmp_path):
    """An entry of a blob that was cut, longer than what is there now, overwrites no neighbour."""
    world = World(tmp_path)
    world.append("id-1", ["annalee"], parts=os.urandom(5000))
    world.commit()
    world.close()
    world = World(tmp_path, {"mortgage/2026-11-22": 0})
    short = world.append("id-1", ["annalee"], parts=b"short")
    neighbour = world.append("id-2", ["bob"])
    world.commit()
    overwrite(tmp_path / "state", list(find(tmp_path / "state", [1])))

    assert parts_of("bob") == world.read("id-2", neighbour)
    with pytest.raises(Damaged):  # its key is still there: this is no erasure
        world.read("id-1", short)
    world.close()


def test_a_torn_or_garbled_index_harms_no_blob(tmp_path):
    """Half an entry is written over; one with a wrong checksum is not believed."""
    world = World(tmp_path)
    world.append("id-1", ["annalee"])
    world.commit()
    world.close()
    path = index_path(tmp_path / "state", "mortgage/2026-11-22")
    path.write_bytes(path.read_bytes() + (1).to_bytes(8, "little") + bytes(16) + b"half")
    world = World(tmp_path)
    second = world.append("id-2", ["annalee"])
    world.commit()

    assert path.stat().st_size % 24 == 0
    assert [0, second.offset] == [blob.offset for blob in find(tmp_path / "state", [1])]
    world.close()


def test_erased_retired_and_damaged_are_told_apart(tmp_path):
    """Three errors for three reasons, also through a reader that has the file open."""
    told = populate(tmp_path)
    world = World(tmp_path)
    identity, place = "mortgage-2026-11-22-annalee", told["mortgage-2026-11-22-annalee"][1]
    nobody = told["mortgage-2026-11-22-"][1]
    world.read(identity, place)
    path = tmp_path / "state/bodies/mortgage/2026-11-22.bodies"
    with path.open("r+b") as file:
        file.seek(nobody.offset + nobody.length - 1)
        last = file.read(1)[0]
        file.seek(nobody.offset + nobody.length - 1)
        file.write(bytes([last ^ 1]))

    with pytest.raises(Damaged):
        world.read("mortgage-2026-11-22-", nobody)
    with pytest.raises(Damaged):
        world.reader.read("x", {**place.to_json(), "offset": 10**9})
    world.subjects.destroy([1])
    with pytest.raises(Erased):
        world.read(identity, place)
    path.unlink()
    with pytest.raises(Retired):
        world.read(identity, place)
    with pytest.raises(ValueError, match="no name of a file"):
        world.reader.read("x", {**place.to_json(), "file": "../keys/2026-11-22"})
    world.close()


def test_a_reader_serves_many_threads_while_a_subject_is_erased(tmp_path):
    """Threads get the right bytes or Erased, never Damaged, while keys and blobs are zeroed."""
    told = populate(tmp_path)
    world = World(tmp_path)
    wrong, stopping = [], threading.Event()

    def read() -> None:
        while not stopping.is_set():
            for identity, (who, place) in told.items():
                try:
                    if world.read(identity, place) != parts_of(*who):
                        wrong.append(identity)
                except Erased:
                    continue
                except Exception as error:
                    wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    world.subjects.destroy([1])
    by_file: dict[str, list] = {}
    for blob in find(tmp_path / "state", [1]):
        by_file.setdefault(blob.file, []).append(blob)
    for blobs in by_file.values():
        overwrite(tmp_path / "state", blobs)
    stopping.set()
    for thread in threads:
        thread.join()

    assert [] == wrong
    world.close()


def test_a_kill_between_any_two_writes_of_a_commit_loses_nothing(tmp_path):
    """kill -9 before each write: what was committed is read, numbers are given once, it goes on."""
    import shutil

    populate(tmp_path / "seed")
    kills = 0
    while True:
        folder = tmp_path / str(kills)
        shutil.copytree(tmp_path / "seed", folder)
        given = folder / "given"

        def act(watch, folder=folder, given=given):
            world = World(folder)
            watch(world.subjects)
            world.append("new", ["carl", "annalee"], day="2026-11-24")
            world.append("own", (), day="2026-11-24")
            given.write_text(f"{world.subjects._next}")
            world.commit()
            world.close()

        killed = killed_at(kills, act)
        world = World(folder)
        carl = world.subjects.token("carl")
        fresh = world.subjects.keys_for(())[0]
        behind = int(given.read_text()) if given.exists() else 4
        place = world.append("again", ["carl", "annalee"], day="2026-11-24")
        world.commit()

        assert fresh >= behind
        assert (carl or fresh + 1, 1) == world.reader.numbers(place.to_json())
        assert parts_of("carl", "annalee") == world.read("again", place)
        assert 8 == len([b for b in find(folder / "state", [1]) if not b.file.endswith("-24")])
        world.close()
        shutil.rmtree(folder)
        if not killed:
            break
        kills += 1
    assert kills > 15
