"""`headworks journal status` and `repair`, on a running gateway and on its files alone."""

import asyncio
import os
import signal
import time

import orjson
from gateway_process import Clients


def flip_in_journal(gateway) -> None:
    """Damage what is not sealed yet, behind the governor's back."""
    os.kill(gateway.child("governor"), signal.SIGSTOP)
    clients = Clients(gateway, at_once=4)
    asyncio.run(clients.run(1.0))
    segment = next((gateway.folder / "state" / "journal" / "0").glob("*.segment"))
    data = segment.read_bytes()
    used = len(data.rstrip(b"\0"))
    with segment.open("r+b") as file:
        file.seek(used // 2)
        file.write(bytes([data[used // 2] ^ 0x10]))
    os.kill(gateway.child("governor"), signal.SIGCONT)


def until_state(gateway, state: str) -> dict:
    until = time.monotonic() + 30
    while (told := gateway.api("/api/v1/status"))["state"] != state and time.monotonic() < until:
        time.sleep(0.1)
    return told


def test_damage_is_shown_accepted_and_left_behind_while_running(make_gateway):
    """Red with the place; `repair` without reason changes nothing; with it, green again, and the
    journal goes on being sealed."""
    gateway = make_gateway().start()
    gateway.wait_settled()
    flip_in_journal(gateway)
    red = until_state(gateway, "red")
    shown = gateway.run("journal", "status", "--json")
    refused = gateway.run("journal", "repair", "--accept-loss")
    accepted = gateway.run("journal", "repair", "0", "--accept-loss", "--reason", "a flipped bit")
    after = until_state(gateway, "green")
    clients = Clients(gateway, at_once=2)
    asyncio.run(clients.run(0.5))
    gateway.wait_settled()
    again = gateway.run("journal", "status", "--json")

    assert red["state"] == "red"
    damage = {each["journal"]: each["damage"] for each in orjson.loads(shown.stdout)["journals"]}
    assert (shown.returncode, damage["analyst"]) == (1, None)
    assert "0/00000000.segment: damaged at offset" in damage["0"]["text"]
    assert refused.returncode == 2
    assert "--reason" in refused.stderr
    assert accepted.returncode == 0, accepted.stderr
    assert "are given up" in accepted.stdout
    assert after["state"] == "green"
    assert again.returncode == 0, again.stdout
    assert (gateway.folder / "state" / "journal" / "0" / "00000000.damaged").exists()
    assert not (gateway.folder / "keys" / "journal" / "0" / "00000000.key").exists()


def test_the_files_alone_are_shown_and_an_unknown_journal_is_named(make_gateway):
    """Without a gateway the same command reads the files; a wrong name lists the right ones."""
    gateway = make_gateway().start()
    asyncio.run(Clients(gateway, at_once=2).run(0.5))
    gateway.kill_all()
    told = gateway.run("journal", "status", "0", "--json")
    wrong = gateway.run("journal", "status", "7")
    fine = gateway.run("journal", "repair", "--accept-loss", "--reason", "none")

    journal = orjson.loads(told.stdout)["journals"][0]
    assert (told.returncode, journal["damage"], journal["written"]) == (0, None, False)
    assert journal["next"] >= journal["records"] > 0
    assert wrong.returncode == 2
    assert "'7': there are 0" in wrong.stderr
    assert "nothing is damaged" in fine.stdout
