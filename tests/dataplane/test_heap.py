"""A worker is small again after a rush of long bodies."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from gateway.dataplane.limits import LULL_BYTES, Load
from gateway.settings import Overload

RUSH = """
from gateway.dataplane.heap import give_back

def resident():
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * 4096 >> 20

first = bytes(1 << 20)
del first  # from now on such pieces are of the heap, not maps of their own
bodies, others = [], []
for _ in range(100):
    bodies.append(b"x" * (1 << 20))
    others.append(bytes(1000))  # lives on, between two bodies
bodies.clear()
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator alone is asked")
def test_freed_memory_goes_back_to_the_system():
    """A hundred bodies of 1 MiB, with something small between any two, which stays."""
    told = subprocess.run([sys.executable, "-c", RUSH], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 50


def test_a_lull_is_told_once_after_each_rush():
    """While bodies are held, and where they never were many, there is none."""
    load = Load(Overload(), 1)
    assert load.hold(LULL_BYTES)
    load.held_bytes -= LULL_BYTES
    assert not load.is_lull()
    for _ in range(2):
        assert load.hold(2 * LULL_BYTES)
        assert not load.is_lull()
        load.held_bytes -= 2 * LULL_BYTES
        assert load.is_lull()
        assert not load.is_lull()
