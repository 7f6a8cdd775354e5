"""A log on disk made of the pure core, and a witness daemon as a real process."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx2

from gateway.disk import write_durably
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.merkle import leaf_hash, prove_consistency
from gateway.ledger.note import Note, SignatureType, SigningKey, VerifierKey
from gateway.ledger.tiles import TileEdge, nodes_from
from gateway.outbound.witness import read_tile_of
from gateway.witness.submission import Submission

SEED = b"\x07" * 32
ROOT = Path(__file__).parents[2]


def log_key(origin: str, seed: bytes = SEED) -> SigningKey:
    return SigningKey(origin, SignatureType.ED25519, seed)


class Tree:
    """The log `origin` in `folder`: tiles and a signed checkpoint, as the ledger writes them."""

    def __init__(self, folder: Path, origin: str, seed: bytes = SEED) -> None:
        self.folder, self.key = folder, log_key(origin, seed)
        self.edge = TileEdge()
        folder.mkdir(parents=True, exist_ok=True)

    def grow(self, leaves: int, salt: str = "") -> "Tree":
        first = self.edge.size
        hashes = [leaf_hash(f"{salt}{first + n}".encode()) for n in range(leaves)]
        for tile, data in self.edge.extend(hashes):
            path = self.folder / tile.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        write_durably(self.folder / "checkpoint", self.note().encode())
        return self

    @property
    def point(self) -> Checkpoint:
        return Checkpoint(self.key.name, self.edge.size, self.edge.root())

    def note(self) -> Note:
        return Note(self.point.text, (self.point.sign(self.key),))

    def submission(self, old: int) -> Submission:
        proof = ()
        if 0 < old <= self.edge.size:
            proof = prove_consistency(
                old, self.edge.size, nodes_from(self.edge.size, read_tile_of(self.folder))
            )
        return Submission(old, proof, self.note())


class Daemon:
    """`headworks witness` on a free port; `state` survives stop and kill."""

    def __init__(self, state: Path, *trust: object, listen="127.0.0.1:0", name="witness.example/w"):
        self.state, self.trust, self.listen = state, [str(vkey) for vkey in trust], listen
        self.name = name
        self.lines: list[str] = []

    def command(self, *more: str) -> list[str]:
        trust = [part for vkey in self.trust for part in ("--trust", vkey)]
        return [
            sys.executable, "-m", "gateway", "witness", "--state", str(self.state),
            "--listen", self.listen, *trust, *more,
        ]  # fmt: skip

    def start(self) -> "Daemon":
        self.process = subprocess.Popen(
            self.command("--name", self.name),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        said, self.lines = [], []
        self._reader = threading.Thread(target=self._listen_to, daemon=True)
        self._reader.start()
        for line in self.process.stdout:
            said.append(line.strip())
            if line.startswith("listening on "):
                break
        else:
            raise RuntimeError("\n".join(said + self.lines))
        self.vkey = VerifierKey.parse(said[0].removeprefix("vkey "))
        self.url = said[-1].removeprefix("listening on ")
        return self

    def _listen_to(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)

    def post(self, body: bytes | Submission) -> httpx2.Response:
        data = body.encode() if isinstance(body, Submission) else body
        return httpx2.post(f"{self.url}/add-checkpoint", content=data, timeout=30)

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", timeout=30)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code
