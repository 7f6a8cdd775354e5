"""The disk filled to the last block, again and again, under load: a small filesystem of its own."""

import asyncio
import os
import subprocess
import sys
import time

import pytest
from gateway_process import KEY, Clients, body
from httpx2 import AsyncClient, HTTPError
from test_crashes import assert_all_found_once, assert_receipts_agree

BLOCK = 4096


def eat(filler) -> None:
    """Every block that is free, and what is left of the last one."""
    for size in (1 << 20, BLOCK, 1):
        with filler.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


async def answers(gateway) -> bool:
    try:
        async with AsyncClient(timeout=5) as client:
            url = f"http://{gateway.data}/v2/models/mortgage/infer"
            return (await client.post(url, content=body(), headers=KEY)).status_code == 200
    except HTTPError:
        return False


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_nothing_is_lost_on_a_disk_that_fills_under_load(make_gateway, small_disk, rounds):
    """While nothing is free no answer leaves unrecorded; with room again it goes on by itself."""
    gateway = make_gateway(
        edit=lambda text: text.replace("expose: [id,", "expose: [id, receipt,"),
        settings={"journal.segment": "2MiB", "disk.reserve": "8MiB"},
    ).start()
    clients = Clients(gateway, at_once=8)
    filler = small_disk / "filler"

    async def storm():
        sending = asyncio.get_running_loop().create_task(clients.run(1700))
        for _ in range(rounds):
            await asyncio.sleep(2)
            refused = sum(clients.refused.values())
            until = time.monotonic() + 60
            while time.monotonic() < until:  # what is sealed makes room, which is eaten, too
                await asyncio.to_thread(eat, filler)
                if sum(clients.refused.values()) > refused + 50:
                    break
                await asyncio.sleep(0.05)
            assert os.statvfs(small_disk).f_bavail * BLOCK < 8 << 20
            assert sum(clients.refused.values()) > refused
            filler.unlink()
            until = time.monotonic() + 60
            while not await answers(gateway):
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
        clients.stop = True
        await sending

    asyncio.run(storm())
    gateway.wait_settled(patience_s=600)
    assert_all_found_once(gateway, clients)
    assert_receipts_agree(gateway, clients)
    ledger = str(gateway.folder / "state" / "ledger")
    verify = [sys.executable, "-m", "gateway", "ledger", "verify", ledger]
    done = subprocess.run(verify, capture_output=True, text=True)
    gateway.kill_all()
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(clients.refused) == {503}
    print(f"filled {rounds} times: {len(clients.received)} answers received, refused "
          f"{clients.refused}, cut off {clients.broken}: "
          f"{done.stdout.splitlines()[-1]}")  # fmt: skip
