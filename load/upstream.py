"""What one request over the upstream pool costs in CPU.

    python load/upstream.py [--requests 20000] [--concurrency 32] [--rounds 3]

The origin is a bare asyncio.Protocol in a process of its own, so that the pool is what is measured:
CPU time of this process (time.process_time) by the number of requests, under uvloop. An empty loop
of the same shape (one socket round trip through the loop, no HTTP) is printed beside it: what is
left between both is the price of the pool, the rest that of uvloop and the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe

import uvloop

from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.upstream import Endpoint, Pool

BODY = b'{"inputs":[{"name":"input-0","shape":[1,8],"datatype":"FP64","data":[' + b"0.125," * 20
REQUEST_BODY = BODY[:-1] + b"]}]}"
ANSWER_BODY = (
    b'{"model_name":"m","outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.5]}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: origin\r\n"
    b"date: Mon, 23 Nov 2026 19:00:00 GMT\r\ncontent-length: %d\r\n\r\n%b"
) % (len(ANSWER_BODY), ANSWER_BODY)
HEADERS = [
    (b"host", b"127.0.0.1"),
    (b"content-type", b"application/json"),
    (b"accept", b"*/*"),
    (b"user-agent", b"load/upstream"),
    (b"x-request-id", b"0192f0c1-2f4e-7c7a-9d0e-3b1f5a6c7d8e"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"x-headworks-id", b"0192f0c1-2f4e-7c7a-9d0e-3b1f5a6c7d8f"),
]


class Origin(asyncio.Protocol):
    """Answers each segment, which is one whole request here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


def serve(pipe: Pipe) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


class Echo(asyncio.Protocol):
    """The empty shape: a future for each segment."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.waiter is not None:
            self.waiter.set_result(data)


async def through_pool(port: int, requests: int, concurrency: int) -> tuple[float, float]:
    """(CPU, wall) in microseconds a request."""
    pool = Pool(Endpoint.of(f"http://127.0.0.1:{port}"), PoolLimits(), Timeouts())

    async def client(count: int) -> None:
        for _ in range(count):
            answer = await pool.send(b"POST", b"/v2/models/m/infer", HEADERS, REQUEST_BODY)
            assert await answer.read(1 << 20) == ANSWER_BODY

    await asyncio.gather(*(client(10) for _ in range(concurrency)))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(requests // concurrency) for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await pool.aclose()
    return cpu / requests * 1e6, wall / requests * 1e6


async def through_nothing(port: int, requests: int, concurrency: int) -> tuple[float, float]:
    """The same bytes without HTTP: (CPU, wall) in microseconds a round trip."""
    loop = asyncio.get_running_loop()
    data = b"x" * 600

    async def client(count: int) -> None:
        transport, echo = await loop.create_connection(Echo, "127.0.0.1", port)
        for _ in range(count):
            echo.waiter = loop.create_future()
            transport.write(data)
            await echo.waiter
        transport.abort()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(requests // concurrency) for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / requests * 1e6, wall / requests * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--requests", type=int, default=20_000)
    arguments.add_argument("--concurrency", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    ours, theirs = multiprocessing.Pipe()
    origin = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    origin.start()
    port = ours.recv()
    print(f"{chosen.requests} requests at concurrency {chosen.concurrency}, µs a request")
    for number in range(chosen.rounds):
        for name, run in (("pool", through_pool), ("no HTTP", through_nothing)):
            cpu, wall = uvloop.run(run(port, chosen.requests, chosen.concurrency))
            print(f"round {number + 1}  {name:8}  CPU {cpu:6.1f}  wall {wall:6.1f}")
    origin.terminate()
    origin.join()


if __name__ == "__main__":
    main()
