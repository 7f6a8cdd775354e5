"""Checkpoints: of what is durable, in rising sizes, from tiles that any reader can fetch."""

import errno
import os
import shutil

import orjson
import pytest

from gateway.ledger.checkpoint import Policy, open_checkpoint
from gateway.ledger.entries import LedgerDamaged
from gateway.ledger.log import Ledger
from gateway.ledger.merkle import leaf_hash, prove_inclusion, root_of, verify_inclusion
from gateway.ledger.names import ROOT
from gateway.ledger.signer import CHECKPOINTS_KEPT, Signer, partials
from gateway.ledger.tiles import Bundle, decode_bundle, nodes_from
from gateway.verify.ledger import verify_log
from gateway.verify.verify_evidence import parse_policy

MODEL = "models/mortgage/2026q4"


def add(ledger: Ledger, count: int, log: str = MODEL) -> None:
    for _ in range(count):
        ledger.append(log, b"leaf %d" % ledger.number)
    ledger.commit()


def opened(tmp_path, signer: Signer, log: str = MODEL):
    data = (tmp_path / "ledger" / log / "checkpoint").read_bytes()
    return open_checkpoint(data, Policy(signer.key.verifier(log), (), 0)).checkpoint


def entries(tmp_path, size: int, log: str = MODEL) -> list[bytes]:
    found = []
    for number in range(-(-size // 256)):
        width = min(256, size - number * 256)
        path = tmp_path / "ledger" / log / Bundle(number, width).path
        found += decode_bundle(path.read_bytes(), width)
    return found


@pytest.mark.parametrize("steps", [(1,), (255, 1, 1), (256,), (700, 3, 65_536 - 703, 2)])
def test_each_checkpoint_is_proved_by_its_files(tmp_path, steps):
    """At each size: a right signature, bundles with exactly its entries, tiles that give its root
    and prove its leaves, over restarts too."""
    for step in steps:
        ledger = Ledger(tmp_path)
        signer = Signer(ledger, tmp_path / "keys", "test.example")
        add(ledger, step)
        assert [MODEL] == signer.news()
        signer.sign(signer.news())
        checkpoint = opened(tmp_path, signer)
        node = nodes_from(
            checkpoint.size, lambda t: (tmp_path / "ledger" / MODEL / t.path).read_bytes()
        )
        held = entries(tmp_path, checkpoint.size)

        assert "test.example/" + MODEL == checkpoint.origin
        assert checkpoint.size == ledger.number == len(held)
        assert checkpoint.root == root_of(checkpoint.size, node)
        last = checkpoint.size - 1
        proof = prove_inclusion(last, checkpoint.size, node)
        verify_inclusion(leaf_hash(held[last]), last, checkpoint.size, proof, checkpoint.root)
        assert [] == signer.news()
        ledger.close()


def test_old_partial_tiles_go_and_new_ones_stay(tmp_path):
    """The newest checkpoints keep their partial tiles, older ones do not pile up."""
    ledger = Ledger(tmp_path)
    signer = Signer(ledger, tmp_path / "keys", None)
    for _ in range(30):
        add(ledger, 11)
        signer.sign(signer.news())
    root = tmp_path / "ledger" / MODEL
    there = {str(path.relative_to(root)) for path in root.rglob("*.p/*")}

    assert set.union(*(partials(11 * n) for n in range(31 - CHECKPOINTS_KEPT, 31))) == there


def test_a_ledger_shorter_than_what_was_signed_is_refused(tmp_path):
    """A restored backup of the state with newer keys does not go on: it would sign a fork."""
    ledger = Ledger(tmp_path)
    add(ledger, 5)
    ledger.close()
    shutil.copytree(tmp_path / "ledger", tmp_path / "backup")
    (tmp_path / "keys" / "ledger").mkdir(parents=True)
    (tmp_path / "keys" / "ledger" / "name").write_text("n")
    (tmp_path / "keys" / "ledger" / "seed").write_bytes(bytes(32))
    ledger = Ledger(tmp_path)
    add(ledger, 5)
    signer = Signer(ledger, tmp_path / "keys", None)
    signer.sign(signer.news())
    ledger.close()
    shutil.rmtree(tmp_path / "ledger")
    shutil.move(tmp_path / "backup", tmp_path / "ledger")

    with pytest.raises(LedgerDamaged, match="10 leaves were signed and 5 are there"):
        Signer(Ledger(tmp_path), tmp_path / "keys", None)


def test_a_checkpoint_that_a_crash_kept_back_is_published(tmp_path):
    """Remembered as signed, not yet in its file: the next start says it again, with the same
    bytes."""
    ledger = Ledger(tmp_path)
    signer = Signer(ledger, tmp_path / "keys", None)
    add(ledger, 5)
    signer.sign(signer.news())
    path = tmp_path / "ledger" / MODEL / "checkpoint"
    said = path.read_bytes()
    path.unlink()
    ledger.close()
    ledger = Ledger(tmp_path)
    signer = Signer(ledger, tmp_path / "keys", None)
    signer.sign(signer.news())

    assert said == path.read_bytes()


def test_damaged_tiles_are_not_signed_over(tmp_path):
    """A tile that does not give the signed root stops the signer."""
    ledger = Ledger(tmp_path)
    signer = Signer(ledger, tmp_path / "keys", None)
    add(ledger, 5)
    signer.sign(signer.news())
    path = tmp_path / "ledger" / MODEL / "tile/0/000.p/5"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    ledger.close()
    ledger = Ledger(tmp_path)
    signer = Signer(ledger, tmp_path / "keys", None)
    add(ledger, 1)

    with pytest.raises(LedgerDamaged, match="do not give the root"):
        signer.sign(signer.news())


def test_another_key_signs_nothing(tmp_path):
    """The first leaf names the key; a ledger with another one beside it is refused."""
    ledger = Ledger(tmp_path)
    signer = Signer(ledger, tmp_path / "keys", None)
    vkey = str(signer.key.verifier(ROOT))
    ledger.append(ROOT, orjson.dumps({"kind": "key", "record": {"vkey": vkey}}), "", 0)
    ledger.commit()
    ledger.close()
    Signer(Ledger(tmp_path), tmp_path / "keys", None).ledger.close()
    seed = tmp_path / "keys" / "ledger" / "seed"
    seed.write_bytes(bytes(32))

    with pytest.raises(LedgerDamaged, match="not the key that this ledger began with"):
        Signer(Ledger(tmp_path), tmp_path / "keys", None)


def test_a_key_is_made_only_for_an_empty_ledger(tmp_path):
    """A ledger that has begun and lost its key does not get another one."""
    ledger = Ledger(tmp_path)
    add(ledger, 1, ROOT)

    with pytest.raises(FileNotFoundError):
        Signer(ledger, tmp_path / "keys", None)


def test_a_disk_that_is_full_at_any_write_leaves_no_half_a_tile(tmp_path, monkeypatch):
    """Each write of a checkpoint fails once, half done; the next start signs another size. What is
    there then is whole: a verifier finds nothing that the entries do not give."""
    ledger, failed = Ledger(tmp_path), 0
    real, left = os.write, -1

    def write(descriptor: int, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left == -1:
            real(descriptor, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "no space left")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    while True:
        signer = Signer(ledger, tmp_path / "keys", "test.example")
        add(ledger, 7)
        left = failed
        try:
            signer.sign(signer.news())
        except OSError:
            failed += 1
        else:
            break
        left = -1
        ledger.close()
        ledger = Ledger(tmp_path)
    policy = parse_policy(f"log {signer.key.verifier(ROOT)}\nquorum none\n".encode())
    report = verify_log(tmp_path / "ledger" / MODEL, policy)

    assert failed >= 4
    assert report.faults == []
    assert report.leaves == 7 * (failed + 1)
    assert [] == [*tmp_path.rglob("*.new")]
    ledger.close()
