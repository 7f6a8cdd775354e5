"""The gateway's side: what is cosigned is kept, what goes wrong is said, nothing waits."""

import asyncio
import shutil
import time
from contextlib import asynccontextmanager

import pytest
from tree import Tree, log_key

from gateway.clock import SystemClock
from gateway.ledger import note
from gateway.ledger.checkpoint import Policy, open_checkpoint
from gateway.ledger.note import SignatureType, SigningKey, cosign
from gateway.outbound import witness as outbound
from gateway.outbound.witness import Witnesses
from gateway.telemetry.metrics import Metrics
from gateway.witness.submission import Submission

NAME = "bank.example"
LIAR = SigningKey("liar.example/w", SignatureType.COSIGNATURE, b"\x21" * 32)
STRANGER = SigningKey("liar.example/w", SignatureType.COSIGNATURE, b"\x22" * 32)
PATIENCE_S = 30


class LeapingClock(SystemClock):
    leapt = 0

    def steady(self) -> int:
        return super().steady() + self.leapt


class Ledger:
    """A ledger folder with a root log and one of a model."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.root = Tree(folder / "root", f"{NAME}/root")
        self.model = Tree(folder / "models/mortgage/2026q4", f"{NAME}/models/mortgage/2026q4")

    def grow(self, leaves: int) -> "Ledger":
        self.root.grow(1)
        self.model.grow(leaves)
        return self

    def witnessed(self, tree: Tree, *keys, quorum=None):
        policy = Policy(tree.key.verifier, keys, len(keys) if quorum is None else quorum)
        return open_checkpoint((tree.folder / "witnessed").read_bytes(), policy).checkpoint


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def watching(ledger, *witnesses, quorum=0, clock=None) -> Witnesses:
    given = [(str(each.vkey), each.url) for each in witnesses]
    return Witnesses(
        ledger.folder, given, quorum, Metrics("test"), clock or LeapingClock(), round_s=0.02
    )


@asynccontextmanager
async def kept(witnesses):
    """Rounds in the background; the task is told to stop, and must."""
    stopping = asyncio.Event()
    task = asyncio.get_running_loop().create_task(witnesses.keep_witnessed(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, PATIENCE_S)


async def until(holds) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        await asyncio.sleep(0.01)


def level(witnesses) -> bool:
    """Nothing waits for any witness, and both logs were seen."""
    told = witnesses.document()["witnesses"]
    return all(each["lag_records"] == 0 and each["logs"] and each["cosigned"] for each in told)


def count(witnesses, answer: str) -> float:
    name = witnesses.keys[0].name
    found = witnesses.metrics.registry.get_sample_value(
        "headworks_witness_answers_total", {"witness": name, "answer": answer}
    )
    return found or 0.0


def keep_until(witnesses, holds) -> None:
    async def story() -> None:
        async with kept(witnesses):
            await until(holds)

    asyncio.run(story())


def test_each_log_s_news_is_cosigned_and_kept(run, ledger):
    """`witnessed` holds the newest checkpoint with the log's and both witnesses' signatures."""
    one = run(log_key(f"{NAME}/root").verifier, state="one")
    two = run(log_key(f"{NAME}/root").verifier, state="two", name="witness.example/2")
    ledger.grow(300)
    witnesses = watching(ledger, one, two, quorum=2)

    async def story() -> None:
        async with kept(witnesses):
            for more in (0, 1, 255, 700, 3):
                if more:
                    ledger.grow(more)
                await until(lambda: all(newest(tree) for tree in (ledger.root, ledger.model)))

    def newest(tree) -> bool:
        try:
            return ledger.witnessed(tree, one.vkey, two.vkey) == tree.point
        except (FileNotFoundError, note.Unsigned):
            return False

    asyncio.run(story())
    document = witnesses.document()
    assert (document["words"], document["red"]) == ([], [])
    assert [each["lag_records"] for each in document["witnesses"]] == [0, 0]
    assert f"{ledger.model.edge.size} " in one.get("/").text
    assert count(witnesses, "conflict") == 0


def test_a_restart_goes_on_from_what_is_kept(run, ledger):
    """With `witnessed` the first proof fits; without it the witness says the size to go on from."""
    daemon = run()
    keep_until(first := watching(ledger.grow(10), daemon), lambda: level(first))
    ledger.grow(10)
    keep_until(second := watching(ledger, daemon), lambda: level(second))
    assert "conflict" not in daemon.get("/").text
    (ledger.model.folder / "witnessed").unlink()
    ledger.grow(10)
    keep_until(third := watching(ledger, daemon), lambda: level(third))
    assert "conflict 1" in daemon.get("/").text
    assert ledger.witnessed(ledger.model, daemon.vkey) == ledger.model.point


def test_a_witness_that_is_down_is_said_and_caught_up_with(run, ledger):
    """Down: words with the reason once it is long, no alarm. Up again: everything cosigned."""
    daemon = run()
    daemon.listen = daemon.url.removeprefix("http://")
    clock = LeapingClock()
    witnesses = watching(ledger.grow(10), daemon, clock=clock)
    daemon.end()

    async def story() -> None:
        async with kept(witnesses):
            await until(lambda: count(witnesses, "unreachable"))
            assert witnesses.document()["words"] == []
            clock.leapt += 200 * 10**9
            await until(lambda: count(witnesses, "unreachable") == 2)
            document = witnesses.document()
            assert document["red"] == []
            (words,) = document["words"]
            assert words.startswith("witness witness.example/w is 3 min behind: ConnectError")
            assert document["witnesses"][0]["lag_records"] == 11
            daemon.start()
            clock.leapt += 200 * 10**9
            await until(lambda: level(witnesses))
            assert witnesses.document()["words"] == []

    asyncio.run(story())


class Liar:
    """A server that answers every submission as a test says: (status, body), or None: never."""

    def __init__(self, answer) -> None:
        self.answer, self.asked = answer, 0
        self.vkey = LIAR.verifier

    @asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()

    async def _serve(self, reader, writer) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.asked += 1
            answer = self.answer(Submission.read(body))
            if answer is None:
                await reader.read()
            elif isinstance(answer, bytes):
                writer.write(answer)
            else:
                status, text = answer
                sent = text.encode()
                writer.write(b"HTTP/1.1 %d Told\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
                             % (status, len(sent)) + sent)  # fmt: skip
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def lies(key=LIAR, text=None, at=1_700_000_000):
    return lambda sent: (200, str(cosign(text or sent.note.text, key, at)))


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (lies(STRANGER), "nonsense"),
        (lies(text="bank.example/root\n7\nnonsense\n"), "nonsense"),
        (lies(at=0), "nonsense"),
        (lambda sent: (200, ""), "nonsense"),
        (lambda sent: (200, "\x00\xff"), "nonsense"),
        (lambda sent: (200, "x" * (outbound.ANSWER_BYTES_MAX + 1)), "nonsense"),
        (lambda sent: (409, "many\n"), "nonsense"),
        (lambda sent: (409, f"{sent.old}\n"), "conflict"),
        (lambda sent: (404, "unknown\n"), "refused"),
        (lambda sent: (403, "unsigned\n"), "refused"),
        (lambda sent: (500, "broken\n"), "failed"),
        (lambda sent: (302, "elsewhere\n"), "failed"),
        (lambda sent: b"nonsense\r\n\r\n", "unreachable"),
        (lambda sent: b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf", "unreachable"),
        (lambda sent: b"", "unreachable"),
        (lambda sent: None, "slow"),
    ],
)
def test_a_lying_witness_is_not_believed_and_hinders_no_other(
    run, ledger, monkeypatch, answer, counted
):
    """Slow, garbage, wrong signatures: taken down as such, no alarm; the honest one's are kept."""
    monkeypatch.setattr(outbound, "TIMEOUT_S", 1.0)
    daemon = run()

    async def story() -> None:
        async with Liar(answer).serving() as liar:
            clock = LeapingClock()
            witnesses = watching(ledger.grow(10), liar, daemon, clock=clock)
            async with kept(witnesses):
                await until(lambda: count(witnesses, counted) >= 1)
                await until(lambda: (ledger.model.folder / "witnessed").exists())
                assert ledger.witnessed(ledger.model, daemon.vkey) == ledger.model.point
                clock.leapt += 90 * 10**9
                document = witnesses.document()
                assert document["red"] == []
                assert [words.split()[1] for words in document["words"]] == [LIAR.name]
                assert document["witnesses"][1]["lag_records"] == 0
            assert b"liar" not in (ledger.model.folder / "witnessed").read_bytes()

    asyncio.run(story())


def test_a_failing_witness_is_asked_later_and_later(ledger):
    """Not once a round: ten seconds, then twenty, up to five minutes by the steady clock.

    A pause is counted from when the failure was taken down, so that is what the clock waits for.
    """

    async def story() -> None:
        async with Liar(lambda sent: (500, "no")).serving() as liar:
            clock = LeapingClock()
            witnesses = watching(ledger.grow(1), liar, clock=clock)
            async with kept(witnesses):
                (standing,) = witnesses.standings
                await until(lambda: standing.failures == 1)
                for number, pause in enumerate((10, 20, 60, 120, 300, 300), 1):
                    clock.leapt += (pause - 3) * 10**9
                    await asyncio.sleep(0.2)  # several rounds
                    assert liar.asked == number
                    clock.leapt += 3 * 10**9
                    await until(lambda number=number: standing.failures == number + 1)
                    assert liar.asked == number + 1

    asyncio.run(story())


def copied(ledger: Ledger, folder) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ledger.model.folder, folder)


def test_a_forked_ledger_is_an_alarm(run, ledger, tmp_path):
    """Another past under the same key: red, with log and witness; the true one clears it."""
    daemon = run()
    keep_until(first := watching(ledger.grow(20), daemon), lambda: level(first))
    ledger.grow(20)
    copied(ledger, tmp_path / "true")
    held = (ledger.model.folder / "witnessed").read_bytes()
    shutil.rmtree(ledger.model.folder)
    forked = Tree(ledger.model.folder, ledger.model.key.name).grow(50, "forked ")
    (ledger.model.folder / "witnessed").write_bytes(held)
    clock = LeapingClock()
    witnesses = watching(ledger, daemon, clock=clock)

    async def story() -> None:
        async with kept(witnesses):
            await until(lambda: witnesses.document()["red"])
            (red,) = witnesses.document()["red"]
            assert red.startswith(f"witness {daemon.vkey.name}: {forked.key.name} with 50 leaves")
            assert (ledger.model.folder / "witnessed").read_bytes() == held
            assert " unproven: " in daemon.get("/").text
            shutil.rmtree(ledger.model.folder)
            shutil.copytree(tmp_path / "true", ledger.model.folder)
            clock.leapt += (outbound.LATER_S + 1) * 10**9
            await until(lambda: level(witnesses))
            assert witnesses.document()["red"] == []

    asyncio.run(story())
    assert ledger.witnessed(ledger.model, daemon.vkey) == ledger.model.point


@pytest.mark.parametrize("with_witnessed", [True, False])
def test_a_restored_old_backup_is_an_alarm(run, ledger, tmp_path, with_witnessed):
    """A ledger shorter than what was cosigned is red, whatever of `witnessed` came back with it."""
    daemon = run()
    keep_until(first := watching(ledger.grow(20), daemon), lambda: level(first))
    copied(ledger, tmp_path / "backup")
    held = ledger.grow(20) and watching(ledger, daemon)
    keep_until(held, lambda: level(held))
    newest = (ledger.model.folder / "witnessed").read_bytes()
    shutil.rmtree(ledger.model.folder)
    shutil.copytree(tmp_path / "backup", ledger.model.folder)
    if with_witnessed:
        (ledger.model.folder / "witnessed").write_bytes(newest)
    else:  # news is needed: a ledger that is only old and silent is what it says it is
        (ledger.model.folder / "witnessed").unlink()
    keep_until(restored := watching(ledger, daemon), lambda: restored.document()["red"])
    (red,) = restored.document()["red"]
    assert "had 40 leaves when it was cosigned, and has 20 now" in red


def test_a_witness_that_forgot_is_said(run, ledger):
    """Its state is set back: a word, and it is brought up again."""
    daemon = run()
    witnesses = watching(ledger.grow(20), daemon)
    keep_until(witnesses, lambda: level(witnesses))
    daemon.end()
    for kept_by_it in (daemon.state / "logs").iterdir():
        kept_by_it.unlink()
    daemon.start()
    again = watching(ledger.grow(20), daemon)
    keep_until(again, lambda: level(again))
    (words,) = again.document()["words"]
    assert "remembers 0: its state was lost or set back" in words


def test_tiles_that_do_not_give_the_checkpoint_are_not_sent(run, ledger):
    """Damage here is no fork there: nothing is submitted, the reason is told, the root goes on."""
    daemon = run()
    ledger.grow(20)
    (tile,) = (ledger.model.folder / "tile/0").rglob("20")
    tile.write_bytes(bytes(640))
    witnesses = watching(ledger, daemon)
    keep_until(witnesses, lambda: count(witnesses, "not_sent") and count(witnesses, "cosigned"))
    told = witnesses.document()
    assert "tiles and checkpoint differ" in told["witnesses"][0]["trouble"]
    assert told["red"] == []
    assert ledger.witnessed(ledger.root, daemon.vkey) == ledger.root.point
    assert not (ledger.model.folder / "witnessed").exists()


def test_logs_that_go_are_forgotten_and_garbage_is_passed_by(run, ledger):
    """Retention takes a log away; a checkpoint or `witnessed` that is none stops no other log."""
    daemon = run()
    witnesses = watching(ledger.grow(5), daemon)
    (ledger.folder / "models/other/2026q1").mkdir(parents=True)
    (ledger.folder / "models/other/2026q1/checkpoint").write_bytes(b"nonsense")
    (ledger.model.folder / "witnessed").write_bytes(b"nonsense")

    async def story() -> None:
        async with kept(witnesses):
            await until(lambda: level(witnesses))
            assert witnesses.document()["witnesses"][0]["logs"] == 2
            (ledger.folder / "models").rename(ledger.folder / "retired")
            await until(lambda: witnesses.document()["witnesses"][0]["logs"] == 1)

    asyncio.run(story())


def test_it_may_be_cancelled_at_any_time(ledger):
    """Cancelled while a witness hangs, it ends at once and leaves no half file."""

    async def story() -> None:
        async with Liar(lambda sent: None).serving() as liar:
            witnesses = watching(ledger.grow(5), liar)
            work = witnesses.keep_witnessed(asyncio.Event())
            task = asyncio.get_running_loop().create_task(work)
            await until(lambda: liar.asked)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, PATIENCE_S)

    asyncio.run(story())
    assert not list(ledger.folder.rglob("*witnessed*"))
    assert asyncio.run(watching(ledger).keep_witnessed(asyncio.Event())) is None
