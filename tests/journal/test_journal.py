"""The journal from end to end: written, killed, recovered, read."""

import asyncio
import os
from pathlib import Path

import orjson
import pytest

from gateway.clock import SystemClock
from gateway.disk import Occupied
from gateway.errors import JournalUnavailable
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.reader import JournalReader
from gateway.journal.segment import START, Broken, Kind, SegmentHead, read_frames, survey
from gateway.journal.writer import Journal, open_journal

PARTS = record.encode_parts({"subject": "ann"}, record.Part.of(b"question", 99), record.EMPTY)


async def opened(tmp_path: Path, name: str = "0", **changes) -> Journal:
    options = {"segment_bytes": 1 << 20, "stall_s": 2.0, "queue_bytes": 1 << 20} | changes
    folder = JournalFolder(tmp_path / "state", tmp_path / "keys", name)
    return await open_journal(folder, SystemClock(), on_failure=pytest.fail, **options)


def crash(journal: Journal) -> None:
    """Leave the files as a kill would, and let go of the lock."""
    os.close(journal._lock)
    os.close(journal._segment.descriptor)
    journal._syncer.close()
    journal._note.close()


def sequences(folder: JournalFolder) -> list[int]:
    return [entry.sequence for entry in JournalReader(folder).read(10**6)]


def test_what_was_awaited_is_read_back_in_order(tmp_path):
    """Every record whose future resolved is given by a reader, once, in order, byte for byte."""

    async def main():
        journal = await opened(tmp_path)
        await asyncio.gather(*(journal.append({"id": str(n)}, PARTS) for n in range(500)))
        await journal.close()
        return journal.folder

    folder = asyncio.run(main())
    entries = list(JournalReader(folder).read(10**6))

    assert list(range(500)) == [entry.sequence for entry in entries]
    assert [b'{"id":"%d"}' % n for n in range(500)] == [entry.header for entry in entries]
    assert {PARTS} == {entry.parts for entry in entries}


def test_a_reader_follows_across_segments_and_goes_on_from_a_number(tmp_path):
    """Rotation loses nothing; a reader started at n gives n first."""

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 16)
        reader = JournalReader(journal.folder)
        seen = []
        for _ in range(40):
            await asyncio.gather(*(journal.append({"id": str(n)}, PARTS) for n in range(50)))
            await asyncio.sleep(0)
            seen += [entry.sequence for entry in reader.read(10**6)]
        await journal.close()
        seen += [entry.sequence for entry in reader.read(10**6)]
        return journal.folder, seen

    folder, seen = asyncio.run(main())

    assert list(range(2000)) == seen
    assert len(folder.segments()) > 3
    assert 1234 == next(JournalReader(folder, 1234).read(1)).sequence


def test_a_crash_at_every_byte_of_the_tail_keeps_the_whole_prefix(tmp_path):
    """Cut at each byte behind the durable mark, recovery keeps exactly the whole records."""

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 14)
        for number in range(20):
            await journal.append({"id": str(number)}, PARTS)
        crash(journal)
        return journal.folder

    folder = asyncio.run(main())
    path = folder.segment(0)
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    head = SegmentHead.decode(whole)
    for cut in range(START, end):
        extent = survey(whole[:cut] + bytes(end - cut), head)
        assert max(_markers(whole[:cut])) <= extent.next_sequence
        assert extent.damaged_at is None
    for cut in range(end - 700, end, 23):
        for other in folder.segments()[1:]:
            folder.destroy(other)
        (folder.path / "begun").unlink()
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        marked = max(_markers(whole[:cut]))

        async def again():
            journal = await opened(tmp_path, segment_bytes=1 << 14)
            await journal.append({"id": "after"}, PARTS)
            await journal.close()

        asyncio.run(again())
        found = sequences(folder)

        assert list(range(len(found))) == found
        assert len(found) > marked


def _markers(data: bytes) -> list[int]:
    head = SegmentHead.decode(data)
    assert head is not None
    found = [0]
    try:
        for frame in read_frames(data, START, head.salt):
            if frame.kind == Kind.COMMIT:
                found.append(frame.sequence)
    except Broken:
        pass
    return found


def test_every_flipped_byte_in_a_durable_part_stops_the_reader_there(tmp_path):
    """A flipped byte in front of a durable mark is damage: nothing behind it is read."""

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 14)
        for number in range(12):
            await journal.append({"id": str(number)}, PARTS)
        await journal.close()
        return journal.folder

    folder = asyncio.run(main())
    path = folder.segment(0)
    whole = path.read_bytes()
    for at in range(0, len(whole) - 64, 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        reader = JournalReader(folder)
        found = [(entry.sequence, entry.header) for entry in reader.read(100)]
        reader.close()

        assert [(n, b'{"id":"%d"}' % n) for n in range(len(found))] == found
        assert len(found) == 12 or reader.damage, at


def test_the_writer_goes_on_behind_damage_and_the_reader_stops_before_it(tmp_path):
    """After damage a start begins a new segment with new numbers; what lies before is untouched."""

    async def main():
        journal = await opened(tmp_path)
        for number in range(50):
            await journal.append({"id": str(number)}, PARTS)
        crash(journal)
        path = journal.folder.segment(0)
        data = bytearray(path.read_bytes())
        data[4000] ^= 1
        path.write_bytes(data)
        again = await opened(tmp_path)
        await again.append({"id": "new"}, PARTS)
        await again.close()
        return journal.folder, bytes(data)

    folder, data = asyncio.run(main())
    reader = JournalReader(folder)
    found = [entry.sequence for entry in reader.read(1000)]

    assert list(range(len(found))) == found
    assert len(found) < 50
    assert "0/00000000.segment: damaged at offset" in str(reader.damage)
    assert data == folder.segment(0).read_bytes()


def test_a_second_writer_is_refused(tmp_path):
    """One writer a folder."""

    async def main():
        journal = await opened(tmp_path)
        with pytest.raises(Occupied):
            await opened(tmp_path)
        await journal.close()

    asyncio.run(main())


def test_a_stalled_disk_fails_waiters_and_says_so_of_each_record(tmp_path):
    """Past `stall` waiters fail, new records are refused, and late records are told withheld."""

    class SlowSyncer:
        delay = 0.2

        def sync(self, descriptor, done):
            asyncio.get_running_loop().call_later(self.delay, done, None)
            self.delay = 0

        def close(self):
            pass

    async def main():
        journal = await opened(tmp_path, stall_s=0.05)
        journal._syncer.close()
        journal._syncer = SlowSyncer()
        first = journal.append({"id": "late"}, PARTS)
        await asyncio.sleep(0.01)
        second = journal.append({"id": "queued"}, PARTS)
        with pytest.raises(JournalUnavailable):
            await first
        with pytest.raises(JournalUnavailable):
            await second
        with pytest.raises(JournalUnavailable):
            journal.append({"id": "refused"}, PARTS)
        await asyncio.sleep(0.3)
        await journal.append({"id": "fine"}, PARTS)
        await journal.close()
        return journal.folder, journal.statistics

    folder, statistics = asyncio.run(main())
    kinds = [
        (header["id"], header.get("kind"))
        for header in (orjson.loads(entry.header) for entry in JournalReader(folder).read(99))
    ]
    assert ("late", None) in kinds
    assert 1 == kinds.count(("late", "withheld")) == kinds.count(("queued", "withheld"))
    assert "fine" == kinds[-1][0]
    assert 1 == statistics.stalls


def test_a_failed_fdatasync_is_never_retried(tmp_path):
    """An error of the disk fails every waiter, poisons the journal and is told once."""
    failures = []

    class BrokenSyncer:
        calls = 0

        def sync(self, descriptor, done):
            self.calls += 1
            asyncio.get_running_loop().call_soon(done, OSError(5, "Input/output error"))

        def close(self):
            pass

    async def main():
        journal = await opened(tmp_path)
        journal._on_failure = failures.append
        journal._syncer.close()
        journal._syncer = BrokenSyncer()
        with pytest.raises(JournalUnavailable):
            await journal.append({"id": "lost"}, PARTS)
        with pytest.raises(JournalUnavailable):
            journal.append({"id": "refused"}, PARTS)
        assert 1 == journal._syncer.calls
        assert not journal.writable

    asyncio.run(main())

    assert ["[Errno 5] Input/output error"] == [str(error) for error in failures]


def test_a_key_that_is_gone_makes_its_segment_unreadable(tmp_path):
    """Destroying a segment's key leaves nothing personal in the clear in its file."""

    async def main():
        journal = await opened(tmp_path)
        await journal.append({"id": "1"}, PARTS)
        await journal.close()
        return journal.folder

    folder = asyncio.run(main())

    assert b"question" not in folder.segment(0).read_bytes()
    assert b"ann" not in folder.segment(0).read_bytes()
    folder.key(0).unlink()
    reader = JournalReader(folder)
    assert [] == list(reader.read(9))
    assert reader.damage is not None


def test_a_reader_beside_a_busy_writer_never_calls_a_race_damage(tmp_path):
    """A reader in another thread, polling without pause, gives every record and sees no damage."""
    import threading

    stop = threading.Event()
    seen: list[int] = []
    damage: list[str] = []

    def follow(folder):
        reader = JournalReader(folder)
        while True:
            done = stop.is_set()
            seen.extend(entry.sequence for entry in reader.read(10**6))
            if reader.damage or done:
                damage.extend(filter(None, [reader.damage]))
                return

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 22)
        thread = threading.Thread(target=follow, args=(journal.folder,))
        thread.start()
        body = record.encode_parts({}, record.Part.of(os.urandom(3000), 9999), record.EMPTY)
        for _ in range(150):
            await asyncio.gather(*(journal.append({"id": "x"}, body) for _ in range(20)))
        await journal.close()
        stop.set()
        thread.join()

    asyncio.run(main())

    assert [] == damage
    assert list(range(3000)) == seen


@pytest.mark.parametrize("size", [100_000, 600_000])
def test_large_records_that_outrun_the_next_segment_are_kept(tmp_path, size):
    """Rotation waits for the segment that is being made: records beyond half a segment survive."""
    body = record.encode_parts({}, record.Part.of(os.urandom(size), size), record.EMPTY)

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 20, queue_bytes=1 << 26)
        for number in range(15):
            await journal.append({"id": str(number)}, body)
        await journal.close()
        return journal.folder

    reader = JournalReader(asyncio.run(main()))

    assert list(range(15)) == [entry.sequence for entry in reader.read(99)]
    assert reader.damage is None


def test_segments_that_change_under_a_backlog_keep_their_keys(tmp_path):
    """Answers that wait for no flush fill segments faster than they are made: none loses its key,
    and every record of every segment opens."""

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 14, queue_bytes=1 << 26)
        for start in range(0, 6000, 100):
            batch = range(start, start + 100)
            await asyncio.gather(
                *(journal.append({"id": str(n)}, PARTS, durable=False) for n in batch)
            )
        await journal.close()
        return journal.folder

    folder = asyncio.run(main())
    reader = JournalReader(folder)

    assert list(range(6000)) == [entry.sequence for entry in reader.read(10**6)]
    assert reader.damage is None
    assert len(folder.segments()) > 30


def test_an_error_of_the_kernel_s_fdatasync_is_told(tmp_path):
    """A real failed asynchronous fdatasync (a descriptor that takes none) reaches the callback."""
    from gateway.journal.syncer import AioSyncer

    async def main():
        syncer = AioSyncer(asyncio.get_running_loop())
        told = asyncio.get_running_loop().create_future()
        left, right = os.pipe()
        try:
            syncer.sync(left, told.set_result)
            return await asyncio.wait_for(told, 5)
        except OSError as error:
            return error
        finally:
            os.close(left)
            os.close(right)
            syncer.close()

    assert isinstance(asyncio.run(main()), OSError)
