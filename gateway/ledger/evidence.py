"""Evidence for one exchange: its leaf, found in the files, with fresh proofs, in its own folder.

No server is needed and nothing but the ledger's folder is read; the body is handed in by who may
show it. Invariant: what is written is checked by `verify_evidence.py` alone, which goes with it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.ledger import note
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.merkle import prove_inclusion
from gateway.ledger.proof import Proof
from gateway.ledger.tiles import TILE_WIDTH, Tile, nodes_from
from gateway.verify import verify_evidence
from gateway.verify.folder import LogFolder, split
from gateway.verify.verify_evidence import Receipt, Wrong, check_body, parse_policy, parse_receipt

ROOT = "root"
ANSWERS = ("exchange", "withheld", "intent")
"""Kinds of leaf that stand for an exchange, the one that says most first."""
README = """Evidence for the exchange {identity}
{line}
leaf.json            what was recorded, as it stands in the log {origin}
leaf.tlog-proof      its place there and the signed state of the log (c2sp.org/tlog-proof)
log_opened.*         the root log's entry that names this log and its key
policy.txt           whom this ledger asks you to believe (c2sp.org/tlog-policy)
receipt.txt, receipt_key.*        if there: what the caller was given, and whose key signed it
explanation.*        if there: what was said of the decision
body.bin             if there: what was asked and answered
verify_evidence.py   checks all of it: Python 3.9 or later and `pip install cryptography`

    python3 verify_evidence.py .

Nothing else is needed and nobody is asked. To trust no one who gave you this folder, take the log's
key and the witnesses' from elsewhere, write them into a policy of your own, take
verify_evidence.py from the published package, and run it with --policy YOURS.
"""


class Missing(Exception):
    """No leaf has this id; the message says how far was searched."""


class Unproved(Exception):
    """The leaf is there and cannot be proven yet, or the files do not suffice."""


@dataclass(frozen=True, slots=True)
class Leaf:
    log: str
    index: int
    entry: bytes

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.entry))

    @property
    def record(self) -> dict[str, Any]:
        return dict(self.document["record"])


@dataclass
class Evidence:
    """What was found and written. `disagreements` of receipt and leaf; `notes` for the reader."""

    leaf: Leaf
    size: int = 0
    witnessed: bool = False
    files: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def quarter_of(identity: str) -> str | None:
    """The quarter before which the id of an exchange (UUIDv7) cannot have been sealed."""
    try:
        number = uuid.UUID(identity)
    except ValueError:
        return None
    if number.version != 7:
        return None
    try:
        at = datetime.fromtimestamp((number.int >> 80) / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return f"{at.year:04d}q{(at.month + 2) // 3}"


def logs_of(ledger: Path, since: str | None) -> list[str]:
    """Models' logs from this quarter on, then the root log."""
    found = [path.relative_to(ledger).as_posix() for path in ledger.glob("models/*/*")
             if re.fullmatch("[0-9]{4}q[1-4]", path.name) and path.is_dir()]  # fmt: skip
    return [*sorted(log for log in found if since is None or log[-6:] >= since), ROOT]


def search(ledger: Path, log: str, needle: bytes) -> Iterator[Leaf]:
    """Leaves of a log whose bytes hold `needle`, in order."""
    folder, number = LogFolder(ledger / log, log), 0
    while (found := folder.bundle(number)) is not None:
        if needle in found[1]:
            entries, _ = split(found[1])
            for at, entry in enumerate(entries):
                if needle in entry:
                    yield Leaf(log, number * TILE_WIDTH + at, entry)
        number += 1


def find_root(ledger: Path, kind: str, name: str, value: str) -> Leaf | None:
    """The root log's newest leaf of this kind whose record's `name` is `value`."""
    found = None
    for leaf in search(ledger, ROOT, value.encode()):
        if leaf.document.get("kind") == kind and leaf.record.get(name) == value:
            found = leaf
    return found


def find_exchange(ledger: Path, identity: str) -> tuple[Leaf, Leaf | None]:
    """The leaf of an exchange, and the one that explains it if there is one. Missing otherwise."""
    answers: dict[str, Leaf] = {}
    explanation = None
    logs = logs_of(ledger, quarter_of(identity))
    for log in logs:
        for leaf in search(ledger, log, identity.encode()):
            kind, record = leaf.document.get("kind", ""), leaf.record
            if kind in ANSWERS and record.get("id") == identity:
                answers.setdefault(kind, leaf)
            elif kind == "explanation" and record.get("exchange") == identity:
                explanation = explanation or leaf
    for kind in ANSWERS:
        if kind in answers:
            return answers[kind], explanation
    raise Missing(f"no leaf has the id {identity}; searched: {_searched(ledger, logs)}")


def _searched(ledger: Path, logs: Iterable[str]) -> str:
    """How far each log goes, in entries and in time."""
    told = []
    for log in logs:
        size, last = 0, b""
        for entry in LogFolder(ledger / log, log).entries():
            size, last = size + 1, entry
        at = json.loads(last)["record"].get("at") if last else None
        told.append(f"{log} to entry {size}" + (f" ({verify_evidence.utc(at)})" if at else ""))
    return ", ".join(told)


def newest_checkpoint(ledger: Path, leaf: Leaf) -> tuple[bytes, Checkpoint, bool]:
    """The newest signed note that covers the leaf, the witnessed one if it does. Unproved: none."""
    for name in ("witnessed", "checkpoint"):
        try:
            data = (ledger / leaf.log / name).read_bytes()
            checkpoint = Checkpoint.read(note.read(data).text)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise Unproved(f"{leaf.log}/{name}: {error}") from None
        if checkpoint.size > leaf.index:
            return data, checkpoint, name == "witnessed"
    raise Unproved(f"entry {leaf.index} of {leaf.log} is not under a signed checkpoint yet; "
                   "one is signed each second while the gateway runs")  # fmt: skip


def prove(ledger: Path, leaf: Leaf) -> tuple[bytes, Checkpoint, bool]:
    """The `.tlog-proof` of a leaf, its checkpoint, and whether witnesses cosigned that."""

    def read(tile: Tile) -> bytes:
        for found in (tile, Tile(tile.level, tile.number)):
            try:
                return (ledger / leaf.log / found.path).read_bytes()
            except FileNotFoundError:
                continue
        raise Unproved(f"{leaf.log}/{tile.path} is missing")

    data, checkpoint, witnessed = newest_checkpoint(ledger, leaf)
    path = prove_inclusion(leaf.index, checkpoint.size, nodes_from(checkpoint.size, read))
    return Proof(leaf.index, path, data).encode(), checkpoint, witnessed


class Writer:
    """Files of a new folder. FileExistsError: something is in it."""

    def __init__(self, ledger: Path, out: Path) -> None:
        self.ledger, self.out = ledger, out
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} is not empty")
        self.files: dict[str, bytes] = {}

    def leaf(self, name: str, leaf: Leaf) -> tuple[Checkpoint, bool]:
        data, checkpoint, witnessed = prove(self.ledger, leaf)
        self.files |= {f"{name}.json": leaf.entry, f"{name}.tlog-proof": data}
        return checkpoint, witnessed

    def opened(self, name: str, log: str, origin: str) -> None:
        if log == ROOT:
            return
        found = find_root(self.ledger, "log_opened", "origin", origin)
        if found is None:
            raise Unproved(f"the root log does not open {origin}")
        self.leaf(name, found)

    def write(self) -> list[str]:
        self.out.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (self.out / name).write_bytes(data)
        return sorted(self.files)


def write_evidence(
    ledger: Path, identity: str, out: Path, receipt: str | None = None, parts: bytes | None = None
) -> Evidence:
    """The folder of evidence for an exchange (`<id>` or `<id>/<row>`), written to `out`.

    `receipt`: what the caller was given; whether leaf and receipt agree is in the result. `parts`:
    the decrypted body, from who was allowed to read it. Missing, Unproved, Wrong (a receipt or a
    body that is none), FileExistsError.
    """
    identity = identity.partition("/")[0]
    policy = (ledger / "policy").read_bytes()
    parse_policy(policy)
    told = parse_receipt(receipt) if receipt is not None else None
    if told is not None and told.id != identity:
        raise Wrong(f"the receipt is for {told.id}")
    writer = Writer(ledger, out)
    doubts = _check_receipt(writer, told) if told is not None else []
    try:
        leaf, explanation = find_exchange(ledger, identity)
    except Missing as error:
        if told is None:
            raise
        genuine = doubts or ["the receipt is genuine: a key of this ledger signed it"]
        raise Missing(f"{error}; {'; '.join(genuine)}") from None
    checkpoint, witnessed = writer.leaf("leaf", leaf)
    writer.opened("log_opened", leaf.log, checkpoint.origin)
    found = Evidence(leaf, checkpoint.size, witnessed)
    if told is not None and receipt is not None:
        found.disagreements = doubts or told.disagreements(leaf.record)
        writer.files["receipt.txt"] = receipt.strip().encode() + b"\n"
    if parts is not None:
        check_body(parts, str(leaf.record.get("commitment")))
        writer.files["body.bin"] = parts
    if explanation is not None:
        _add_explanation(writer, explanation, leaf, found)
    if not witnessed:
        found.notes.append("no witness has cosigned this far yet")
    writer.files["policy.txt"] = policy
    writer.files["verify_evidence.py"] = Path(verify_evidence.__file__).read_bytes()
    line = "=" * (len(identity) + 26)
    words = README.format(identity=identity, line=line, origin=checkpoint.origin)
    writer.files["README.txt"] = words.encode()
    found.files = writer.write()
    return found


def _add_explanation(writer: Writer, explanation: Leaf, leaf: Leaf, found: Evidence) -> None:
    try:
        checkpoint, _ = writer.leaf("explanation", explanation)
    except Unproved as error:
        found.notes.append(f"the explanation is left out: {error}")
        return
    if explanation.log != leaf.log:
        writer.opened("explanation_log_opened", explanation.log, checkpoint.origin)


def _check_receipt(writer: Writer, receipt: Receipt) -> list[str]:
    """Why no key of this ledger signed it, if so; the key's leaf goes with the evidence."""
    key = find_root(writer.ledger, "receipt_key", "id", receipt.key_id)
    if key is None:
        return [f"the root log certifies no receipt key {receipt.key_id}"]
    writer.leaf("receipt_key", key)
    try:
        receipt.check(bytes.fromhex(key.record["public"]))
    except (Wrong, KeyError, ValueError) as error:
        return [str(error)]
    return []
