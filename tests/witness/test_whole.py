"""The gateway's own ledger and a witness, both as they run: followed through traffic and kills."""

import asyncio
import threading

import httpx2
from gateway_process import KEY, GatewayProcess, body
from test_keeping import PATIENCE_S, LeapingClock, kept, until
from tree import Daemon, log_key

from gateway.ledger.checkpoint import Checkpoint, Policy, open_checkpoint
from gateway.outbound.witness import Witnesses, read_snapshot
from gateway.telemetry.metrics import Metrics

PATH = "/v2/models/mortgage/infer"


def send(gateway: GatewayProcess, number: int) -> None:
    for _ in range(number):
        answer = httpx2.post(f"http://{gateway.data}{PATH}", content=body(), headers=KEY)
        assert answer.status_code == 200, answer.text


def sizes(state, daemon: Daemon, seed: bytes) -> dict[str, Checkpoint]:
    """What is witnessed, believed as a reader of evidence would, by log."""
    found = {}
    for path in state.glob("ledger/**/witnessed"):
        origin = path.read_text().partition("\n")[0]
        policy = Policy(log_key(origin, seed).verifier, (daemon.vkey,), 1)
        found[origin] = open_checkpoint(path.read_bytes(), policy).checkpoint
    return found


async def caught_up(witnesses: Witnesses, state, daemon: Daemon, seed: bytes, model: int) -> None:
    """Until the model's log is witnessed with `model` leaves or more, without alarm or conflict."""

    def holds() -> bool:
        found = sizes(state, daemon, seed)
        return any("/models/" in origin and point.size >= model for origin, point in found.items())

    async with kept(witnesses):
        await until(holds)


def test_a_real_ledger_is_followed_through_kills(run, tmp_path):
    """Root and model logs are cosigned; after kill -9 of everything the next proofs fit."""
    home = tmp_path / "gateway"
    home.mkdir()
    gateway = GatewayProcess(home).start()
    state, keys = home / "state", home / "keys"
    try:
        send(gateway, 20)
        gateway.wait_settled()
        seed = (keys / "ledger" / "seed").read_bytes()
        name = (keys / "ledger" / "name").read_text().strip()
        daemon = run(log_key(f"{name}/root", seed).verifier)

        def watching() -> Witnesses:
            given = [(str(daemon.vkey), daemon.url)]
            return Witnesses(state / "ledger", given, 1, Metrics("w"), LeapingClock(), 0.05)

        asyncio.run(caught_up(watching(), state, daemon, seed, 20))
        gateway.kill_all()
        daemon.end(9)
        daemon.start()
        gateway.start()
        sender = threading.Thread(target=send, args=(gateway, 20))
        sender.start()  # the log grows while it is followed
        witnesses = watching()
        asyncio.run(caught_up(witnesses, state, daemon, seed, 40))
        sender.join(PATIENCE_S)
        document = witnesses.document()
        assert (document["words"], document["red"]) == ([], [])
        found = sizes(state, daemon, seed)
        assert f"{name}/root" in found
        for origin, point in found.items():
            snapshot = read_snapshot(state / "ledger" / origin.removeprefix(f"{name}/"))
            assert point.size <= snapshot.point.size
        assert "ALARM" not in daemon.get("/").text
        assert daemon.end() == 0
    finally:
        gateway.kill_all()
