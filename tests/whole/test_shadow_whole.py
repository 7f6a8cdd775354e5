"""A real gateway whose shadow misbehaves: answers go on, what is missing is told and judged."""

import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import orjson
import pytest
from gateway_process import KEY, body


class Server(socketserver.ThreadingTCPServer):
    """A model server of three kinds: `score` answered at once, or none at all."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, score: float | None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.score, self.asked = score, 0
        self.gate = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            length = 0
            while (line := self.rfile.readline()) not in (b"", b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            self.server.asked += 1
            if self.server.score is None:
                self.server.gate.wait()
                return
            tensor = {"name": "score", "shape": [1, 1], "datatype": "FP32",
                      "data": [self.server.score]}  # fmt: skip
            text = orjson.dumps({"outputs": [tensor]})
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                             b"content-length: %d\r\n\r\n%b" % (len(text), text))  # fmt: skip


@pytest.fixture
def make_server():
    made = []

    def make(score: float | None) -> Server:
        made.append(Server(score))
        return made[-1]

    yield make
    for server in made:
        server.gate.set()
        server.shutdown()
        server.server_close()


def send(gateway, count: int) -> list[str]:
    """Applications whose answers came; their ids."""
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    with httpx2.Client(headers=KEY, timeout=20) as client:
        answers = [client.post(url, content=body(lvr=0.5 + n % 20 * 0.03)) for n in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.headers["x-headworks-id"] for answer in answers]


def test_a_black_hole_is_inconclusive_and_nobody_waits(make_gateway, make_server):
    """Every application is answered; what the shadow missed is in records, the report says why it
    is inconclusive, and the ledger holds."""
    hole = make_server(None)
    gateway = make_gateway(
        edit=lambda text: text.replace(
            "v3: {artifact: models/mortgage/v3}",
            f"v3: {{upstream: '{hole.url}', artifact: models/mortgage/v3}}",
        ).replace("protocol: v2", "protocol: v2\n    shadow: {timeout: 200ms, concurrency: 2}")
    ).start()
    ids = send(gateway, 60)
    gateway.wait_settled()
    (report,) = gateway.api("/api/v1/shadow/mortgage")["shadows"]
    missing = report["coverage"]["missing"]
    assert report["coverage"]["eligible"] == len(ids)
    assert report["coverage"]["compared"] + sum(missing.values()) == len(ids)
    assert missing["breaker_open"] > 0
    assert report["reasons"] == {"shadow_failed": report["raw"]["n"]}
    assert report["state"] == "inconclusive"
    told = gateway.run("shadow", "report", "mortgage")
    assert told.returncode == 1
    assert "Inconclusive" in told.stdout
    assert "breaker_open" in told.stdout
    assert gateway.run("shadow", "report", "nobody").returncode == 1
    assert gateway.stop() == 0
    verify = [sys.executable, "-m", "gateway", "ledger", "verify"]
    done = subprocess.run([*verify, str(gateway.folder / "state" / "ledger")], capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_a_shadow_over_a_restart_and_its_noise(make_gateway, make_server):
    """A version elsewhere is asked twice and agrees with itself; comparisons and their segments go
    on over a kill of everything, and each has its triple."""
    steady, other = make_server(0.1), make_server(0.9)
    gateway = make_gateway(
        edit=lambda text: (
            text.replace(
                "v1: {artifact: models/mortgage/v1}",
                f"v1: {{upstream: '{steady.url}', artifact: models/mortgage/v1}}",
            )
            .replace(
                "v3: {artifact: models/mortgage/v3}",
                f"v3: {{upstream: '{other.url}', artifact: models/mortgage/v3}}",
            )
            .replace("protocol: v2", "protocol: v2\n    shadow: {noise: 100%}")
            .replace("split: {v1: 95%, v2: 5%}", "split: {v1: 100%}")
        )
    ).start()
    send(gateway, 20)
    gateway.wait_settled()
    gateway.kill_all()
    gateway.start()
    send(gateway, 20)
    gateway.wait_settled()
    (report,) = gateway.api("/api/v1/shadow/mortgage", since="1h")["shadows"]
    assert (report["version"], report["noise_is"]) == ("v3", "measured")
    assert report["raw"]["count"] == report["raw"]["n"] == report["coverage"]["eligible"] == 40
    assert (report["noise"]["n"], report["noise"]["count"]) == (40, 0)
    assert report["corrected"]["n"] == report["corrected"]["n10"] == 40
    assert report["directions"] == {"approve>deny": 40}
    lvr = [one["disagree"] for one in report["segments"] if one["key"] == "lvr"]
    assert sum(one["n"] for one in lvr) == 40
    (row,) = gateway.api("/api/v1/monitor/mortgage")["agreement"]
    assert (row["shadow"], row["same_outcome"]) == ("v3", 0)


def memory_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.long
def test_long_bodies_to_a_black_hole_leave_memory_bounded(make_gateway, make_server):
    """270 MiB are asked while copies wait for a shadow that never answers: the worker grows by
    little more than what the queue may hold, and every application is answered."""
    primary, hole = make_server(0.1), make_server(None)
    bounds = "shadow: {bytes: 16MiB, concurrency: 4, timeout: 30s}\n    limits: {keep: 1KiB}"
    gateway = make_gateway(
        edit=lambda text: (
            text.replace(
                "v1: {artifact: models/mortgage/v1}",
                f"v1: {{upstream: '{primary.url}', artifact: models/mortgage/v1}}",
            )
            .replace(
                "v3: {artifact: models/mortgage/v3}",
                f"v3: {{upstream: '{hole.url}', artifact: models/mortgage/v3}}",
            )
            .replace("protocol: v2", f"protocol: v2\n    {bounds}")
            .replace("split: {v1: 95%, v2: 5%}", "split: {v1: 100%}")
        )
    ).start()
    send(gateway, 20)
    worker = gateway.child("worker-0")
    before = memory_mib(worker)
    long = orjson.loads(body()) | {"id": "x" * 900_000}
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    most = before
    with httpx2.Client(headers=KEY, timeout=20) as client:
        for _ in range(300):
            assert client.post(url, content=orjson.dumps(long)).status_code == 200
            most = max(most, memory_mib(worker))
    dropped = httpx2.get(f"http://{gateway.admin}/metrics").text
    assert 'reason="queue_bytes"' in dropped
    assert most - before < 16 + 40
