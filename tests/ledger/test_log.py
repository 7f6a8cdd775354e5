"""The ledger's file: numbers are places, only durable leaves are read, a torn end is cut."""

import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.disk import Occupied
from gateway.ledger import log
from gateway.ledger.log import Ledger, LedgerDamaged, LedgerReader, read_committed


def leaf(number: int, source: str = "0.aa", size: int = 10) -> bytes:
    return orjson.dumps({"source": source, "sequence": number, "fill": "x" * size})


def fill(tmp_path, count: int, start: int = 0) -> Ledger:
    ledger = Ledger(tmp_path)
    for number in range(start, start + count):
        ledger.append(leaf(number), "0.aa", number)
    return ledger


def test_only_committed_leaves_are_read(tmp_path):
    """What was appended and not committed is not given to a reader."""
    ledger = fill(tmp_path, 10)
    reader = LedgerReader(tmp_path)

    assert [] == list(reader.read(99))
    ledger.commit()
    assert list(range(10)) == [number for number, _ in reader.read(99)]
    assert 10 == read_committed(tmp_path / "ledger")


def test_a_reader_starts_anywhere_and_follows_over_files(tmp_path, monkeypatch):
    """Leaves keep their numbers over file boundaries, for a reader that starts midway too."""
    monkeypatch.setattr(log, "FILE_BYTES", 3000)
    ledger = Ledger(tmp_path)
    reader = LedgerReader(tmp_path)
    seen = []
    for number in range(500):
        ledger.append(leaf(number, size=number % 300), "0.aa", number)
        if number % 7 == 0:
            ledger.commit()
            seen += list(reader.read(5))
    ledger.commit()
    seen += list(reader.read(10**6))

    assert [(n, leaf(n, size=n % 300)) for n in range(500)] == seen
    assert len(list((tmp_path / "ledger").glob("*.leaves"))) > 5
    assert [(321, leaf(321, size=21))] == list(LedgerReader(tmp_path, 321).read(1))


def test_sealing_goes_on_from_the_last_file_alone(tmp_path, monkeypatch):
    """Positions and the next number survive a restart, whatever file they are in."""
    monkeypatch.setattr(log, "FILE_BYTES", 2000)
    ledger = fill(tmp_path, 100)
    ledger.append(leaf(7, "1.bb"), "1.bb", 7)
    ledger.commit()
    ledger.close()
    again = Ledger(tmp_path)

    assert {"0.aa": 99, "1.bb": 7} == again.positions
    assert 101 == again.number


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_end_is_cut_and_written_again(tmp_path_factory, cut):
    """Cut anywhere behind the durable mark, a start keeps whole leaves and goes on behind them."""
    tmp_path = tmp_path_factory.mktemp("ledger")
    ledger = fill(tmp_path, 5)
    ledger.commit()
    durable = os.path.getsize(next((tmp_path / "ledger").glob("*.leaves")))
    for number in range(5, 12):
        ledger.append(leaf(number), "0.aa", number)
    mark = (tmp_path / "ledger" / "committed").read_bytes()
    ledger.commit()
    ledger.close()
    path = next((tmp_path / "ledger").glob("*.leaves"))
    whole = path.read_bytes()
    path.write_bytes(whole[: min(durable + cut, len(whole))])
    (tmp_path / "ledger" / "committed").write_bytes(mark)
    again = Ledger(tmp_path)

    assert 5 <= again.number <= 12
    assert again.number - 1 == again.positions["0.aa"]
    again.append(leaf(again.number), "0.aa", again.number)
    again.commit()
    numbers = [number for number, _ in LedgerReader(tmp_path).read(99)]
    assert list(range(again.number)) == numbers
    again.close()


def test_damage_below_the_durable_mark_is_refused(tmp_path):
    """A flipped byte in a durable leaf stops the writer and the reader; nothing wrong is read."""
    ledger = fill(tmp_path, 20)
    ledger.commit()
    ledger.close()
    path = next((tmp_path / "ledger").glob("*.leaves"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(LedgerDamaged):
        Ledger(tmp_path)
    seen = []
    with pytest.raises(LedgerDamaged):
        seen.extend(LedgerReader(tmp_path).read(99))


def test_a_second_writer_is_refused(tmp_path):
    """One writer."""
    ledger = Ledger(tmp_path)
    with pytest.raises(Occupied):
        Ledger(tmp_path)
    ledger.close()
