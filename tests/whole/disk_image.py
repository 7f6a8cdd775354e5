"""An ext4 in a file, for tests that fill a disk or cut its power."""

import subprocess
from pathlib import Path

import pytest


def mount_image(image: Path, folder: Path) -> None:
    """An image as a folder, with whatever a crash left replayed; skips where it is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
