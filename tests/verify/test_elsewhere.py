"""A bundle on a machine without Headworks: a Python of its own, which has `cryptography`."""

import os
import shutil
import subprocess
import sys

import pytest
from ledger_maker import exchange_id, parts_of, receipt_of, small_ledger

from gateway.ledger.evidence import write_evidence


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_bundle_is_checked_where_headworks_was_never_installed(tmp_path):
    """A fresh environment, an empty home and path: the folder's own verifier says that it holds,
    and that a bundle with one changed byte does not."""
    made = small_ledger(tmp_path / "state", quorum=True)
    bundle = tmp_path / "bundle"
    write_evidence(made.root, exchange_id(7), bundle, receipt_of(7, [5, 6, 7]), parts_of(7))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "cryptography"]
    if (done := subprocess.run(pip, capture_output=True, text=True)).returncode:
        pytest.skip(f"no package index here: {done.stderr[-200:]}")
    alone = {"PATH": os.defpath, "HOME": str(tmp_path / "home")}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-I", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", env=alone)

    assert "No module named 'gateway'" in run("-c", "import gateway").stderr
    listed = run("-m", "pip", "list", "--format=freeze").stdout.split()
    names = {each.partition("==")[0] for each in listed}
    assert names <= {"pip", "setuptools", "wheel", "cryptography", "cffi", "pycparser",
                     "typing_extensions", "typing-extensions"}  # fmt: skip
    told = run(bundle / "verify_evidence.py", bundle)
    assert told.returncode == 0, told.stdout + told.stderr
    for name in ("leaf.json", "leaf.tlog-proof", "receipt.txt", "body.bin", "log_opened.json"):
        copy = tmp_path / f"changed-{name}"
        shutil.copytree(bundle, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        assert run(bundle / "verify_evidence.py", copy).returncode == 1, name
