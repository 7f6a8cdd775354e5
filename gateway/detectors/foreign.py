"""The pipe to a detector family in its own interpreter: arrays and JSON, never pickles.

One process, started when first asked, asked one thing at a time, and ended when it does not answer
in time: a verdict that does not come is said as such and holds nothing up for longer.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.detectors.environment import SERVER, Family, find

START_S = 120.0
"""To import it: 5 s on an idle machine."""
MAKE_S = 900.0
"""Online ones simulate their thresholds: 56 s of a processor for 1,666 rows of seven features."""
JUDGE_S = 60.0
ANSWER_BYTES_MAX = 1024**2
STARTS_MAX = 5
"""A family that breaks this often is left alone until the analyst starts again."""
MADE_MAX = 100
"""Detectors that it holds, each with its reference; the one that was not asked for longest goes."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""It would take every core, beside the workers whose answers people wait for."""

Floats = NDArray[np.float64]


def opened(state: Path) -> Foreign | None:
    """The family that is installed there; its process starts when it is first asked."""
    found = find(state)
    return Foreign(found) if found is not None else None


class Broken(Exception):
    """It cannot be started, did not answer in time, or said that it cannot."""


class Refused(Broken):
    """It said so in words, and can be asked something else."""


@dataclass(frozen=True)
class Specification:
    """One detector with its reference; `key` names it in the process."""

    key: str
    detector: str
    alpha: float
    reference: Floats
    categories: Sequence[int] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Foreign:
    def __init__(self, family: Family) -> None:
        self._family = family
        self._process: subprocess.Popen[bytes] | None = None
        self._made: dict[str, None] = {}
        self._unmade: dict[str, str] = {}
        self._starts = 0
        self._refusal: str | None = None

    def hello(self) -> str:
        """The version that answers."""
        self._start()
        return self._version

    def judge(self, asked: Specification, rows: Floats, seed: int) -> dict[str, Any]:
        """What the detector says of some rows; made first, if it is not there yet."""
        if (why := self._unmade.get(asked.key)) is not None:
            raise Refused(why)
        self._start()
        if asked.key not in self._made:
            self._make(asked)
        self._made[asked.key] = self._made.pop(asked.key)  # the newest is the last
        told = {"op": "judge", "key": asked.key, "detector": asked.detector, "seed": seed}
        return self._ask(told, rows, JUDGE_S)

    def _make(self, asked: Specification) -> None:
        if len(self._made) >= MADE_MAX:
            oldest = next(iter(self._made))
            self._ask({"op": "drop", "key": oldest}, None, JUDGE_S)
            del self._made[oldest]
        told = {"op": "make", "key": asked.key, "detector": asked.detector,
                "alpha": asked.alpha, "categories": list(asked.categories),
                "arguments": dict(asked.arguments)}  # fmt: skip
        try:
            self._ask(told, asked.reference, MAKE_S)
        except Refused as error:  # it would again, and may take minutes to find out
            if len(self._unmade) >= MADE_MAX:
                del self._unmade[next(iter(self._unmade))]
            self._unmade[asked.key] = str(error)
            raise
        self._made[asked.key] = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if self._refusal is not None:
            raise Broken(self._refusal)
        if self._starts >= STARTS_MAX:
            raise Broken(f"it broke {self._starts} times")
        self._starts += 1
        self._made.clear()
        try:
            self._process = subprocess.Popen(
                [self._family.python, "-I", str(SERVER)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ONE_THREAD | os.environ,
            )  # fmt: skip
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
        except OSError as error:
            raise Broken(f"{self._family.python}: {error.strerror}") from error
        told = {"op": "hello", "licensed": self._family.licensed}
        self._version = self._greeted(told)

    def _greeted(self, told: dict[str, Any]) -> str:
        """A process that does not say who it is, or says that it may not answer, is asked nothing
        else; what it refused it would refuse again."""
        try:
            return str(self._ask(told, None, START_S)["version"])
        except Refused as error:
            self._refusal = str(error)
            self.close()
            raise

    def _ask(self, told: dict[str, Any], rows: Floats | None, seconds: float) -> dict[str, Any]:
        raw = b""
        if rows is not None:
            raw = np.ascontiguousarray(rows, dtype="<f8").tobytes()
            told = told | {"shape": list(rows.shape), "bytes": len(raw)}
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise Broken(f"{told['op']}: it was ended")
        try:
            _send(process.stdin, orjson.dumps(told) + b"\n" + raw, seconds)
            answer = orjson.loads(_line(process.stdout, seconds))
            if not isinstance(answer, dict):
                raise ValueError(f"its answer is no object but {str(answer)[:100]}")
        except (OSError, ValueError) as error:
            why = _ending(process) if isinstance(error, BrokenPipeError) else str(error)
            self.close()
            raise Broken(f"{told['op']}: {why}") from error
        if "error" in answer:
            raise Refused(str(answer["error"]))
        return answer

    def close(self) -> None:
        """By whoever asks or, when all ends, by another thread: who asks gets no answer then."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _send(pipe: IO[bytes], message: bytes, seconds: float) -> None:
    """A process that reads nothing holds up who asks no longer than one that says nothing."""
    until, left = time.monotonic() + seconds, memoryview(message)
    while left:
        _wait(pipe, select.POLLOUT, until - time.monotonic(), seconds)
        left = left[os.write(pipe.fileno(), left) :]


def _line(pipe: IO[bytes], seconds: float) -> bytes:
    _wait(pipe, select.POLLIN, seconds, seconds)
    # The answer is one short line, written at once.
    if not (line := pipe.readline(ANSWER_BYTES_MAX)):
        raise BrokenPipeError
    return line


def _wait(pipe: IO[bytes], event: int, left: float, seconds: float) -> None:
    # Not `select`, which takes no descriptor above 1023: an analyst has many files open.
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(1000 * max(0.0, left)):
        raise TimeoutError(f"no answer in {seconds:g} s")


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How a process ended that closed its pipe."""
    try:
        code = process.wait(1.0)
    except subprocess.TimeoutExpired:
        return "it closed its pipe"
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
