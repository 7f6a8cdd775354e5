"""The ledger that `headworks serve` writes, verified while it serves and after it stopped."""

import json
import subprocess
import sys

import httpx2
import pytest
import stranger
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
    assert_a_stranger_agrees(tmp_path / "state" / "ledger", tmp_path / "evidence")
    alone = subprocess.run(
        [sys.executable, "-I", "verify_evidence.py"],
        capture_output=True, text=True, cwd=tmp_path / "evidence",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stdout + alone.stderr


def assert_a_stranger_agrees(ledger, evidence):
    """The verifier that was written from the specifications alone: every log, and the proof."""
    told = (ledger / "policy").read_text().split()
    name, _, key = told[told.index("log") + 1].split("+", 2)
    public = stranger.decoded(key)[1:]
    logs = ["root", *(str(path.relative_to(ledger)) for path in ledger.glob("models/*/*"))]
    assert len(logs) >= 2
    for log in logs:
        origin = f"{name.removesuffix('root')}{log}"
        assert stranger.check_log(ledger / log, origin, public, None).startswith(f"{origin}: ")
    proof, entry = (evidence / f"leaf.{end}" for end in ("tlog-proof", "json"))
    origin = proof.read_bytes().split(b"\n\n")[1].decode().split("\n")[0]
    assert "of" in stranger.check_proof(proof.read_bytes(), entry.read_bytes(), origin, public)
    with pytest.raises(stranger.No):
        stranger.check_proof(proof.read_bytes(), entry.read_bytes() + b" ", origin, public)
