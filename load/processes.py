"""Processes of the benchmark: started, frozen, thawed, ended; their CPU time and memory.

All from /proc, whole trees at a time. Whoever is not being measured is frozen with SIGSTOP, so that
no background work of one peer falls into the figures of another.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc tells it; CPU in microseconds, memory in bytes."""

    number: int
    parent: int
    name: str
    cpu: float
    resident: int


def parse_stat(text: str) -> tuple[str, int, float, int]:
    """Command name, parent, CPU in microseconds, resident pages, of a /proc/<pid>/stat line.

    The name may hold anything, parentheses and spaces included.
    """
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    return name, int(fields[1]), (int(fields[11]) + int(fields[12])) * TICK_US, int(fields[21])


def table() -> dict[int, Process]:
    """All processes there are now."""
    found = {}
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, parent, cpu, pages = parse_stat((entry / "stat").read_text())
            except (OSError, ValueError):
                continue  # it has ended meanwhile
            number = int(entry.name)
            found[number] = Process(number, parent, name, cpu, pages * page)
    return found


def tree(root: int) -> list[Process]:
    """The process and all below it."""
    processes = table()
    family = {root}
    while more := {p.number for p in processes.values() if p.parent in family} - family:
        family |= more
    return [processes[number] for number in sorted(family) if number in processes]


def role(number: int) -> str:
    """What a process of Headworks is: worker-0, governor, analyst; "" for any other."""
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[words.index(b"_child") + 1].decode() if b"_child" in words else ""


def only_worker(root: int) -> int:
    """The process of a gateway's one worker. ValueError: it has none, or several."""
    (worker,) = [process.number for process in tree(root) if role(process.number) == "worker-0"]
    return worker


def cpu_by_role(root: int) -> dict[str, float]:
    """CPU so far in microseconds: one entry a role, what has none under `main`."""
    told: dict[str, float] = {}
    for process in tree(root):
        name = role(process.number).split("-")[0] or "main"
        told[name] = told.get(name, 0.0) + process.cpu
    return told


def resident(root: int) -> dict[str, int]:
    """Proportional set size in bytes by role: shared pages count once in a tree."""
    told: dict[str, int] = {}
    for process in tree(root):
        name = role(process.number).split("-")[0] or "main"
        try:
            lines = Path(f"/proc/{process.number}/smaps_rollup").read_text().splitlines()
            size = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:
            size = process.resident
        told[name] = told.get(name, 0) + size
    return told


@contextmanager
def paused(root: int, roles: tuple[str, ...]) -> Iterator[None]:
    """These roles of a gateway stand still: what the others cost and give with cores to
    themselves."""
    still = [p.number for p in tree(root) if role(p.number).split("-")[0] in roles]
    for number in still:
        os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in still:
            os.kill(number, signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    numbers = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return numbers


class Running:
    """A server of the benchmark in a session of its own."""

    def __init__(
        self, name: str, command: list[str], log: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as told:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, cwd=cwd,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
        self.root = self.process.pid

    def wait_for(self, port: int, seconds: float) -> None:
        """Until the port takes connections. RuntimeError, with the end of its log, if never."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not listen on {port}: {self._end_of_log()}")

    def wait_until_ready(self, url: str, seconds: float) -> None:
        """Until the probe at `url` says 200. RuntimeError, with the end of its log, if never."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx2.get(url, timeout=5).status_code == 200:
                    return
            except httpx2.HTTPError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} is not ready at {url}: {self._end_of_log()}")

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace").strip()[-600:]

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in tree(self.root):
            try:
                os.kill(process.number, number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever is still there after a while."""
        self.thaw()
        family = tree(self.root)
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        for process in family:
            if process.number in table() and process.number != os.getpid():
                try:
                    os.kill(process.number, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.process.wait()
