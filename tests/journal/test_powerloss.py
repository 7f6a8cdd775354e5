"""Power loss in process: whichever unsynced pages reach the disk, what was durable is kept."""

import asyncio
import os
import random

import orjson
import pytest
from test_journal import crash, opened

from gateway.journal import record
from gateway.journal.reader import JournalReader
from gateway.journal.segment import START, SegmentHead, survey

PAGE = 4096


class Snapshots:
    """A disk that remembers what the file was at each completed fdatasync."""

    def __init__(self, journal) -> None:
        self.journal, self.synced = journal, b""
        self.told: list[tuple[bytes, int]] = []

    def sync(self, descriptor, done):
        self.synced = os.pread(descriptor, 1 << 30, 0)
        asyncio.get_running_loop().call_soon(done, None)

    def close(self):
        pass


async def on_snapshots(tmp_path) -> tuple:
    """A journal and the disk under it."""
    journal = await opened(tmp_path, segment_bytes=1 << 19)
    journal._syncer.close()
    journal._syncer = disk = Snapshots(journal)
    return journal, disk


def entry(dice: random.Random, number: int) -> tuple:
    """A record of random length, as `append` takes it."""
    body = record.Part.of(dice.randbytes(dice.randrange(6000)), 9999)
    return {"id": f"{number}"}, record.encode_parts({}, body, record.EMPTY)


def lost(before: bytes, after: bytes, dice: random.Random) -> bytes:
    """`before` with a random subset of the pages that `after` changed."""
    pages = bytearray(before)
    for at in range(0, len(after), PAGE):
        if after[at : at + PAGE] != before[at : at + PAGE] and dice.random() < 0.5:
            pages[at : at + PAGE] = after[at : at + PAGE]
    return bytes(pages)


@pytest.mark.parametrize("seed", range(40))
def test_any_subset_of_unsynced_pages_leaves_exactly_what_was_durable(tmp_path, seed):
    """Every record whose future resolved is read after the loss, a prefix and unchanged; what was
    under way may be there or not; a start makes no damage of it."""
    dice = random.Random(seed)

    async def main():
        journal, disk = await on_snapshots(tmp_path)
        released = 0
        for _ in range(dice.randrange(1, 6)):
            batch = [entry(dice, released + n) for n in range(dice.randrange(1, 9))]
            await asyncio.gather(*(journal.append(*each) for each in batch))
            released += len(batch)
        disk.sync = lambda descriptor, done: None  # the power goes within this commit
        for number in range(dice.randrange(1, 9)):
            journal.append(*entry(dice, released + number)).add_done_callback(
                lambda f: f.exception()
            )
        await asyncio.sleep(0.01)
        path = journal.folder.segment(0)
        after = path.read_bytes()
        crash(journal)
        path.write_bytes(lost(disk.synced, after, dice))
        again = await opened(tmp_path)
        await again.append(*entry(dice, 10**6))
        await again.close()
        return released, again

    released, journal = asyncio.run(main())
    reader = JournalReader(journal.folder)
    ids = [int(orjson.loads(each.header)["id"]) for each in reader.read(10**6)]

    assert journal.damage is None
    assert reader.damage is None
    assert ids[:released] == list(range(released))
    assert ids[-1] == 10**6
    assert ids[:-1] == list(range(len(ids) - 1))


@pytest.mark.parametrize("seed", range(20))
def test_a_power_loss_takes_no_bounded_answers_but_those_of_one_commit(tmp_path, seed):
    """Answers leave while their flush is under way, and none behind them: what was flushed stays,
    what is lost is of that commit."""
    dice = random.Random(seed)

    async def main():
        journal, disk = await on_snapshots(tmp_path)
        flushed = 0
        for _ in range(dice.randrange(1, 6)):
            batch = [entry(dice, flushed + n) for n in range(dice.randrange(1, 9))]
            await asyncio.gather(*(journal.append(*each, durable=False) for each in batch))
            flushed += len(batch)
            await journal.append(*entry(dice, flushed))  # durable: so are all before it
            flushed += 1
        disk.sync = lambda descriptor, done: None  # the power goes within this commit
        size = dice.randrange(1, 9)
        leaving = [journal.append(*entry(dice, flushed + n), durable=False) for n in range(size)]
        await asyncio.gather(*leaving)
        behind = journal.append(*entry(dice, flushed + size), durable=False)
        await asyncio.sleep(0.01)
        kept = behind.done()
        behind.cancel()
        path = journal.folder.segment(0)
        after = path.read_bytes()
        crash(journal)
        path.write_bytes(lost(disk.synced, after, dice))
        again = await opened(tmp_path)
        await again.close()
        return flushed, size, kept, again

    flushed, size, left, journal = asyncio.run(main())
    reader = JournalReader(journal.folder)
    ids = [int(orjson.loads(each.header)["id"]) for each in reader.read(10**6)]

    assert not left
    assert reader.damage is None
    assert ids == list(range(len(ids)))
    assert flushed <= len(ids) <= flushed + size


def closed_segment(tmp_path, size: int) -> tuple:
    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 20)
        number = 0
        while journal._offset < size:
            body = record.Part.of(bytes(300), 999)
            await journal.append({"id": str(number)}, record.encode_parts({}, body, record.EMPTY))
            number += 1
        await journal.close()
        again = await opened(tmp_path)
        await again.append({"id": "behind"}, record.encode_parts({}, record.EMPTY, record.EMPTY))
        await again.close()
        return journal.folder, number

    return asyncio.run(main())


def assert_noticed(folder, count: int, whole: bytes, bits) -> None:
    """Each flipped bit: a prefix of the truth and damage, or the whole truth."""
    path = folder.segment(0)
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        reader = JournalReader(folder)
        ids = [orjson.loads(each.header)["id"] for each in reader.read(10**6)]
        reader.close()
        if reader.damage is None:
            assert ids == [*map(str, range(count)), "behind"], bit
        else:
            assert ids == [str(number) for number in range(len(ids))], bit
            assert reader.damage.first == len(ids), bit
            assert reader.damage.upto == count, bit


def test_flipped_bits_of_a_closed_segment_are_noticed(tmp_path):
    """A sample of all bits: nothing wrong is ever given, and nothing is passed over unseen."""
    folder, count = closed_segment(tmp_path, 1 << 16)
    whole = folder.segment(0).read_bytes()
    dice = random.Random(1)
    size = len(whole) * 8
    bits = [*range(START * 8), *(dice.randrange(size) for _ in range(300))]
    bits += range(size - 600, size, 7)  # the last record and the markers behind it
    assert_noticed(folder, count, whole, bits)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_bit_of_a_closed_segment_is_noticed(tmp_path):
    """All of 64 KiB, bit by bit: the rules that reader and recovery share call each one damage,
    unless it lies in the padding or the last marker, where no record is lost."""
    folder, count = closed_segment(tmp_path, 1 << 16)
    whole = folder.segment(0).read_bytes()
    head = SegmentHead.decode(whole)
    harmless = 0
    data = bytearray(whole)
    for bit in range(START * 8, len(whole) * 8):
        data[bit // 8] ^= 1 << bit % 8
        extent = survey(bytes(data), head, durable_elsewhere=count)
        data[bit // 8] ^= 1 << bit % 8
        if extent.damaged_at is None:
            harmless += 1
            assert extent.next_sequence == count, bit
        else:
            assert START <= extent.damaged_at <= bit // 8, bit

    assert harmless < len(whole) * 8 * 0.05


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.long)])
def test_a_fifty_frame_tail_cut_anywhere_leaves_the_whole_prefix(tmp_path, step):
    """Cut anywhere (long: at every byte): just the records before it, and no damage."""
    folder, count = closed_segment(tmp_path, 50 * 550)
    whole = folder.segment(0).read_bytes()
    head = SegmentHead.decode(whole)
    ends = []
    for cut in range(START, len(whole), step):
        extent = survey(whole[:cut] + bytes(len(whole) - cut), head)
        assert extent.damaged_at is None
        ends.append(extent.next_sequence)

    assert count >= 50
    assert ends == sorted(ends)
    assert set(range(count)) <= set(ends) <= set(range(count + 1))
