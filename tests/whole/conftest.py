"""Whole gateways for the tests of this folder; each is ended, whatever happened."""

import subprocess

import pytest
from disk_image import mount_image
from gateway_process import GatewayProcess


@pytest.fixture
def make_gateway(tmp_path):
    made = []

    def make(**named) -> GatewayProcess:
        gateway = GatewayProcess(tmp_path, **named)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.kill_all()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on an ext4 of 192 MiB, in a file; the gateway's `state` and `keys` are on it."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(192 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    mount_image(image, folder)
    for name in ("state", "keys"):
        (folder / name).mkdir(mode=0o700)
        (tmp_path / name).symlink_to(folder / name)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
