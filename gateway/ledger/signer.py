"""Checkpoints: each log's tiles, made and signed; each log's tree goes on from its last checkpoint.

    <log>/tile/<L>/<N>[.p/<W>], <log>/tile/entries/<N>[.p/<W>]      static, for any web server
    <log>/checkpoint                                               the newest signed note
    keys/ledger/name, keys/ledger/seed                             whose ledger this is, and its key
    keys/ledger/signed                                             the sizes and roots last signed

Invariants:
1. What is signed is durable: the order has it, and its tiles and bundles are on the disk.
2. Sizes only rise. What was last signed lies beside the key, written before the checkpoint: state
   that is older than that (a restored backup, a cut file) is refused, not signed again.
3. A key is made only for an empty ledger. One key signs all logs, each under its origin.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

from gateway.disk import sync_folder, write_durably, write_whole
from gateway.ledger import note
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.entries import EntryReader, LedgerDamaged, tail_path
from gateway.ledger.log import Ledger
from gateway.ledger.merkle import leaf_hash
from gateway.ledger.names import ROOT, origin_of
from gateway.ledger.note import SignatureType, SigningKey, VerifierKey
from gateway.ledger.tiles import TILE_HEIGHT, TILE_WIDTH, Bundle, Tile, TileEdge

CHECKPOINTS_KEPT = 8
"""Partial tiles of so many checkpoints stay: readers of a checkpoint find its tiles for a while."""
LEAVES_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """The ledger's name and its key; `of(log)` signs under the log's own origin."""

    name: str
    seed: bytes

    def of(self, log: str) -> SigningKey:
        return SigningKey(origin_of(self.name, log), SignatureType.ED25519, self.seed)

    def verifier(self, log: str) -> VerifierKey:
        return self.of(log).verifier


def open_key(keys: Path, name: str | None, *, begun: bool) -> LedgerKey:
    """The key that is there; a new one only for a ledger that has not begun.

    FileNotFoundError: the ledger has begun and its key is not there.
    """
    folder = keys / "ledger"
    if not begun and not (folder / "seed").exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        seed = os.urandom(32)
        told = name or f"headworks-{sha256(seed).hexdigest()[:8]}"
        write_durably(folder / "name", told.encode())
        write_durably(folder / "seed", seed)
    return LedgerKey((folder / "name").read_text(), (folder / "seed").read_bytes())


@dataclass(slots=True)
class Signed:
    """What was last said of a log, and the sizes whose partial tiles are still there."""

    size: int
    root: str
    recent: list[int]


class _Tree:
    """One log's tree, from its last checkpoint on."""

    def __init__(self, root: Path, signed: Signed | None) -> None:
        self.root = root
        self.recent = signed.recent if signed else []
        size = signed.size if signed else 0
        self.edge = TileEdge.of(size, self._read) if size else TileEdge()
        if signed and self.edge.root().hex() != signed.root:
            raise LedgerDamaged(f"{root}: the tiles do not give the root that was signed")

    def _read(self, tile: Tile) -> bytes:
        full = Tile(tile.level, tile.number)
        for found in (tile, full):
            try:
                return (self.root / found.path).read_bytes()
            except FileNotFoundError:
                continue
        raise LedgerDamaged(f"{self.root}: {tile.path} is missing")

    def grow(self, size: int) -> None:
        """Take up the entries up to `size`: tiles and the partial bundle become durable."""
        reader = EntryReader(self.root)
        touched: set[Path] = set()
        while self.edge.size < size:
            upto = min(size, self.edge.size + LEAVES_AT_ONCE)
            hashes = [leaf_hash(reader.read(index)) for index in range(self.edge.size, upto)]
            for tile, data in self.edge.extend(hashes):
                self._put(tile.path, data, touched)
            for place in (self.edge.size - len(hashes), upto - 1):
                self._touch(self.root / Bundle(place // TILE_WIDTH).path, touched)
        reader.close()
        number, width = divmod(size, TILE_WIDTH)
        if width:
            data = tail_path(self.root, number).read_bytes()
            self._put(Bundle(number, width).path, data, touched)
        for folder in sorted(touched):
            if folder.exists():
                sync_folder(folder)

    def _put(self, path: str, data: bytes, touched: set[Path]) -> None:
        """A file that is whole or not there: what a crash or a full disk left of a partial tile
        would stay, if the next checkpoint were of another size."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data)
        self._touch(target, touched)

    def _touch(self, target: Path, touched: set[Path]) -> None:
        """The folders whose names have to become durable for `target` to be found."""
        for folder in target.parents:
            touched.add(folder)
            if folder == self.root:
                return

    def prune(self, kept: set[int], gone: int) -> None:
        """Remove the partial tiles of a size that no kept one needs."""
        needed = {path for size in kept for path in partials(size)}
        for path in partials(gone) - needed:
            (self.root / path).unlink(missing_ok=True)
            try:
                (self.root / path).parent.rmdir()
            except OSError:
                continue  # others are in it still


def partials(size: int) -> set[str]:
    """The partial tiles and bundle that a tree of `size` leaves needs."""
    number, width = divmod(size, TILE_WIDTH)
    found = {Bundle(number, width).path} if width else set()
    level = 0
    while size >> (level * TILE_HEIGHT):
        number, width = divmod(size >> (level * TILE_HEIGHT), TILE_WIDTH)
        if width:
            found.add(Tile(level, number, width).path)
        level += 1
    return found


def size_of(path: Path) -> int:
    """The size that a checkpoint's file says; 0 if there is none."""
    try:
        return Checkpoint.read(note.read(path.read_bytes()).text).size
    except (FileNotFoundError, note.Malformed):
        return 0


class Signer:
    """Signs what the ledger holds; the sealing thread's alone. LedgerDamaged where the state is
    shorter than what was signed."""

    def __init__(self, ledger: Ledger, keys: Path, name: str | None) -> None:
        self.ledger, self.root = ledger, ledger.root
        self.path = keys / "ledger" / "signed"
        self.key = open_key(keys, name, begun=ledger.number > 0)
        self._check_key()
        self.signed = self._read()
        self._trees: dict[str, _Tree] = {}
        for log, signed in self.signed.items():
            held = ledger.logs.get(log)
            if held is None or held.size < signed.size:
                size = held.size if held else 0
                raise LedgerDamaged(
                    f"{log}: {signed.size} leaves were signed and {size} are there; "
                    "state older than its keys is not gone on with"
                )
        # A crash may have come between what is remembered and the checkpoint that says it.
        self._unpublished = {
            log for log, signed in self.signed.items()
            if size_of(self.root / log / "checkpoint") != signed.size
        }  # fmt: skip

    def _check_key(self) -> None:
        """The ledger's first leaf names its key: no other one signs it."""
        held = self.ledger.logs.get(ROOT)
        if held is None or not held.size:
            return
        reader = EntryReader(self.root / ROOT)
        leaf = orjson.loads(reader.read(0))
        reader.close()
        own = str(self.key.verifier(ROOT))
        if leaf.get("kind") == "key" and leaf["record"]["vkey"] != own:
            raise LedgerDamaged(f"{self.path.parent}: not the key that this ledger began with")

    def _read(self) -> dict[str, Signed]:
        try:
            told = orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            if self.ledger.number > 0 and any(self.root.rglob("checkpoint")):
                raise LedgerDamaged(f"{self.path} is missing: something was signed") from None
            return {}
        except ValueError as error:
            raise LedgerDamaged(f"{self.path}: {error}") from None
        return {log: Signed(*values) for log, values in told.items()}

    def news(self) -> list[str]:
        """Logs that have more than was signed and published."""
        return [
            log
            for log, held in self.ledger.logs.items()
            if log in self._unpublished
            or held.size > (self.signed[log].size if log in self.signed else 0)
        ]

    def sign(self, logs: list[str]) -> None:
        """A checkpoint of each log, of all that is committed."""
        trees = {}
        for log in logs:
            tree = trees[log] = self._tree(log)
            tree.grow(self.ledger.logs[log].size)
            recent = [*(size for size in tree.recent if size != tree.edge.size), tree.edge.size]
            self.signed[log] = Signed(tree.edge.size, tree.edge.root().hex(), recent)
        self._remember()
        for log, tree in trees.items():
            checkpoint = Checkpoint(self.key.of(log).name, tree.edge.size, tree.edge.root())
            signature = checkpoint.sign(self.key.of(log))
            data = note.Note(checkpoint.text, (signature,)).encode()
            write_durably(self.root / log / "checkpoint", data)
            self._unpublished.discard(log)
            self._prune(log, tree)

    def _tree(self, log: str) -> _Tree:
        tree = self._trees.get(log)
        if tree is None:
            tree = self._trees[log] = _Tree(self.root / log, self.signed.get(log))
        return tree

    def _remember(self) -> None:
        told = {log: [each.size, each.root, each.recent] for log, each in self.signed.items()}
        write_durably(self.path, orjson.dumps(told))

    def _prune(self, log: str, tree: _Tree) -> None:
        """Partial tiles of the newest checkpoints and of the witnessed one stay."""
        recent = self.signed[log].recent
        witnessed = size_of(self.root / log / "witnessed")
        gone = [size for size in recent[:-CHECKPOINTS_KEPT] if size != witnessed]
        tree.recent = [size for size in recent if size not in gone]
        for size in gone:
            tree.prune({*tree.recent, witnessed}, size)
        self.signed[log].recent = tree.recent

    def roots(self) -> dict[str, tuple[int, str]]:
        """Size and root of each log as last signed."""
        return {log: (each.size, each.root) for log, each in self.signed.items()}

    def forget(self, log: str) -> None:
        """The log was dropped as its retention says."""
        self._trees.pop(log, None)
        self.signed.pop(log, None)
        self._remember()
