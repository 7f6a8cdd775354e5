"""Evidence for one exchange: made from the files, checked by one file that knows nothing of us."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ledger_maker import (
    AT,
    NAME,
    RECEIPT_KEY_ID,
    SEED,
    WITNESS,
    commitment_of,
    exchange_id,
    parts_of,
    receipt_of,
    small_ledger,
)

from gateway.ledger import note
from gateway.ledger.evidence import Missing, write_evidence
from gateway.verify import verify_evidence
from gateway.verify.verify_evidence import Bundle, Wrong, parse_policy

BATCH = [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A ledger whose policy wants the witness."""
    return small_ledger(tmp_path_factory.mktemp("made"), quorum=True)


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory):
    """Everything that a bundle can hold: receipt, body, explanation."""
    out = tmp_path_factory.mktemp("bundle") / "evidence"
    found = write_evidence(made.root, f"{exchange_id(7)}/0", out, receipt_of(7, BATCH), parts_of(7))
    assert (found.disagreements, found.notes, found.witnessed) == ([], [], True)
    return out


def holds(folder, policy=None):
    return Bundle(folder, policy or folder / "policy.txt").run()


def test_a_stranger_runs_the_one_file(bundle, tmp_path):
    """Plain Python in another folder, without site packages of ours on the path to help."""
    told = subprocess.run(
        [sys.executable, "-I", str(bundle / "verify_evidence.py"), str(bundle)],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    for words in (f"{NAME}/models/mortgage/2026q4", "the witness compliance saw them at 2026-",
                  "receipt and leaf agree", "body.bin is what", "explains this exchange",
                  "EVERYTHING HOLDS"):  # fmt: skip
        assert words in told.stdout


def test_the_one_file_imports_the_standard_library_and_cryptography():
    """Nothing of Headworks, nothing else from elsewhere."""
    tree = ast.parse(Path(verify_evidence.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}  # fmt: skip
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    tops = {name.split(".")[0] for name in names}
    assert tops - sys.stdlib_module_names == {"cryptography"}


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**9), st.integers(1, 255))
def test_any_changed_byte_of_a_bundle_is_found(bundle, file, at, mask):
    """Each byte of each piece of evidence counts (README and program are no evidence). A policy's
    words may stand between spaces or tabs: these say the same."""
    files = sorted(path for path in bundle.iterdir() if path.name not in
                   ("README.txt", "verify_evidence.py"))  # fmt: skip
    path = files[file % len(files)]
    data = path.read_bytes()
    at %= len(data)
    changed = data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
    assume(path.name != "policy.txt" or changed.replace(b"\t", b" ") != data)
    path.write_bytes(changed)
    try:
        assert not holds(bundle)
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["leaf.json", "leaf.tlog-proof", "log_opened.json",
                                  "policy.txt", "receipt_key.json"])  # fmt: skip
def test_a_missing_piece_is_told(bundle, name):
    """What the others need has to be there."""
    data = (bundle / name).read_bytes()
    (bundle / name).unlink()
    try:
        assert not holds(bundle)
    finally:
        (bundle / name).write_bytes(data)


def test_a_policy_of_ones_own_counts(bundle, tmp_path):
    """Another log's key, or a second witness that did not cosign: refused."""
    mine = (bundle / "policy.txt").read_text()
    (tmp_path / "same").write_text(mine)
    assert holds(bundle, tmp_path / "same")
    other = note.SigningKey(f"{NAME}/root", note.SignatureType.ED25519, SEED[::-1])
    (tmp_path / "other").write_text(f"log {other.verifier}\nquorum none\n")
    assert not holds(bundle, tmp_path / "other")
    second = note.SigningKey("second.example", note.SignatureType.COSIGNATURE, SEED[::-1])
    lines = mine.replace("quorum compliance", f"witness two {second.verifier}\n"
                         "group both {} compliance two\nquorum both")  # fmt: skip
    (tmp_path / "all").write_text(lines.format("all"))
    (tmp_path / "any").write_text(lines.format("any"))
    assert not holds(bundle, tmp_path / "all")
    assert holds(bundle, tmp_path / "any")


def test_a_receipt_that_disagrees_is_told(made, tmp_path):
    """Right signature, other commitment: somebody recorded something else."""
    receipt = receipt_of(8, BATCH).split(".")
    swapped = ".".join(receipt)
    found = write_evidence(made.root, exchange_id(8), tmp_path / "right", swapped)
    assert found.disagreements == []
    receipt[3] = commitment_of(9)
    found = write_evidence(made.root, exchange_id(8), tmp_path / "wrong", ".".join(receipt))
    assert found.disagreements == ["the receipt's signature is wrong"]
    assert not holds(tmp_path / "wrong")


def test_a_receipt_without_a_leaf_says_so(made, tmp_path):
    """A genuine receipt whose leaf is nowhere: the case receipts are for."""
    genuine = receipt_of(900, [899, 900])
    with pytest.raises(Missing, match="genuine") as raised:
        write_evidence(made.root, exchange_id(900), tmp_path / "out", genuine)
    assert "models/mortgage/2026q4 to entry 271" in str(raised.value)
    forged = genuine.replace(RECEIPT_KEY_ID, hashlib.sha256(b"other").hexdigest()[:16])
    with pytest.raises(Missing, match="certifies no receipt key"):
        write_evidence(made.root, exchange_id(900), tmp_path / "out", forged)
    assert not (tmp_path / "out").exists()


def test_a_body_of_another_exchange_is_refused(made, tmp_path):
    """What is handed in has to be what the leaf commits to."""
    with pytest.raises(Wrong, match="commitment"):
        write_evidence(made.root, exchange_id(8), tmp_path / "out", None, parts_of(9))


def test_a_closed_quarter_and_a_folder_that_is_not_empty(made, tmp_path):
    """Leaves of old quarters are proven too; files of others are not overwritten."""
    write_evidence(made.root, exchange_id(3), tmp_path / "out")
    assert holds(tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "leaf.json").read_text())["record"]["at"] == AT + 3 * 10**6
    )
    with pytest.raises(FileExistsError):
        write_evidence(made.root, exchange_id(4), tmp_path / "out")


def test_commands_prove_and_disagree(made, tmp_path):
    """`headworks ledger prove`: 0 with agreement, 1 without a leaf, the words say why."""

    def prove(identity, *words):
        return subprocess.run(
            [sys.executable, "-m", "gateway", "ledger", "prove", identity, "--ledger",
             str(made.root), "--out", str(tmp_path / identity), *words],
            capture_output=True, text=True,
        )  # fmt: skip

    (tmp_path / "receipt").write_text(receipt_of(7, BATCH) + "\n")
    told = prove(exchange_id(7), "--receipt", str(tmp_path / "receipt"))
    assert (told.returncode, "receipt and leaf agree" in told.stdout) == (0, True)
    assert (
        prove(exchange_id(7), "--receipt", str(tmp_path / "receipt")).returncode == 1
    )  # not empty
    told = prove(exchange_id(777))
    assert (told.returncode, "the leaf is missing" in told.stderr) == (1, True)


@pytest.mark.parametrize(
    "text",
    ["", "quorum none", "quorum nobody\n", "quorum none\nquorum none\n", "log x\nquorum none\n",
     f"witness a {WITNESS.verifier}\nwitness b {WITNESS.verifier}\nquorum none\n",
     f"log {WITNESS.verifier}\nquorum none\n", "group g 1 a\nquorum g\n",
     f"witness a {WITNESS.verifier}\ngroup g 2 a\nquorum g\n",
     f"witness none {WITNESS.verifier}\nquorum none\n", "what is this\nquorum none\n"],
)  # fmt: skip
def test_policies_that_are_none_are_refused(text):
    """c2sp.org/tlog-policy, line by line."""
    with pytest.raises(Wrong):
        parse_policy(text.encode())
