"""What disks and people do to a journal while it is written: nothing is released that is lost."""

import asyncio
import os
import threading

import orjson
import pytest
from test_journal import PARTS, crash, opened

from gateway.errors import JournalUnavailable
from gateway.journal import allocation
from gateway.journal.damage import Gap
from gateway.journal.reader import JournalReader


def headers(folder):
    return [orjson.loads(entry.header) for entry in JournalReader(folder).read(10**6)]


def unlink(folder):
    folder.segment(0).unlink()


def rename(folder):
    os.rename(folder.segment(0), folder.path / "elsewhere")


def replace(folder):
    copy = folder.path / "copy"
    copy.write_bytes(folder.segment(0).read_bytes())
    os.replace(copy, folder.segment(0))


def move_folder(folder):
    os.rename(folder.path, folder.path.with_name("gone"))


@pytest.mark.parametrize("act", [unlink, rename, replace, move_folder])
def test_a_segment_that_lost_its_name_fails_the_next_commit(tmp_path, act):
    """Unlinked, renamed, replaced, its folder moved: the first commit after it releases nothing."""
    failures = []

    async def main():
        journal = await opened(tmp_path)
        journal._on_failure = failures.append
        await journal.append({"id": "before"}, PARTS)
        act(journal.folder)
        with pytest.raises(JournalUnavailable):
            await journal.append({"id": "into the void"}, PARTS)
        with pytest.raises(JournalUnavailable):
            journal.append({"id": "refused"}, PARTS)
        crash(journal)
        again = await opened(tmp_path)
        await again.append({"id": "after"}, PARTS)
        await again.close()
        return again.folder

    folder = asyncio.run(main())
    reader = JournalReader(folder)
    given = list(reader.read(99))

    assert len(failures) == 1
    if act is replace or act is move_folder:
        assert orjson.loads(given[-1].header)["id"] == "after"
    else:
        assert "is not there" in str(reader.damage) or "missing" in str(reader.damage)
    assert not any(isinstance(each, Gap) for each in given)


@pytest.mark.parametrize("errno", [5, 28, 30])
def test_a_write_that_fails_or_is_short_releases_nothing(tmp_path, monkeypatch, errno):
    """EIO, ENOSPC, EROFS and a short write: the waiters fail, the journal is poisoned, and the
    next start finds what was whole, each such record followed by `withheld`."""
    real = os.pwrite
    broken = []

    def pwrite(descriptor, data, offset):
        if broken and len(data) > 200:
            if errno == 28:
                return real(descriptor, data[: len(data) // 2], offset)
            raise OSError(errno, os.strerror(errno))
        return real(descriptor, data, offset)

    async def main():
        journal = await opened(tmp_path)
        failures = []
        journal._on_failure = failures.append
        await journal.append({"id": "fine"}, PARTS)
        monkeypatch.setattr(os, "pwrite", pwrite)
        broken.append(True)
        waiting = [journal.append({"id": f"lost{n}"}, PARTS) for n in range(4)]
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, JournalUnavailable)
        broken.clear()
        crash(journal)
        again = await opened(tmp_path)
        await again.append({"id": "after"}, PARTS)
        await again.close()
        return failures, again.folder

    failures, folder = asyncio.run(main())
    told = headers(folder)
    withheld = {each["id"] for each in told if each.get("kind") == "withheld"}

    assert len(failures) == 1
    assert {f"lost{n}" for n in range(4)} == withheld
    assert (told[0]["id"], told[-1]["id"]) == ("fine", "after")


def test_a_kill_within_a_stall_is_told_by_the_next_start(tmp_path):
    """The record is whole on disk, its client got 503, the process dies: `withheld` follows."""

    class Stuck:
        def sync(self, descriptor, done):
            pass

        def close(self):
            pass

    async def main():
        journal = await opened(tmp_path, stall_s=0.05)
        await journal.append({"id": "answered"}, PARTS)
        journal._syncer.close()
        journal._syncer = Stuck()
        with pytest.raises(JournalUnavailable):
            await journal.append({"id": "stalled"}, PARTS)
        crash(journal)
        again = await opened(tmp_path)
        await again.close()
        third = await opened(tmp_path)
        await third.close()
        return third.folder

    told = [(each["id"], each.get("kind")) for each in headers(asyncio.run(main()))]

    assert told == [("answered", None), ("stalled", None), ("stalled", "withheld")]


def test_a_change_of_segments_on_a_slow_disk_keeps_the_loop_running(tmp_path, monkeypatch):
    """While the old segment is closed the loop goes on; past `stall` the waiters fail, later all
    is as before."""
    gate = threading.Event()
    real = allocation.close_segment

    def slow(descriptor, length):
        gate.wait(20)
        real(descriptor, length)

    async def main():
        journal = await opened(tmp_path, segment_bytes=1 << 13, stall_s=0.2)
        monkeypatch.setattr(allocation, "close_segment", slow)
        beats = 0
        number, outcome = -1, None
        while outcome is None:
            number += 1
            outcome = (
                await asyncio.gather(
                    journal.append({"id": str(number)}, PARTS), return_exceptions=True
                )
            )[0]
        assert isinstance(outcome, JournalUnavailable)
        for _ in range(20):
            await asyncio.sleep(0)
            beats += 1
        assert not journal.writable
        gate.set()
        while not journal.writable:
            await asyncio.sleep(0.01)
        await journal.append({"id": "after"}, PARTS)
        await journal.close()
        return number, beats, journal.folder

    failed, beats, folder = asyncio.run(main())
    told = [(each["id"], each.get("kind")) for each in headers(folder)]

    assert beats == 20
    assert told[:failed] == [(str(n), None) for n in range(failed)]
    assert told[failed:] == [(str(failed), "withheld"), (str(failed), None), ("after", None)]


def test_a_segment_with_records_is_left_after_its_age_and_an_idle_one_stays(tmp_path):
    """So that keys of old records can go; marks alone make no new segment."""

    async def main():
        journal = await opened(tmp_path, segment_age_s=0.05)
        for _ in range(3):
            await asyncio.sleep(0.06)
            journal.mark()
        await asyncio.sleep(0.02)
        idle = journal.folder.begun().segment
        await journal.append({"id": "1"}, PARTS)
        await asyncio.sleep(0.1)
        await journal.append({"id": "2"}, PARTS)
        begun = journal.folder.begun()
        gone = journal.folder.retire(1)
        await journal.close()
        return idle, begun, gone

    idle, begun, gone = asyncio.run(main())

    assert (idle, begun.segment, begun.sequence, gone) == (0, 1, 1, 1)


def test_bounded_answers_wait_for_no_flush_and_the_number_at_risk_is_told(tmp_path):
    """Released while the flush is under way and counted; nothing more is released meanwhile."""

    class Held:
        done = None

        def sync(self, descriptor, done):
            self.done = done

        def close(self):
            pass

    async def main():
        journal = await opened(tmp_path)
        journal._syncer.close()
        journal._syncer = held = Held()
        first = [journal.append({"id": str(n)}, PARTS, durable=False) for n in range(3)]
        durable = journal.append({"id": "d"}, PARTS)
        await asyncio.gather(*first)
        second = journal.append({"id": "later"}, PARTS, durable=False)
        await asyncio.sleep(0.08)
        assert (durable.done(), second.done()) == (False, False)
        assert journal.statistics.at_risk == 3
        crashed = headers(journal.folder)  # not durable: no reader believes it yet
        held.done(None)
        await asyncio.gather(durable, second)
        held.done(None)
        await journal.close()
        return crashed, journal

    crashed, journal = asyncio.run(main())

    assert crashed == []
    assert journal.statistics.late >= 1
    assert len(headers(journal.folder)) == 5
