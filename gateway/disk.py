"""Files that must be whole or absent, and things that only one process may hold."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path


class Occupied(Exception):
    """Another process holds what only one may hold."""


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write beside, fsync, rename, fsync the folder: the file is whole or not there."""
    write_whole(path, data, mode)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """As `write_durably`, but for its name, which the caller makes durable by `sync_folder`."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)  # a full disk is not filled further by each new try
        raise


def hold(path: Path) -> int:
    """Take the lock at `path` until the process ends; Occupied if another one has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Occupied(f"{path} is held by another process") from None
    return descriptor
