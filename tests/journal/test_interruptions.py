"""Signals, stops and debuggers reach a process at any instruction: no commit is lost to one."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from gateway.journal.syncer import AioSyncer

ATTACH, DETACH = 16, 17
SYNCS = """
import asyncio, os, signal, sys
import uvloop
import pytest

from gateway.journal.syncer import AioSyncer

async def main(path):
    loop = asyncio.get_running_loop()
    wrong = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    syncer = AioSyncer(loop)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
    for number in range(400):
        os.pwrite(descriptor, b"x" * 100, 100 * number)
        told = loop.create_future()
        syncer.sync(descriptor, told.set_result)
        assert await asyncio.wait_for(told, 30) is None
    signal.setitimer(signal.ITIMER_PROF, 0)
    assert not wrong, wrong

uvloop.run(main(sys.argv[1]))
"""


def ended(pid: int, flags: int) -> int | None:
    """The exit code, if the process has ended; waits for a stop or an end unless told not to."""
    found, status = os.waitpid(pid, flags)
    return os.waitstatus_to_exitcode(status) if found and not os.WIFSTOPPED(status) else None


def test_a_signal_where_there_is_no_completion_is_no_error():
    """The kernel answers EINTR then, though nobody waits for anything."""

    async def main():
        syncer = AioSyncer(asyncio.get_running_loop())
        former = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
        try:
            for _ in range(100_000):
                syncer._completed()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
            syncer.close()

    asyncio.run(main())


def test_commits_go_on_while_their_process_is_stopped_traced_and_interrupted(tmp_path):
    """A real process under SIGSTOP, SIGCONT, ptrace and a profiling timer: each flush is told."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    command = [sys.executable, "-c", SYNCS, str(tmp_path / "file")]
    process = subprocess.Popen(command, stderr=(tmp_path / "told").open("wb"))
    code = None
    while code is None:
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGCONT)
        if libc.ptrace(ATTACH, process.pid, None, None) == 0:  # not every container lets us
            code = ended(process.pid, 0)
            libc.ptrace(DETACH, process.pid, None, None)
        if code is None:
            code = ended(process.pid, os.WNOHANG)
        time.sleep(0.002)
    process.returncode = code
    assert code == 0, (tmp_path / "told").read_text()


def fill(syncer, descriptor):
    for _ in range(1000):  # no completion is taken meanwhile
        syncer.sync(descriptor, lambda _: None)


def test_a_queue_that_is_full_is_an_error_of_the_flush(tmp_path):
    """As any other: who syncs is told at once, and no commit waits for ever."""

    async def main():
        syncer = AioSyncer(asyncio.get_running_loop())
        descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        try:
            with pytest.raises(OSError, match="."):
                fill(syncer, descriptor)
        finally:
            os.close(descriptor)
            syncer.close()

    asyncio.run(main())
