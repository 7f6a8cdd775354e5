"""Erasure through the governor's side: what is reported erased is erased, whatever rotted."""

import asyncio

import pytest
from test_sealer import open_sealer

from gateway.clock import SystemClock
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger.bodies import body_files, index_path
from gateway.ledger.log import LedgerReader
from gateway.seal.custody import Custody, Refused

PEOPLE = ("annalee", "bob")
ASKED = {"exchanges": [], "reason": "asked by letter"}


def write_journal(folder, count: int) -> None:
    """Exchanges of two people in turn."""

    async def write():
        journal = await open_journal(
            JournalFolder(folder, folder / "keys", "0"), SystemClock(), segment_bytes=1 << 16,
            stall_s=9, queue_bytes=1 << 24, on_failure=pytest.fail,
        )  # fmt: skip
        for number in range(count):
            header = {"kind": "exchange", "model": "m", "id": f"id-{number}", "status": 503,
                      "at": SystemClock().wall()}  # fmt: skip
            part = record.Part.of(b"income of %d" % number, 999)
            context = {"subjects": [PEOPLE[number % 2]]}
            await journal.append(header, record.encode_parts(context, part, record.EMPTY))
        await journal.close()

    asyncio.run(write())


@pytest.fixture
def custody(tmp_path):
    write_journal(tmp_path, 8)
    sealer = open_sealer(tmp_path)
    while sealer.step():
        pass
    yield Custody(sealer)
    sealer.close()


def ciphertexts(state, number: int) -> list[bytes]:
    """What is sealed in the one file of bodies under a key number, by the layout alone."""
    (file,) = body_files(state)
    data = (state / "bodies" / f"{file}.bodies").read_bytes()
    head = (1).to_bytes(4, "little") + number.to_bytes(8, "little")
    return [piece[:40] for piece in data.split(head)[1:]]


@pytest.mark.parametrize("what", ["entry", "cut", "gone"])
def test_a_damaged_index_keeps_no_ciphertext_from_an_erasure(tmp_path, custody, what):
    """All four bodies are overwritten and counted, though their index told of none or of three;
    the other person's are as they were, and sealing goes on in the same file."""
    mine, others = ciphertexts(tmp_path, 1), ciphertexts(tmp_path, 2)
    (file,) = body_files(tmp_path)
    path = index_path(tmp_path, file)
    data = path.read_bytes()
    if what == "entry":
        path.write_bytes(data[:48] + bytes([data[48] ^ 2]) + data[49:])
    elif what == "cut":
        path.write_bytes(data[:24])
    else:
        path.unlink()
    done = custody.erase({"token": 1, **ASKED}, "tester")

    assert (len(mine), len(others)) == (4, 4)
    assert (done["blobs"], done["keys"], done["deferred"]) == (4, 1, False)
    assert [bytes(40)] * 4 == ciphertexts(tmp_path, 1)
    assert others == ciphertexts(tmp_path, 2)
    sealer = custody.sealer
    write_journal(tmp_path, 2)
    while sealer.step():
        pass
    assert custody.erase({"token": 2, **ASKED}, "tester")["blobs"] == 5


def test_nothing_is_reported_erased_where_it_cannot_be_told(tmp_path, custody):
    """Index and ledger damaged: refused, and no leaf says that anything was erased."""
    (file,) = body_files(tmp_path)
    index_path(tmp_path, file).unlink()
    before = ciphertexts(tmp_path, 1)
    tail = next((tmp_path / "ledger" / "models" / "m").glob("*/tail/*"))
    data = tail.read_bytes()
    tail.write_bytes(data[:100])
    with pytest.raises(Refused, match="nothing is erased"):
        custody.erase({"token": 1, **ASKED}, "tester")
    tail.write_bytes(data)

    assert before == ciphertexts(tmp_path, 1)
    assert not any(b'"kind":"erasure"' in leaf for _, leaf in LedgerReader(tmp_path).read(99))
    assert custody.erase({"token": 1, **ASKED}, "tester")["blobs"] == 4
