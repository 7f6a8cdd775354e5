"""System calls that fail, or at which a process dies, under load: strace puts the faults in.

Each round attaches to the worker or the governor, lets one of the calls that write, flush, make,
rename or remove files fail with EIO or ENOSPC, or kills the process at it, and lets go. Whatever
happened: what a client received is recorded, once, with its bytes and its receipt.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
from gateway_process import Clients
from test_crashes import assert_all_found_once, assert_receipts_agree

CALLS = ("io_submit", "pwrite64", "pwritev", "write", "fdatasync", "fsync", "fallocate",
         "ftruncate", "openat", "rename", "unlink")  # fmt: skip
FAULTS = ("error=EIO", "error=ENOSPC", "signal=SIGKILL")


def why_not() -> str | None:
    """Why strace cannot be used here, if so."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    child = subprocess.Popen(["sleep", "2"])
    attach = ["strace", "-qq", "-o", os.devnull, "-p", str(child.pid)]
    words = subprocess.run(attach, stderr=subprocess.PIPE, text=True).stderr
    child.wait()
    return words.strip() if "not permitted" in words else None


async def strike(gateway, dice: random.Random) -> str | None:
    """One fault; what it was, or None if the process was not there."""
    role = dice.choice(("worker-0", "governor"))
    call, fault = dice.choice(CALLS), dice.choice(FAULTS)
    try:
        pid = await asyncio.to_thread(gateway.child, role)
    except Exception:
        return None
    inject = f"inject={call}:{fault}:when={dice.randrange(1, 12)}"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(pid), "-e", f"trace={call}",
               "-e", inject]  # fmt: skip
    tracing = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        await asyncio.wait_for(tracing.wait(), dice.uniform(0.3, 2))
    except TimeoutError:
        with suppress(ProcessLookupError):  # it may have ended at this moment
            tracing.terminate()
        await tracing.wait()
    return f"{role} {call} {fault}"


@pytest.mark.parametrize("rounds", [8, pytest.param(150, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_calls_that_fail_under_load_lose_nothing(make_gateway, rounds):
    """Faults at random calls of worker and governor; then everything is there, once."""
    if (words := why_not()) is not None:
        pytest.skip(f"strace cannot attach here: {words}")
    dice = random.Random(1931)
    gateway = make_gateway(
        edit=lambda text: text.replace("expose: [id,", "expose: [id, receipt,")
    ).start()
    clients = Clients(gateway, at_once=8)
    struck: list[str] = []

    async def storm():
        sending = asyncio.get_running_loop().create_task(clients.run(1700))
        while len(struck) < rounds:
            if (what := await strike(gateway, dice)) is not None:
                struck.append(what)
            await asyncio.sleep(dice.uniform(0.1, 0.5))
        clients.stop = True
        await sending

    asyncio.run(storm())
    gateway.wait_settled(patience_s=600)
    assert_all_found_once(gateway, clients)
    assert_receipts_agree(gateway, clients)
    ledger = str(gateway.folder / "state" / "ledger")
    verify = [sys.executable, "-m", "gateway", "ledger", "verify", ledger]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(clients.received) > 10 * rounds
    print(f"{rounds} faults, {len(clients.received)} answers received, refused {clients.refused}, "
          f"cut off {clients.broken}: {done.stdout.splitlines()[-1]}")  # fmt: skip
