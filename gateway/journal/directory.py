"""One journal's folder: its segments in order, their keys, its name, and its single writer.

    state/journal/<name>/identity           16 hex digits, made once: a wiped journal is another one
    state/journal/<name>/lock               held by the writer
    state/journal/<name>/00000007.segment   numbered from 0
    state/journal/<name>/00000007.damaged   a damaged segment whose loss was accepted, without key
    state/journal/<name>/begun              JSON: the newest segment begun, its first record
    state/journal/<name>/retired            JSON: the newest segment retired, what it ended at
    state/journal/<name>/accepted           losses that were accepted (damage.py)
    state/journal/<name>/withheld           records of a commit that failed or stalled (withheld.py)
    keys/journal/<name>/00000007.key        32 bytes; gone with its segment

Invariants:
1. A key is on disk before the segment that uses it, and is destroyed before it: a segment without
   its key is unreadable for ever, a key without its segment is harmless.
2. Record numbers are never given twice. `begun` is durable before a segment's head is, `retired`
   before a segment goes: whichever segments are lost, a start knows that they were there.
3. Each segment's head repeats the journal's identity. Under another one its records would be sealed
   a second time, so `check` refuses it; so is a small file that is not what we write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.disk import Occupied, hold, sync_folder, write_durably
from gateway.journal.damage import Accepted, read_accepted, write_accepted
from gateway.journal.segment import START, SegmentHead, commits_behind, survey

IDENTITY = re.compile(rb"[0-9a-f]{16}")


class Garbled(OSError):
    """A small file of a journal is not what we write. Nothing is written or sealed until it is."""


@dataclass(frozen=True, slots=True)
class Milestone:
    """A segment's number, and a record number: its first (begun) or the one behind its last."""

    segment: int = -1
    sequence: int = 0


class JournalFolder:
    def __init__(self, state: Path, keys: Path, name: str) -> None:
        self.name = name
        self.path = state / "journal" / name
        self.keys = keys / "journal" / name

    def __repr__(self) -> str:
        return f"<JournalFolder {self.path}>"

    def make(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.check():
            write_durably(self.path / "identity", random(8).hex().encode())

    @cached_property
    def identity(self) -> str:
        """FileNotFoundError: the journal has not begun. Garbled: it has, and this is no name."""
        path = self.path / "identity"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            if not (self.segments() or (self.path / "begun").exists()):
                raise
            raise Garbled(f"{path} is not there, and the journal has begun") from None
        if not IDENTITY.fullmatch(text):
            raise Garbled(f"{path}: 16 hex digits are wanted, not {text[:40]!r}")
        return text.decode()

    def check(self) -> bool:
        """Whether the journal has begun. Garbled: a small file is not what we write, or segments
        are of another journal."""
        try:
            identity = self.identity.encode()
        except FileNotFoundError:
            return False
        self.begun(), self.retired(), self.accepted()
        for number in self.segments():
            try:
                head = self.head(number)
            except (FileNotFoundError, ValueError):
                continue  # what a reader calls damage
            if head is not None and head.journal != identity:
                words = f"it says {identity.decode()}, and {number:08d}.segment is of"
                raise Garbled(f"{self.path / 'identity'}: {words} {head.journal.decode()}")
        return True

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self.path.glob("*.segment"))

    def segment(self, number: int) -> Path:
        return self.path / f"{number:08d}.segment"

    def damaged(self, number: int) -> Path:
        return self.path / f"{number:08d}.damaged"

    def head(self, number: int) -> SegmentHead | None:
        """The segment's head; None: it was prepared and never begun.

        FileNotFoundError: there is no such segment. ValueError: the head is damaged.
        """
        with open(self.segment(number), "rb") as file:
            return SegmentHead.decode(file.read(START))

    def begun_after(self, number: int) -> tuple[int, SegmentHead | None] | None:
        """The next segment that was begun, and its head: None if that is damaged."""
        for later in self.segments():
            if later <= number:
                continue
            try:
                head = self.head(later)
            except FileNotFoundError:
                continue
            except ValueError:
                return later, None
            if head is not None:
                return later, head
        return None

    def sound_after(self, number: int) -> tuple[int, SegmentHead] | None:
        """The next segment that was begun and whose head can be read."""
        while (found := self.begun_after(number)) is not None:
            number, head = found
            if head is not None:
                return number, head
        return None

    def key(self, number: int) -> Path:
        return self.keys / f"{number:08d}.key"

    def make_key(self, number: int, random: Callable[[int], bytes] = os.urandom) -> AESGCM:
        key = random(32)
        write_durably(self.key(number), key)
        return AESGCM(key)

    def cipher(self, number: int) -> AESGCM:
        """FileNotFoundError: the key was destroyed or not restored. ValueError: it is no key."""
        return AESGCM(self.key(number).read_bytes())

    def end(self) -> int:
        """The number behind the newest record that the files speak of, damaged or not."""
        end = max(self.begun().sequence, self.retired().sequence)
        for number in reversed(self.segments()):
            try:
                data = self.segment(number).read_bytes()
                head = SegmentHead.decode(data)
            except (FileNotFoundError, ValueError):
                continue
            if head is not None:
                told = (upto for _, upto in commits_behind(data, START, head.salt))
                return max(end, survey(data, head).next_sequence, *told)
        return end

    def destroy_key(self, number: int) -> None:
        self.key(number).unlink(missing_ok=True)
        sync_folder(self.keys)

    def destroy(self, number: int) -> None:
        """Forget a segment: its key first, so that nothing readable outlives it."""
        self.destroy_key(number)
        self.segment(number).unlink(missing_ok=True)
        sync_folder(self.path)

    def _set_aside(self, number: int) -> None:
        """Keep a damaged segment for whoever wants to know: headers stay, bodies are unreadable."""
        self.destroy_key(number)
        os.replace(self.segment(number), self.damaged(number))
        sync_folder(self.path)

    def accepted(self) -> list[Accepted]:
        try:
            return read_accepted(self.path / "accepted")
        except ValueError as error:
            raise Garbled(f"{self.path / 'accepted'}: {error}") from None

    def accept(self, accepted: Accepted) -> None:
        write_accepted(self.path / "accepted", [*self.accepted(), accepted])

    def begun(self) -> Milestone:
        return _read_milestone(self.path / "begun")

    def begin(self, number: int, first_sequence: int) -> None:
        """To be called before the head of segment `number` is written."""
        _write_milestone(self.path / "begun", Milestone(number, first_sequence))

    def retired(self) -> Milestone:
        return _read_milestone(self.path / "retired")

    def retire(self, upto: int) -> int:
        """Destroy segments all of whose records are sealed, that is below `upto`; how many.

        The newest segment goes only when no writer holds the folder (a former worker's last one);
        to know its end it is read whole, so ask when there is nothing more to seal. Segments whose
        loss was accepted are kept as `<number>.damaged`, without their key.
        """
        aside = {accepted.segment for accepted in self.accepted()}
        gone = 0
        number = -1
        while (found := self.begun_after(number)) is not None:
            number = found[0]
            following = self.sound_after(number)
            if following is None:
                return gone + self._retire_last(number, upto, aside)
            if following[1].first_sequence > upto:
                return gone
            self._retire_one(number, following[1].first_sequence, aside)
            gone += 1
        return gone

    def _retire_one(self, number: int, end: int, aside: set[int]) -> None:
        if number > self.retired().segment:
            _write_milestone(self.path / "retired", Milestone(number, end))
        if number in aside:
            self._set_aside(number)
        else:
            self.destroy(number)

    def _retire_last(self, number: int, upto: int, aside: set[int]) -> int:
        try:
            lock = hold(self.lock)
        except Occupied:
            return 0
        try:
            data = self.segment(number).read_bytes()
            head = SegmentHead.decode(data)
            extent = survey(data, head) if head is not None else None
            if extent is None or extent.damaged_at is not None or extent.next_sequence > upto:
                return 0
            for prepared in [later for later in self.segments() if later > number]:
                self.destroy(prepared)
            self._retire_one(number, extent.next_sequence, aside)
        except (FileNotFoundError, ValueError):
            return 0
        finally:
            os.close(lock)
        return 1

    def size(self) -> int:
        """Bytes of segments on disk. One that goes while they are counted counts nothing."""
        total = 0
        for path in self.path.glob("*.segment"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return total


def folders(state: Path, keys: Path) -> list[JournalFolder]:
    """Every journal of the state, those of former workers too."""
    root = state / "journal"
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []
    return [JournalFolder(state, keys, name) for name in names]


def _read_milestone(path: Path) -> Milestone:
    try:
        told = Milestone(**orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return Milestone()
    except (TypeError, ValueError) as error:
        raise Garbled(f"{path}: {error}") from None
    if type(told.segment) is not int or type(told.sequence) is not int:
        raise Garbled(f"{path}: two numbers are wanted")
    return told


def _write_milestone(path: Path, milestone: Milestone) -> None:
    write_durably(path, orjson.dumps(milestone))
