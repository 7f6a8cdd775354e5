"""Sealing, with a crash at each single write: every record is one leaf all the same."""

import asyncio
import errno
import os
import shutil
import signal
from collections import Counter

import orjson
import pytest

from gateway.clock import SystemClock
from gateway.disk import hold
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import Ledger, LedgerReader
from gateway.ledger.signer import size_of
from gateway.seal.sealer import Sealer
from gateway.settings import LedgerSettings
from gateway.telemetry.metrics import Metrics
from gateway.verify.ledger import open_policy, verify_ledger

CALLS = ("pwrite", "write", "fdatasync", "fsync", "ftruncate", "replace", "unlink")


def make_journal(tmp_path, count: int, start: int = 0) -> None:
    """Records `start` .. `start + count - 1`, over several small segments."""

    async def write():
        folder = JournalFolder(tmp_path, tmp_path / "keys", "0")
        journal = await open_journal(
            folder, SystemClock(), segment_bytes=1 << 14, stall_s=9, queue_bytes=1 << 24,
            on_failure=pytest.fail,
        )  # fmt: skip
        for number in range(start, start + count):
            header = {
                "kind": "exchange",
                "model": "m" if number % 2 else None,
                "id": f"id-{number}",
                "status": 503,
                "at": number,
            }
            part = record.Part.of(b"asked %d" % number, 999)
            await journal.append(header, record.encode_parts({}, part, record.EMPTY))
        await journal.close()

    asyncio.run(write())


def open_sealer(tmp_path) -> Sealer:
    settings = LedgerSettings(checkpoint="50ms")
    return Sealer(tmp_path, tmp_path / "keys", SystemClock(), Metrics("governor"), settings)


def assert_sealed(tmp_path, count: int) -> None:
    found = [orjson.loads(leaf) for _, leaf in LedgerReader(tmp_path).read(1 << 30)]
    exchanges = [leaf for leaf in found if leaf["kind"] == "exchange"]
    bodies = BodyReader(tmp_path, tmp_path / "keys")

    assert [f"id-{n}" for n in range(count)] == [leaf["record"]["id"] for leaf in exchanges]
    assert {1} == set(Counter(leaf["sequence"] for leaf in exchanges).values())
    for number, leaf in enumerate(exchanges):
        _, asked, _ = record.decode_parts(bodies.read(f"id-{number}", leaf["body"]))
        assert b"asked %d" % number == asked.kept


def seal_all(tmp_path) -> None:
    sealer = open_sealer(tmp_path)
    sealer.notary.begin(0)
    while sealer.step():
        pass
    sealer.close()


def test_each_record_becomes_one_leaf_with_its_body(tmp_path):
    """Sealing to the end and again from the start gives each record once, in order."""
    make_journal(tmp_path, 200)
    seal_all(tmp_path)
    seal_all(tmp_path)
    assert_sealed(tmp_path, 200)


def test_sealed_segments_go_with_their_keys(tmp_path):
    """What is sealed to its end is destroyed, key first; a segment in use stays."""
    make_journal(tmp_path, 200)
    folder = JournalFolder(tmp_path, tmp_path / "keys", "0")
    before = folder.segments()
    lock = hold(folder.lock)  # as a writer does
    seal_all(tmp_path)

    assert len(before) > 3
    assert before[-1:] == folder.segments()
    assert len(list((tmp_path / "keys" / "journal" / "0").glob("*.key"))) == 1
    os.close(lock)


def test_a_segment_retired_by_half_is_no_damage(tmp_path, monkeypatch):
    """Killed between a retired segment's key and its file: it is passed over, and goes later."""
    make_journal(tmp_path, 20)
    folder = JournalFolder(tmp_path, tmp_path / "keys", "0")
    seal_all(tmp_path)
    before = folder.segments()
    monkeypatch.setattr(JournalFolder, "destroy", JournalFolder.destroy_key)
    folder.retire(20)
    monkeypatch.undo()
    assert before == folder.segments()
    assert not folder.key(before[-1]).exists()

    seal_all(tmp_path)
    make_journal(tmp_path, 20, start=20)
    seal_all(tmp_path)
    assert_sealed(tmp_path, 40)
    leaves = [orjson.loads(leaf) for _, leaf in LedgerReader(tmp_path).read(1 << 30)]
    assert not [leaf for leaf in leaves if leaf["kind"] == "damage"]
    assert before[-1] not in folder.segments()


def test_records_are_not_sealed_again_under_another_name(tmp_path):
    """A garbled identity is told and stops its journal; as it was, sealing goes on behind."""
    make_journal(tmp_path, 20)
    seal_all(tmp_path)
    path = tmp_path / "journal" / "0" / "identity"
    identity = path.read_bytes()
    path.write_bytes(b"0123456789abcdef")
    sealer = open_sealer(tmp_path)
    sealer.step()
    assert "identity" in sealer.lag()["0"]["damage"]
    path.write_bytes(identity)
    make_journal(tmp_path, 5, start=20)
    while sealer.step():
        pass
    assert [None] == [lag["damage"] for lag in sealer.lag().values()]
    sealer.close()

    assert_sealed(tmp_path, 25)


def test_a_journal_set_back_is_told_and_sealed_no_further(tmp_path):
    """An old copy of a journal in its place gives numbers twice: that is said, once, in a leaf, and
    at later starts too, when the writer has passed the number that was sealed."""
    journal = tmp_path / "journal"
    make_journal(tmp_path, 20)
    shutil.copytree(journal, tmp_path / "copy")
    make_journal(tmp_path, 10, start=20)
    lock = hold(journal / "0" / "lock")  # as a writer does: the copy's segments keep their keys
    seal_all(tmp_path)
    os.close(lock)
    assert_sealed(tmp_path, 30)
    shutil.rmtree(journal)
    shutil.copytree(tmp_path / "copy", journal)

    for more in (0, 40):
        make_journal(tmp_path, more, start=20)
        sealer = open_sealer(tmp_path)
        while sealer.step():
            pass
        (told,) = sealer.lag().values()
        assert "set back: it ends at record" in told["damage"]
        assert "30 are sealed" in told["damage"]
        sealer.close()

    leaves = [orjson.loads(leaf) for _, leaf in LedgerReader(tmp_path).read(1 << 30)]
    assert_sealed(tmp_path, 30)
    assert 1 == sum(leaf["kind"] == "damage" for leaf in leaves)


def seal_until(folder, writes: int) -> bool:
    """Seal in a process that dies at the write behind so many; whether it came to the end."""
    child = os.fork()
    if child == 0:
        left = writes
        real = {name: getattr(os, name) for name in CALLS}

        def counted(name):
            def call(*arguments, **named):
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real[name](*arguments, **named)

            return call

        for name in CALLS:
            setattr(os, name, counted(name))
        try:
            sealer = open_sealer(folder)
            sealer.notary.begin(0)
            while sealer.step():
                pass
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "it failed instead of being killed"
    return status == 0


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("crashes", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_crash_at_each_single_write_loses_and_doubles_nothing(tmp_path, crashes):
    """The n-th write of sealing is the last one, for every other n; the next start completes it,
    what was signed before is a prefix of what is signed then, and a verifier finds no fault."""
    while True:
        folder = tmp_path / str(crashes)
        folder.mkdir()
        make_journal(folder, 60)
        if seal_until(folder, crashes):
            break
        before = checkpoint_sizes(folder)
        make_journal(folder, 10, start=60)
        seal_all(folder)
        assert_sealed(folder, 70)
        assert all(size <= checkpoint_sizes(folder)[log] for log, size in before.items())
        policy = open_policy(folder / "ledger" / "policy")
        report = verify_ledger(folder / "ledger", policy, folder / "bodies", keys=folder / "keys")
        assert report.faults == [], crashes
        crashes += 2

    assert crashes > 40


@pytest.mark.parametrize("failing", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("kind", [".bodies", ".index", ".keys", "tail/0", ".order", "committed"])
def test_an_end_after_an_error_seals_nothing_that_was_not_written(
    tmp_path, monkeypatch, failing, kind
):
    """The disk takes no more, and has room again when the governor ends: its last commit must not
    be of leaves whose bodies were not written, or the journal's segment goes and they are lost."""
    make_journal(tmp_path, 20)
    sealer = open_sealer(tmp_path)
    sealer.notary.begin(0)
    real = getattr(os, failing)

    def full(descriptor: int, *more):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(kind):
            raise OSError(errno.ENOSPC, "no space left")
        return real(descriptor, *more)

    monkeypatch.setattr(os, failing, full)
    asked = sealer.call(sealer.step)
    if (kind, failing) == ("committed", "fdatasync"):  # what the mark says, the order says too
        sealer.turn()
    else:
        with pytest.raises(OSError, match="no space left"):
            sealer.turn()
        assert isinstance(asked.exception(), OSError)
    monkeypatch.undo()
    sealer.close()
    seal_all(tmp_path)

    assert_sealed(tmp_path, 20)
    policy = open_policy(tmp_path / "ledger" / "policy")
    report = verify_ledger(tmp_path / "ledger", policy, tmp_path / "bodies", keys=tmp_path / "keys")
    assert report.faults == []


def test_a_log_that_a_crash_left_unopened_is_opened_by_its_first_leaf(tmp_path, monkeypatch):
    """The order's new file names it, the leaf that opens it was not written: it is told again."""
    make_journal(tmp_path, 4)
    sealer = open_sealer(tmp_path)
    sealer.notary.begin(0)
    monkeypatch.setattr(Ledger, "_write_order", broken)
    with pytest.raises(OSError, match="the power went"):
        sealer.step()
    sealer.subjects.close()
    sealer.ledger.close()
    monkeypatch.undo()
    seal_all(tmp_path)
    seal_all(tmp_path)

    assert_sealed(tmp_path, 4)
    report = verify_ledger(tmp_path / "ledger", open_policy(tmp_path / "ledger" / "policy"))
    assert report.faults == []
    leaves = [orjson.loads(leaf)["kind"] for _, leaf in LedgerReader(tmp_path).read(99)]
    assert leaves.count("log_opened") == 1


def broken(ledger: Ledger) -> None:
    raise OSError("the power went")


def checkpoint_sizes(folder) -> dict[str, int]:
    root = folder / "ledger"
    return {str(path.parent): size_of(path) for path in root.rglob("checkpoint")}


def test_an_unreadable_answer_is_sealed_as_such(tmp_path):
    """Bytes that are no answer of the protocol become `unreadable` and stop no one."""
    from gateway.card import Card
    from gateway.seal.leaf import decisions_of

    card = Card.model_validate(
        {"format": 1, "model": "m", "version": "v", "summary": "s",
         "artifact": {"sha256": "0" * 64},
         "features": [{"name": "a", "type": "number", "meaning": "a", "range": [0, 1]}],
         "outputs": {"score": {"tensor": "score", "meaning": "m"}},
         "training": {"data": {}, "code_commit": "c", "configuration": {}, "seed": 1},
         "metrics": {}}
    )  # fmt: skip
    header = {"operation": "infer", "status": 200}
    text = b'{"outputs":[{"name":"score","datatype":"FP32","shape":[1],"data":["x"]}]}'
    closing = b'"}],"caller":"root"'
    for body in (b"", b"\xff\xfe", b'{"a":' * 10_000, closing, b"[1]", b"NaN", text):
        answer = record.Part.of(body, 9**9)
        findings = decisions_of(header, {"response_headers": []}, answer, card)

        assert () == findings.decisions
        assert findings.unreadable
