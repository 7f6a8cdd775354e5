"""A real `headworks serve` in a folder of its own, and clients that keep what they received."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import orjson

ROOT = Path(__file__).parents[2]
KEY = {"authorization": "Bearer demo-key"}
FORM = {"dir": 0.3, "hir": 0.25, "lvr": 0.8, "ccs": 2.0, "mcs": 2.0, "uria": 3.2,
        "condominium": 0.0, "pbcr": "no", "dmi": "no", "self": "no", "single": "no"}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def body(**changes) -> bytes:
    inputs = [
        {"name": name, "shape": [1, 1], "data": [value],
         "datatype": "BYTES" if isinstance(value, str) else "FP32"}
        for name, value in (FORM | changes).items()
    ]  # fmt: skip
    return orjson.dumps({"inputs": inputs})


class GatewayProcess:
    """`folder` holds the configuration, state and keys; survives stop and kill."""

    def __init__(self, folder: Path, edit=lambda text: text, settings: dict | None = None) -> None:
        self.folder = folder
        if not (folder / "headworks.yaml").exists():
            text = edit((ROOT / "headworks.yaml").read_text())
            (folder / "headworks.yaml").write_text(text)
            shutil.copytree(ROOT / "models" / "mortgage", folder / "models" / "mortgage")
        self.data, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.settings = settings or {}
        self.process: subprocess.Popen | None = None

    def command(self, *words: str) -> list[str]:
        laid = {"listen.data": self.data, "listen.admin": self.admin, **self.settings}
        pairs = [part for key, value in laid.items() for part in ("--set", f"{key}={value}")]
        config = str(self.folder / "headworks.yaml")
        return [sys.executable, "-m", "gateway", *words, "--config", config, *pairs]

    def start(self, patience_s: float = 60) -> "GatewayProcess":
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            self.command("serve"), stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text()[-3000:])
            if self.answers(f"http://{self.data}/-/ready"):
                return self
            time.sleep(0.05)
        raise TimeoutError((self.folder / "log").read_text()[-3000:])

    def answers(self, url: str) -> bool:
        try:
            return httpx2.get(url, timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def run(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, cwd=ROOT, timeout=60
        )

    def api(self, path: str, **parameters):
        return httpx2.get(f"http://{self.admin}{path}", params=parameters, timeout=30).json()

    def reveal(self, identity: str, purpose: str = "a test reads it"):
        """The decision with what was sent; leaves a `reveal` leaf."""
        path = f"http://{self.admin}/api/v1/decisions/{identity}/reveal"
        return httpx2.post(path, json={"purpose": purpose}, timeout=30).json()

    def pids(self) -> list[int]:
        """Every process of the tree, the supervisor last."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.folder).encode() in line and b"gateway" in line:
                    found.append(int(entry.name))
        assert self.process is not None
        return [pid for pid in found if pid != self.process.pid] + [self.process.pid]

    def child(self, role: str) -> int:
        pid = self.api("/api/v1/status")["processes"][role]["pid"]
        assert pid is not None
        return pid

    def kill_all(self) -> None:
        """kill -9 of everything at once."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert self.process is not None
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(90)

    def wait_settled(self, patience_s: float = 60) -> dict:
        """Until sealing and the analyst have nothing more to do."""
        until = time.monotonic() + patience_s
        calm = 0
        before = None
        while time.monotonic() < until:
            status = self.api("/api/v1/status")
            now = (status["governor"] or {}).get("leaves"), (status["analyst"] or {}).get("reached")
            calm = calm + 1 if now == before and None not in now and now[0] == now[1] else 0
            if calm >= 6:  # longer than what was said takes to be sealed
                return status
            before = now
            time.sleep(0.1)
        raise TimeoutError(f"not settled: {status}")


class Clients:
    """Applications sent without pause; `received` is what came back, by exchange id."""

    def __init__(self, gateway: GatewayProcess, at_once: int = 16) -> None:
        self.gateway, self.at_once = gateway, at_once
        self.received: dict[str, bytes] = {}
        self.receipts: dict[str, str] = {}
        self.refused: dict[int, int] = {}
        self.broken = 0
        self.stop = False

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with httpx2.AsyncClient(base_url=f"http://{self.gateway.data}", timeout=20) as client:
            await asyncio.gather(*(self._work(client, n, until) for n in range(self.at_once)))

    async def _work(self, client: httpx2.AsyncClient, number: int, until: float) -> None:
        count = 0
        while time.monotonic() < until and not self.stop:
            count += 1
            headers = KEY | {"x-applicant": f"unit-{number}-{count}"}
            sent = body(lvr=round(0.5 + count % 100 / 200, 3))
            try:
                answer = await client.post(
                    "/v2/models/mortgage/infer", content=sent, headers=headers
                )
            except httpx2.HTTPError:
                self.broken += 1
                await asyncio.sleep(0.02)
                continue
            if answer.status_code == 200:
                identity = answer.headers["x-headworks-id"]
                self.received[identity] = answer.content
                if (receipt := answer.headers.get("x-headworks-receipt")) is not None:
                    self.receipts[identity] = receipt
            else:
                self.refused[answer.status_code] = self.refused.get(answer.status_code, 0) + 1
