"""The promise under violence: every answer that a client received is found, once, and explained."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter

import orjson
import pytest
from gateway_process import Clients

from gateway.journal.receipt import decode
from gateway.journal.record import decode_parts
from gateway.ledger.bodies import BodyReader
from gateway.ledger.log import LedgerReader


def leaves(gateway) -> list[dict]:
    reader = LedgerReader(gateway.folder / "state")
    return [orjson.loads(leaf) for _, leaf in reader.read(1 << 40)]


def assert_all_found_once(gateway, clients: Clients) -> None:
    """Each received answer is one leaf with its bytes; nothing is sealed or explained twice."""
    bodies = BodyReader(gateway.folder / "state", gateway.folder / "keys")
    found = leaves(gateway)
    exchanges = {leaf["record"]["id"]: leaf for leaf in found if leaf["kind"] == "exchange"}
    places = Counter((leaf["source"], leaf["sequence"]) for leaf in found if "source" in leaf)
    explained = Counter(
        leaf["record"]["exchange"] for leaf in found if leaf["kind"] == "explanation"
    )

    assert [] == [identity for identity in clients.received if identity not in exchanges]
    assert {1} == set(places.values())
    decided = {key for key, leaf in exchanges.items() if leaf["record"]["status"] == 200}
    assert decided == set(explained)
    assert {1} == set(explained.values())
    for identity, received in clients.received.items():
        _, _, response = decode_parts(bodies.read(identity, exchanges[identity]["body"]))
        assert received == response.kept


def assert_receipts_agree(gateway, clients: Clients) -> None:
    """Each receipt is signed by a key that a leaf certifies, and commits to what the leaf does."""
    found = leaves(gateway)
    keys = {leaf["record"]["id"]: bytes.fromhex(leaf["record"]["public"])
            for leaf in found if leaf["kind"] == "receipt_key"}  # fmt: skip
    exchanges = {leaf["record"]["id"]: leaf for leaf in found if leaf["kind"] == "exchange"}
    assert set(clients.receipts) == set(clients.received)
    for identity, text in clients.receipts.items():
        receipt = decode(text)
        receipt.verify(keys[receipt.key_id])
        record = exchanges[identity]["record"]
        assert (identity, record["commitment"]) == (receipt.id, receipt.commitment)


def kill_while_sending(gateway, clients: Clients, after_s: float, kill) -> None:
    async def both():
        sending = asyncio.get_running_loop().create_task(clients.run(30))
        await asyncio.sleep(after_s)
        await asyncio.to_thread(kill)
        clients.stop = True
        await sending

    asyncio.run(both())


@pytest.mark.parametrize("round_", range(3))
def test_kill_of_everything_under_load_loses_no_answer(make_gateway, round_):
    """kill -9 of the whole tree under load; after the restart every received answer is found."""
    gateway = make_gateway().start()
    clients = Clients(gateway)
    kill_while_sending(gateway, clients, 1.5 + 0.37 * round_, gateway.kill_all)
    gateway.start()
    after = Clients(gateway)
    asyncio.run(after.run(0.5))
    status = gateway.wait_settled()

    assert len(clients.received) > 50
    assert len(after.received) > 10
    clients.received |= after.received
    assert_all_found_once(gateway, clients)
    assert status["state"] == "green"
    assert gateway.stop() == 0


@pytest.mark.parametrize("role", ["governor", "analyst", "worker-0"])
def test_killing_one_process_again_and_again_loses_and_doubles_nothing(make_gateway, role):
    """SIGKILL of one role, three times under load: it comes back, and everything is there once."""
    gateway = make_gateway().start()
    gateway.wait_settled()
    clients = Clients(gateway, at_once=8)

    def kill():
        for number in range(3):
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    os.kill(gateway.child(role), signal.SIGKILL)
                    break
                except (AssertionError, ProcessLookupError):
                    time.sleep(0.05)
            time.sleep(0.35 + 0.1 * number)

    kill_while_sending(gateway, clients, 0.5, kill)
    status = gateway.wait_settled()

    assert status["processes"][role]["restarts"] >= 3
    assert len(clients.received) > 50
    if role != "worker-0":
        assert clients.broken == 0
        assert clients.refused == {}
    assert_all_found_once(gateway, clients)


@pytest.mark.parametrize("role", ["governor", "analyst"])
def test_a_stopped_governor_or_analyst_does_not_touch_answers(make_gateway, role):
    """SIGSTOP of one for a while: answers go on; afterwards all is sealed and explained."""
    gateway = make_gateway().start()
    gateway.wait_settled()
    pid = gateway.child(role)
    clients = Clients(gateway, at_once=4)
    os.kill(pid, signal.SIGSTOP)
    asyncio.run(clients.run(3))
    os.kill(pid, signal.SIGCONT)
    gateway.wait_settled()

    assert len(clients.received) > 50
    assert (0, {}) == (clients.broken, clients.refused)
    assert_all_found_once(gateway, clients)


def test_a_stopped_gateway_drains_and_leaves_nothing_behind(make_gateway):
    """SIGTERM under load: answers under way are given, who comes later is refused and does not
    wait, all children end, exit code 0."""
    gateway = make_gateway().start()
    clients = Clients(gateway)
    host, _, port = gateway.data.partition(":")
    under_way = socket.create_connection((host, int(port)))
    head = b"POST /v2/models/mortgage/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n"
    under_way.sendall(head + b"authorization: Bearer demo-key\r\n\r\n")  # it waits for a body

    def is_refused() -> bool:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return True
        return False

    async def both():
        sending = asyncio.get_running_loop().create_task(clients.run(20))
        await asyncio.sleep(1)
        gateway.process.terminate()
        await asyncio.sleep(2)
        clients.stop = True
        await sending

    asyncio.run(both())
    until = time.monotonic() + 20
    while not is_refused() and time.monotonic() < until:
        time.sleep(0.1)
    assert is_refused()
    assert gateway.process.poll() is None
    under_way.close()

    assert gateway.process.wait(60) == 0
    assert [gateway.process.pid] == gateway.pids()
    gateway.start()
    gateway.wait_settled()
    assert_all_found_once(gateway, clients)


def test_children_end_when_the_supervisor_is_killed(make_gateway):
    """kill -9 of the supervisor alone: no child outlives it, and the state can be used again."""
    gateway = make_gateway().start()
    gateway.process.kill()
    gateway.process.wait()
    until = time.monotonic() + 30
    while len(gateway.pids()) > 1 and time.monotonic() < until:
        time.sleep(0.1)

    assert len(gateway.pids()) == 1
    gateway.start()


def test_a_state_in_use_is_refused(make_gateway):
    """A second start on the same state ends at once and says why."""
    gateway = make_gateway().start()
    second = gateway.run("serve", "--set", "listen.data=127.0.0.1:1")

    assert second.returncode == 1
    assert "is held by another process" in second.stderr


def test_a_flipped_byte_in_the_journal_is_told_and_stops_only_that_journal(make_gateway):
    """Damage behind the durable mark turns status red, naming segment and offset; answers go on."""
    gateway = make_gateway().start()
    gateway.wait_settled()
    governor = gateway.child("governor")
    os.kill(governor, signal.SIGSTOP)
    clients = Clients(gateway, at_once=4)
    asyncio.run(clients.run(1.5))
    segment = next((gateway.folder / "state" / "journal" / "0").glob("*.segment"))
    data = bytearray(segment.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    with segment.open("r+b") as file:
        file.seek(used // 2)
        file.write(bytes([data[used // 2] ^ 0x10]))
    os.kill(governor, signal.SIGCONT)
    until = time.monotonic() + 20
    while gateway.api("/api/v1/status")["state"] != "red" and time.monotonic() < until:
        time.sleep(0.1)
    status = gateway.api("/api/v1/status")
    after = Clients(gateway, at_once=2)
    asyncio.run(after.run(0.5))

    assert status["state"] == "red"
    assert "0/00000000.segment: damaged at offset" in status["words"][0]
    assert len(after.received) > 5
    assert {"damage"} <= {leaf["kind"] for leaf in leaves(gateway)}
