"""A small ledger on disk, written as docs/records.md says with the pure core only: no sealer."""

from __future__ import annotations

import base64
import hashlib
import struct
from pathlib import Path
from zlib import crc32

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ledger import note
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.merkle import leaf_hash
from gateway.ledger.note import SignatureType, SigningKey
from gateway.ledger.tiles import Bundle, TileEdge, encode_bundle

NAME = "bank"
SEED = bytes(range(32))
WITNESS = SigningKey("compliance.example", SignatureType.COSIGNATURE, bytes(range(1, 33)))
RECEIPT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
RECEIPT_PUBLIC = RECEIPT_KEY.public_key().public_bytes_raw()
RECEIPT_KEY_ID = hashlib.sha256(RECEIPT_PUBLIC).hexdigest()[:16]
AT = 1_790_000_000_000_000_000


def parts_of(number: int) -> bytes:
    """The three counted parts of an exchange, as gateway/journal/record.py frames them."""
    parts = (b'{"salt":"%032d"}' % number, b'{"age":%d}' % number, b'{"score":0.5}')
    heads = [struct.pack("<QI32s", len(p), len(p), hashlib.sha256(p).digest()) for p in parts]
    return b"".join((*heads, *parts))


def commitment_of(number: int) -> str:
    heads = parts_of(number)[:132]
    return hashlib.sha256(b"headworks commitment v1\n" + heads).hexdigest()


def exchange_id(number: int) -> str:
    """A UUIDv7 whose time is AT plus `number` milliseconds."""
    milliseconds = AT // 10**6 + number
    text = f"{milliseconds:012x}7{number % 4096:03x}8{number:015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Maker:
    """`state`: the folder to fill. Leaves are appended, `publish` writes tiles and checkpoints."""

    def __init__(self, state: Path, *, quorum: bool = False) -> None:
        self.state, self.root = state, state / "ledger"
        self.entries: dict[str, list[bytes]] = {}
        self.edges: dict[str, TileEdge] = {}
        self.sizes: dict[str, int] = {}
        self.sequences: dict[str, int] = {}
        self.orders: list[tuple[str, str | None, int, int, bytes]] = []
        self.bodies: dict[str, bytearray] = {}
        vkey = str(self.key("root").verifier)
        lines = [f"log {vkey}", f"witness compliance {WITNESS.verifier}"]
        lines.append("quorum compliance" if quorum else "quorum none")
        self.policy = "\n".join(lines) + "\n"
        self.tell("key", {"name": NAME, "vkey": vkey})

    def key(self, log: str) -> SigningKey:
        return SigningKey(f"{NAME}/{log}", SignatureType.ED25519, SEED)

    def append(self, log: str, leaf: dict, source: str | None = None, skip: int = 0) -> int:
        """The leaf's index in its log; `skip` sequences are left out before it."""
        sequence = 0
        if source is not None:
            sequence = self.sequences.get(source, -1) + 1 + skip
            self.sequences[source] = sequence
            leaf = leaf | {"source": source, "sequence": sequence}
        entry = orjson.dumps(leaf | {"format": 2}, option=orjson.OPT_SORT_KEYS)
        held = self.entries.setdefault(log, [])
        held.append(entry)
        self.orders.append((log, source, len(held) - 1, sequence, entry))
        return len(held) - 1

    def tell(self, kind: str, record: dict, source: str | None = None) -> int:
        return self.append("root", {"kind": kind, "record": record}, source)

    def open(self, log: str) -> str:
        self.tell("log_opened", {"origin": f"{NAME}/{log}", "vkey": str(self.key(log).verifier)})
        return log

    def exchange(self, log: str, number: int, source: str = "worker-0.aa", skip: int = 0) -> int:
        model = log.split("/")[1]
        record = {"kind": "exchange", "id": exchange_id(number), "at": AT + number * 10**6,
                  "model": model, "version": "v1", "commitment": commitment_of(number)}  # fmt: skip
        leaf = {"kind": "exchange", "record": record, "body": self.store(model, number),
                "decisions": [{"outcome": "approve", "score": 0.5}]}  # fmt: skip
        return self.append(log, leaf, source, skip)

    def store(self, model: str, number: int) -> dict:
        blob = struct.pack("<IQ", 1, number) + hashlib.sha256(b"%d" % number).digest() * 3
        file = f"{model}/2026-11-23"
        held = self.bodies.setdefault(file, bytearray())
        place = {"file": file, "offset": len(held), "length": len(blob),
                 "sha256": hashlib.sha256(blob).hexdigest()}  # fmt: skip
        held += blob
        return place

    def roots(self) -> dict[str, list]:
        return {f"{NAME}/{log}": [edge.size, edge.root().hex()] for log, edge in self.edges.items()}

    def beat(self) -> None:
        self.tell("heartbeat", {"logs": self.roots()})

    def publish(self, *, witness: bool = False) -> None:
        """Tiles, bundles, checkpoints of all that was appended."""
        for log, entries in self.entries.items():
            edge = self.edges.setdefault(log, TileEdge())
            if edge.size == len(entries):
                continue
            for tile, data in edge.extend(map(leaf_hash, entries[edge.size :])):
                self.write(f"{log}/{tile.path}", data)
            number, width = divmod(len(entries), 256)
            if width:
                bundle = Bundle(number, width)
                self.write(f"{log}/{bundle.path}", encode_bundle(entries[number * 256 :]))
            checkpoint = Checkpoint(f"{NAME}/{log}", edge.size, edge.root())
            signed = [checkpoint.sign(self.key(log))]
            self.write(f"{log}/checkpoint", note.Note(checkpoint.text, tuple(signed)).encode())
            if witness:
                signed.append(note.cosign(checkpoint.text, WITNESS, AT // 10**9 + 60))
                self.write(f"{log}/witnessed", note.Note(checkpoint.text, tuple(signed)).encode())

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def finish(self, order_records: int = 10**9) -> Path:
        """Entries, order files of at most `order_records`, `committed`, policy and bodies."""
        for log, entries in self.entries.items():
            for number in range(len(entries) // 256):
                some = entries[number * 256 : number * 256 + 256]
                self.write(f"{log}/{Bundle(number).path}", encode_bundle(some))
            if rest := entries[len(entries) // 256 * 256 :]:
                self.write(f"{log}/tail/{len(entries) // 256}", encode_bundle(rest))
        self._write_order(order_records)
        self.write("committed", struct.pack("<Q", len(self.orders)))
        self.write("policy", self.policy.encode())
        for file, data in self.bodies.items():
            path = self.state / "bodies" / f"{file}.bodies"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self.root

    def _write_order(self, at_most: int) -> None:
        sizes: dict[str, int] = {}
        sequences: dict[str, int] = {}
        data, path, count = b"", "", at_most
        for number, (log, source, index, sequence, entry) in enumerate(self.orders):
            new = log not in sizes or (source is not None and source not in sequences)
            if new or count == at_most:
                if data:
                    self.write(path, data)
                sizes.setdefault(log, 0)
                if source is not None:
                    sequences.setdefault(source, -1)
                text = orjson.dumps({"format": 2, "first": number, "logs": list(sizes.items()),
                                     "sources": list(sequences.items())})  # fmt: skip
                seed, count = crc32(text), 0
                data = struct.pack("<II", len(text), seed) + text
                data += bytes(-len(data) % 32)
                path = f"order/{number:020d}.order"
                logs, sources = list(sizes), list(sequences)
            place = 0xFFFFFFFF if source is None else sources.index(source)
            body = struct.pack("<IIQQI", logs.index(log), place, index, sequence, crc32(entry))
            seed = crc32(body, seed)
            data += body + struct.pack("<I", seed)
            sizes[log] = index + 1
            if source is not None:
                sequences[source] = sequence
            count += 1
        self.write(path, data)


def receipt_of(number: int, batch: list[int]) -> str:
    """The receipt of an exchange that was committed together with `batch`, by RECEIPT_KEY."""
    from gateway.ledger.merkle import RightEdge, prove_inclusion

    def statement(each: int) -> bytes:
        told = f"{exchange_id(each)}\n{AT + each * 10**6}\n{commitment_of(each)}\n"
        return b"headworks receipt v1\n" + told.encode()

    rows = RightEdge().extend(leaf_hash(statement(each)) for each in batch)
    edge = RightEdge()
    edge.extend(leaf_hash(statement(each)) for each in batch)
    index = batch.index(number)
    path = prove_inclusion(index, len(batch), lambda height, at: rows[height][at])
    signed = RECEIPT_KEY.sign(
        f"headworks receipts v1\n{RECEIPT_KEY_ID}\n{len(batch)}\n{edge.root().hex()}\n".encode()
    )
    fields = ["1", exchange_id(number), str(AT + number * 10**6), commitment_of(number), str(index),
              str(len(batch)), _url(b"".join(path)), RECEIPT_KEY_ID, _url(signed)]  # fmt: skip
    return ".".join(fields)


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def small_ledger(state: Path, *, quorum: bool = False, order_records: int = 10**9) -> Maker:
    """Two models, two quarters, three sources, receipts, heartbeats; everything signed."""
    maker = Maker(state, quorum=quorum)
    maker.tell("start", {"host": "a"})
    maker.tell("receipt_key", {"id": RECEIPT_KEY_ID, "worker": "worker-0",
                               "public": RECEIPT_PUBLIC.hex()}, "worker-0.aa")  # fmt: skip
    old = maker.open("models/mortgage/2026q3")
    for number in range(5):
        maker.exchange(old, number)
    maker.publish(witness=True)
    maker.beat()
    size, root = maker.roots()[f"{NAME}/{old}"]
    checkpoint = (maker.root / old / "checkpoint").read_text()
    maker.tell("log_closed", {"origin": f"{NAME}/{old}", "size": size, "root": root,
                              "checkpoint": checkpoint})  # fmt: skip
    new, cards = maker.open("models/mortgage/2026q4"), maker.open("models/cards/2026q4")
    for number in range(5, 275):
        maker.exchange(new, number, f"worker-{number % 2}.aa")
        if number % 100 == 0:
            maker.exchange(cards, 1000 + number)
            maker.publish()
            maker.beat()
    maker.exchange(cards, 2000)
    explained = {"kind": "explanation", "exchange": exchange_id(7), "model": "mortgage", "of": 12}
    maker.append(new, {"kind": "explanation", "record": explained}, "analyst.bb")
    maker.publish(witness=True)
    maker.beat()
    maker.tell("stop", {})
    maker.publish(witness=True)
    maker.finish(order_records)
    return maker
