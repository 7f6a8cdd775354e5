"""Power loss under a real file system: what the disk's image holds at one moment, and no more.

State and keys lie on an ext4 in a file. What was not flushed is in the kernel's memory, not in the
file: a copy of the file, taken while nothing runs, is what a power cut would leave of the disk. It
is mounted elsewhere, its file system replays its journal, and a gateway starts on it.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys

import pytest
from disk_image import mount_image
from gateway_process import Clients, GatewayProcess
from test_crashes import assert_all_found_once, assert_receipts_agree

CHUNK = 1 << 22
TRIES = 20


def same(one, other) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            pieces = left.read(CHUNK), right.read(CHUNK)
            if pieces[0] != pieces[1]:
                return False
            if not pieces[0]:
                return True


def cut(gateway, image, copy) -> None:
    """The disk as it is while every process stands still; again, if the kernel wrote meanwhile."""
    for _ in range(TRIES):
        shutil.copyfile(image, copy)
        if same(image, copy):
            return
    raise AssertionError("the disk never stood still")


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_a_power_cut_takes_no_answer_that_was_received(make_gateway, small_disk, tmp_path, rounds):
    """Cut under load: every answer received until then is there once, with bytes and receipt,
    nothing is damage, and the ledger verifies."""
    gateway = make_gateway(
        edit=lambda text: text.replace("expose: [id,", "expose: [id, receipt,"),
        settings={"journal.segment": "2MiB", "disk.reserve": "4MiB"},
    ).start()
    clients = Clients(gateway, at_once=8)
    cuts = []

    async def storm():
        sending = asyncio.get_running_loop().create_task(clients.run(1700))
        for number in range(rounds):
            await asyncio.sleep(2 + number % 5 * 0.7)
            stopped = gateway.pids()
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.3)  # what was sent is read
            received, receipts = dict(clients.received), dict(clients.receipts)
            copy = tmp_path / f"cut-{number}.img"
            await asyncio.to_thread(cut, gateway, tmp_path / "disk.img", copy)
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            cuts.append((copy, received, receipts))
        clients.stop = True
        await sending

    asyncio.run(storm())
    gateway.kill_all()
    for copy, received, receipts in cuts:
        assert len(received) > 20
        check(tmp_path, gateway, copy, received, receipts)
    told = ", ".join(str(len(received)) for _, received, _ in cuts)
    print(f"{rounds} power cuts, with {told} answers received until then: each is found once")


def check(tmp_path, before, copy, received, receipts) -> None:
    """A gateway on what the cut left."""
    disk, folder = copy.with_suffix(""), copy.with_suffix(".gateway")
    mount_image(copy, disk)
    folder.mkdir()
    shutil.copy(before.folder / "headworks.yaml", folder)
    shutil.copytree(before.folder / "models", folder / "models")
    for name in ("state", "keys"):
        (folder / name).symlink_to(disk / name)
    gateway = GatewayProcess(folder, settings=before.settings)
    try:
        gateway.start()
        status = gateway.wait_settled(patience_s=600)
        clients = Clients(gateway)
        clients.received, clients.receipts = received, receipts
        assert_all_found_once(gateway, clients)
        assert_receipts_agree(gateway, clients)
        ledger = str(folder / "state" / "ledger")
        verify = [sys.executable, "-m", "gateway", "ledger", "verify", ledger]
        done = subprocess.run(verify, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not [words for words in status["words"] if "damage" in words]
    finally:
        gateway.kill_all()
        subprocess.run(["umount", "-l", disk], check=True)
