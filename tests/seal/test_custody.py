"""Erasure through the governor's side: what is reported erased is erased, whatever rotted."""

import asyncio

import pytest
from test_sealer import open_sealer

from gateway.clock import SystemClock
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.ledger.bodies import body_files, index_path
from gateway.ledger.holds import HeldExchange
from gateway.ledger.log import LedgerReader
from gateway.seal.custody import Custody, Refused

PEOPLE = ("annalee", "bob")
ASKED = {"exchanges": [], "reason": "asked by letter"}
CASE = {"reason": "case 7"}
HELD = HeldExchange("id-0", "m/2026-11-27", (1,))


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


@pytest.mark.parametrize("what", ["bits", "gone", "old", "short"])
def test_what_is_held_is_held_though_its_file_rotted(tmp_path, custody, what):
    """Nothing is erased, released or held until the file is restored, and then as before. What a
    leaf holds is missed in a file that is whole but too old, or gone."""
    path, sealer = tmp_path / "holds.json", custody.sealer
    before = ciphertexts(tmp_path, 1)
    custody.change_hold({"action": "hold", "model": None, "exchanges": [HELD], **CASE}, "tester")
    old = path.read_bytes()
    hold = custody.change_hold({"action": "hold", "exchanges": [HELD], **CASE}, "tester")["hold"]
    whole = path.read_bytes()
    kept = {tuple(Custody(sealer).holds.holds.values())}
    rotten = {"bits": [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
                       for at in range(len(whole))],
              "gone": [None], "old": [old], "short": [whole[:-1], b""]}[what]  # fmt: skip
    for data in rotten:
        path.unlink() if data is None else path.write_bytes(data)
        damaged = Custody(sealer)
        if tuple(damaged.holds.holds.values()) in kept:  # white space, or the case of a digit
            continue
        for act in ({"action": "release", "hold": hold}, {"action": "hold", "exchanges": [HELD]}):
            with pytest.raises(Refused) as refused:
                damaged.change_hold({**act, **CASE}, "tester")
            assert (refused.value.status, refused.value.code) == (503, "holds_damaged")
        with pytest.raises(Refused) as refused:
            damaged.erase({"token": 1, **ASKED}, "tester")
        assert refused.value.code == "holds_damaged"
    assert ciphertexts(tmp_path, 1) == before
    path.write_bytes(whole)
    assert Custody(sealer).erase({"token": 1, **ASKED}, "tester")["deferred"] is True


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
