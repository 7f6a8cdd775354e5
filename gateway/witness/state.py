"""What a witness remembers: its key, the last checkpoint of each log, and its alarms.

    DIR/lock                    held while the daemon runs: one daemon a state
    DIR/key                     its Ed25519 seed, PRIVATE+KEY+name+id+base64, mode 0600
    DIR/logs/<SHA-256 of the origin>            the last checkpoint, signed by log and witness
    DIR/alarms/<SHA-256 of the origin>.<size>.<root>.json    a refused fork, with both checkpoints

Invariants:
1. A cosignature leaves only after `logs/…` holds its checkpoint durably (whole or not at all): what
   anybody has from us is never ahead of what a restart finds.
2. Memory follows the disk. If a write fails, nobody knows what a restart would find: the daemon
   ends and reads it again.
3. A state that is not whole is refused: a witness that forgot would cosign a fork. Nor is a key
   made where logs are remembered, or logs forgotten where there is a key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from gateway.disk import hold, sync_folder, write_durably
from gateway.ledger import note
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.note import Malformed, Note, SignatureType, SigningKey, Unsigned
from gateway.witness.submission import Submission
from gateway.witness.verdict import Refusal

LOGS_MAX = 10_000
ALARMS_MAX = 1_000
ALARMS_PER_LOG_MAX = 8
"""A fork that goes on growing is one event, not one file for each of its checkpoints."""


class StateDamaged(Exception):
    """The state is not whole; the message names the file."""


class OtherName(Exception):
    """The state is of a witness of another name."""


@dataclass(frozen=True)
class Remembered:
    """The last cosigned checkpoint of a log; `at`: POSIX seconds of the cosignature."""

    checkpoint: Checkpoint
    note: Note
    at: int


@dataclass(frozen=True)
class Alarm:
    """A signed checkpoint that was refused as not continuing the log; `at`: POSIX seconds."""

    kind: Refusal
    origin: str
    size: int
    root: str
    at: int
    words: str

    @property
    def file(self) -> str:
        return f"{origin_hash(self.origin)}.{self.size}.{self.root}.json"


def origin_hash(origin: str) -> str:
    """How c2sp.org/tlog-witness names a log in a path."""
    return sha256(origin.encode()).hexdigest()


@dataclass
class WitnessState:
    """Opened by `open_state`. `logs` by origin, `alarms` by file name."""

    folder: Path
    key: SigningKey
    lock: int
    logs: dict[str, Remembered] = field(default_factory=dict)
    alarms: dict[str, Alarm] = field(default_factory=dict)

    def write(self, origin: str, cosigned: Note) -> None:
        """Make a cosigned checkpoint durable; the caller then puts it into `logs`. Blocks."""
        write_durably(self.folder / "logs" / origin_hash(origin), cosigned.encode())

    def has_room(self, origin: str) -> bool:
        return origin in self.logs or len(self.logs) < LOGS_MAX

    def answered(self, point: Checkpoint) -> list[Alarm]:
        """The alarms that a cosigned checkpoint settles: it was unproven and is proved."""
        place = (point.origin, point.size, point.root.hex())
        return [
            alarm
            for alarm in self.alarms.values()
            if alarm.kind is Refusal.UNPROVEN and (alarm.origin, alarm.size, alarm.root) == place
        ]

    def has_room_for(self, alarm: Alarm) -> bool:
        of_log = sum(each.origin == alarm.origin for each in self.alarms.values())
        room = of_log < ALARMS_PER_LOG_MAX and len(self.alarms) < ALARMS_MAX
        return room or alarm.file in self.alarms

    def write_alarm(self, alarm: Alarm, submission: Submission) -> None:
        """Make the evidence durable; the caller then puts it into `alarms`. Blocks."""
        held = self.logs.get(alarm.origin)
        evidence = {
            "kind": alarm.kind, "origin": alarm.origin, "size": alarm.size, "root": alarm.root,
            "at": alarm.at, "words": alarm.words,
            "cosigned": held.note.encode().decode() if held else None,
            "refused": submission.encode().decode(),
        }  # fmt: skip
        data = orjson.dumps(evidence, option=orjson.OPT_INDENT_2)
        write_durably(self.folder / "alarms" / alarm.file, data)

    def remove_alarm(self, alarm: Alarm) -> None:
        """Forget a settled alarm's file. Blocks."""
        (self.folder / "alarms" / alarm.file).unlink(missing_ok=True)
        sync_folder(self.folder / "alarms")

    def close(self) -> None:
        os.close(self.lock)


def open_state(folder: Path, name: str | None, seed: bytes) -> WitnessState:
    """The state at `folder`, made with the key `seed` and `name` if there is none yet.

    Occupied if another daemon has it; StateDamaged; OtherName if it is not `name`'s (None: any).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = hold(folder / "lock")
    try:
        if not (folder / "key").exists():
            _make(folder, SigningKey(name or "witness", SignatureType.COSIGNATURE, seed))
        state = WitnessState(folder, _read_key(folder / "key"), lock)
        if name is not None and name != state.key.name:
            raise OtherName(f"{folder} is the state of the witness {state.key.name}, not of {name}")
        _read_logs(state)
        _read_alarms(state)
        for held in state.logs.values():  # settled just before a kill
            for alarm in state.answered(held.checkpoint):
                state.remove_alarm(alarm)
                del state.alarms[alarm.file]
    except BaseException:
        os.close(lock)
        raise
    return state


def _make(folder: Path, key: SigningKey) -> None:
    """The key comes last: with it the state is whole."""
    for part in ("logs", "alarms"):
        (folder / part).mkdir(exist_ok=True, mode=0o700)
        if any((folder / part).iterdir()):
            raise StateDamaged(f"{folder}/{part} is not empty and there is no key")
    sync_folder(folder)
    sync_folder(folder.parent)
    write_durably(folder / "key", f"{key.encode()}\n".encode())


def _read_key(path: Path) -> SigningKey:
    try:
        key = SigningKey.parse(path.read_text().strip())
    except ValueError as error:
        raise StateDamaged(f"{path}: {error}") from error
    if key.type is not SignatureType.COSIGNATURE:
        raise StateDamaged(f"{path}: the key of a log, not of a witness")
    return key


def _files(folder: Path) -> list[Path]:
    """What is in a folder, without what a killed write left behind."""
    if not folder.is_dir():
        raise StateDamaged(f"{folder} is missing")
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.suffix == ".new":
            path.unlink()
        else:
            found.append(path)
    return found


def _read_logs(state: WitnessState) -> None:
    for path in _files(state.folder / "logs"):
        try:
            kept = note.read(path.read_bytes())
            signed = note.verify(kept, [state.key.verifier])
            point = Checkpoint.read(kept.text)
        except (Malformed, Unsigned, OSError) as error:
            raise StateDamaged(f"{path}: {error}") from error
        if origin_hash(point.origin) != path.name:
            raise StateDamaged(f"{path}: the checkpoint of {point.origin}, which is another file's")
        assert signed[0].timestamp is not None
        state.logs[point.origin] = Remembered(point, kept, signed[0].timestamp)


def _read_alarms(state: WitnessState) -> None:
    for path in _files(state.folder / "alarms"):
        try:
            told: dict[str, Any] = orjson.loads(path.read_bytes())
            alarm = Alarm(
                Refusal(told["kind"]), told["origin"], told["size"], told["root"], told["at"],
                told["words"],
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StateDamaged(f"{path}: not an alarm: {error}") from error
        if alarm.file != path.name:
            raise StateDamaged(f"{path}: the alarm of another file, {alarm.file}")
        state.alarms[path.name] = alarm
