"""What the world around may do: full disks, other users, edited files, wrong data."""

import hashlib
import os
import signal
import stat
import subprocess
import time
from contextlib import suppress

import httpx2
import orjson
from gateway_process import KEY, body


def infer(gateway):
    return httpx2.post(
        f"http://{gateway.data}/v2/models/mortgage/infer", content=body(), headers=KEY, timeout=10
    )


def test_nothing_of_state_and_keys_is_open_to_other_users(make_gateway):
    """Folders, sockets and files are the gateway's user's alone."""
    gateway = make_gateway().start()
    gateway.wait_settled()
    for name in ("state", "keys"):
        assert stat.S_IMODE((gateway.folder / name).stat().st_mode) == 0o700
    secrets = [
        *(gateway.folder / "keys").rglob("*.key"),
        *(gateway.folder / "state" / "catalog").iterdir(),
        *(gateway.folder / "state" / "ledger").iterdir(),
        *(gateway.folder / "state" / "bodies").rglob("*"),
        *(gateway.folder / "keys" / "subjects").iterdir(),
    ]
    assert len(secrets) > 5
    assert [] == [str(path) for path in secrets if path.stat().st_mode & 0o077]


def eat(filler):
    """Every block that is free."""
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            return


def ready_of(gateway):
    """What a worker that answers says of itself."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            return httpx2.get(f"http://{gateway.data}/-/ready", timeout=5).json()
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise TimeoutError


def test_a_full_disk_answers_503_and_recovers(make_gateway, tmp_path):
    """A worker that cannot open its journal refuses, is not ready, and comes back by itself."""
    gateway = make_gateway(settings={"journal.segment": "4MiB"})
    state = gateway.folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(state)], check=True)
    try:
        gateway.start()
        assert infer(gateway).status_code == 200
        filler = state / "filler"
        until = time.monotonic() + 60
        ready = None
        while (ready is None or ready["journal"]) and time.monotonic() < until:
            eat(filler)  # again: what is sealed or held in reserve makes room meanwhile
            pid = gateway.api("/api/v1/status")["processes"]["worker-0"]["pid"]
            with suppress(ProcessLookupError, TypeError):  # it ends, or is being started, by itself
                os.kill(pid, signal.SIGKILL)
            ready = ready_of(gateway)
        status = infer(gateway).status_code
        told = gateway.api("/api/v1/status")
        filler.unlink()
        while infer(gateway).status_code != 200 and time.monotonic() < until:
            time.sleep(0.2)

        assert status == 503
        assert (ready["ready"], ready["journal"]) == (False, False)
        assert told["state"] == "red"
        assert "worker-0: the journal does not open" in str(told["words"])
        assert infer(gateway).status_code == 200
    finally:
        gateway.kill_all()
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_a_governor_that_comes_back_publishes_nothing_by_itself(make_gateway):
    """An edited file that nobody reloaded stays out of force when the governor restarts."""
    gateway = make_gateway().start()
    revision = gateway.api("/api/v1/status")["revision"]
    path = gateway.folder / "headworks.yaml"
    path.write_text(path.read_text().replace("v2: 5%", "v2: 50%"))
    os.kill(gateway.child("governor"), signal.SIGKILL)
    time.sleep(1)
    gateway.wait_settled()

    assert gateway.api("/api/v1/status")["revision"] == revision


def test_what_keeps_a_process_from_its_work_stands_in_status(make_gateway):
    """Red, with process and reason, as long as it cannot start; with the cause, the word goes."""
    gateway = make_gateway().start()
    gateway.wait_settled()
    signed = gateway.folder / "keys" / "ledger" / "signed"
    artifacts = [*(gateway.folder / "state" / "artifacts").rglob("model.onnx")]
    children = [gateway.child(role) for role in ("governor", "worker-0")]
    for child in children:  # a governor that still runs would write over what is garbled
        os.kill(child, signal.SIGSTOP)
    held = {path: path.read_bytes() for path in [signed, *artifacts]}
    for path in held:
        path.chmod(0o600)
        path.write_bytes(b"[" + held[path][1:])
    for child in children:
        os.kill(child, signal.SIGKILL)

    def wait_for(holds) -> str:
        until = time.monotonic() + 30
        told = {"state": "", "words": []}
        while not holds(told) and time.monotonic() < until:
            time.sleep(0.1)
            told = gateway.api("/api/v1/status")
        return f"{told['state']}: {told['words']}"

    red = wait_for(
        lambda told: all(f"{role}: " in str(told["words"]) for role in ("governor", "worker-0"))
    )
    assert red.startswith("red: ")
    assert f"LedgerDamaged: {signed}" in red
    assert "its files are not those of its digest" in red
    for path, data in held.items():
        path.write_bytes(data)
    assert "worker-0" not in wait_for(
        lambda told: told["state"] and "worker-0" not in str(told["words"])
    )
    assert infer(gateway).status_code == 200


def test_a_rotten_key_is_told_at_the_start_and_its_person_goes_on(make_gateway):
    """Red, with the slot; `ledger verify` names it, too; new answers are kept under a new key, and
    one erasure takes both."""
    gateway = make_gateway().start()
    headers = KEY | {"x-headworks-subject": "annalee"}

    def ask() -> str:
        url = f"http://{gateway.data}/v2/models/mortgage/infer"
        answer = httpx2.post(url, content=body(), headers=headers, timeout=10)
        assert answer.status_code == 200
        return answer.headers["x-headworks-id"]

    before = ask()
    gateway.wait_settled()
    gateway.stop()
    path = gateway.folder / "keys" / "subjects" / "00000000.keys"
    data = bytearray(path.read_bytes())
    data[36 + 3] ^= 1
    path.write_bytes(data)
    gateway.start()
    after = ask()
    status = gateway.wait_settled()
    until = time.monotonic() + 30
    while "slot 1 of" not in str(status["words"]) and time.monotonic() < until:
        status = gateway.api("/api/v1/status")
    verified = gateway.run("ledger", "verify")

    assert (status["state"], "slot 1 of" in str(status["words"])) == ("red", True)
    assert (verified.returncode, "slot 1, at byte 36" in verified.stdout) == (1, True)
    assert gateway.reveal(before)["features"] is None
    assert gateway.reveal(after)["features"] is not None
    erased = gateway.run("subject", "erase", "--decision", after, "--reason", "asked by letter")
    assert erased.returncode == 0, erased.stderr
    assert gateway.reveal(after)["features"] is None
    assert not any(path.read_bytes()[36:72])
    verified = gateway.run("ledger", "verify")
    assert verified.returncode == 0, verified.stdout


def test_data_files_that_do_not_fit_are_told_before_serving(make_gateway):
    """`check` and `serve` read the data files: a CSV that calls itself Parquet is no surprise."""
    gateway = make_gateway()
    (gateway.folder / "models" / "mortgage" / "reference.parquet").write_text("dir,hir\n1,2\n")
    done = gateway.run("check")
    served = gateway.run("serve")

    assert done.returncode == served.returncode == 1
    assert "monitor.reference" in done.stdout
    assert "not Parquet" in served.stderr


def test_a_person_who_is_taken_out_is_refused_after_a_reload(make_gateway):
    """`people` are hot, and a revision's author is whoever's token asked, never the body's word."""
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("ana", "bob")}

    def people(name):
        return f'people: [{{name: {name}, token_sha256: "{digests[name]}", roles: [sre]}}]\n'

    gateway = make_gateway(edit=lambda text: people("ana") + text).start()
    url = f"http://{gateway.admin}/api/v1"
    ana, bob = ({"authorization": f"Bearer {name}"} for name in ("ana", "bob"))
    until = time.monotonic() + 30
    while httpx2.get(f"{url}/models", headers=ana).status_code != 200 and time.monotonic() < until:
        time.sleep(0.1)
    path = gateway.folder / "headworks.yaml"
    path.write_text(path.read_text().replace(people("ana"), people("bob")))
    told = httpx2.post(
        f"{url}/reload", headers=ana, json={"author": "the board"}, timeout=30
    ).json()
    revision = told["revision"]
    document = orjson.loads(
        (gateway.folder / "state" / "table" / "revisions" / f"{revision}.json").read_bytes()
    )

    assert document["author"] == "ana"
    assert httpx2.get(f"{url}/status", headers=ana).status_code == 401
    assert httpx2.get(f"{url}/status", headers=bob).status_code == 200
    assert httpx2.get(f"{url}/status").status_code == 401


def test_a_disk_that_fills_climbs_the_ladder_and_comes_down_again(make_gateway):
    """Little room: a word. None: 503 journal_full, the reserve is free and a table still gets
    published. Room again: answers again, and the reserve is taken again."""
    gateway = make_gateway(settings={"journal.segment": "2MiB", "disk.reserve": "16MiB"})
    state = gateway.folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(state)], check=True)
    reserve, filler = state / "reserve", state / "filler"

    def fill(leave: int) -> None:
        found = os.statvfs(state)
        with filler.open("ab") as file:
            file.write(bytes(max(0, found.f_bavail * found.f_frsize - leave)))

    def until_true(what) -> bool:
        until = time.monotonic() + 30
        while not what() and time.monotonic() < until:
            time.sleep(0.1)
        return what()

    def refused() -> bool:
        return infer(gateway).headers.get("x-headworks-error") == "journal_full"

    try:
        gateway.start()
        assert until_true(reserve.exists)
        assert infer(gateway).status_code == 200
        fill(20 << 20)
        assert until_true(lambda: "disk: " in str(gateway.api("/api/v1/status")["words"]))
        answer = infer(gateway)
        assert (answer.status_code, answer.headers.get("x-headworks-error")) == (200, None)
        fill(1 << 20)
        assert until_true(refused)
        assert until_true(lambda: not reserve.exists())
        path = gateway.folder / "headworks.yaml"
        path.write_text(path.read_text().replace("v1: 95%, v2: 5%", "v1: 96%, v2: 4%"))
        assert gateway.run("reload").returncode == 0
        filler.unlink()
        assert until_true(lambda: infer(gateway).status_code == 200)
        assert until_true(reserve.exists)
        assert gateway.api("/api/v1/status")["disk"]["journal"]["bytes"] > 0
    finally:
        gateway.kill_all()
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_a_rotten_file_of_holds_is_told_and_nothing_is_destroyed(make_gateway):
    """Red, with the file's name; answers go on, an erasure is refused with why."""
    gateway = make_gateway()
    (gateway.folder / "state").mkdir(mode=0o700, exist_ok=True)
    (gateway.folder / "state" / "holds.json").write_bytes(b'{"format": 2, "sha256": ')
    gateway.start()
    identity = infer(gateway).headers["x-headworks-id"]
    status = gateway.wait_settled()
    erased = gateway.run("subject", "erase", "--decision", identity, "--reason", "asked by letter")

    assert status["state"] == "red"
    assert any("nothing is erased or retired" in words for words in status["words"])
    assert "holds.json" in str(status["governor"]["damaged_holds"])
    assert (erased.returncode, "holds.json" in erased.stderr) == (1, True)
