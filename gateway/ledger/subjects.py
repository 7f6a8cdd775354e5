"""Keys of subjects, and who has which: everything that makes a person's bodies readable.

    keys/subjects/<file>.keys     slots, 65,536 a file; a key's number is its slot (`keyfiles.py`)
    keys/subjects/index.key       32 bytes, the key of the map's HMACs
    keys/subjects/map.sqlite      HMAC-SHA256(index key, subject) -> key number, the subject's token
    state/bodies/numbers          a number: those below it may have been given

Invariants:
1. A number is given once, for ever. Each start begins at `numbers`, which is raised before any
   number below it is given: neither a crash nor an old backup of `keys` gives one twice, so what
   a leaf says of a number is true of one subject only.
2. A slot is durable before the map's row that names it, and both before any blob under it.
3. A slot of zeros, or none, is a key that was erased. Nothing caches keys outside the governor.
4. What is erased leaves no byte: slots are overwritten in place, rows with `secure_delete`, the
   write-ahead log is emptied, and the map's file is searched for what must be gone. A mark in the
   map (`user_version`), set with the deletion, makes a start after a crash clean up by itself.
   A subject whose slot is damaged gets a second number and keeps the first: both are erased as one.
5. `index.key` and map belong together: the map says of which key it is, and no other one is used.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
import struct
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from gateway.disk import sync_folder, write_durably
from gateway.ledger.keyfiles import (
    ERASED,
    KEY_BYTES,
    SLOT_BYTES,
    SLOTS_A_FILE,
    Erased,
    KeyDamaged,
    KeyFiles,
    KeysUnusable,
    combine,
    encode_slot,
)

FIRST_NUMBER = 1
RESERVED = 4096
"""Numbers promised at once; what a start skips, at most."""
CACHED_MAX = 50_000
SEARCHED_MAX = 64
"""Deleted rows that are searched for one by one; for more the map is written anew at once."""
CHECK = struct.Struct(">i")


class Subjects:
    """The governor's side, the only writer; one thread at a time."""

    def __init__(self, state: Path, keys: Path) -> None:
        """KeysUnusable: keys were made before and are not here; they are never made twice."""
        self.root = keys / "subjects"
        self._ceiling_path = state / "bodies" / "numbers"
        self._ceiling_path.parent.mkdir(parents=True, exist_ok=True)
        self._ceiling = read_number(self._ceiling_path)
        self._index_key = _index_key(self.root, begun=self._ceiling > 0)
        self._files = KeyFiles(self.root, os.O_RDWR)
        self._next = max(FIRST_NUMBER, self._ceiling, self._behind_last())
        self._ceiling = self._next
        self._keys: dict[int, bytes] = {}
        self._rows: dict[bytes, int] = {}
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._secrets: OrderedDict[int, bytes] = OrderedDict()
        try:
            self._map = self._open_map()
            if self._traces_remain():
                self._remove_traces()
        except sqlite3.DatabaseError as error:
            raise KeysUnusable(f"{self.root / 'map.sqlite'}: {error}") from None

    def _behind_last(self) -> int:
        files = self._files.files()
        if not files:
            return 0
        slots = -(-self._files.path(files[-1]).stat().st_size // SLOT_BYTES)
        return files[-1] * SLOTS_A_FILE + slots

    def _open_map(self) -> sqlite3.Connection:
        """Exclusive: nobody else's read may keep the write-ahead log from being emptied."""
        path = self.root / "map.sqlite"
        opened = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL",
                        "secure_delete=ON", "temp_store=MEMORY", "cache_size=-16000"):  # fmt: skip
            opened.execute(f"PRAGMA {setting}")
        opened.execute(
            "CREATE TABLE IF NOT EXISTS subjects"
            " (hmac BLOB, number INTEGER, PRIMARY KEY (hmac, number)) WITHOUT ROWID"
        )
        opened.execute("CREATE TEMP TABLE doomed (number INTEGER PRIMARY KEY)")
        self._hold_against(opened)
        return opened

    def _hold_against(self, opened: sqlite3.Connection) -> None:
        """The map's `application_id` is of the key that made its HMACs: under another one nobody
        would be found, and everybody would get a second number."""
        (own,) = CHECK.unpack(sha256(self._index_key).digest()[: CHECK.size])
        (held,) = opened.execute("PRAGMA application_id").fetchone()
        if held == 0:
            opened.execute(f"PRAGMA application_id = {own}")
        elif held != own:
            opened.close()
            raise KeysUnusable(f"{self.root}: index.key and map.sqlite do not belong together")

    def keys_for(self, subjects: Sequence[str]) -> tuple[int, ...]:
        """The numbers of the subjects of an exchange, each once, in order; new ones are made.

        Empty names are nobody; with nobody named the exchange gets a key of its own.
        """
        if len(subjects) == 1 and subjects[0]:
            return (self._number(subjects[0]),)
        named = dict.fromkeys(subject for subject in subjects if subject)
        return tuple(self._number(subject) for subject in named) or (self._give(),)

    def _number(self, subject: str) -> int:
        number = self._numbers.get(subject)
        if number is None or not self._usable(number):
            digest = self._digest(subject)
            number = self._known(digest)
            if number is None:
                number = self._rows[digest] = self._give()
            self._numbers[subject] = number
            if len(self._numbers) > CACHED_MAX:
                self._numbers.popitem(last=False)
        else:
            self._numbers.move_to_end(subject)
        return number

    def _digest(self, subject: str) -> bytes:
        return hmac.digest(self._index_key, subject.encode("utf-8", "surrogatepass"), "sha256")

    def _known(self, digest: bytes) -> int | None:
        """The newest number whose key is whole: another one is as good as none."""
        if (waiting := self._rows.get(digest)) is not None:
            return waiting
        return next((number for number in self._held(digest) if self._usable(number)), None)

    def _held(self, digest: bytes) -> list[int]:
        query = "SELECT number FROM subjects WHERE hmac = ? ORDER BY number DESC"
        return [number for (number,) in self._map.execute(query, (digest,))]

    def _give(self) -> int:
        number = self._next
        if number >= self._ceiling:
            write_durably(self._ceiling_path, encode_number(number + RESERVED))
            self._ceiling = number + RESERVED
        self._next = number + 1
        self._keys[number] = os.urandom(KEY_BYTES)
        return number

    def secret(self, numbers: Sequence[int]) -> bytes:
        """The 32-byte key of a blob under these numbers. Erased, KeyDamaged: one of them is."""
        if len(numbers) == 1:
            return self._key(numbers[0])
        return combine([self._key(number) for number in numbers])

    def _key(self, number: int) -> bytes:
        key = self._keys.get(number)
        if key is not None:
            return key
        key = self._secrets.get(number)
        if key is None:
            key = self._secrets[number] = self._files.read(number)
            if len(self._secrets) > CACHED_MAX:
                self._secrets.popitem(last=False)
        else:
            self._secrets.move_to_end(number)
        return key

    def alive(self, number: int) -> bool:
        """Whether there is anything to erase of a number's key."""
        try:
            self._key(number)
        except Erased:
            return False
        except KeyDamaged:
            return True
        return True

    def _usable(self, number: int) -> bool:
        try:
            self._key(number)
        except (Erased, KeyDamaged):
            return False
        return True

    def token(self, subject: str) -> int | None:
        """The number of a subject that has bodies, without making one."""
        digest = self._digest(subject)
        if (number := self._known(digest)) is not None:
            return number
        return next((number for number in self._held(digest) if self.alive(number)), None)

    def all_of(self, numbers: Collection[int]) -> tuple[int, ...]:
        """These numbers and all others that the same subjects have: what one erasure is of."""
        self.commit()
        self._doom(numbers)
        query = (
            "SELECT DISTINCT number FROM subjects WHERE hmac IN (SELECT hmac FROM subjects"
            " WHERE number IN (SELECT number FROM doomed))"
        )
        return tuple(sorted({*numbers, *(number for (number,) in self._map.execute(query))}))

    def _doom(self, numbers: Collection[int]) -> None:
        self._map.execute("DELETE FROM doomed")
        self._map.executemany("INSERT INTO doomed VALUES (?)", ((number,) for number in numbers))

    def commit(self) -> None:
        """Make new keys and rows durable; comes before the commit of bodies under them.

        After an error the object is of no use any more: open another one.
        """
        if self._keys:
            slots = {number: encode_slot(number, key) for number, key in self._keys.items()}
            for first, data in _runs(slots):
                self._write(first, data)
            self._keep()
        if self._rows:
            self._map.execute("BEGIN")
            rows = sorted(self._rows.items())
            self._map.executemany("INSERT INTO subjects VALUES (?, ?)", rows)
            self._map.execute("COMMIT")
            self._rows.clear()

    def _keep(self) -> None:
        for number, key in self._keys.items():
            self._secrets[number] = key
        self._keys.clear()
        while len(self._secrets) > CACHED_MAX:
            self._secrets.popitem(last=False)

    def _write(self, first: int, data: bytes) -> None:
        file, slot = divmod(first, SLOTS_A_FILE)
        if fresh := not self._files.path(file).exists():
            self._files.path(file).touch(0o600)
        descriptor = self._files.descriptor(file)
        if os.pwrite(descriptor, data, slot * SLOT_BYTES) != len(data):
            raise OSError("a write of keys was short")
        os.fdatasync(descriptor)
        if fresh:
            sync_folder(self.root)

    def destroy(self, numbers: Collection[int]) -> int:
        """Destroy keys and the rows that name them, durably; how many keys were there.

        Again for the same numbers it changes nothing: after a crash it completes what was begun.
        """
        self.commit()
        by_file: dict[int, set[int]] = {}
        for number in numbers:
            by_file.setdefault(number // SLOTS_A_FILE, set()).add(number % SLOTS_A_FILE)
        alive = sum(self._zero(file, slots) for file, slots in sorted(by_file.items()))
        for number in numbers:
            self._secrets.pop(number, None)
        doomed = set(numbers)
        for subject in [name for name, number in self._numbers.items() if number in doomed]:
            del self._numbers[subject]
        self._delete_rows(doomed)
        return alive

    def _zero(self, file: int, slots: set[int]) -> int:
        """Overwrite slots; synced even if all were zeros: a crash may have kept that back."""
        path = self._files.path(file)
        if not path.exists():
            return 0
        data = bytearray(path.read_bytes())
        alive = {
            slot: ERASED
            for slot in sorted(slots)
            if data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES].strip(b"\0")
        }
        descriptor = self._files.descriptor(file)
        for first, zeros in _runs(alive):
            if os.pwrite(descriptor, zeros, first * SLOT_BYTES) != len(zeros):
                raise OSError("a write of zeros over keys was short")
            data[first * SLOT_BYTES : first * SLOT_BYTES + len(zeros)] = zeros
        os.fdatasync(descriptor)
        if (file + 1) * SLOTS_A_FILE <= self._next and not data.strip(b"\0"):
            self._files.forget(file)
            path.unlink()
            sync_folder(self.root)
        return len(alive)

    def _delete_rows(self, numbers: set[int]) -> None:
        self._doom(numbers)
        query = "SELECT hmac, number FROM subjects WHERE number IN (SELECT number FROM doomed)"
        rows = self._map.execute(query).fetchall()
        if not rows:
            return
        self._map.execute("BEGIN")
        self._map.execute("PRAGMA user_version = 1")
        self._map.executemany("DELETE FROM subjects WHERE hmac = ? AND number = ?", rows)
        self._map.execute("COMMIT")
        self._empty_log()
        if len(rows) > SEARCHED_MAX or _holds_any(
            self.root / "map.sqlite", [row[0] for row in rows]
        ):
            self._remove_traces()
        else:
            self._clear_mark()

    def _traces_remain(self) -> bool:
        version: int = self._map.execute("PRAGMA user_version").fetchone()[0]
        return version != 0

    def _remove_traces(self) -> None:
        """Write the map anew: freed space within its pages may hold what was deleted."""
        self._map.execute("VACUUM")
        self._empty_log()
        self._clear_mark()

    def _clear_mark(self) -> None:
        self._map.execute("PRAGMA user_version = 0")
        self._empty_log()

    def _empty_log(self) -> None:
        busy, *_ = self._map.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise KeysUnusable("the map's write-ahead log could not be emptied")

    def close(self) -> None:
        self._map.close()
        self._files.close()


def encode_number(number: int) -> bytes:
    """A number as a file of its own keeps it: 8 bytes, and their CRC-32."""
    told = number.to_bytes(8, "little")
    return told + crc32(told).to_bytes(4, "little")


def read_number(path: Path) -> int:
    """A number kept in a file of its own; 0 without a file. KeysUnusable: it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    number = int.from_bytes(data[:8], "little")
    if data != encode_number(number):
        raise KeysUnusable(f"{path} is damaged: restore it from a backup of the state")
    return number


def _index_key(root: Path, *, begun: bool) -> bytes:
    """The key of the map's HMACs, made once: with the first subject's key."""
    path = root / "index.key"
    if not path.exists():
        if begun or (root / "map.sqlite").exists() or any(root.glob("*.keys")):
            raise KeysUnusable(f"{path} is missing and keys were given: restore the keys")
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(path, os.urandom(KEY_BYTES))
    return path.read_bytes()


def _runs(slots: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """(first number, bytes) of neighbouring slots of one file; numbers come in rising order."""
    run: list[bytes] = []
    first = 0
    for number, key in slots.items():
        if run and (number != first + len(run) or number % SLOTS_A_FILE == 0):
            yield first, b"".join(run)
            run = []
        if not run:
            first = number
        run.append(key)
    if run:
        yield first, b"".join(run)


def _holds_any(path: Path, needles: Sequence[bytes]) -> bool:
    """Whether a file holds any of some byte strings of one length."""
    overlap = len(needles[0]) - 1
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(4 * 1024**2):
            window = tail + piece
            if any(needle in window for needle in needles):
                return True
            tail = window[-overlap:]
    return False
