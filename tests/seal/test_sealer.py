"""Sealing, with a crash at each single write: every record is one leaf all the same."""

import asyncio
import os
from collections import Counter

import orjson
import pytest

from gateway.clock import SystemClock
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger import log
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader
from gateway.seal.sealer import Sealer
from gateway.telemetry.metrics import Metrics

CALLS = ("pwrite", "fdatasync", "fsync", "ftruncate", "replace", "unlink")


class Crash(BaseException):
    """The process is gone, in the middle of a step."""


def make_journal(tmp_path, count: int, start: int = 0) -> None:
    """Records `start` .. `start + count - 1`, over several small segments."""

    async def write():
        folder = JournalFolder(tmp_path, tmp_path / "keys", "0")
        journal = await open_journal(
            folder, SystemClock(), segment_bytes=1 << 14, stall_s=9, queue_bytes=1 << 24,
            on_failure=pytest.fail,
        )  # fmt: skip
        for number in range(start, start + count):
            header = {"kind": "exchange", "id": f"id-{number}", "status": 503, "at": number}
            part = record.Part.of(b"asked %d" % number, 999)
            await journal.append(header, record.encode_parts({}, part, record.EMPTY))
        await journal.close()

    asyncio.run(write())


def open_sealer(tmp_path) -> Sealer:
    return Sealer(tmp_path, tmp_path / "keys", SystemClock(), Metrics("governor"))


def abandon(sealer: Sealer) -> None:
    """What a kill does to descriptors."""
    sealer.bodies.close()
    sealer.subjects._map.close()
    for descriptor in (sealer.ledger._lock, sealer.ledger._descriptor, sealer.ledger._mark):
        try:
            os.close(descriptor)
        except OSError:
            pass


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
    """What is sealed to its end is destroyed, key first; the segment in use stays."""
    make_journal(tmp_path, 200)
    folder = JournalFolder(tmp_path, tmp_path / "keys", "0")
    before = folder.segments()
    seal_all(tmp_path)

    assert len(before) > 3
    assert before[-1:] == folder.segments()
    assert len(list((tmp_path / "keys" / "journal" / "0").glob("*.key"))) == 1


def test_a_crash_at_each_single_write_loses_and_doubles_nothing(tmp_path, monkeypatch):
    """The n-th write of sealing is the last one, for every n; the next start completes it."""
    real = {name: getattr(os, name) for name in CALLS}
    monkeypatch.setattr(log, "FILE_BYTES", 20_000)
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        folder.mkdir()
        make_journal(folder, 60)
        left = crashes

        def counted(name):
            def call(*arguments, **named):
                nonlocal left
                if left == 0:
                    raise Crash
                left -= 1
                return real[name](*arguments, **named)

            return call

        for name in CALLS:
            monkeypatch.setattr(os, name, counted(name))
        sealer = None
        try:
            sealer = open_sealer(folder)
            while sealer.step():
                pass
            finished = True
        except Crash:
            finished = False
        for name in CALLS:
            monkeypatch.setattr(os, name, real[name])
        if sealer is not None:
            abandon(sealer)
        if finished:
            break
        if sealer is None:
            _release(folder)
        make_journal(folder, 10, start=60)
        seal_all(folder)
        assert_sealed(folder, 70)
        crashes += 1

    assert crashes > 15


def _release(folder) -> None:
    """A sealer that died while it was opening left its lock to nobody but this process."""
    import gc

    gc.collect()
    lock = folder / "ledger" / "lock"
    if lock.exists():
        lock.unlink()


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
        parts = record.encode_parts(
            {"response_headers": []}, record.EMPTY, record.Part.of(body, 9**9)
        )
        findings = decisions_of(header, parts, card)

        assert () == findings.decisions
        assert findings.unreadable
