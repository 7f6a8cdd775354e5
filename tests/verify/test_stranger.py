"""A verifier written from the specifications alone agrees with our files, and sees what changed."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stranger
from ledger_maker import NAME, SEED, WITNESS, small_ledger

from gateway.ledger.note import SignatureType, SigningKey

PUBLIC = SigningKey("any", SignatureType.ED25519, SEED).verifier.public
SCRIPT = Path(stranger.__file__)
LOGS = ("root", "models/mortgage/2026q4", "models/mortgage/2026q3")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_ledger(tmp_path_factory.mktemp("made"), quorum=True)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_it_knows_nothing_of_ours():
    """Of modules it imports the standard library's and `cryptography`."""
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"cryptography"}


@pytest.mark.parametrize("log", LOGS)
def test_a_stranger_recomputes_each_log(made, log):
    """Signature, entries, every tile, the root; and the witness's word of an earlier size."""
    told = run("log", made.root / log, f"{NAME}/{log}", PUBLIC.hex(), WITNESS.name,
               WITNESS.verifier.public.hex())  # fmt: skip
    size, root = len(made.entries[log]), made.edges[log].root().hex()
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"{NAME}/{log}: {size} entries, root {root}, ")


def test_a_stranger_sees_any_changed_file(made, tmp_path):
    """One bit in the middle of each static file of a log, one at a time; or the file is gone."""
    folder = tmp_path / "log"
    shutil.copytree(made.root / LOGS[1], folder)
    witness = (WITNESS.name, WITNESS.verifier.public)

    def check() -> str:
        return stranger.check_log(folder, f"{NAME}/{LOGS[1]}", PUBLIC, witness)

    check()
    size = len(made.entries[LOGS[1]])
    served = [folder / "checkpoint", folder / "witnessed"]
    for level in ("entries", "0"):
        for tile, width in enumerate(stranger.widths(size)):
            path = folder / stranger.tile_path(level, tile)
            served.append(path if width == 256 else path.with_name(f"{path.name}.p") / str(width))
    assert len(served) >= 6
    for path in served:
        data = path.read_bytes()
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises((stranger.No, UnicodeDecodeError)):
            check()
        path.unlink()
        with pytest.raises((stranger.No, OSError)):
            check()
        path.write_bytes(data)
    check()
    with pytest.raises(stranger.No, match="no signature"):
        stranger.check_log(folder, f"{NAME}/{LOGS[1]}", bytes(range(32)), None)
