"""Load of our own, where wrk cannot: a fixed rate, and the events of a stream.

    echo '{"port": 9000, ...}' | python -m load.generator

A loop over epoll with waits of microseconds, because timers of event loops tick in milliseconds.
*Closed*: each connection asks again as soon as it was answered. *Open*: requests arrive as a
Poisson process of `rate` a second, whether or not the server keeps up, and the wait for a free
connection belongs to the latency, so that a stall is paid by all who came during it.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass

from load.figures import Latency, latency

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"
READ = 1 << 18
GRACE_S = 10.0
"""After the end, how long open answers are waited for."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, and how. `rate` 0: closed loop. What begins within `warm` s is not told."""

    port: int
    request: bytes
    marker: bytes
    connections: int
    seconds: float
    warm: float = 0.0
    rate: float = 0.0
    seed: int = 1


@dataclass(slots=True)
class Told:
    """What came of it; latencies in microseconds."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    latency: Latency | None = None
    first_event: Latency | None = None
    late: Latency | None = None
    sample: str = ""


@dataclass(slots=True)
class Line:
    """One connection and the exchange on it."""

    link: socket.socket
    begun: float = 0.0
    first: float = 0.0
    unsent: memoryview | None = None
    head: bytes = b""
    missing: int = -1
    tail: bytes = b""
    marked: bool = False
    busy: bool = False
    armed: bool = False

    def take(self, data: bytes, marker: bytes, now: float) -> bool:
        """Whether the answer is whole."""
        self.marked = self.marked or marker in self.tail + data
        self.tail = (self.tail + data)[-32:]
        if self.missing == -1:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return False
            stated = LENGTH.search(self.head, 0, end)
            rest = self.head[end + 4 :]
            self.missing = int(stated[1]) - len(rest) if stated else -2
            if not rest and self.missing:
                return False
            self.first = now
        elif self.missing >= 0:
            self.missing -= len(data)
        elif not self.first:
            self.first = now
        return self.missing == 0 or (self.missing == -2 and self.tail.endswith(LAST_CHUNK))

    def reset(self) -> None:
        self.head, self.tail, self.missing, self.first = b"", b"", -1, 0.0
        self.marked = self.busy = False


class Load:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.poll = select.epoll()
        self.lines: dict[int, Line] = {}
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.lates: list[float] = []
        self.errors = 0
        self.sample = ""
        self.idle = [self._open() for _ in range(order.connections)]

    def _open(self) -> Line:
        link = socket.create_connection(("127.0.0.1", self.order.port), timeout=10)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        line = Line(link)
        self.lines[link.fileno()] = line
        self.poll.register(link, select.EPOLLIN)
        return line

    def send(self, line: Line, begun: float) -> None:
        line.reset()
        line.begun, line.busy = begun, True
        line.unsent = memoryview(self.order.request)
        self._write(line)

    def _write(self, line: Line) -> None:
        assert line.unsent is not None
        try:
            line.unsent = line.unsent[line.link.send(line.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(line, str(error))
            return
        if line.armed != bool(line.unsent):
            line.armed = bool(line.unsent)
            self.poll.modify(line.link, select.EPOLLIN | (select.EPOLLOUT if line.armed else 0))

    def _fail(self, line: Line, words: str) -> None:
        """A connection that ends or answers wrongly is an error, and a new one takes its place."""
        if line.busy:
            self.errors += 1
            self.sample = self.sample or words[:300]
        self.poll.unregister(line.link)
        del self.lines[line.link.fileno()]
        line.link.close()
        if line in self.idle:
            self.idle.remove(line)
        self.idle.append(self._open())

    def _read(self, line: Line, warm: float) -> None:
        try:
            data = line.link.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(line, str(error))
            return
        now = time.perf_counter()
        if not data:
            self._fail(line, "the connection was closed")
        elif line.take(data, self.order.marker, now):
            if not line.marked or not line.head.startswith(b"HTTP/1.1 200"):
                self._fail(line, line.head[:200].decode("latin-1"))
                return
            if line.begun >= warm:
                self.latencies.append(now - line.begun)
                self.firsts.append(line.first - line.begun)
            line.busy = False
            self.idle.append(line)

    def wait(self, seconds: float, warm: float) -> None:
        """Until something happens on a connection, or the time is over."""
        ready, _, _ = select.select([self.poll], [], [], max(0.0, seconds))
        for number, event in self.poll.poll(0) if ready else ():
            line = self.lines.get(number)
            if line is not None and event & select.EPOLLOUT and line.unsent:
                self._write(line)
            line = self.lines.get(number)
            if line is not None and event & ~select.EPOLLOUT:
                self._read(line, warm)

    def run(self) -> Told:
        order, dice = self.order, random.Random(self.order.seed)
        begun = time.perf_counter()
        warm, until = begun + order.warm, begun + order.warm + order.seconds
        due = begun
        while (now := time.perf_counter()) < until:
            if not order.rate:
                while self.idle:
                    self.send(self.idle.pop(), time.perf_counter())
                self.wait(until - now, warm)
                continue
            while due <= now:
                self.lates.append(now - due)
                self.waiting.append(now)
                due += dice.expovariate(order.rate)
            self._send_waiting()
            self.wait(min(due, until) - time.perf_counter(), warm)
        measured = len(self.latencies)
        self._finish(until, warm)
        if measured and not order.rate:
            return self._told(measured, order.seconds)
        # Open: who arrived in time counts. Closed, no answer in time: all of them, and their time.
        taken = order.seconds if order.rate else time.perf_counter() - warm
        return self._told(len(self.latencies), taken)

    def _send_waiting(self) -> None:
        while self.waiting and self.idle:
            self.send(self.idle.pop(), self.waiting.popleft())

    def _finish(self, until: float, warm: float) -> None:
        """What has arrived gets its answer, for a while; what gets none is an error."""
        while left := len(self.waiting) + sum(line.busy for line in self.lines.values()):
            if time.perf_counter() > until + GRACE_S:
                self.errors += left
                self.sample = self.sample or f"no answer within {GRACE_S:g} s of the end"
                return
            self._send_waiting()
            self.wait(0.05, warm)

    def _told(self, requests: int, seconds: float) -> Told:
        spread = latency(self.latencies) if self.latencies else None
        first = latency(self.firsts) if self.firsts else None
        late = latency(self.lates) if self.lates else None
        return Told(requests, self.errors, seconds, spread, first, late, self.sample)


def order_of(document: dict[str, object]) -> Order:
    """From JSON: `request` and `marker` are text in Latin-1."""
    fields = dict(document)
    for name in ("request", "marker"):
        fields[name] = str(fields[name]).encode("latin-1")
    return Order(**fields)  # type: ignore[arg-type]


def main() -> None:
    print(json.dumps(asdict(Load(order_of(json.load(sys.stdin))).run())))


if __name__ == "__main__":
    main()
