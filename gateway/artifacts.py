"""Artifacts by digest: copied once into the state, read-only, opened by digest ever after.

A folder's digest is the SHA-256 of its manifest (canonical JSON of file name -> SHA-256), a single
file's is its own. Whoever holds a digest holds exactly those bytes; a source that changes later
changes nothing until a reload publishes it under another digest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from mmap import ACCESS_READ, mmap
from pathlib import Path

import orjson

from gateway.disk import sync_folder

FILES = ("card.yaml", "model.onnx")
RANDOM = (b"RandomNormal", b"RandomUniform", b"Multinomial", b"Bernoulli")
"""Operators that draw; their names stand in a graph's bytes as they are."""


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    manifest = {name: file_digest(folder / name) for name in FILES if (folder / name).exists()}
    return hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def draws(graph: Path) -> bool:
    """Whether a graph may hold an operator that draws: then the same input has several answers."""
    with graph.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return any(data.find(name) >= 0 for name in RANDOM)


class Artifacts:
    def __init__(self, state: Path) -> None:
        self.root = state / "artifacts"

    def path(self, digest: str) -> Path:
        """The folder of a version's artifact, or the folder with the one file `data`."""
        return self.root / digest

    def file(self, digest: str) -> Path:
        return self.root / digest / "data"

    def whole(self, digest: str) -> Path:
        """As `path`, once its bytes are those of the digest. ValueError: they are not any more."""
        return self._held(digest, folder_digest(self.path(digest)), self.path(digest))

    def whole_file(self, digest: str) -> Path:
        """As `file`, once its bytes are those of the digest. ValueError: they are not any more."""
        return self._held(digest, file_digest(self.file(digest)), self.file(digest))

    def _held(self, digest: str, found: str, path: Path) -> Path:
        if found != digest:
            raise ValueError(f"artifact {digest[:12]}: its files are not those of its digest")
        return path

    def plan(self, digest: str, background: str) -> Path:
        """Where the explanation plan of an artifact against a background lies, once it is made:
        beside the artifacts, since it is derived (`attribution/plan.py`)."""
        return self.root.parent / "plans" / f"{digest}.{background}.npz"

    def add_folder(self, folder: Path) -> str:
        digest = folder_digest(folder)
        self._publish(digest, [(folder / name, name) for name in FILES])
        return digest

    def add_file(self, path: Path) -> str:
        digest = file_digest(path)
        self._publish(digest, [(path, "data")])
        return digest

    def _publish(self, digest: str, files: list[tuple[Path, str]]) -> None:
        """Copy beside, fsync, rename: an artifact is there whole or not at all."""
        if self.path(digest).exists():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        beside = self.root / f".{digest}.{uuid.uuid4().hex}"
        beside.mkdir()
        for source, name in files:
            if not source.exists():
                continue
            shutil.copyfile(source, beside / name)
            with (beside / name).open("rb") as file:
                os.fsync(file.fileno())
            (beside / name).chmod(0o444)
        copied = folder_digest(beside) if files[0][1] != "data" else file_digest(beside / "data")
        if copied != digest:
            shutil.rmtree(beside)
            raise OSError(f"{files[0][0]} changed while it was copied")
        sync_folder(beside)
        try:
            os.rename(beside, self.path(digest))
        except OSError:
            shutil.rmtree(beside)
            if not self.path(digest).exists():
                raise
        sync_folder(self.root)
