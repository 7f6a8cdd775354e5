"""The ledger that `headworks serve` writes, verified while it serves and after it stopped."""

import json
import subprocess
import sys

import httpx2
from gateway_process import KEY, ROOT, GatewayProcess, body


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "gateway", "ledger", *words, "--json"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip


def test_what_serve_writes_is_verified_and_proven(tmp_path):
    """Live, after a kill -9, after a clean stop; and the evidence of one answer by the one file."""
    gateway = GatewayProcess(tmp_path).start()
    ledger = str(tmp_path / "state" / "ledger")
    with httpx2.Client(base_url=f"http://{gateway.data}", headers=KEY) as client:
        answers = [client.post("/v2/models/mortgage/infer", content=body()) for _ in range(40)]
    live = command("verify", ledger)
    gateway.kill_all()
    killed = command("verify", ledger)
    gateway.start()
    gateway.process.terminate()
    gateway.process.wait()
    stopped = command("verify", ledger)
    for told in (live, killed, stopped):
        assert told.returncode == 0, told.stdout + told.stderr
    assert json.loads(stopped.stdout)["leaves"] >= 40
    identity = answers[7].headers["x-headworks-id"]
    told = command("prove", identity, "--ledger", ledger, "--out", str(tmp_path / "evidence"))
    assert told.returncode == 0, told.stderr
    alone = subprocess.run(
        [sys.executable, "-I", "verify_evidence.py"],
        capture_output=True, text=True, cwd=tmp_path / "evidence",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stdout + alone.stderr
