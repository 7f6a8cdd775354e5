"""Interpreters of detector families that cannot live in ours: made from a shipped lock, found by a
pointer in the state.

alibi-detect 0.11.4 is the last release under the Apache licence; it needs Python 3.11, numpy < 1.25
and scipy < 1.12, and takes 1.1 GB. So it gets an environment of its own.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

LOCK = Path(__file__).with_name("alibi.lock")
SERVER = Path(__file__).with_name("alibi_server.py")
FREE_RELEASE = "0.11.4"
NEEDS_PYTHON = (3, 11)
NEEDS_BYTES = 1_600_000_000
"""Room that is asked for before anything is fetched: 1.1 GB stays, wheels pass through."""


class CannotInstall(Exception):
    """What is missing, in words."""


@dataclass(frozen=True)
class Family:
    """Where a family's interpreter is. `licensed`: the operator said to have a licence for it."""

    python: str
    version: str
    licensed: bool = False


def find(state: Path) -> Family | None:
    """The installed alibi-detect, or None."""
    try:
        return Family(**orjson.loads(_pointer(state).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _pointer(state: Path) -> Path:
    return state / "detectors" / "alibi.json"


def install(state: Path, folder: Path | None, python: str | None, licensed: str | None) -> Family:
    """Make the environment and point to it. `licensed`: a newer release, by the operator's word."""
    folder = folder or state / "detectors" / "alibi"
    interpreter = _interpreter(python)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder.parent).free) < NEEDS_BYTES:
        raise CannotInstall(
            f"{folder}: {NEEDS_BYTES / 1e9:.1f} GB are needed, {free / 1e9:.1f} free"
        )
    _run([interpreter, "-m", "venv", str(folder)])
    inside = str(folder / "bin" / "python")
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
           "--only-binary=:all:"]  # fmt: skip
    if licensed is None:
        _run([*pip, "--no-deps", "--require-hashes", "-r", str(LOCK)])
    else:
        _run([*pip, f"alibi-detect=={licensed}"])
    return adopt(state, inside, licensed is not None)


def adopt(state: Path, python: str, licensed: bool) -> Family:
    """Point to an environment that is there; CannotInstall where it does not answer."""
    from gateway.detectors.foreign import Broken, Foreign

    server = Foreign(Family(python, "", licensed))
    try:
        version = server.hello()
    except Broken as error:
        raise CannotInstall(str(error)) from error
    finally:
        server.close()
    found = Family(python, version, licensed)
    _pointer(state).parent.mkdir(parents=True, exist_ok=True)
    _pointer(state).write_bytes(orjson.dumps(asdict(found)))
    return found


def _interpreter(python: str | None) -> str:
    wanted = ".".join(map(str, NEEDS_PYTHON))
    found = shutil.which(python or f"python{wanted}")
    if found is None:
        asked = python or f"python{wanted}"
        raise CannotInstall(
            f"alibi-detect {FREE_RELEASE} needs Python {wanted}: {asked} is not there (--python)"
        )
    told = _run([found, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]).strip()
    if told != wanted:
        raise CannotInstall(f"{found} is Python {told}; {wanted} is needed")
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise CannotInstall(f"{' '.join(command[:4])} ...: {words[-1] if words else 'failed'}")
    return done.stdout
