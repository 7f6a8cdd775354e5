"""Model servers for candidates of a rollout: one that is well, and each kind of fault by itself."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson

Fault = Callable[[dict[str, Any], float, "Server"], float | None]
"""From the form and the right score to the candidate's; None: a 500."""


def right(form: dict[str, Any]) -> float:
    """What the model that is trusted says: the probability that it is denied."""
    return min(1.0, form["dir"] * 0.5)


def in_burst(form: dict[str, Any], score: float, server: Server) -> float | None:
    """Three seconds of ten."""
    return None if time.monotonic() % 10 < 3 else score


def slower_by_load(form: dict[str, Any], score: float, server: Server) -> float:
    """8 ms for each request that is under way; alone it is as fast as any."""
    time.sleep(0.008 * max(0, server.under_way - 1))
    return score


FAULTS: dict[str, Fault] = {
    "well": lambda form, score, server: score,
    "jittery": lambda form, score, server: score + 1e-4 * (form["hir"] - 0.5),
    "scaled": lambda form, score, server: score * 0.6,
    "slice": lambda form, score, server: 0.99 if form["condominium"] else score,
    "biased": lambda form, score, server: score + (0.15 if form["lvr"] > 0.9 else 0.0),
    "other_order": lambda form, score, server: 1.0 - score,
    "bursts": in_burst,
    "slower": slower_by_load,
}


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 128

    def __init__(self, fault: Fault) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.fault, self.under_way, self.lock = fault, 0, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, body: bytes) -> tuple[bytes, bytes]:
        form = {one["name"]: one["data"][0] for one in orjson.loads(body)["inputs"]}
        with self.lock:
            self.under_way += 1
        score = self.fault(form, right(form), self)
        with self.lock:
            self.under_way -= 1
        if score is None:
            return b"500 Broken", b"{}"
        told = {"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [min(1.0, score)]}
        return b"200 OK", orjson.dumps({"outputs": [told]})


class Answers(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline() not in (b"", b"\r\n"):
            length = 0
            while (line := self.rfile.readline()) not in (b"", b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            status, text = self.server.answer(self.rfile.read(length))
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.wfile.write(head % (status, len(text)) + text)
