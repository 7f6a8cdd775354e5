"""Damage: found, never read over, accepted by somebody, and then exactly that range is left out."""

import asyncio

import pytest
from test_journal import PARTS, crash, opened

from gateway.journal.damage import Gap
from gateway.journal.directory import Garbled, JournalFolder
from gateway.journal.reader import Entry, JournalReader
from gateway.journal.repair import accept_loss, describe
from gateway.journal.segment import commits_behind, encode_commit


async def written(tmp_path, count=220, **options):
    journal = await opened(tmp_path, segment_bytes=1 << 14, **options)
    for number in range(count):
        await journal.append({"id": str(number)}, PARTS)
    return journal


def flip(folder, segment, offset):
    path = folder.segment(segment)
    data = bytearray(path.read_bytes())
    data[offset or len(data) // 2] ^= 1
    path.write_bytes(data)


def all_of(folder, start=0):
    reader = JournalReader(folder, start)
    given = [each if isinstance(each, Gap) else each.sequence for each in reader.read(10**6)]
    return given, reader


def close(tmp_path, **options):
    async def main():
        journal = await written(tmp_path, **options)
        await journal.close()
        return journal.folder

    return asyncio.run(main())


def test_a_commit_marker_that_a_window_cuts_off_is_left_to_the_next_window():
    """Damage is looked behind window by window, whose ends come anywhere in a marker."""
    marker, _ = encode_commit(7, salt=3, seed=5)
    data = bytes(16) + marker
    assert list(commits_behind(data, 8, 3)) == [(16, 7)]
    needed = 16 + 8 + 20
    for end in range(len(data)):
        assert list(commits_behind(data[:end], 8, 3)) == ([(16, 7)] if end >= needed else []), end


@pytest.mark.parametrize("offset", [10, 2000, 8000])
def test_an_accepted_loss_is_a_gap_of_exactly_the_range(tmp_path, offset):
    """Head or body of a middle segment damaged: stop; accepted: a gap to the next segment."""
    folder = close(tmp_path)
    numbers = folder.segments()
    begins = [folder.head(number).first_sequence for number in numbers]
    flip(folder, 1, offset)
    before, reader = all_of(folder)

    assert before == list(range(reader.damage.first))
    assert begins[1] <= reader.damage.first < begins[2] == reader.damage.upto
    assert describe(folder)["damage"]["first"] == reader.damage.first

    assert [reader.damage] == accept_loss(folder, "disk 3 failed", "ana", 7)
    gap = Gap(reader.damage.first, begins[2], "disk 3 failed", "ana")
    after, _ = all_of(folder)
    assert [*before, gap, *range(begins[2], 220)] == after
    rest = [each if isinstance(each, Gap) else each.sequence for each in reader.read(999)]
    assert [gap, *range(begins[2], 220)] == rest
    assert all_of(folder, begins[2])[0] == list(range(begins[2], 220))


def test_a_second_damage_is_not_covered_by_the_first_one_s_acceptance(tmp_path):
    """Only what was accepted is stepped over."""
    folder = close(tmp_path)
    flip(folder, 1, 3000)
    accept_loss(folder, "once", "ana", 7)
    flip(folder, 2, 3000)
    _, reader = all_of(folder)

    assert reader.damage.segment == 2
    flip(folder, 1, 1000)  # and earlier in the segment than what was accepted
    _, reader = all_of(folder)
    assert reader.damage.segment == 1


def test_a_segment_that_is_gone_is_damage(tmp_path):
    """Numbers have no holes: the records of a removed segment are missing, not passed over."""
    folder = close(tmp_path)
    first, behind = (folder.head(number).first_sequence for number in (1, 2))
    folder.segment(1).unlink()
    given, reader = all_of(folder)

    assert list(range(first)) == given
    assert (reader.damage.first, reader.damage.upto) == (first, behind)
    assert f"records {first} to {behind - 1} are missing" in str(reader.damage)


def test_no_number_is_given_twice_though_the_newest_segment_is_gone(tmp_path):
    """A start after the loss of the segment in use goes on far behind it, and readers stop."""

    async def main():
        journal = await written(tmp_path)
        crash(journal)
        begins = journal.folder.head(journal._segment.number).first_sequence
        journal.folder.segment(journal._segment.number).unlink()
        again = await opened(tmp_path)
        await again.append({"id": "new"}, PARTS)
        await again.close()
        return journal.folder, begins

    folder, begins = asyncio.run(main())
    given, reader = all_of(folder)

    assert given == list(range(begins))
    assert reader.damage.upto > 220
    accept_loss(folder, "removed by hand", "ana", 7)
    given, _ = all_of(folder)
    assert given[begins] == Gap(begins, reader.damage.upto, "removed by hand", "ana")
    assert given[-1] == reader.damage.upto


def test_damage_in_a_former_worker_s_last_segment_can_be_accepted(tmp_path):
    """Where no writer comes any more, the repair itself begins what follows."""
    folder = close(tmp_path)
    last = folder.segments()[-1]
    flip(folder, last, None)
    _, reader = all_of(folder)
    assert reader.damage.upto is None
    accept_loss(folder, "retired host", "ana", 7)
    given, reader = all_of(folder)

    assert isinstance(given[-1], Gap)
    assert reader.damage is None
    assert folder.retire(reader.next_sequence) == len(range(last + 2))
    assert folder.segments() == []
    assert folder.damaged(last).exists()
    assert list(folder.keys.iterdir()) == []


def test_a_running_writer_leaves_a_segment_whose_loss_was_accepted(tmp_path):
    """Repair while running: the next mark moves the writer on, and the reader follows."""

    async def main():
        journal = await written(tmp_path, 20)
        reader = JournalReader(journal.folder)
        flip(journal.folder, 0, 1500)
        read = [each.sequence for each in reader.read(999)]
        accept_loss(journal.folder, "cosmic ray", "ana", 7)
        journal.mark()
        while not isinstance(gap := next(reader.read(1), None), Gap):
            await asyncio.sleep(0.01)
        await journal.append({"id": "after"}, PARTS)
        await journal.append({"id": "and again"}, PARTS)
        rest = [each.sequence for each in reader.read(999)]
        await journal.close()
        return read, gap, rest

    read, gap, rest = asyncio.run(main())

    assert read == list(range(gap.first))
    assert gap.upto == 20
    assert rest[:1] == [20]


def test_a_start_refuses_damage_where_told_to(tmp_path):
    """`on_damage: refuse`: no journal opens until the loss is accepted."""
    folder = close(tmp_path)
    flip(folder, folder.segments()[-1], None)
    with pytest.raises(OSError, match="on_damage is refuse"):
        asyncio.run(opened(tmp_path, refuse_damage=True))
    accept_loss(folder, "known", "ana", 7)

    async def main():
        journal = await opened(tmp_path, refuse_damage=True)
        await journal.append({"id": "new"}, PARTS)
        await journal.close()

    asyncio.run(main())
    assert all_of(folder)[1].damage is None


def test_numbers_go_on_after_everything_was_retired(tmp_path):
    """A former worker's last segment and key go; when it comes back its numbers go on."""
    folder = close(tmp_path)
    assert folder.retire(219) > 1
    assert folder.retire(220) == 1
    assert (folder.segments(), list(folder.keys.iterdir())) == ([], [])

    async def main():
        journal = await opened(tmp_path)
        assert folder.retire(10**9) == 0  # the newest one of a running writer stays
        await journal.append({"id": "new"}, PARTS)
        await journal.close()

    asyncio.run(main())
    given, reader = all_of(folder, 220)
    assert (given, reader.damage) == ([220], None)
    assert isinstance(next(JournalReader(folder).read(1)), Entry)


def fresh(folder):
    """The folder as a process that comes now sees it."""
    return JournalFolder(folder.path.parents[1], folder.keys.parents[1], folder.name)


@pytest.mark.parametrize("name", ["identity", "begun", "retired", "accepted"])
@pytest.mark.parametrize("data", [b"0123456789abcdef", b'{"segment":"1"}', b"\x80", b"", None])
def test_a_garbled_small_file_is_named_and_nothing_is_written(tmp_path, name, data):
    """Another journal's name, what we never write, nothing at all: no start writes behind it, no
    loss is accepted, and with the file as it was everything goes on."""
    folder = close(tmp_path, count=9)
    path = folder.path / name
    before = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    if data is not None:
        path.write_bytes(data)
    elif name != "identity":
        return  # nothing was begun, retired or accepted: other rules know that

    with pytest.raises(Garbled, match=name):
        asyncio.run(opened(tmp_path))
    assert name in describe(fresh(folder))["damage"]["text"]
    with pytest.raises(Garbled, match=name):
        accept_loss(fresh(folder), "lost", "ana", 7)
    path.unlink(missing_ok=True)
    if before is not None:
        path.write_bytes(before)
    assert all_of(close(tmp_path, count=9))[0] == list(range(18))
