"""The real worker on real sockets, in the tests' own event loop, with a state of its own.

Nothing is replaced: the journal writes to the disk, the models are the mortgage's, requests are
bytes on a socket. A `World` is made once for many tests; each publishes the table it needs, so that
every test is also one of reloading.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
import uvloop
import yaml

from gateway.artifacts import Artifacts
from gateway.card import Card
from gateway.check import Checked, check
from gateway.dataplane import restraint
from gateway.dataplane import worker as worker_module
from gateway.dataplane.worker import Worker, WorkerSettings
from gateway.journal.directory import JournalFolder
from gateway.journal.reader import JournalReader
from gateway.journal.record import Part, decode_parts
from gateway.seal.leaf import Findings, decisions_of
from gateway.settings import Drain, JournalSettings, Settings
from gateway.supervisor import bind
from gateway.table import Model, Table, TableStore, compile_table, make_document

T = TypeVar("T")
MODELS = Path(__file__).parents[2] / "models" / "mortgage"
INFER = b"/v2/models/mortgage/infer"

CALLERS = f"""
callers:
  - name: loans-app
    key_sha256: "{hashlib.sha256(b"demo-key").hexdigest()}"
    may: [context, feedback, force]
  - name: plain
    key_sha256: "{hashlib.sha256(b"plain-key").hexdigest()}"
"""
FEATURES = (
    "dir",
    "hir",
    "lvr",
    "ccs",
    "mcs",
    "uria",
    "condominium",
    "pbcr",
    "dmi",
    "self",
    "single",
)


def config(model: str, callers: str = CALLERS, name: str = "mortgage") -> str:
    """A file with one model; `model` is the text below its name, less the indentation."""
    lines = "\n".join("    " + line for line in model.strip("\n").splitlines())
    return f"{callers}\nmodels:\n  {name}:\n{lines}\n"


def remote(url: str, more: str = "") -> str:
    """A model whose only version is served at `url` and known by the card of v1."""
    return config(
        f"versions: {{v1: {{upstream: '{url}', artifact: {MODELS}/v1}}}}\n"
        f"rules: [{{name: all, split: {{v1: 100%}}}}]\n{more}",
        callers="",
    )


LOCAL = config(
    f"""
unit: [header:x-applicant, exchange]
expose: [id, version, arm, revision]
limits: {{request: 64KiB}}
versions: {{v1: {{artifact: {MODELS}/v1}}, v2: {{artifact: {MODELS}/v2}}}}
rules:
  - {{name: pilot, when: {{header: {{x-tenant: pilot}}}}, split: {{v2: 100%}}}}
  - {{name: everyone, split: {{v1: 50%, v2: 50%}}}}
"""
)


def applicants(rows: int = 1, **changes: object) -> bytes:
    """A request for the mortgage model: ordinary people; `changes`: tensor -> the whole tensor."""
    values = (0.3, 0.25, 0.8, 2, 1, 3.9, 0, "no", "no", "no", "no")
    tensors: list[Any] = []
    for name, value in zip(FEATURES, values, strict=True):
        kind = "BYTES" if isinstance(value, str) else "FP32"
        tensor = {"name": name, "shape": [rows, 1], "datatype": kind, "data": [value] * rows}
        tensors.append(changes.get(name, tensor))
    return orjson.dumps({"id": "ours", "inputs": [item for item in tensors if item is not None]})


@dataclass
class Reply:
    """An answer as its bytes came: `headers` in order, names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool = True

    def all(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.headers if found == name]

    def get(self, name: bytes) -> bytes | None:
        return next(iter(self.all(name)), None)

    @property
    def error(self) -> str | None:
        """Our code, where the answer is ours."""
        code = self.get(b"x-headworks-error")
        return code.decode() if code is not None else None

    @property
    def id(self) -> str:
        return (self.get(b"x-headworks-id") or b"").decode()

    def json(self) -> Any:
        return orjson.loads(self.body)


class Client:
    """One connection; says bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Reply:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        pairs = [line.split(b": ", 1) for line in lines]
        return Reply(int(status.split()[1]), [(name.lower(), value) for name, value in pairs], b"")

    async def answer(self) -> Reply:
        reply = await self.head()
        try:
            if (length := reply.get(b"content-length")) is not None:
                reply.body = await self.reader.readexactly(int(length))
            elif reply.get(b"transfer-encoding") == b"chunked":
                while chunk := await self.chunk():
                    reply.body += chunk
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            reply.body += getattr(error, "partial", b"")
            reply.whole = False
        return reply

    async def rest(self) -> bytes:
        """All that still comes until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5)
        except ConnectionError:
            return b""

    async def chunk(self) -> bytes:
        """One piece of a chunked body; empty: the end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self) -> bool:
        """Whether the server closes without a further byte, within two seconds."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 2) == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        self.writer.transport.abort()


@dataclass
class Told:
    """A record as the journal's reader and the sealer see it."""

    header: dict[str, Any]
    context: dict[str, Any]
    request: Part
    response: Part
    findings: Findings


class World:
    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.folder, self.runner = folder, runner
        self.state, self.keys = folder / "state", folder / "keys"
        self.tables = TableStore(self.state)
        self.listening = bind("127.0.0.1:0")
        self.port: int = self.listening.getsockname()[1]
        self.told: list[Told] = []
        self.clients: list[Client] = []
        self.exit_code: int | None = None
        self._reader: JournalReader | None = None
        self._cards: dict[tuple[str, str], Card] = {}
        self._models: Mapping[str, Model] = {}

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 15) -> T:
        return self.runner.run(asyncio.wait_for(work, seconds))

    def publish(self, text: str) -> str:
        """Bring a file with this text into force; it must be right."""
        path = self.folder / "headworks.yaml"
        path.write_text(text)
        checked = check(path)
        assert not checked.problems, "\n".join(map(str, checked.problems))
        self._cards = checked.cards
        document = make_document(
            checked, Artifacts(self.state), author="test", reason="test", now_ns=0
        )
        revision = self.tables.publish(document, self.tables.current)
        self._models = self.tables.load(revision).models
        return revision

    async def start(
        self, stall_s: float, tls: dict[str, str | None] | None = None, grpc: str | None = None
    ) -> None:
        settings = WorkerSettings(
            index=0,
            workers=1,
            state=self.state,
            keys=self.keys,
            journal=JournalSettings().model_copy(update={"stall": stall_s, "segment": 8 << 20}),
            tls=tls,
            drain=Drain().model_copy(update={"settle": 0.0, "at_most": 2.0}),
            grpc=grpc,
        )
        self.worker = Worker(settings, self.listening)
        self.task = asyncio.get_running_loop().create_task(self.worker.run())
        await until(lambda: hasattr(self.worker, "handler") and self.worker.handler.live)

    async def stop(self) -> int:
        """The worker's exit code, after SIGTERM where it runs still."""
        for client in self.clients:
            client.leave()
        if not self.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(self.task, 10)

    async def serve(self, text: str) -> str:
        """Publish and wait until the worker answers by it."""
        revision = self.publish(text)
        await until(lambda: self.worker.handler.live.table.revision == revision)  # type: ignore[union-attr]
        return revision

    async def connect(self) -> Client:
        connected = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.clients.append(Client(*connected))
        return self.clients[-1]

    async def ask(
        self,
        body: bytes = b"",
        *,
        target: bytes = INFER,
        method: bytes = b"POST",
        headers: tuple[bytes, ...] = (),
        key: str | None = "demo-key",
    ) -> Reply:
        """One exchange on a connection of its own; `headers` are whole lines."""
        client = await self.connect()
        await client.say(request(body, target=target, method=method, headers=headers, key=key))
        reply = await client.answer()
        client.leave()
        return reply

    def records(self) -> list[Told]:
        """All that is durable by now."""
        if self._reader is None:
            self._reader = JournalReader(JournalFolder(self.state, self.keys, "0"))
        for entry in self._reader.read(100_000):
            header = orjson.loads(entry.header)
            context, sent, given = decode_parts(entry.parts)
            card = self._cards.get((header.get("model", ""), header.get("version", "")))
            model = self._models.get(header.get("model", ""))
            findings = decisions_of(header, orjson.loads(context), given, card, model)
            self.told.append(Told(header, orjson.loads(context), sent, given, findings))
        assert self._reader.damage is None, self._reader.damage
        return self.told

    async def record(self, where: Callable[[Told], object]) -> Told:
        """The first record of which that holds; waits for it."""
        return await until(lambda: next(filter(where, self.records()), None))

    async def record_of(self, reply: Reply) -> Told:
        return await self.record(
            lambda told: told.header["id"] == reply.id and told.header["kind"] == "exchange"
        )

    def count(self, name: str, **labels: str) -> float:
        self.worker.metrics.tell()
        return self.worker.metrics.registry.get_sample_value(f"{name}_total", labels) or 0.0

    def idle(self) -> bool:
        """Nobody is being served, and nothing is held."""
        live = self.worker.handler.live
        assert live is not None
        return not self.worker.handler.in_flight and not any(
            backend.in_flight
            or backend.users
            or (backend.remote and any(s.pool.stats.in_flight for s in backend.remote.servers))
            for backend in live.backends.values()
        )


def table(text: str) -> Table:
    """The table of a configuration whose versions are all upstreams, without a disk."""
    settings = Settings.model_validate(yaml.safe_load(text))
    checked = Checked(Path("/"), settings=settings)
    document = make_document(checked, Artifacts(Path("/")), author="", reason="", now_ns=0)
    return compile_table(orjson.dumps(document))


def request(
    body: bytes = b"",
    *,
    target: bytes = INFER,
    method: bytes = b"POST",
    headers: tuple[bytes, ...] = (),
    key: str | None = "demo-key",
) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, target), b"host: test", *headers]
    if key is not None:
        lines.append(b"authorization: Bearer " + key.encode())
    if body or method == b"POST":
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def until(holds: Callable[[], T | None], seconds: float = 5) -> T:
    """What `holds` gives as soon as it is true."""
    for _ in range(int(seconds * 200)):
        if found := holds():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come true in time")


async def soon(work: Awaitable[T], seconds: float = 5) -> T:
    return await asyncio.wait_for(work, seconds)


@contextmanager
def running(
    folder: Path,
    text: str = LOCAL,
    stall_s: float = 30,
    tls: dict[str, str | None] | None = None,
    grpc: str | None = None,
) -> Iterator[World]:
    """A worker that serves `text`. `stall_s` is long since the loop stands still between tests."""
    with (
        pytest.MonkeyPatch.context() as patch,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        patch.setattr(worker_module, "TICK_S", 0.02)
        patch.setattr(restraint, "LAG_S", 3600.0)  # the loop stands still between tests
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder / "state" / "metrics"))
        world = World(folder, runner)
        world.publish(text)
        world.run(world.start(stall_s, tls, grpc))
        yield world
        world.exit_code = world.run(world.stop())
