"""What compliance buys, tried as its users do: against one running gateway, with its commands, and
with nothing but Python where a stranger checks."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import orjson
import pyarrow.parquet as pq
import pytest
from gateway_process import KEY, GatewayProcess, body
from traces import assert_the_search_finds, files_that_hold, number_needles, text_needles

from gateway.ledger.bodies import BodyReader
from gateway.ledger.keyfiles import Erased
from gateway.ledger.log import LedgerReader

NAME = "Ottilie-Quackenbush-4711"
INCOME = 0.87654321


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    made = GatewayProcess(
        tmp_path_factory.mktemp("evidence"),
        edit=lambda text: text.replace("expose: [id,", "expose: [id, receipt,"),
    ).start()
    yield made
    made.stop()


def ask(gateway, subject: str = "ben", **changes) -> httpx2.Response:
    headers = KEY | {"x-headworks-subject": subject, "x-applicant": subject}
    url = f"http://{gateway.data}/v2/models/mortgage/infer"
    return httpx2.post(url, content=body(**changes), headers=headers)


def command(gateway, *words: str, told: str | None = None):
    done = subprocess.run(
        gateway.command(*words), capture_output=True, text=True, timeout=60, input=told
    )
    return done.returncode, done.stdout, done.stderr


def offline(*words: str):
    command = [sys.executable, "-m", "gateway", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def ledger(gateway) -> str:
    return str(gateway.folder / "state" / "ledger")


def wait_signed(gateway) -> None:
    """Until a checkpoint covers every leaf."""
    gateway.wait_settled()
    told = gateway.api("/api/v1/status")["governor"]
    while sum(log["size"] for log in told["ledger"]["logs"].values()) < told["leaves"]:
        told = gateway.api("/api/v1/status")["governor"]


def test_the_ledger_of_a_running_gateway_verifies(gateway):
    """`headworks ledger verify` recomputes all of it, and finds one flipped byte in a copy."""
    for number in range(20):
        ask(gateway, f"many-{number}")
    wait_signed(gateway)
    code, text, words = offline("ledger", "verify", ledger(gateway))
    assert code == 0, text + words
    copy = gateway.folder / "copy"
    shutil.copytree(ledger(gateway), copy)
    entries = next((copy / "models" / "mortgage").glob("*/tail/*"))
    data = bytearray(entries.read_bytes())
    data[len(data) // 2] ^= 1
    entries.write_bytes(data)
    code, text, words = offline("ledger", "verify", str(copy))

    assert code == 1
    assert "FAULT" in text


def test_a_stranger_checks_an_answer_with_its_receipt(gateway, tmp_path):
    """The bundle proves the leaf, agrees with the caller's receipt, and is checked by a Python
    that has no Headworks; a changed leaf is found."""
    answer = ask(gateway, "receipted")
    identity, receipt = answer.headers["x-headworks-id"], tmp_path / "receipt.txt"
    receipt.write_text(answer.headers["x-headworks-receipt"])
    wait_signed(gateway)
    code, text, words = command(
        gateway, "ledger", "prove", identity, "--receipt", str(receipt), "--out",
        str(tmp_path / "bundle"), "--ledger", ledger(gateway), "--body", "the caller's complaint",
    )  # fmt: skip
    assert code == 0, text + words
    assert "agree" in text
    assert body() in (tmp_path / "bundle" / "body.bin").read_bytes()
    check = [sys.executable, "-I", str(tmp_path / "bundle" / "verify_evidence.py"),
             str(tmp_path / "bundle")]  # fmt: skip
    done = subprocess.run(check, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    leaf = tmp_path / "bundle" / "leaf.json"
    leaf.write_bytes(leaf.read_bytes().replace(b'"status":200', b'"status":201'))
    assert subprocess.run(check, capture_output=True, cwd="/").returncode == 1


def test_a_receipt_without_a_leaf_shows_that_it_is_missing(gateway, tmp_path):
    """A receipt that nobody recorded is told as such."""
    answer = ask(gateway, "lost")
    parts = answer.headers["x-headworks-receipt"].split(".")
    other = "01a20ab7-8155-73ef-8f76-72240673c24e"
    (tmp_path / "receipt.txt").write_text(".".join([parts[0], other, *parts[2:]]))
    wait_signed(gateway)
    code, _, words = offline(
        "ledger", "prove", other, "--receipt", str(tmp_path / "receipt.txt"), "--out",
        str(tmp_path / "bundle"), "--ledger", ledger(gateway),
    )  # fmt: skip

    assert (1, True) == (code, "missing" in words)


def test_the_tiles_are_handed_out_as_files(gateway):
    """/ledger/ gives checkpoints and tiles and nothing else."""
    wait_signed(gateway)
    url = f"http://{gateway.admin}/ledger"
    text = httpx2.get(f"{url}/root/checkpoint").text
    size = int(text.splitlines()[1])
    width = size % 256
    entries = httpx2.get(f"{url}/root/tile/entries/000.p/{width}")

    assert text.splitlines()[0].endswith("/root")
    assert (200, True) == (entries.status_code, b'"kind":"start"' in entries.content)
    for hidden in ("root/tail/0", "committed", "order/00000000000000000000.order", "../keys",
                   "root/tile/../tail/0", "%2e%2e/keys/ledger/seed"):  # fmt: skip
        assert httpx2.get(f"{url}/{hidden}").status_code == 404


def test_the_catalog_is_made_again_while_serving(gateway):
    """Every answer of the API is the same before and after."""
    ask(gateway, "before the rebuild", lvr=2.0)
    gateway.wait_settled()
    listed = "/api/v1/decisions?limit=1000"
    one = [f"/api/v1/decisions/{row['id']}" for row in gateway.api(listed)["decisions"]]
    asked = ("?outcome=deny", "?arm=shadow", "?status=200", "?version=v1&limit=1")
    paths = [listed, *one, *(f"/api/v1/decisions{each}" for each in asked), "/api/v1/models",
             "/api/v1/monitor/mortgage", "/api/v1/monitor/mortgage/performance",
             "/api/v1/alerts"]  # fmt: skip

    def told() -> list[dict[str, object]]:
        """But for the moment at which counts were found."""
        answers = [gateway.api(path) for path in paths]
        return [{k: v for k, v in each.items() if k != "counted_at"} for each in answers]

    before = told()
    code, text, words = command(gateway, "ledger", "rebuild-catalog")

    assert code == 0, text + words
    assert before == told()
    ask(gateway, "after the rebuild")
    gateway.wait_settled()
    assert len(gateway.api(paths[0])["decisions"]) > len(before[0]["decisions"])


@pytest.mark.timeout(300)
def test_an_erased_person_is_in_no_file(gateway, tmp_path):
    """Found by name on standard input, erased by token: no file under state and keys, no later
    export and no body that can still be read holds their name or values, in whatever encoding;
    exports that held them are named, and every proof still verifies."""
    needles = text_needles(NAME) | number_needles(INCOME)
    assert_the_search_finds(tmp_path / "control", NAME, INCOME, needles)
    identities = [ask(gateway, NAME, lvr=INCOME).headers["x-headworks-id"] for _ in range(3)]
    ask(gateway, "somebody else", lvr=0.5)
    gateway.wait_settled()
    day = gateway.api(f"/api/v1/decisions/{identities[0]}")["record"]["wall"][:10]
    export = ("ledger", "export", "--model", "mortgage", "--day", day, "--purpose",
              "a yearly audit", "--values", "--parquet")  # fmt: skip
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    code, exported, words = command(gateway, *export, str(tmp_path / "before"))
    assert code == 0, words
    assert files_that_hold(tmp_path / "before", needles, tmp_path)
    code, text, words = command(gateway, "subject", "find", told=NAME + "\n")
    assert code == 0, words
    token = text.split()[1].strip(":")
    code, text, words = command(gateway, "subject", "erase", token, "--reason", "asked by letter")
    assert code == 0, words
    told = gateway.reveal(identities[0])
    wait_signed(gateway)
    verified, words, _ = offline("ledger", "verify", ledger(gateway))

    assert exported.split()[1].strip(":") in text
    assert (None, "erased") == (told["features"], told["explanation"]["not_explained"])
    assert verified == 0, words
    code, _, words = command(gateway, *export, str(tmp_path / "after"))
    assert code == 0, words
    for folder in (gateway.folder / "state", gateway.folder / "keys", tmp_path / "after"):
        assert [] == files_that_hold(folder, needles, tmp_path)
    assert len(list((tmp_path / "after").iterdir())) == 1
    readable = list(readable_bodies(gateway))
    assert len(readable) >= 1
    assert not any(needle in body for body in readable for needle in needles)
    code, text, _ = command(gateway, "subject", "find", told=NAME + "\n")
    assert code == 1


def readable_bodies(gateway) -> Iterator[bytes]:
    """What every body that any key still opens says."""
    bodies = BodyReader(gateway.folder / "state", gateway.folder / "keys")
    for _, leaf in LedgerReader(gateway.folder / "state").read(10**9):
        told = orjson.loads(leaf)
        for place in (told.get("body"), told.get("decisions_at")):
            with suppress(Erased):
                if place is not None:
                    yield bodies.read(told["record"]["id"], place)
    bodies.close()


def test_a_hold_defers_an_erasure_until_its_release(gateway):
    """Held is held; the release completes what waited."""
    identity = ask(gateway, "held person").headers["x-headworks-id"]
    gateway.wait_settled()
    code, text, _ = command(gateway, "subject", "hold", "mortgage", "--reason", "case 12 of 2026")
    hold = text.split()[1]
    assert code == 0
    erase = ("subject", "erase", "--decision", identity, "--reason", "asked by letter")
    code, text, _ = command(gateway, *erase)
    assert (1, True) == (code, "deferred" in text)
    assert gateway.reveal(identity)["features"] is not None
    code, text, _ = command(gateway, "subject", "release", hold, "--reason", "case 12 is over")
    assert (0, True) == (code, "1 deferred" in text)
    told = gateway.reveal(identity)
    assert told["features"] is None
    assert any("its key was destroyed" in sentence for sentence in told["words"])


def test_an_export_has_values_only_when_asked(gateway, tmp_path):
    """Without --values the file has scores and outcomes; each export is a leaf with its purpose."""
    identity = ask(gateway, "exported").headers["x-headworks-id"]
    gateway.wait_settled()
    day = gateway.api(f"/api/v1/decisions/{identity}")["record"]["wall"][:10]
    export = ("ledger", "export", "--parquet", str(tmp_path), "--model", "mortgage", "--day", day,
              "--purpose", "monthly report")  # fmt: skip
    code, text, words = command(gateway, *export)
    assert code == 0, words
    (file,) = tmp_path.iterdir()
    table = pq.read_table(file)
    leaves = [orjson.loads(leaf) for _, leaf in LedgerReader(gateway.folder / "state").read(10**9)]

    assert "values" not in table.column_names
    assert identity in table.column("id").to_pylist()
    assert "monthly report" in [
        leaf["record"]["purpose"] for leaf in leaves if leaf["kind"] == "export"
    ]
    code, _, words = command(gateway, *export[:-3], "someday", *export[-2:])
    assert (2, True) == (code, "someday" in words)
