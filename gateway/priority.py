"""Who goes first on a busy machine: the workers, whose answers people wait for.

Governor and analyst give way in two manners, from the moment they have started:

1. They ask for long slices, in which whoever asked for a usual one may interrupt them (Linux 6.12).
   A worker sleeps and wakes a thousand times a second, with each request and each flush; behind a
   process of its own kind it waits each time until the next tick of the kernel, some 3 ms.
2. They are nicer: the workers get more of a processor that is wanted by all. The analyst gives way
   to the governor, which narrows rollouts within a second and seals what the analyst reads.

Both still catch up. On a machine that is full for a while they fall behind and go on when it is
not; on one that is always full the kernel's weights leave them, against one busy worker, 44 % of a
core at 1 and 39 % at 2: enough to look at rollouts ten times a second, which SCHED_IDLE would not
be. Much nicer they must not be: where sessions are weighed, others on the machine count as workers.
What is not sealed yet lies in the journals: `disk.journal.at_most` bounds it and says what
happens then, `headworks_lag_seconds` shows it. What is not explained yet lies in the ledger anyway.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import struct
import time
from pathlib import Path

NICENESS = {"governor": 1, "analyst": 2}
"""Above that of the supervisor and the workers."""
SLICE_NS = 20_000_000
AUTOGROUP = Path("/proc/self/autogroup")
TRIES, PAUSE_S = 10, 0.1
"""The kernel lets one process in a tenth of a second change its group."""
CALLS = {"x86_64": 314, "aarch64": 274}
"""Numbers of `sched_setattr`, which Python does not have."""
ATTRIBUTES = struct.Struct("<IIQiIQQQ")
"""size, policy, flags, nice, priority, runtime (the slice), deadline, period"""
log = logging.getLogger("headworks.priority")


def step_back(role: str) -> None:
    """Give way to the workers, with every thread that there is; those to come do so too. A host
    that does not allow it only makes answers slower."""
    niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS[role])
    try:
        for thread in os.listdir("/proc/self/task"):
            try:
                _give_way(int(thread), niceness)
            except ProcessLookupError:  # it has ended meanwhile
                continue
        _tell_group(niceness)
    except OSError as error:
        log.warning("this process competes with the workers: %s", error)


def _give_way(thread: int, niceness: int) -> None:
    """SCHED_BATCH besides: one that wakes up does not interrupt a worker that is at work."""
    os.setpriority(os.PRIO_PROCESS, thread, niceness)
    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
    if (call := CALLS.get(platform.machine())) is not None:
        told = ATTRIBUTES.pack(ATTRIBUTES.size, os.SCHED_BATCH, 0, niceness, 0, SLICE_NS, 0, 0)
        library = ctypes.CDLL(None, use_errno=True)
        if library.syscall(call, thread, told, 0) != 0:
            raise OSError(ctypes.get_errno(), "sched_setattr")


def _tell_group(niceness: int) -> None:
    """Where the kernel weighs sessions against each other (`sched_autogroup_enabled`), a process'
    own niceness counts in its session only, and each of ours has one to itself."""
    for _ in range(TRIES):
        try:
            AUTOGROUP.write_text(str(niceness))
            return
        except FileNotFoundError:  # this kernel does not
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            time.sleep(PAUSE_S)
