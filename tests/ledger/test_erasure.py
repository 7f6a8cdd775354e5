"""Erasure: complete after a kill at any write, no byte left, nothing of others touched."""

import os
import shutil

import pytest
from people import World, files_with, killed_at, parts_of, populate

from gateway.ledger.bodies import Damaged, find
from gateway.ledger.erasure import Done, Erasure, Export
from gateway.ledger.holds import Deferred, HeldExchange, Hold, HoldRefused, Holds
from gateway.ledger.keyfiles import Erased

ANN, BOB = 1, 2
POSITION = 7


def erasure_of(world: World) -> Erasure:
    return Erasure(world.state, world.keys, world.subjects)


def traces(folder, told) -> list[bytes]:
    """What must stand nowhere once ann is erased: key, HMAC, ciphertexts, name, data."""
    world = World(folder)
    needles = [
        world.subjects._digest("annalee"),
        world.subjects.secret([ANN]),
        b"annalee",
        b"income",
    ]
    world.close()
    for who, place in told.values():
        if "annalee" in who:
            with (folder / "state" / "bodies" / f"{place.file}.bodies").open("rb") as file:
                file.seek(place.offset)
                blob = file.read(place.length)
            needles.append(blob[4 + 8 * len(who) :][:28])
            needles.append(blob[-28:])
    return needles


def assert_only_ann_is_gone(folder, told, needles) -> None:
    world = World(folder)
    for identity, (who, place) in told.items():
        if "annalee" in who:
            with pytest.raises(Erased):
                world.read(identity, place)
            assert ANN in world.reader.numbers(place.to_json())
        else:
            assert parts_of(*who) == world.read(identity, place)
    assert world.subjects.token("annalee") is None
    assert world.subjects.token("bob") == BOB
    assert [] == list(find(world.state, [ANN]))
    assert (ANN,) != world.subjects.keys_for(["annalee"])
    world.close()
    assert [] == [found for needle in needles for found in files_with(folder, needle)]


def test_a_subject_is_erased_and_no_file_holds_a_trace(tmp_path):
    """Key, HMAC, name, data, ciphertext: searched for in every file; others' bodies are read."""
    told = populate(tmp_path)
    needles = traces(tmp_path, told)
    assert files_with(tmp_path, needles[0])
    assert all(files_with(tmp_path, needle) for needle in needles[4:])
    world = World(tmp_path)
    erasure = erasure_of(world)
    plan = erasure.plan([ANN])
    done = erasure.carry_out(POSITION, [ANN])

    assert (8, 4, 1) == (plan.blobs, len(plan.files), plan.alive)
    assert (1, 8) == (done.keys, done.blobs)
    assert POSITION == erasure.position
    assert erasure.plan([ANN]).empty
    assert Done(0, 0) == erasure.carry_out(POSITION + 2, [ANN])
    assert [] == [found for needle in needles for found in files_with(tmp_path, needle)]
    world.close()
    assert_only_ann_is_gone(tmp_path, told, needles)


def test_a_kill_between_any_two_writes_is_completed_from_the_leaf(tmp_path):
    """kill -9 before each write and each statement; the next start replays the leaf."""
    told = populate(tmp_path / "seed")
    needles = traces(tmp_path / "seed", told)
    kills = undone = 0
    while True:
        folder = tmp_path / str(kills)
        shutil.copytree(tmp_path / "seed", folder)

        def act(watch, folder=folder):
            world = World(folder)
            watch(world.subjects)
            erasure_of(world).carry_out(POSITION, [ANN])

        killed = killed_at(kills, act)
        world = World(folder)
        erasure = erasure_of(world)
        undone += erasure.position < POSITION
        if erasure.position < POSITION:
            erasure.carry_out(POSITION, [ANN])
        world.close()
        assert_only_ann_is_gone(folder, told, needles)
        shutil.rmtree(folder)
        if not killed:
            break
        kills += 1
    assert kills > 25
    assert kills - 3 <= undone <= kills


@pytest.mark.parametrize("restored", ["keys", "state"])
def test_an_old_backup_is_erased_again(tmp_path, restored):
    """A backup of either side brings its old mark: the leaf is carried out once more."""
    told = populate(tmp_path)
    needles = traces(tmp_path, told)
    shutil.copytree(tmp_path / restored, tmp_path.parent / f"{tmp_path.name}-backup")
    world = World(tmp_path)
    erasure_of(world).carry_out(POSITION, [ANN])
    world.close()
    shutil.rmtree(tmp_path / restored)
    shutil.copytree(tmp_path.parent / f"{tmp_path.name}-backup", tmp_path / restored)
    assert any(files_with(tmp_path, needle) for needle in needles)
    world = World(tmp_path)
    erasure = erasure_of(world)
    assert erasure.position == 0
    erasure.carry_out(POSITION, [ANN])
    world.close()

    assert_only_ann_is_gone(tmp_path, told, needles)


def test_a_damaged_mark_has_every_erasure_carried_out_again(tmp_path):
    """Whichever bit it was: a higher one would pass over what an old backup brought back."""
    populate(tmp_path)
    world = World(tmp_path)
    erasure = erasure_of(world)
    erasure.carry_out(POSITION, [ANN])
    for path in (tmp_path / "keys/subjects/erased", tmp_path / "state/bodies/erased"):
        data = path.read_bytes()
        for bit in range(8 * len(data)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert erasure.position == 0
        erasure.carry_out(POSITION, [ANN])
        assert (erasure.position, path.read_bytes()) == (POSITION, data)
    world.close()


def test_an_exchange_without_a_subject_is_erased_alone(tmp_path):
    """Its own key goes; nobody else's."""
    told = populate(tmp_path)
    world = World(tmp_path)
    own = {name: place for name, (who, place) in told.items() if not who}
    identity, place = own.popitem()
    numbers = world.reader.numbers(place.to_json())
    done = erasure_of(world).carry_out(1, numbers)

    assert (1, 1) == (done.keys, done.blobs)
    with pytest.raises(Erased):
        world.read(identity, place)
    for name, (who, other) in told.items():
        if name != identity:
            assert parts_of(*who) == world.read(name, other)
    world.close()


def test_bytes_changed_without_an_erasure_are_damage(tmp_path):
    """Zeros over a blob whose key lives are not taken for an erasure."""
    told = populate(tmp_path)
    place = told["mortgage-2026-11-22-annalee"][1]
    path = tmp_path / "state/bodies/mortgage/2026-11-22.bodies"
    with path.open("r+b") as file:
        file.seek(place.offset + 12)
        file.write(bytes(place.length - 12))
    world = World(tmp_path)
    with pytest.raises(Damaged):
        world.read("mortgage-2026-11-22-annalee", place)
    world.close()


def test_exports_that_held_the_subject_are_named(tmp_path):
    """Those with values of a day with a body of theirs; those of days that are gone: perhaps."""
    populate(tmp_path)
    world = World(tmp_path)
    world.append("late", ["carl"], day="2026-11-24")
    world.commit()
    day = frozenset({"2026-11-24"})
    exports = [
        Export("with", "mortgage", day | {"2026-11-23"}, True),
        Export("without", "mortgage", day, False),
        Export("other day", "mortgage", frozenset({"2026-11-23"}), True),
        Export("other model", "credit-card", frozenset({"2026-11-23"}), True),
        Export("gone day", "mortgage", frozenset({"2026-11-23", "2025-01-01"}), True),
    ]
    plan = erasure_of(world).plan(world.subjects.keys_for(["carl"]), exports)

    assert ("with",) == plan.exports
    assert ("gone day",) == plan.exports_perhaps
    assert {"numbers", "keys", "blobs", "bytes", "files", "exports", "exports_perhaps"} == set(
        plan.to_json()
    )
    world.close()


def test_large_bodies_of_many_subjects_are_overwritten_whole(tmp_path):
    """Megabytes that do not compress, under hundreds of keys: all behind the head is zero."""
    world = World(tmp_path)
    many = [f"person {number}" for number in range(300)]
    before = world.append("before", ["bob"])
    place = world.append("large", many, parts=os.urandom(3 * 1024**2))
    behind = world.append("behind", ["bob"])
    world.commit()
    numbers = world.reader.numbers(place.to_json())
    assert 300 == len(numbers)
    erasure_of(world).carry_out(1, numbers[150:151])
    blob = (tmp_path / "state/bodies/mortgage/2026-11-22.bodies").read_bytes()
    blob = blob[place.offset : place.offset + place.length]

    assert not blob[4 + 8 * 300 :].strip(b"\0")
    assert parts_of("bob") == world.read("before", before) == world.read("behind", behind)
    assert numbers == world.reader.numbers(place.to_json())
    world.close()


def test_holds_defer_erasures_and_outlive_a_restart(tmp_path):
    """A hold of a model or an exchange names itself against an erasure, until it is released."""
    holds = Holds(tmp_path)
    exchange = HeldExchange("x", "mortgage/2026-11-22", (BOB,))
    holds.hold(Hold("case-1", "litigation", "eve", 5, model="mortgage"))
    holds.hold(Hold("case-2", "complaint", "eve", 6, exchanges=(exchange,)))
    holds.defer(Deferred("d-1", (ANN,), "asked", "eve", 7))
    nothing, both = Hold("n", "", "", 0), Hold("b", "", "", 0, "m", (exchange,))
    for wrong in (Hold("case-1", "", "", 0, "m"), nothing, both):
        with pytest.raises(HoldRefused):
            holds.hold(wrong)
    with pytest.raises(HoldRefused, match="case-1, case-2"):
        holds.release("case-3")
    again = Holds(tmp_path)

    assert holds.holds == again.holds
    assert holds.deferred == again.deferred
    named = [hold.id for hold in again.against([ANN], ["mortgage/2026-11-23"])]
    assert ["case-1"] == named
    assert ["case-2"] == [hold.id for hold in again.against([BOB], ["credit-card/2026-11-23"])]
    again.release("case-1")
    again.done("d-1")
    assert () == Holds(tmp_path).against([ANN], ["mortgage/2026-11-23"])
    assert {} == Holds(tmp_path).deferred


def test_a_kill_while_holds_are_written_leaves_the_old_or_the_new(tmp_path):
    """kill -9 before each write of a hold: it is in force or it is not, and the file is whole."""
    kills = 0
    while True:
        folder = tmp_path / str(kills)
        folder.mkdir()
        Holds(folder).hold(Hold("old", "r", "b", 1, model="m"))
        hold = Hold("new", "r", "b", 1, model="n")
        killed = killed_at(kills, lambda watch, folder=folder, hold=hold: Holds(folder).hold(hold))
        found = list(Holds(folder).holds)
        assert found in (["old"], ["old", "new"])
        if not killed:
            break
        kills += 1
    assert ["old", "new"] == found
    assert kills > 3
