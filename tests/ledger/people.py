"""A small world of people and their bodies, and a process that is killed at its n-th write."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from gateway.ledger.bodies import Bodies, BodyReader, Place
from gateway.ledger.subjects import Subjects

DAYS = ("2026-11-22", "2026-11-23")
MODELS = ("mortgage", "credit-card")
CALLS = ("pwrite", "fdatasync", "fsync", "ftruncate", "replace", "unlink", "open")
NOBODY: tuple[str, ...] = ()


def parts_of(*subjects: str) -> bytes:
    return b"income 1234 of " + b" and ".join(subject.encode() for subject in subjects) * 30


class World:
    """Everything of one folder, open."""

    def __init__(self, folder: Path, ends: dict[str, int] | None = None) -> None:
        self.state, self.keys = folder / "state", folder / "keys"
        self.subjects = Subjects(self.state, self.keys)
        self.bodies = Bodies(self.state, self.subjects, ends or {})
        self.reader = BodyReader(self.state, self.keys)

    def append(self, identity: str, subjects=NOBODY, model="mortgage", day=DAYS[0], parts=None):
        numbers = self.subjects.keys_for(subjects)
        return self.bodies.append(model, day, identity, numbers, parts or parts_of(*subjects))

    def commit(self) -> None:
        self.subjects.commit()
        self.bodies.commit()

    def read(self, identity: str, place: Place) -> bytes:
        return self.reader.read(identity, place.to_json())

    def close(self) -> None:
        self.reader.close()
        self.bodies.close()
        self.subjects.close()


def populate(folder: Path) -> dict[str, tuple[tuple[str, ...], Place]]:
    """Bodies of ann, of bob, of both, and of nobody, over models and days; by exchange id."""
    world = World(folder)
    told = {}
    for model in MODELS:
        for day in DAYS:
            for who in (("annalee",), ("bob",), ("annalee", "bob"), ()):
                identity = f"{model}-{day}-{'+'.join(who)}"
                told[identity] = who, world.append(identity, who, model, day)
    world.commit()
    world.close()
    return told


def killed_at(left: int, act: Callable[[Callable[[Subjects], None]], None]) -> bool:
    """Run `act` in a process that kills itself before its write `left`; whether it was killed.

    `act` is given a function to call with each Subjects it opens: the map's statements count too.
    """
    child = os.fork()
    if child == 0:
        try:
            _count_down(left, act)
            os._exit(0)
        finally:
            os._exit(9)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _count_down(left: int, act: Callable[[Callable[[Subjects], None]], None]) -> None:
    def strike(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def wrapped(real):
        def call(*arguments, **named):
            strike()
            return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))
    act(lambda subjects: subjects._map.set_trace_callback(strike))


def files_with(folder: Path, needle: bytes) -> list[str]:
    """The files under a folder that hold some bytes, in content or in name."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (needle in path.read_bytes() or needle in str(path).encode())
    ]
