"""The daemon as a real process: each answer of tlog-witness, and its memory through kills."""

import asyncio
import json
import socket
import subprocess
import time

import httpx2
import pytest
from tree import Daemon, Tree, log_key

from gateway.ledger.checkpoint import Checkpoint, Policy, open_checkpoint
from gateway.ledger.merkle import EMPTY_ROOT
from gateway.ledger.note import Note, Signature, SignatureType, SigningKey, sign
from gateway.witness.answer import read_cosignature
from gateway.witness.server import CONNECTIONS_MAX
from gateway.witness.state import ALARMS_PER_LOG_MAX, origin_hash
from gateway.witness.submission import BODY_BYTES_MAX, Submission

ORIGIN = "bank.example/models/mortgage/2026q4"


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "log", ORIGIN)


def status(answer) -> tuple[int, str, str]:
    return answer.status_code, answer.headers["content-type"].partition(";")[0], answer.text


def cosigned(daemon, tree, old):
    """The time in the cosignature that the daemon gives; it is checked."""
    answer = daemon.post(tree.submission(old))
    assert answer.status_code == 200, answer.text
    return read_cosignature(tree.point.text, answer.content, daemon.vkey)[1].timestamp


def test_a_log_is_followed_from_its_first_checkpoint_on(run, tree):
    """First from 0, then by proofs, again at one size; each answer is a right cosignature."""
    daemon = run()
    before = int(time.time())
    old = 0
    for more in (1, 1, 255, 300, 0, 70_000):
        tree.grow(more)
        assert before <= cosigned(daemon, tree, old) <= time.time()
        old = tree.edge.size
    policy = Policy(tree.key.verifier, (daemon.vkey,), 1)
    kept = daemon.get(f"/{origin_hash(ORIGIN)}/checkpoint")
    assert open_checkpoint(kept.content, policy).checkpoint == tree.point
    assert daemon.end() == 0


def test_the_empty_tree(run, tree):
    """An empty tree is cosigned with the root of nothing; with another root it is 422."""
    daemon = run()
    text = f"{ORIGIN}\n0\n{'A' * 43}=\n"
    wrong = Submission(0, (), Note(text, (sign(text, tree.key),)))
    assert daemon.post(wrong).status_code == 422
    point = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    right = Submission(0, (), Note(point.text, (point.sign(tree.key),)))
    assert daemon.post(right).status_code == 200
    assert daemon.post(right).status_code == 200
    cosigned(daemon, tree.grow(5), 0)


def test_the_wrong_old_size_is_409_with_the_known_one(run, tree):
    """The body is the known size and a newline, of the type text/x.tlog.size; nothing changes."""
    daemon = run()
    tree.grow(10)
    assert (409, "text/x.tlog.size", "0\n") == status(daemon.post(tree.submission(7)))
    cosigned(daemon, tree, 0)
    tree.grow(10)
    for old in (0, 3, 20):
        assert (409, "text/x.tlog.size", "10\n") == status(daemon.post(tree.submission(old)))
    cosigned(daemon, tree, 10)
    assert daemon.end() == 0


def test_old_over_the_checkpoint_s_size_is_400(run, tree):
    """Also where the old size is the known one."""
    daemon = run()
    tree.grow(10)
    smaller = tree.note()
    cosigned(daemon, tree.grow(10), 0)
    assert daemon.post(Submission(20, (), smaller)).status_code == 400
    assert daemon.post(Submission(21, (), tree.note())).status_code == 400


def test_whose_log_it_is(run, tree):
    """An unknown origin is 404; another key, a broken signature, also beside a right one: 403."""
    daemon = run()
    tree.grow(3)
    point, right = tree.point, tree.note().signatures[0]
    stranger = SigningKey(ORIGIN, SignatureType.ED25519, b"\x09" * 32)
    elsewhere = Tree(tree.folder.with_name("else"), "other.example/root").grow(3)
    broken = Signature(
        ORIGIN, right.key_id, right.signature[:-1] + bytes([right.signature[-1] ^ 1])
    )
    assert daemon.post(elsewhere.submission(0)).status_code == 404
    for lines in ((point.sign(stranger),), (broken,), (broken, right), (right, broken)):
        assert daemon.post(Submission(0, (), Note(point.text, lines))).status_code == 403, lines
    more = Note(point.text, (point.sign(stranger), right))
    answer = daemon.post(Submission(0, (), more))
    assert answer.status_code == 200
    kept = daemon.get(f"/{origin_hash(ORIGIN)}/checkpoint").text
    assert str(right) in kept
    assert str(point.sign(stranger)) not in kept


def test_the_root_s_key_signs_no_log_beyond_its_name(run, tmp_path):
    """NAME/root covers NAME/…, never NAMEsake/…; a plain vkey covers itself alone."""
    plain = log_key("plain.example/log", b"\x03" * 32)
    daemon = run(log_key("bank.example/root").verifier, plain.verifier)
    expected = [
        ("bank.example/root", b"\x07", 200),
        ("bank.example/models/m/2026q4", b"\x07", 200),
        ("bank.examplesake/root", b"\x07", 404),
        ("bank.example", b"\x07", 404),
        ("plain.example/log", b"\x03", 200),
        ("plain.example/log/2", b"\x03", 404),
        ("bank.example/models/m/2027q1", b"\x03", 403),
    ]
    for number, (origin, seed, code) in enumerate(expected):
        tree = Tree(tmp_path / str(number), origin, seed * 32).grow(2)
        assert (origin, code) == (origin, daemon.post(tree.submission(0)).status_code)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body.replace(b"old 0", b"old 00"),
        lambda body: body.replace(b"old 0", b"old -1"),
        lambda body: body.replace(b"old 0", b"Old 0"),
        lambda body: body.replace(b"old 0\n", b""),
        lambda body: body.replace(b"old 0\n\n", b"old 0\n"),
        lambda body: body.replace(b"old 0\n", b"old 0\nAAAA\n"),
        lambda body: body.replace(b"old 0\n", b"old 0\n" + b"A" * 43 + b"\n"),
        lambda body: body.replace(b"old 0\n", b"old 0\n" + (b"A" * 43 + b"=\n") * 64),
        lambda body: body.replace(b"\n5\n", b"\n05\n"),
        lambda body: body.replace(b"\n5\n", b"\n99999999999999999999\n"),
        lambda body: body.replace(b"old 0", b"old 9999999999999999999"),
        lambda body: body.replace(b"\n\n\xe2\x80\x94", b"\n\xe2\x80\x94"),
        lambda body: body + b"\xff",
        lambda body: body.replace(b"bank", b"\xff\xfe"),
    ],
)
def test_what_is_no_submission_is_400(shared, change):
    """Whatever is not of the form is 400; the log is not taken up."""
    daemon, tree = shared
    assert daemon.post(change(tree.submission(0).encode())).status_code == 400
    assert daemon.get(f"/{origin_hash(ORIGIN)}/checkpoint").status_code == 404


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    daemon = Daemon(folder / "witness", log_key("bank.example/root").verifier).start()
    yield daemon, Tree(folder / "log", ORIGIN).grow(5)
    daemon.end()


def test_other_paths_and_methods(shared):
    """GET of the protocol's path is 405, what is not there 404, page and numbers are there."""
    daemon, _ = shared
    assert daemon.get("/add-checkpoint").status_code == 405
    assert httpx2.delete(daemon.url).status_code == 405
    assert daemon.get("/nothing").status_code == 404
    assert str(daemon.vkey) in daemon.get("/").text
    assert "witness_alarms 0.0" in daemon.get("/metrics").text


def test_a_long_body_is_413(shared):
    """One byte over the limit, announced or not."""
    daemon, tree = shared
    assert daemon.post(b"x" * (BODY_BYTES_MAX + 1)).status_code == 413
    assert daemon.post(b"x" * BODY_BYTES_MAX).status_code == 400


def test_too_many_connections_are_closed_and_counted(shared):
    """Beyond the limit a connection is closed at once; when the others are gone, all is well."""
    daemon, _ = shared
    host, _, port = daemon.url.removeprefix("http://").rpartition(":")
    held = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS_MAX + 20)]
    closed = 0
    for each in held[CONNECTIONS_MAX:]:
        each.settimeout(20)
        try:
            closed += each.recv(1) == b""
        except ConnectionResetError:
            closed += 1
    assert closed == 20
    for each in held:
        each.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            text = daemon.get("/metrics").text
            break
        except httpx2.HTTPError:
            time.sleep(0.05)
    refused = next(line for line in text.splitlines() if line.startswith("witness_connections"))
    assert float(refused.split()[1]) >= 20


def fork(tree: Tree, leaves: int, common: int = 0) -> Tree:
    """Another tree of the same log: equal up to `common` leaves, different from there on."""
    other = Tree(tree.folder.with_name(f"fork-{leaves}"), ORIGIN)
    if common:
        other.grow(common)
    return other.grow(leaves - common, "forked ")


@pytest.mark.parametrize(("leaves", "kind"), [(20, "contradiction"), (35, "unproven")])
def test_a_fork_is_refused_and_remembered(run, tree, leaves, kind):
    """422, an alarm with both checkpoints that outlives a kill; the true log goes on; exit 1."""
    daemon = run()
    cosigned(daemon, tree.grow(20), 0)
    forked = fork(tree, leaves, 12)
    for _ in range(2):
        assert daemon.post(forked.submission(20)).status_code == 422
    assert f"ALARM {kind}" in "".join(daemon.lines)
    daemon.end(9)
    daemon.start()
    page = daemon.get("/").text
    assert page.count("\nALARM ") == 1
    assert forked.point.root.hex() in page
    assert "witness_alarms 1.0" in daemon.get("/metrics").text
    (path,) = (daemon.state / "alarms").iterdir()
    evidence = json.loads(path.read_bytes())
    refused = Submission.read(evidence["refused"].encode())
    for signed in (refused.note.encode(), evidence["cosigned"].encode()):
        open_checkpoint(signed, Policy(tree.key.verifier))  # both are the log's own words
    assert (kind, leaves) == (evidence["kind"], evidence["size"])
    cosigned(daemon, tree.grow(30), 20)
    assert daemon.end() == 1


def test_a_contradiction_is_seen_whatever_the_old_size(run, tree):
    """Two roots of one size are a fork, also where the protocol answers 409 or 400."""
    daemon = run()
    cosigned(daemon, tree.grow(20), 0)
    forked = fork(tree, 20)
    assert (409, "20\n") == status(daemon.post(forked.submission(0)))[::2]
    assert daemon.get("/").text.count("\nALARM ") == 1


def test_a_fork_that_grows_fills_no_disk(run, tree):
    """Alarms of one log are bounded; the rest is counted."""
    daemon = run()
    cosigned(daemon, tree.grow(20), 0)
    forked = fork(tree, 30)
    for _ in range(ALARMS_PER_LOG_MAX + 3):
        assert daemon.post(forked.grow(1, "more").submission(20)).status_code == 422
    assert len(list((daemon.state / "alarms").iterdir())) == ALARMS_PER_LOG_MAX
    assert "3 more since the start" in daemon.get("/").text


def test_a_wrong_proof_of_the_true_log_is_an_alarm_until_it_is_proved(run, tree):
    """Who sends a true checkpoint with a wrong proof is refused; the right proof settles it."""
    daemon = run()
    cosigned(daemon, tree.grow(20), 0)
    right = tree.grow(20).submission(20)
    wrong = Submission(20, right.proof[:-1], right.note)
    assert daemon.post(wrong).status_code == 422
    assert daemon.get("/").text.count("\nALARM ") == 1
    assert daemon.post(right).status_code == 200
    assert daemon.get("/").text.count("\nALARM ") == 0
    assert daemon.end() == 0


def test_a_proof_from_nothing_is_422(run, tree):
    """From old size 0 no proof may be sent."""
    daemon = run()
    given = Submission(0, (b"\x00" * 32,), tree.grow(5).note())
    assert daemon.post(given).status_code == 422


def test_an_older_backup_is_not_cosigned(run, tree):
    """The smaller checkpoint of a restored backup gets the known size, never a signature."""
    daemon = run()
    tree.grow(50)
    backup = tree.submission(0)
    cosigned(daemon, tree, 0)
    cosigned(daemon, tree.grow(50), 50)
    for old in (0, 50):
        assert (409, "100\n") == status(daemon.post(Submission(old, (), backup.note)))[::2]
    regrown = fork(tree, 100, 50)
    assert daemon.post(regrown.submission(100)).status_code == 422
    assert daemon.end() == 1


def test_kill_after_each_answer_forgets_nothing(run, tree):
    """kill -9 right after each answer: the next start knows that very size."""
    daemon = run()
    old = 0
    vkey = daemon.vkey
    for _ in range(5):
        cosigned(daemon, tree.grow(7), old)
        daemon.end(9)
        daemon.start()
        assert daemon.vkey == vkey
        assert (409, f"{tree.edge.size}\n") == status(daemon.post(tree.submission(1)))[::2]
        old = tree.edge.size


async def press(daemon: Daemon, trees: list[Tree], reached: list[int], until: int) -> None:
    """Grow and submit all logs at once; kill -9 once the first has `until` leaves cosigned."""
    async with httpx2.AsyncClient(timeout=30) as client:

        async def follow(number: int) -> None:
            for _ in range(200):
                tree = trees[number].grow(3)
                body = tree.submission(reached[number]).encode()
                try:
                    answer = await client.post(f"{daemon.url}/add-checkpoint", content=body)
                except httpx2.HTTPError:
                    return
                assert answer.status_code == 200
                reached[number] = tree.edge.size
                if number == 0 and reached[0] >= until:
                    daemon.process.kill()

        await asyncio.gather(*map(follow, range(len(trees))))


def test_kill_in_the_middle_of_work_never_sets_back(run, tmp_path):
    """kill -9 under load: no log is found at a size below the last one that was cosigned."""
    daemon = run()
    trees = [Tree(tmp_path / f"log-{n}", f"bank.example/models/m/{n}") for n in range(3)]
    reached = [0, 0, 0]
    for turn in range(4):
        asyncio.run(press(daemon, trees, reached, 30 * (turn + 1)))
        daemon.end(9)
        daemon.start()
        for number, tree in enumerate(trees):
            known = int(daemon.post(tree.submission(1)).text)
            assert reached[number] <= known <= tree.edge.size
            if known < tree.edge.size:
                cosigned(daemon, tree, known)
            reached[number] = tree.edge.size
    assert daemon.end() == 0


def test_two_logs_at_once_and_one_log_twice(run, tmp_path):
    """Origins do not hinder each other; of two ways on from one size only one is cosigned."""
    daemon = run()
    trees = [Tree(tmp_path / f"log-{n}", f"bank.example/models/m/{n}").grow(9) for n in range(8)]
    rival = Tree(tmp_path / "rival", trees[0].key.name).grow(12, "rival ")

    async def submit() -> list[int]:
        async with httpx2.AsyncClient(timeout=30) as client:
            bodies = [tree.submission(0).encode() for tree in (*trees, rival)]
            url = f"{daemon.url}/add-checkpoint"
            answers = await asyncio.gather(*(client.post(url, content=body) for body in bodies))
            return [answer.status_code for answer in answers]

    told = asyncio.run(submit())
    assert told[1:8] == [200] * 7
    assert sorted((told[0], told[8])) == [200, 409]


def test_one_daemon_a_state(run, tree):
    """A second daemon on one state is refused with 74, and so is a state that is not whole."""
    daemon = run()
    cosigned(daemon, tree.grow(4), 0)
    second = Daemon(daemon.state, *daemon.trust)

    def refused(*more: str) -> tuple[int, str]:
        done = subprocess.run(second.command(*more), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    assert refused()[0] == 74
    assert daemon.end() == 0
    kept = daemon.state / "logs" / origin_hash(ORIGIN)
    whole = kept.read_bytes()
    kept.write_bytes(whole.replace(b"\n4\n", b"\n3\n"))
    code, words = refused()
    assert (code, True) == (74, origin_hash(ORIGIN) in words)
    kept.write_bytes(whole)
    key = daemon.state / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    secret = key.read_bytes()
    key.unlink()
    assert refused()[0] == 74
    key.write_bytes(secret)
    assert refused("--name", "someone.else/w")[0] == 2
    (daemon.state / "alarms").rmdir()
    assert refused()[0] == 74


def test_wrong_use_is_2(tmp_path, run):
    """A key that is none, a witness's key, a port that is taken: 2 and one line naming it."""
    daemon = run()
    witness = SigningKey("w", SignatureType.COSIGNATURE, b"\x01" * 32).verifier
    log = log_key("a.example/root").verifier
    taken = daemon.url.removeprefix("http://")
    for trust, listen, named in (
        ("nonsense", "127.0.0.1:0", "--trust"), (str(witness), "127.0.0.1:0", "--trust"),
        (str(log), taken, "--listen"), (str(log), "nowhere", "--listen"),
        (str(log), "127.0.0.1:99999", "--listen"),
    ):  # fmt: skip
        other = Daemon(tmp_path / "other", trust, listen=listen)
        done = subprocess.run(other.command(), capture_output=True, text=True, timeout=60)
        assert (done.returncode, True) == (2, named in done.stderr), done.stderr


def test_a_state_that_cannot_be_written_ends_the_daemon(run, tree, tmp_path):
    """No cosignature without the disk: 500, then 74; with the disk back it goes on."""
    daemon = run()
    cosigned(daemon, tree.grow(4), 0)
    logs, aside = daemon.state / "logs", tmp_path / "aside"
    logs.rename(aside)
    assert daemon.post(tree.grow(4).submission(4)).status_code == 500
    assert daemon.process.wait(30) == 74
    aside.rename(logs)
    daemon.start()
    cosigned(daemon, tree, 4)
