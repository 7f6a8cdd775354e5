"""The ledger's order: numbers are places, only durable leaves are read, a torn end is cut."""

import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.disk import Occupied
from gateway.ledger.entries import LedgerDamaged
from gateway.ledger.log import Ledger, LedgerReader, leaf_at, place_of, read_committed
from gateway.ledger.names import ROOT, log_of

MODEL = "models/mortgage/2026q4"


def leaf(number: int, source: str = "0.aa", size: int = 10) -> bytes:
    return orjson.dumps({"source": source, "sequence": number, "fill": "x" * size})


def fill(tmp_path, count: int, start: int = 0) -> Ledger:
    """Leaves of one source; every third in the root log."""
    ledger = Ledger(tmp_path)
    for number in range(start, start + count):
        ledger.append(ROOT if number % 3 == 0 else MODEL, leaf(number), "0.aa", number)
    return ledger


def order_file(tmp_path):
    return sorted((tmp_path / "ledger" / "order").glob("*.order"))[-1]


def test_only_committed_leaves_are_read(tmp_path):
    """What was appended and not committed is not given to a reader."""
    ledger = fill(tmp_path, 10)
    reader = LedgerReader(tmp_path)

    assert [] == list(reader.read(99))
    ledger.commit()
    assert list(range(10)) == [number for number, _ in reader.read(99)]
    assert 10 == read_committed(tmp_path / "ledger")


def test_any_leaf_is_found_by_its_number(tmp_path):
    """Over files and logs, the growing bundle too; what is not durable is not found."""
    ledger = Ledger(tmp_path, file_records=7)
    for number in range(300):
        log = ROOT if number % 5 == 0 else MODEL
        ledger.append(log, leaf(number, size=number % 30), "0.aa", number)
        if number % 11 == 0:
            ledger.commit()
    assert leaf_at(tmp_path, 298) is None
    ledger.commit()

    assert [leaf_at(tmp_path, n) for n in range(300)] == [leaf(n, size=n % 30) for n in range(300)]
    assert leaf_at(tmp_path, 300) is None


def test_a_reader_starts_anywhere_and_follows_over_files(tmp_path):
    """Leaves keep numbers and bytes over bundles, order files and logs, from any start."""
    ledger = Ledger(tmp_path, file_records=100)
    reader = LedgerReader(tmp_path)
    seen = []
    for number in range(1500):
        log = ROOT if number % 5 == 0 else MODEL
        ledger.append(log, leaf(number, size=number % 300), "0.aa", number)
        if number % 7 == 0:
            ledger.commit()
            seen += list(reader.read(5))
    ledger.commit()
    seen += list(reader.read(10**6))

    assert [(n, leaf(n, size=n % 300)) for n in range(1500)] == seen
    assert len(list((tmp_path / "ledger" / "order").glob("*.order"))) > 5
    assert (tmp_path / "ledger" / MODEL / "tile" / "entries" / "003").exists()
    assert [(321, leaf(321, size=21))] == list(LedgerReader(tmp_path, 321).read(1))
    assert (MODEL, 321 - 65) == place_of(tmp_path, 321)


def test_sealing_goes_on_from_the_last_file_alone(tmp_path):
    """Positions, sizes and the next number survive a restart, whatever file they are in."""
    ledger = Ledger(tmp_path, file_records=30)
    for number in range(100):
        ledger.append(MODEL, leaf(number), "0.aa", number)
        ledger.commit()
    ledger.append(ROOT, leaf(7, "1.bb"), "1.bb", 7)
    ledger.commit()
    ledger.close()
    again = Ledger(tmp_path)

    assert {"0.aa": 99, "1.bb": 7} == again.positions
    assert 101 == again.number
    assert {MODEL: 100, ROOT: 1} == {name: log.size for name, log in again.logs.items()}


def test_a_head_never_claims_what_waits(tmp_path):
    """A crash right behind a new order file's head: the leaves that waited are sealed again."""
    ledger = fill(tmp_path, 10)
    ledger.commit()
    ledger.append(MODEL, leaf(10), "0.aa", 10)
    ledger.append(MODEL, leaf(0, "1.bb"), "1.bb", 0)
    ledger._write_order = lambda: (_ for _ in ()).throw(KeyboardInterrupt)  # the crash
    with pytest.raises(KeyboardInterrupt):
        ledger.commit()
    ledger.close()
    again = Ledger(tmp_path)

    assert 10 == again.number
    assert {"0.aa": 9, "1.bb": -1} == again.positions


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), bundles=st.booleans())
def test_a_torn_end_is_cut_and_written_again(tmp_path_factory, cut, bundles):
    """Cut the order anywhere behind the durable mark: a start keeps whole leaves, takes back
    entries that have no place in the order, and goes on behind them."""
    tmp_path = tmp_path_factory.mktemp("ledger")
    first = 380 if bundles else 5  # 253 entries in the model's log, so that a bundle fills
    ledger = fill(tmp_path, first)
    ledger.commit()
    durable = os.path.getsize(order_file(tmp_path))
    for number in range(first, first + 12):
        ledger.append(MODEL, leaf(number), "0.aa", number)
    mark = (tmp_path / "ledger" / "committed").read_bytes()
    ledger.logs[MODEL].settle = lambda: None  # full bundles stay where a crash finds them
    ledger.commit()
    ledger.close()
    path = order_file(tmp_path)
    path.write_bytes(path.read_bytes()[: durable + cut])
    (tmp_path / "ledger" / "committed").write_bytes(mark)
    again = Ledger(tmp_path)

    assert first <= again.number <= first + 12
    assert again.number - 1 == again.positions["0.aa"]
    again.append(MODEL, leaf(again.number), "0.aa", again.number)
    again.commit()
    found = list(LedgerReader(tmp_path).read(999))
    assert [(number, leaf(number)) for number in range(again.number)] == found
    again.close()


@pytest.mark.parametrize("what", ["order", "tail", "bundle", "bundle missing", "all orders"])
def test_damage_below_the_durable_mark_is_never_read(tmp_path, what):
    """A flipped byte or a missing file among durable leaves stops the reader; an order that is
    shorter than what was durable stops the writer too."""
    ledger = fill(tmp_path, 600)
    ledger.commit()
    ledger.close()
    root = tmp_path / "ledger"
    path = {
        "order": order_file(tmp_path), "all orders": order_file(tmp_path),
        "tail": next((root / MODEL / "tail").iterdir()),
    }.get(what, root / MODEL / "tile" / "entries" / "000")  # fmt: skip
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if what in ("bundle missing", "all orders"):
        path.unlink()

    if what in ("order", "all orders", "bundle missing"):
        with pytest.raises(LedgerDamaged):
            Ledger(tmp_path)
    with pytest.raises(LedgerDamaged):
        list(LedgerReader(tmp_path).read(999))


def test_what_was_read_ahead_and_taken_back_is_read_again(tmp_path):
    """A reader that saw an entry which a crash took back gives the one written in its place."""
    ledger = fill(tmp_path, 5)
    ledger.commit()
    reader = LedgerReader(tmp_path)
    for number in (6, 7):  # 7 lies in the file already when 6 is read
        ledger.logs[MODEL].append(leaf(number, size=50))
    ledger.logs[MODEL].flush()
    list(reader.read(99))
    ledger.close()
    again = Ledger(tmp_path)
    for number in (8, 9):
        again.append(MODEL, leaf(number), "0.aa", number)
    again.commit()

    assert [(5, leaf(8)), (6, leaf(9))] == list(reader.read(99))


def test_a_second_writer_is_refused(tmp_path):
    """One writer."""
    ledger = Ledger(tmp_path)
    with pytest.raises(Occupied):
        Ledger(tmp_path)
    ledger.close()


def test_a_model_has_one_log_a_quarter():
    """Quarters are those of the calendar in UTC."""
    second = 1_000_000_000

    assert "models/m/2026q4" == log_of("m", 1795392000 * second)
    assert "models/m/2026q1" == log_of("m", (1767225600 + 5) * second)
    assert "models/m/2025q4" == log_of("m", (1767225600 - 1) * second)
    assert ROOT == log_of(None, 0)
