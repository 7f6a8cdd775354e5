"""Keys of subjects: one number each, given once for ever, durable first, gone without a trace."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from people import World, files_with

from gateway.ledger import keyfiles
from gateway.ledger import subjects as module
from gateway.ledger.keyfiles import Erased, KeyDamaged, KeyReader, KeysUnusable
from gateway.ledger.subjects import Subjects

NAMES = st.sampled_from(["annalee", "bob", "carl", "däisy", "\udc80", "e" * 500])


class Map(RuleBasedStateMachine):
    """Subjects against a plain dictionary, with crashes, restarts and erasures."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.given: set[int] = set()
        self.known: dict[str, tuple[int, bytes]] = {}
        self.durable: dict[str, tuple[int, bytes]] = {}
        self.gone: set[int] = set()
        self.open()

    def open(self) -> None:
        self.subjects = Subjects(self.folder / "state", self.folder / "keys")

    @rule(names=st.lists(NAMES | st.just(""), max_size=4))
    def ask(self, names: list[str]) -> None:
        numbers = self.subjects.keys_for(names)
        wanted = list(dict.fromkeys(name for name in names if name))
        if not wanted:
            assert len(numbers) == 1
            assert numbers[0] not in self.given
            self.given.update(numbers)
            return
        assert len(wanted) == len(numbers)
        for name, number in zip(wanted, numbers):
            key = self.subjects.secret([number])
            if name in self.known:
                assert (number, key) == self.known[name]
            else:
                assert number not in self.given
                self.known[name] = number, key
                self.given.add(number)

    @rule()
    def commit(self) -> None:
        self.subjects.commit()
        self.durable = dict(self.known)

    @rule()
    def crash(self) -> None:
        self.subjects.close()
        self.open()
        self.known = dict(self.durable)

    @rule(name=NAMES, own=st.booleans())
    def destroy(self, name: str, own: bool) -> None:
        numbers = [number for number, _ in [self.known.pop(name, (0, b""))] if number]
        numbers += self.subjects.keys_for(()) if own else ()
        self.given.update(numbers)
        assert len(numbers) == self.subjects.destroy(numbers)
        assert self.subjects.destroy(numbers) == 0
        self.durable = dict(self.known)
        self.gone.update(numbers)
        assert self.subjects.token(name) is None

    @invariant()
    def reads_as_known(self) -> None:
        reader = KeyReader(self.folder / "keys")
        for name, (number, key) in self.durable.items():
            assert number == self.subjects.token(name)
            assert key == reader.secret([number]) == self.subjects.secret([number])
        for number in self.gone:
            with pytest.raises(Erased):
                reader.secret([number])
        reader.close()

    def teardown(self) -> None:
        self.subjects.close()
        shutil.rmtree(self.folder)


Map.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestMap = Map.TestCase


def open_at(folder: Path) -> Subjects:
    return Subjects(folder / "state", folder / "keys")


def test_an_old_backup_of_keys_gives_no_number_again(tmp_path):
    """After a restore new subjects get numbers that no leaf of the lost time can mean."""
    subjects = open_at(tmp_path)
    subjects.keys_for(["annalee"])
    subjects.commit()
    subjects.close()
    shutil.copytree(tmp_path / "keys", tmp_path / "backup")
    subjects = open_at(tmp_path)
    lost = subjects.keys_for(["bob"])
    subjects.commit()
    subjects.close()
    shutil.rmtree(tmp_path / "keys")
    shutil.copytree(tmp_path / "backup", tmp_path / "keys")
    subjects = open_at(tmp_path)

    assert subjects.token("annalee") == 1
    assert subjects.token("bob") is None
    assert subjects.keys_for(["carl"]) > lost
    with pytest.raises(Erased):
        subjects.secret(lost)
    subjects.close()


def test_keys_are_never_made_twice(tmp_path):
    """Where numbers were given and the keys are gone or damaged, the start is refused."""
    subjects = open_at(tmp_path)
    subjects.keys_for(["annalee"])
    subjects.commit()
    subjects.close()
    shutil.copytree(tmp_path, tmp_path / "map")
    (tmp_path / "map/keys/subjects/map.sqlite").write_bytes(b"no database" * 1000)
    shutil.copytree(tmp_path / "keys", tmp_path / "index/keys")
    (tmp_path / "index/keys/subjects/index.key").unlink()
    shutil.rmtree(tmp_path / "keys")
    for folder in (tmp_path, tmp_path / "map", tmp_path / "index"):
        with pytest.raises(KeysUnusable):
            open_at(folder)
    assert not (tmp_path / "keys").exists()
    with pytest.raises(KeysUnusable):
        KeyReader(tmp_path / "keys").secret([1])


def test_every_flipped_bit_of_a_key_file_is_told(tmp_path, monkeypatch):
    """Of keys, of their checksums, of the zeros of an erased one: that slot is named, no other."""
    monkeypatch.setattr(keyfiles, "PAUSE_S", 0)
    subjects = open_at(tmp_path)
    numbers = [subjects.keys_for([name])[0] for name in ("annalee", "bob", "carl")]
    subjects.destroy(numbers[1:2])
    secrets = {number: subjects.secret([number]) for number in (numbers[0], numbers[2])}
    path = tmp_path / "keys/subjects/00000000.keys"
    data = path.read_bytes()
    assert [[]] == list(keyfiles.damaged_slots(tmp_path / "keys"))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        hit = bit // 8 // keyfiles.SLOT_BYTES
        reader = KeyReader(tmp_path / "keys")
        with pytest.raises(KeyDamaged, match=f"slot {hit} of {path}"):
            reader.secret([hit])
        for number in secrets.keys() - {hit}:
            assert secrets[number] == reader.secret([number])
        reader.close()
        ((told,),) = keyfiles.damaged_slots(tmp_path / "keys")
        assert f"key {hit} is damaged" in told
    assert 4 * 36 == len(data)
    subjects.close()


def test_every_flipped_bit_of_the_number_given_last_is_refused(tmp_path):
    """A smaller one would give numbers twice, and a leaf would be true of two people."""
    subjects = open_at(tmp_path)
    subjects.keys_for(["annalee"])
    subjects.commit()
    subjects.close()
    path = tmp_path / "state/bodies/numbers"
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(KeysUnusable, match=f"{path} is damaged"):
            open_at(tmp_path)
    path.write_bytes(data[:-1])
    with pytest.raises(KeysUnusable, match="is damaged"):
        open_at(tmp_path)
    path.write_bytes(data)
    open_at(tmp_path).close()


def test_slots_that_changed_places_are_damage(tmp_path):
    """A key has its number in its checksum: somebody else's key is not taken for one's own."""
    subjects = open_at(tmp_path)
    numbers = [subjects.keys_for([name])[0] for name in ("annalee", "bob")]
    subjects.commit()
    subjects.close()
    path = tmp_path / "keys/subjects/00000000.keys"
    data = path.read_bytes()
    path.write_bytes(data[:36] + data[72:108] + data[36:72])
    reader = KeyReader(tmp_path / "keys")
    for number in numbers:
        with pytest.raises(KeyDamaged):
            reader.secret([number])
    reader.close()


def test_a_subject_whose_key_is_damaged_goes_on_under_a_second_one(tmp_path):
    """New bodies get a new number, the old one is kept for a backup, one erasure takes both."""
    subjects = open_at(tmp_path)
    (first,) = subjects.keys_for(["annalee"])
    (other,) = subjects.keys_for(["bob"])
    subjects.commit()
    subjects.close()
    path = tmp_path / "keys/subjects/00000000.keys"
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 4]) + data[41:])
    subjects = open_at(tmp_path)
    assert subjects.token("annalee") == first
    (second,) = subjects.keys_for(["annalee"])
    subjects.commit()

    assert second not in (first, other)
    assert subjects.token("annalee") == second
    assert subjects.all_of([second]) == subjects.all_of([first]) == (first, second)
    assert subjects.all_of([other]) == (other,)
    digest = subjects._digest("annalee")
    assert 2 == subjects.destroy(subjects.all_of([second]))
    assert subjects.token("annalee") is None
    assert [] == files_with(tmp_path, digest)
    assert [[]] == list(keyfiles.damaged_slots(tmp_path / "keys"))
    assert subjects.keys_for(["bob"]) == (other,)
    subjects.close()


def test_a_changed_index_key_is_refused(tmp_path):
    """One flipped bit: nobody would be found under it, everybody would be given a new number."""
    subjects = open_at(tmp_path)
    number = subjects.keys_for(["annalee"])
    subjects.commit()
    subjects.close()
    path = tmp_path / "keys/subjects/index.key"
    key = path.read_bytes()
    path.write_bytes(bytes([key[0] ^ 1]) + key[1:])
    with pytest.raises(KeysUnusable, match="do not belong together"):
        open_at(tmp_path)
    path.write_bytes(key)
    subjects = open_at(tmp_path)
    assert subjects.keys_for(["annalee"]) == number
    subjects.close()


def test_deleted_rows_leave_no_trace_in_a_map_of_many_pages(tmp_path):
    """Of thousands of rows in random order some go: no file holds their HMAC, all others stay."""
    subjects = open_at(tmp_path)
    names = [f"person {number}" for number in range(5000)]
    for start in range(0, 5000, 250):
        for name in names[start : start + 250]:
            subjects.keys_for([name])
        subjects.commit()
    gone = names[::97]
    for name in gone:
        assert subjects.destroy([subjects.token(name)]) == 1
    for name in gone:
        assert [] == files_with(tmp_path, subjects._digest(name))
    assert all((subjects.token(name) is None) == (name in gone) for name in names)
    subjects.close()


def test_many_rows_at_once_leave_no_trace(tmp_path):
    """More than are searched for one by one: the map is written anew."""
    subjects = open_at(tmp_path)
    names = [f"person {number}" for number in range(400)]
    numbers = [subjects.keys_for([name])[0] for name in names]
    subjects.destroy(numbers[:200])

    assert [] == [name for name in names[:200] if files_with(tmp_path, subjects._digest(name))]
    assert files_with(tmp_path, subjects._digest(names[300]))
    subjects.close()


def test_memory_is_bounded(tmp_path, monkeypatch):
    """Neither names nor raw keys beyond the bound are kept, and what was dropped is read again."""
    monkeypatch.setattr(module, "CACHED_MAX", 100)
    subjects = open_at(tmp_path)
    first = {name: subjects.keys_for([name]) for name in (f"p{n}" for n in range(500))}
    secrets = {name: subjects.secret(numbers) for name, numbers in first.items()}
    subjects.commit()

    assert first == {name: subjects.keys_for([name]) for name in first}
    assert secrets == {name: subjects.secret(numbers) for name, numbers in first.items()}
    assert len(subjects._numbers) <= 100
    assert len(subjects._secrets) <= 100
    subjects.close()


def test_key_files_follow_one_another_and_empty_ones_go(tmp_path, monkeypatch):
    """Runs over the end of a file are split; a full file of zeros is unlinked, numbers go on."""
    for each in (module, keyfiles):
        monkeypatch.setattr(each, "SLOTS_A_FILE", 16)
    world = World(tmp_path)
    numbers = [world.subjects.keys_for(())[0] for _ in range(40)]
    keys = [world.subjects.secret([number]) for number in numbers]
    world.commit()
    reader = KeyReader(tmp_path / "keys")
    assert keys == [reader.secret([number]) for number in numbers]
    world.subjects.destroy(numbers[:20])

    assert [1, 2] == world.subjects._files.files()
    assert keys[20:] == [reader.secret([number]) for number in numbers[20:]]
    world.close()
    world = World(tmp_path)
    assert world.subjects.keys_for(())[0] > numbers[-1]
    world.close()
