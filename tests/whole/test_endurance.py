"""What needs patience: memory over many requests, many kills. `scripts/test --long` runs these."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gateway_process import KEY, Clients, body
from test_crashes import assert_all_found_once, assert_receipts_agree

pytestmark = pytest.mark.long
FIGURES = Path(__file__).parents[2] / "docs" / "long-tests.md"


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


async def pour(gateway, count: int, at_once: int) -> int:
    """`count` applications over `at_once` plain sockets; how many were answered with 200."""
    host, _, port = gateway.data.rpartition(":")
    sent = body()
    head = "".join(f"{name}: {value}\r\n" for name, value in KEY.items())
    request = (
        f"POST /v2/models/mortgage/infer HTTP/1.1\r\nhost: {gateway.data}\r\n{head}"
        f"content-length: {len(sent)}\r\n\r\n"
    ).encode() + sent
    left, good = count, 0

    async def work():
        nonlocal left, good
        reader, writer = await asyncio.open_connection(host, int(port))
        while left > 0:
            left -= 1
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            good += answer.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(work() for _ in range(at_once)))
    return good


@pytest.mark.timeout(1800)
def test_memory_stays_flat_over_200_000_requests(make_gateway, record_property):
    """No process grows by more than a tenth from 50,000 to 200,000 requests, each one sealed."""
    gateway = make_gateway().start()
    roles = ("worker-0", "governor", "analyst")
    sizes = {role: [] for role in roles}
    started = time.monotonic()
    for _ in range(4):
        assert asyncio.run(pour(gateway, 50_000, 32)) == 50_000
        gateway.wait_settled(patience_s=900)
        for role in roles:
            sizes[role].append(round(resident_mib(gateway.child(role)), 1))
    seconds = time.monotonic() - started
    status = gateway.wait_settled()
    note(f"memory after 50, 100, 150, 200 thousand requests, each with a shadow, MiB: {sizes}; "
         f"{seconds:.0f} s with everything sealed and explained")  # fmt: skip

    assert status["state"] == "green"
    for role, (first, *_, last) in sizes.items():
        assert last <= first * 1.10 + 8, (role, sizes)
    assert sizes["worker-0"][-1] <= 130


KILLS = 1000
STORM_S = 2700


@pytest.mark.timeout(STORM_S + 1800)
def test_a_thousand_random_kills_lose_and_double_nothing(make_gateway):
    """SIGKILL of a random process, 1,000 times under load; then everything is there, once, each
    receipt is proven, and the ledger verifies. A machine too busy for so many in the time is told
    so at the end, when what there was is checked."""
    dice = random.Random(1990)
    gateway = make_gateway(
        edit=lambda text: text.replace("expose: [id,", "expose: [id, receipt,")
    ).start()
    clients = Clients(gateway, at_once=8)
    kills = {"worker-0": 0, "governor": 0, "analyst": 0, "all": 0}

    async def storm():
        sending = asyncio.get_running_loop().create_task(clients.run(STORM_S))
        until = time.monotonic() + STORM_S
        while sum(kills.values()) < KILLS and time.monotonic() < until:
            await asyncio.sleep(dice.uniform(0.02, 0.5))
            role = dice.choices(list(kills), [4, 4, 4, 1])[0]
            if role == "all":
                await asyncio.to_thread(gateway.kill_all)
                await asyncio.to_thread(gateway.start)
            elif not await asyncio.to_thread(kill, gateway, role):
                continue
            kills[role] += 1
        clients.stop = True
        await sending

    asyncio.run(storm())
    gateway.wait_settled(patience_s=600)
    assert_all_found_once(gateway, clients)
    assert_receipts_agree(gateway, clients)
    verify = [sys.executable, "-m", "gateway", "ledger", "verify"]
    done = subprocess.run(
        [*verify, str(gateway.folder / "state" / "ledger")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    note(f"kills {kills}: {len(clients.received)} answers received, each found once with its "
         "bytes, its explanation and its receipt; the ledger verifies: "
         f"{done.stdout.splitlines()[-1]}")  # fmt: skip
    assert sum(kills.values()) == KILLS


def kill(gateway, role: str) -> bool:
    try:
        os.kill(gateway.child(role), signal.SIGKILL)
    except (AssertionError, ProcessLookupError):
        return False
    return True


def note(words: str) -> None:
    """A figure for docs/long-tests.md: scripts/test --long collects them."""
    with (Path(__file__).parents[2] / ".long-figures").open("a") as file:
        file.write(f"* {words}\n")
