"""A writer that is killed after any of its disk operations, and then again in its next start."""

import asyncio
import itertools
import os

import pytest
from test_journal import PARTS, opened

from gateway.journal.directory import JournalFolder
from gateway.journal.reader import Entry, JournalReader

OPERATIONS = ("open", "write", "pwrite", "fsync", "fdatasync", "replace", "unlink", "ftruncate")


def killed_after(operations: int, tmp_path, count: int) -> tuple[bool, int]:
    """Run a writer in a process of its own that is gone behind its `operations`-th call of the
    system; whether it was, and how many records it said were durable."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        say = os.write
        left = itertools.count(operations, -1)

        def counted(call):
            def act(*arguments, **named):
                if next(left) == 0:
                    os._exit(9)
                return call(*arguments, **named)

            return act

        async def main():
            journal = await opened(tmp_path, segment_bytes=1 << 13)
            for number in range(count):
                await journal.append({"id": str(number)}, PARTS)
                say(tell, b".")
            await journal.close()

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            asyncio.run(main())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(tell)
    _, status = os.waitpid(child, 0)
    with os.fdopen(told, "rb") as file:
        durable = len(file.read())
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9, durable


async def started_once_more(state):
    """What a start finds that is not killed."""
    journal = await opened(state)
    await journal.append({"id": "last"}, PARTS)
    await journal.close()
    return journal.damage


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("second", [pytest.param(5, marks=pytest.mark.long), 17])
def test_no_place_of_a_kill_is_taken_for_damage(tmp_path, second):
    """What was durable is read, each number once, and no gap or damage is told: neither after one
    kill at the place nor after another one within the start that follows."""
    for first in itertools.count(1):
        state = tmp_path / str(first)
        was_killed, durable = killed_after(first, state, 40)
        if not was_killed:
            break
        _, again = killed_after(second, state, 5)

        assert asyncio.run(started_once_more(state)) is None, first
        reader = JournalReader(JournalFolder(state / "state", state / "keys", "0"))
        read = list(reader.read(1000))
        assert reader.damage is None, first
        assert all(isinstance(each, Entry) for each in read)
        assert [each.sequence for each in read] == list(range(len(read))), first
        assert len(read) >= durable + again + 1
        assert len(reader.folder.segments()) < 12
    assert first > 40
