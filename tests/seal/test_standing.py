"""Which alerts are not over is known from their leaves, after any restart."""

import asyncio

import orjson
import pytest

from gateway.clock import SystemClock
from gateway.journal import record
from gateway.journal.directory import JournalFolder
from gateway.journal.writer import open_journal
from gateway.seal.sealer import Sealer
from gateway.settings import LedgerSettings
from gateway.telemetry.metrics import Metrics


def alert(cause: str, state: str) -> dict:
    return {"id": f"m/v1:{cause}", "model": "m", "version": "v1", "cause": cause, "state": state,
            "severity": "critical", "evidence": {"window": "m/v1/stable/1"}}  # fmt: skip


def say(tmp_path, *alerts: dict) -> None:
    """As the analyst does: a record each in its journal."""

    async def write():
        folder = JournalFolder(tmp_path, tmp_path / "keys", "analyst")
        journal = await open_journal(
            folder, SystemClock(), segment_bytes=1 << 20, stall_s=60.0, queue_bytes=1 << 24,
            on_failure=pytest.fail,
        )  # fmt: skip
        for number, told in enumerate(alerts):
            header = {"format": 1, "id": f"{number}.0", "of": number, "ordinal": 0, "at": number,
                      "kind": "alert", "model": "m", "event": "opened", "alert": told}  # fmt: skip
            await journal.append(header, record.encode_parts({}, record.EMPTY, record.EMPTY))
        await journal.close()

    asyncio.run(write())


def sealed(tmp_path) -> dict:
    settings = LedgerSettings(checkpoint="50ms")
    sealer = Sealer(tmp_path, tmp_path / "keys", SystemClock(), Metrics("governor"), settings)
    while sealer.step():
        pass
    sealer.close()
    return sealer.standing.alerts


def test_alerts_stand_until_they_are_resolved(tmp_path):
    """Acknowledged ones stand too; what is over is forgotten; the file has no evidence."""
    say(tmp_path, alert("score", "open"), alert("joint", "open"), alert("joint", "resolved"),
        alert("score", "acknowledged"))  # fmt: skip
    assert {key: one["state"] for key, one in sealed(tmp_path).items()} == {
        "m/v1:score": "acknowledged"
    }
    assert b"evidence" not in (tmp_path / "alerts.json").read_bytes()


def test_a_restart_knows_them_whatever_was_kept(tmp_path):
    """With the file, without it, with one that is behind, and with one that cannot be read."""
    say(tmp_path, alert("score", "open"))
    expected = sealed(tmp_path)
    path = tmp_path / "alerts.json"
    kept = orjson.loads(path.read_bytes())
    assert sealed(tmp_path) == expected
    path.unlink()
    assert sealed(tmp_path) == expected
    path.write_bytes(orjson.dumps({"reached": 0, "alerts": {}}))
    assert sealed(tmp_path) == expected
    path.write_bytes(b"{")
    assert sealed(tmp_path) == expected
    assert set(kept["alerts"]) == {"m/v1:score"}
