"""Where a worker's time goes in machine code: perf's samples of its loop, by what the code is.

The compiled form has no Python frames that py-spy could see. perf tells for each sample the object
it fell into and the function's symbol; nothing is left out, the kernel's share included. What our
Python costs shows at three places: our own compiled functions, the interpreter's loop (our sources
and the libraries' that are not compiled), and the objects that both make the runtime handle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from load.processes import only_worker

PATIENCE_S = 60.0
RATE = 999
LINE = re.compile(r"^\s*[0-9a-f]+ (?P<symbol>.+) \((?P<object>[^()]*|\[[^]]*\][^()]*)\)$")
KERNEL = "the kernel: sockets, epoll, the disk"
OWN = "our compiled functions"
FUNCTIONS = ("CPyDef_", "CPyPy_")
HELD = "mypyc's runtime, which lies beside them"
LOOP = "the interpreter's loop: Python that is not compiled, ours and libraries'"
RUNTIME = "Python's runtime: objects, memory, calls, exceptions"
LIBC = "the C library"
TOP = 25


@dataclass(frozen=True, slots=True)
class MachineCode:
    """Shares of all samples of the loop's thread; `own`: compiled functions of ours."""

    samples: int
    own: float
    interpreted: float
    places: list[tuple[str, float]]
    top: list[tuple[str, float]]


def place_of(symbol: str, path: str) -> str:
    """What a sample is told under, by its symbol and the file it lies in."""
    name = Path(path).name
    if path.startswith("["):
        return KERNEL
    if "/gateway/__compiled__/" in path:
        return OWN if symbol.startswith(FUNCTIONS) else HELD
    if name.startswith(("libpython", "python3")):
        return LOOP if symbol.startswith("_PyEval_EvalFrame") else RUNTIME
    if name.startswith(("libc.so", "libc-", "ld-linux", "libpthread", "libm.so")):
        return LIBC
    if "/site-packages/" in path:
        return path.split("/site-packages/")[1].split("/")[0].split(".")[0]
    return name.split(".")[0]


def readable(symbol: str) -> str:
    """`CPyDef_dataplane___handler___Handler____story` as `dataplane.handler.Handler._story`."""
    for prefix in FUNCTIONS:
        if symbol.startswith(prefix):
            return symbol.removeprefix(prefix).replace("___", ".")
    return symbol


def parse(lines: Iterable[str]) -> MachineCode:
    """From `perf script -F ip,sym,dso`: an address, a symbol, a file in parentheses."""
    places: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    for line in lines:
        found = LINE.match(line.rstrip())
        if found is None:
            continue
        place = place_of(found["symbol"], found["object"])
        places[place] += 1
        symbols[f"{readable(found['symbol'])} ({place.partition(':')[0]})"] += 1
    total = places.total()
    if not total:
        raise ValueError("perf took no sample of the loop")

    def shares(counted: Counter[str], most: int) -> list[tuple[str, float]]:
        return [(name, number / total) for name, number in counted.most_common(most)]

    return MachineCode(
        total, places[OWN] / total, places[LOOP] / total,
        shares(places, len(places)), shares(symbols, TOP),
    )  # fmt: skip


class Recording:
    """perf beside a load: started before it, read after it. RuntimeError: there is no perf."""

    def __init__(self, folder: Path, root: int, seconds: float) -> None:
        perf = shutil.which("perf")
        if perf is None:
            raise RuntimeError("perf is not installed (Debian: linux-perf)")
        self.perf, self.path = perf, folder / "perf.data"
        command = [perf, "record", "--event", "cpu-clock", "--freq", str(RATE),
                   "--tid", str(only_worker(root)), "--output", str(self.path),
                   "--", "sleep", f"{seconds:.1f}"]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def read(self) -> MachineCode:
        """RuntimeError with perf's words where it may not look into another process."""
        _, words = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode:
            raise RuntimeError(f"perf: {words.strip()[-300:]}")
        command = [self.perf, "script", "--input", str(self.path), "--fields", "ip,sym,dso"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        return parse(done.stdout.splitlines())
