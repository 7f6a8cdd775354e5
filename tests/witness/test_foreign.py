"""Another implementation of the formats agrees: aics-tlog of PyPI, by its own interpreter."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tree import SEED, Tree, log_key

from gateway.witness.state import origin_hash

ORIGIN = "bank.example/models/mortgage/2026q4"
SCRIPT = str(Path(__file__).with_name("foreign_log.py"))


def newer_python() -> str | None:
    """A Python 3.12 that runs: pyenv has shims on the PATH for versions that are not chosen."""
    chosen = Path.home().glob(".pyenv/versions/3.12*/bin/python3.12")
    for path in (shutil.which("python3.12"), *map(str, chosen)):
        if path and not subprocess.run([path, "-c", ""], capture_output=True).returncode:
            return path
    return None


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Run the foreign log with given arguments and input: its output."""
    interpreter = newer_python()
    if interpreter is None:
        pytest.skip("aics-tlog needs python3.12")
    folder = tmp_path_factory.mktemp("aics") / "venv"
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "aics-tlog==0.2.1"]
    subprocess.run(pip, check=True)

    def run(*words: object, told: bytes = b"") -> bytes:
        command = [folder / "bin/python", SCRIPT, *map(str, words)]
        done = subprocess.run(command, input=told, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


@pytest.mark.long
def test_a_foreign_log_is_cosigned_and_a_foreign_reader_believes_it(run, tmp_path, foreign):
    """Its roots, proofs and signatures from our tiles pass here; our cosignature passes there."""
    daemon = run(log_key("bank.example/root").verifier)
    tree, old = Tree(tmp_path / "log", ORIGIN), 0
    for more in (1, 2, 253, 1, 300, 70_000):
        tree.grow(more)
        body = foreign("submit", tree.folder, ORIGIN, SEED.hex(), old, tree.edge.size)
        assert body == tree.submission(old).encode()  # Ed25519 signs one way only
        assert daemon.post(body).status_code == 200
        old = tree.edge.size
        kept = daemon.get(f"/{origin_hash(ORIGIN)}/checkpoint").content
        told = foreign("verify", tree.key.verifier, daemon.vkey, told=kept)
        assert old == int(told)
