"""The compiled form: machine code of the busiest modules, from the same sources.

`scripts/compile` makes the folder `__compiled__` beside this file: an extension module for each
name in `gateway/compiler.py`, and a manifest with the digest of all our sources.

Invariant: **compiled code runs only where every source is, byte for byte, as it was when it was
compiled.** Compiled modules know each other's memory layout, and take the constants and types of
all others for granted; so if one source differs, all run from source, and `FORM` says so. Nothing
is ever picked up because it lies there: the folder is on no path of Python's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

PACKAGE = Path(__file__).parent
FOLDER = PACKAGE / "__compiled__"
MANIFEST = "manifest.json"
SWITCH = "HEADWORKS_COMPILED"
"""Environment variable: `no` runs the sources, whatever is compiled."""


@dataclass(frozen=True, slots=True)
class Form:
    """What this process runs; `modules`: names that are loaded compiled."""

    state: Literal["source", "compiled", "stale"]
    modules: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.state == "compiled":
            return f"{len(self.modules)} modules compiled"
        if self.state == "stale":
            return "from source: what is compiled is of other sources (scripts/compile)"
        return "from source"


def digest(package: Path) -> str:
    """SHA-256 over names and bytes of all sources, in the order of their names."""
    found = hashlib.sha256()
    for folder, inner, names in os.walk(package):
        inner[:] = sorted(name for name in inner if not name.startswith("__"))
        for name in sorted(name for name in names if name.endswith(".py")):
            content = Path(folder, name).read_bytes()
            place = os.path.relpath(folder, package)
            found.update(f"{place}/{name} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()


def form(package: Path, environment: Mapping[str, str]) -> Form:
    """What shall run: the manifest against the sources."""
    if environment.get(SWITCH) == "no":
        return Form("source")
    try:
        manifest: dict[str, Any] = json.loads((package / FOLDER.name / MANIFEST).read_bytes())
    except FileNotFoundError:
        return Form("source")
    wanted = {"sources": digest(package), "suffix": EXTENSION_SUFFIXES[0]}
    if any(manifest[name] != value for name, value in wanted.items()):
        return Form("stale")
    return Form("compiled", tuple(manifest["modules"]))


class Finder(MetaPathFinder):
    """Finds the compiled modules before Python looks for their sources."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        library = f"{PACKAGE.name}__mypyc"  # what they share
        self._files = {
            name: f"{folder / name.replace('.', '/')}{EXTENSION_SUFFIXES[0]}"
            for name in (library, *modules)
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


FORM = form(PACKAGE, os.environ)
if FORM.state == "compiled":
    sys.meta_path.insert(0, Finder(FOLDER, FORM.modules))
