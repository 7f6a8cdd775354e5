"""Check a bundle of evidence: python3 verify_evidence.py [BUNDLE_DIR] [--policy FILE]

One file, the standard library and `cryptography` (python3 -m pip install cryptography). It needs no
network and nothing of Headworks. It reads

    policy.txt                     whom to believe (c2sp.org/tlog-policy)
    leaf.json, leaf.tlog-proof     the entry's bytes, and where it stands (c2sp.org/tlog-proof)
    log_opened.*                   the root log's entry that names the leaf's log and its key
    receipt.txt, receipt_key.*     what the caller was given, and whose key signed it
    explanation.*                  what was said of the decision later, and its log's opening
    body.bin                       what was asked and answered, against the leaf's commitment

and exits with 0 if all that is there holds and 1 if anything does not. A policy.txt that came with
the bundle is the operator's word: who has a copy of their own gives it with --policy.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import re
import struct
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterable, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519, COSIGNATURE = 1, 4
ENTRY_BYTES_MAX = 65_535
FILE_BYTES_MAX = 4 * 1024**2
BODY_BYTES_MAX = 4 * 1024**3
PART = struct.Struct("<QI32s")  # full length, kept length, SHA-256 of the full bytes
DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class Wrong(Exception):
    """What does not hold, in words."""


def decode_base64(text: str) -> bytes:
    """Standard base64 in its one canonical form."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong(f"not base64: {text[:60]!r}") from None
    if base64.b64encode(data).decode() != text:
        raise Wrong(f"not canonical base64: {text[:60]!r}")
    return data


def decode_base64url(text: str) -> bytes:
    """base64url without padding, in its one canonical form."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise Wrong(f"not base64url: {text[:60]!r}")
    padded = text + "=" * (-len(text) % 4)
    try:
        data = base64.urlsafe_b64decode(padded)
    except (binascii.Error, ValueError):
        raise Wrong(f"not base64url: {text[:60]!r}") from None
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise Wrong(f"not canonical base64url: {text[:60]!r}")
    return data


def decode_decimal(text: str) -> int:
    if not DECIMAL.fullmatch(text):
        raise Wrong(f"not a decimal number: {text[:60]!r}")
    return int(text)


def decode_utf8(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Wrong(f"{what} is not UTF-8") from None


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962, 2.1."""
    return sha256(b"\0", entry)


# Keys and signed notes: c2sp.org/signed-note, c2sp.org/tlog-cosignature.


class Key(NamedTuple):
    name: str
    type: int
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode(), b"\n", bytes([self.type]), self.public)[:4]

    def holds(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise Wrong(f"not a key's name: {name[:60]!r}")


def parse_vkey(text: str) -> Key:
    """`<name>+<ID>+<base64 of type and key>`."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise Wrong(f"not a verifier key: {text[:60]!r}")
    check_name(parts[0])
    data = decode_base64(parts[2])
    if data[:1] not in (b"\x01", b"\x04") or len(data) != 33:
        raise Wrong(f"the key {parts[0]} is of a type that is not known here")
    key = Key(parts[0], data[0], data[1:])
    if key.id.hex() != parts[1]:
        raise Wrong(f"the key {parts[0]} has the ID {key.id.hex()}, not {parts[1][:20]}")
    return key


class Note(NamedTuple):
    text: str
    signatures: list[tuple[str, bytes, bytes]]  # name, key ID, signature


def parse_note(data: bytes) -> Note:
    decoded = decode_utf8(data, "the signed note")
    if not decoded.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", decoded):
        raise Wrong("a signed note ends in a newline and has no other control character")
    text, separator, behind = decoded[:-1].rpartition("\n\n")
    if not separator:
        raise Wrong("the signed note has no empty line before its signatures")
    signatures = []
    for line in behind.split("\n"):
        parts = line[2:].split(" ")
        if not line.startswith("\u2014 ") or len(parts) != 2:
            raise Wrong(f"not a line of a signature: {line[:60]!r}")
        check_name(parts[0])
        signed = decode_base64(parts[1])
        if len(signed) <= 4:
            raise Wrong(f"the signature of {parts[0]} is empty")
        signatures.append((parts[0], signed[:4], signed[4:]))
    return Note(text + "\n", signatures)


def signers(note: Note, keys: Iterable[Key]) -> dict[Key, int | None]:
    """Who of `keys` signed, with a witness's time in POSIX seconds. A wrong signature of one of
    them refuses the note; those of others are ignored."""
    known = {(key.name, key.id): key for key in keys}
    found: dict[Key, int | None] = {}
    for name, key_id, signature in note.signatures:
        key = known.get((name, key_id))
        if key is None or key in found:
            continue
        time, message = None, note.text.encode()
        if key.type == COSIGNATURE:
            if len(signature) < 8:
                raise Wrong(f"the cosignature of {name} is too short")
            time = int.from_bytes(signature[:8], "big")
            signature = signature[8:]
            message = f"cosignature/v1\ntime {time}\n".encode() + message
        if not key.holds(signature, message):
            raise Wrong(f"the signature of {name} is wrong")
        found[key] = time
    return found


# Whom to believe: c2sp.org/tlog-policy.


class Policy:
    """Logs' keys, witnesses' keys by name, groups (how many of whom), and the quorum's name."""

    def __init__(self) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum: str | None = None

    def add(self, words: list[str]) -> None:
        kind, *rest = words
        if kind == "log" and len(rest) in (1, 2):
            self._add_log(parse_vkey(rest[0]))
        elif kind == "witness" and len(rest) in (2, 3):
            self._add_witness(rest[0], parse_vkey(rest[1]))
        elif kind == "group" and len(rest) >= 3:
            self._add_group(*rest)
        elif kind == "quorum" and len(rest) == 1 and self.quorum is None:
            if rest[0] != "none" and rest[0] not in self.witnesses | self.groups:
                raise Wrong(f"the policy's quorum names {rest[0][:60]!r}, which is nobody")
            self.quorum = rest[0]
        else:
            raise Wrong(f"not a line of a policy: {' '.join(words)[:80]!r}")

    def _add_log(self, key: Key) -> None:
        if key.type != ED25519 or any(each.public == key.public for each in self.logs):
            raise Wrong(f"the policy's log {key.name} is no log's key, or named twice")
        self.logs.append(key)

    def _new(self, name: str) -> None:
        if name == "none" or name in self.witnesses or name in self.groups:
            raise Wrong(f"the policy names {name[:60]!r} twice")

    def _add_witness(self, name: str, key: Key) -> None:
        self._new(name)
        twice = any(each.public == key.public for each in self.witnesses.values())
        if key.type != COSIGNATURE or twice:
            raise Wrong(f"the policy's witness {name} has no witness's key, or another's")
        self.witnesses[name] = key

    def _add_group(self, name: str, wanted: str, *members: str) -> None:
        self._new(name)
        taken = {each for _, group in self.groups.values() for each in group}
        for member in members:
            if member not in self.witnesses and member not in self.groups or member in taken:
                raise Wrong(f"the policy's group {name} names {member[:60]!r} wrongly")
            taken.add(member)
        count = {"any": 1, "all": len(members)}.get(wanted)
        if count is None:
            count = decode_decimal(wanted)
        if not 1 <= count <= len(members):
            raise Wrong(f"the policy's group {name} asks for {count} of {len(members)}")
        self.groups[name] = (count, list(members))

    def satisfied(self, by: set[str], name: str | None = None) -> bool:
        """Whether cosignatures by the witnesses of these names are enough."""
        name = self.quorum if name is None else name
        if name == "none":
            return True
        if name in self.groups:
            count, members = self.groups[name]
            return sum(self.satisfied(by, member) for member in members) >= count
        return name in by

    def key_of(self, origin: str) -> Key:
        """The log's key; each log of a ledger has the root log's public key under its own name."""
        for key in self.logs:
            if key.name == origin:
                return key
        for key in self.logs:
            name, _, last = key.name.rpartition("/")
            if last == "root" and origin.startswith(f"{name}/models/"):
                check_name(origin)
                return Key(origin, ED25519, key.public)
        raise Wrong(f"the policy knows no log {origin[:80]!r}")

    def root_of(self, origin: str) -> str | None:
        """The root log that opens this one; None for a log that the policy names itself."""
        if any(key.name == origin for key in self.logs):
            return None
        return origin.partition("/models/")[0] + "/root"


def parse_policy(data: bytes) -> Policy:
    policy = Policy()
    text = decode_utf8(data, "the policy")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text) or not text.endswith("\n"):
        raise Wrong("a policy has whole lines and no control characters")
    for line in text.split("\n"):
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if words[0] and not words[0].startswith("#"):
            policy.add(words)
    if policy.quorum is None:
        raise Wrong("the policy has no quorum line")
    return policy


# Checkpoints and proofs: c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof, RFC 6962.


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes
    times: dict[str, int]  # POSIX seconds by the policy's name of the witness
    unknown: list[str]  # names of signers that the policy does not know


def open_checkpoint(data: bytes, policy: Policy) -> Checkpoint:
    """The checkpoint of a signed note that its log signed, and which witnesses cosigned it."""
    note = parse_note(data)
    lines = note.text.split("\n")[:-1]
    if len(lines) < 3 or not all(lines):
        raise Wrong("a checkpoint has three lines at least")
    origin, size, root = lines[0], decode_decimal(lines[1]), decode_base64(lines[2])
    if len(root) != 32:
        raise Wrong("a checkpoint's root has 32 bytes")
    log = policy.key_of(origin)
    names = {key: name for name, key in policy.witnesses.items()}
    signed = signers(note, [log, *names])
    if log not in signed:
        raise Wrong(f"the log {origin} did not sign its checkpoint")
    times = {names[key]: time for key, time in signed.items() if time is not None}
    known = {(key.name, key.id) for key in signed}
    unknown = [name for name, key_id, _ in note.signatures if (name, key_id) not in known]
    return Checkpoint(origin, size, root, times, unknown)


def root_from(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that the path leads to (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise Wrong(f"index {index} is not in a tree of {size}")
    place, last, computed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Wrong("the path is longer than the tree is high")
        if place & 1 or place == last:
            computed = sha256(b"\1", sibling, computed)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            computed = sha256(b"\1", computed, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise Wrong("the path ends below the root")
    return computed


@dataclass(frozen=True)
class Place:
    """Where an entry was proven to stand."""

    index: int
    checkpoint: Checkpoint


def check_proof(entry: bytes, proof: bytes, policy: Policy) -> Place:
    head, separator, note = proof.partition(b"\n\n")
    lines = decode_utf8(head, "the proof").split("\n")
    if not separator or lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Wrong("not a proof of the form c2sp.org/tlog-proof@v1")
    if lines and lines[0].startswith("extra "):
        decode_base64(lines.pop(0)[6:])  # nobody signs it; it is not believed
    if not lines or not lines[0].startswith("index "):
        raise Wrong("the proof has no line with its index")
    index = decode_decimal(lines.pop(0)[6:])
    path = [decode_base64(line) for line in lines]
    if any(len(each) != 32 for each in path):
        raise Wrong("a hash of the proof does not have 32 bytes")
    checkpoint = open_checkpoint(note, policy)
    if root_from(leaf_hash(entry), index, checkpoint.size, path) != checkpoint.root:
        raise Wrong("the entry and its path do not lead to the checkpoint's root")
    if not policy.satisfied(set(checkpoint.times)):
        raise Wrong(f"the policy's quorum ({policy.quorum}) did not cosign the checkpoint")
    return Place(index, checkpoint)


# Receipts, and what a leaf says.


@dataclass(frozen=True)
class Receipt:
    id: str
    time: int
    commitment: str
    index: int
    size: int
    path: list[bytes]
    key_id: str
    signature: bytes

    def check(self, public: bytes) -> None:
        """Wrong unless the key signed it."""
        if sha256(public).hex()[:16] != self.key_id:
            raise Wrong(f"the receipt is of the key {self.key_id}, not of the one given")
        stated = f"headworks receipt v1\n{self.id}\n{self.time}\n{self.commitment}\n".encode()
        root = root_from(leaf_hash(stated), self.index, self.size, self.path).hex()
        message = f"headworks receipts v1\n{self.key_id}\n{self.size}\n{root}\n".encode()
        if not Key("receipt", ED25519, public).holds(self.signature, message):
            raise Wrong("the receipt's signature is wrong")

    def disagreements(self, record: dict[str, Any]) -> list[str]:
        said = {"id": self.id, "at": self.time, "commitment": self.commitment}
        return [f"{name}: the receipt says {value}, the leaf {record.get(name)}"
                for name, value in said.items() if record.get(name) != value]  # fmt: skip


def parse_receipt(text: str) -> Receipt:
    fields = text.removesuffix("\n").split(".")
    if len(fields) != 9 or fields[0] != "1":
        raise Wrong("a receipt has nine fields joined by dots, the first is 1")
    _, identity, time, commitment, index, size, path, key_id, signature = fields
    if not re.fullmatch("[0-9a-f]{64}", commitment) or not re.fullmatch("[0-9a-f]{16}", key_id):
        raise Wrong("the receipt's commitment or key ID is not hexadecimal")
    hashes = decode_base64url(path)
    if len(hashes) % 32:
        raise Wrong("the receipt's path is no whole number of hashes")
    siblings = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    return Receipt(identity, decode_decimal(time), commitment, decode_decimal(index),
                   decode_decimal(size), siblings, key_id, decode_base64url(signature))  # fmt: skip


def parse_leaf(entry: bytes) -> dict[str, Any]:
    """The leaf's document; one key twice is no document."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise Wrong("the leaf says one thing twice")
        return dict(pairs)

    try:
        document: Any = json.loads(entry, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise Wrong("the leaf is not JSON") from None
    record = document.get("record") if isinstance(document, dict) else None
    if not isinstance(record, dict) or not isinstance(document.get("kind"), str):
        raise Wrong("the leaf has no kind or no record")
    return dict(document)


def check_body(body: bytes, commitment: str) -> list[str]:
    """What lies in the parts, one line each; Wrong unless the commitment is to them."""
    if len(body) < PART.size * 3:
        raise Wrong("the body is cut")
    heads = body[: PART.size * 3]
    if sha256(b"headworks commitment v1\n", heads).hex() != commitment:
        raise Wrong("the body is not the one that the leaf's commitment is to")
    told, at = [], len(heads)
    for number, name in enumerate(("context", "request", "response")):
        length, kept, digest = PART.unpack_from(heads, PART.size * number)
        piece = body[at : at + kept]
        at += kept
        if len(piece) != kept or kept > length:
            raise Wrong(f"the body's {name} is cut")
        if kept == length and sha256(piece) != digest:
            raise Wrong(f"the body's {name} is not the one committed to")
        whole = "whole" if kept == length else f"the first {kept} kept, which are not committed to"
        told.append(f"{name}: {length} bytes, {whole}, SHA-256 {digest.hex()}")
    if at != len(body):
        raise Wrong("the body has more bytes than it says")
    return told


# The bundle.


def utc(nanoseconds: int) -> str:
    try:
        at = datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return f"{nanoseconds} ns"
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


class Bundle:
    """A folder of evidence; each check says a line, `failures` counts what does not hold."""

    def __init__(self, folder: Path, policy: Path) -> None:
        self.folder, self.policy_file = folder, policy
        self.lines: list[str] = []
        self.failures = 0

    def say(self, words: str, holds: bool = True) -> None:
        self.lines.append(("ok     " if holds else "WRONG  ") + words)
        self.failures += not holds

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def read(self, name: str, at_most: int = FILE_BYTES_MAX) -> bytes:
        return read_file(self.folder / name, at_most)

    def run(self) -> bool:
        """Whether everything that is there holds."""
        for check in (self.check_leaf, self.check_receipt, self.check_body, self.check_explanation):
            try:
                check()
            except (Wrong, AttributeError, KeyError, TypeError, ValueError) as wrong:
                words = wrong if isinstance(wrong, Wrong) else f"a field is missing or odd: {wrong}"
                self.say(f"{check.__name__[6:]}: {words}", holds=False)
                if check == self.check_leaf:
                    break  # nothing is left to compare with
        return not self.failures

    def prove(self, name: str) -> tuple[dict[str, Any], Place]:
        """`name`.json under its proof; its log's opening in the root log too."""
        entry = self.read(f"{name}.json")
        if len(entry) > ENTRY_BYTES_MAX:
            raise Wrong(f"{name}.json is longer than an entry can be")
        try:
            place = check_proof(entry, self.read(f"{name}.tlog-proof"), self.policy)
        except Wrong as wrong:
            raise Wrong(f"{name}.json: {wrong}") from None
        told = place.checkpoint
        self.say(f"{name}.json is entry {place.index} of {told.origin}, whose log signed for its "
                 f"{told.size} entries")  # fmt: skip
        for witness, time in told.times.items():
            self.say(f"  the witness {witness} saw them at {utc(time * 10**9)}")
        if not told.times:
            self.lines.append("note   no witness that the policy knows cosigned: this shows what "
                              "the operator stands by, not when")  # fmt: skip
        for signer in told.unknown:
            self.lines.append(f"note   a signature of {signer} was not checked: no such key")
        return parse_leaf(entry), place

    def check_leaf(self) -> None:
        self.policy = parse_policy(read_file(self.policy_file, FILE_BYTES_MAX))
        leaf, place = self.prove("leaf")
        self.kind, self.record = leaf["kind"], leaf["record"]
        self.lines += [f"       origin  {place.checkpoint.origin}", f"       index   {place.index}",
                       f"       size    {place.checkpoint.size}"]  # fmt: skip
        self.lines.append(f"       {self.kind} {self.record.get('id')} at "
                          f"{utc(int(self.record.get('at', 0)))}, model "
                          f"{self.record.get('model')} {self.record.get('version')}")  # fmt: skip
        for row, decision in enumerate(leaf.get("decisions", ())):
            self.lines.append(f"       decision {row}: {json.dumps(decision, sort_keys=True)}")
        self.check_opened("log_opened", place.checkpoint.origin)

    def check_opened(self, name: str, origin: str) -> None:
        root = self.policy.root_of(origin)
        if root is None:
            return
        leaf, place = self.prove(name)
        self.belongs(name, leaf, place, "log_opened", root)
        told = leaf["record"]
        if told.get("origin") != origin or parse_vkey(told["vkey"]) != self.policy.key_of(origin):
            raise Wrong(f"{name}.json opens another log, or one with another key")
        self.say(f"the root log opened {origin} with this key")

    def belongs(self, name: str, leaf: dict[str, Any], place: Place, kind: str, log: str) -> None:
        if leaf["kind"] != kind or place.checkpoint.origin != log:
            raise Wrong(f"{name}.json is a {leaf['kind']} of {place.checkpoint.origin}, "
                        f"not a {kind} of {log}")  # fmt: skip

    def check_receipt(self) -> None:
        if not self.has("receipt.txt"):
            return
        receipt = parse_receipt(decode_utf8(self.read("receipt.txt"), "receipt.txt"))
        leaf, place = self.prove("receipt_key")
        origin = place.checkpoint.origin
        if leaf["kind"] != "receipt_key" or not origin.endswith("/root"):
            raise Wrong(f"receipt_key.json is a {leaf['kind']} of {origin}")
        try:
            public = bytes.fromhex(leaf["record"]["public"])
        except (KeyError, TypeError, ValueError):
            raise Wrong("receipt_key.json has no key") from None
        receipt.check(public)
        self.say(f"the receipt is signed by {leaf['record'].get('worker')}'s key {receipt.key_id}")
        for words in receipt.disagreements(self.record):
            self.say(words, holds=False)
        if not receipt.disagreements(self.record):
            self.say("receipt and leaf agree in id, time and commitment")

    def check_body(self) -> None:
        if not self.has("body.bin"):
            return
        commitment = self.record.get("commitment")
        if not isinstance(commitment, str):
            raise Wrong("the leaf commits to no body")
        parts = check_body(self.read("body.bin", BODY_BYTES_MAX), commitment)
        self.say("body.bin is what the leaf's commitment is to")
        self.lines += [f"       {part}" for part in parts]

    def check_explanation(self) -> None:
        if not self.has("explanation.json"):
            return
        leaf, place = self.prove("explanation")
        if leaf["kind"] != "explanation" or leaf["record"].get("exchange") != self.record["id"]:
            raise Wrong("explanation.json explains something else")
        name = "explanation_log_opened"
        self.check_opened(name if self.has(f"{name}.json") else "log_opened",
                          place.checkpoint.origin)  # fmt: skip
        self.say("explanation.json explains this exchange")


def read_file(path: Path, at_most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(at_most + 1)
    except OSError as error:
        raise Wrong(f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > at_most:
        raise Wrong(f"{path.name} is longer than {at_most} bytes")
    return data


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a bundle of evidence.")
    parser.add_argument("bundle", nargs="?", default=".", type=Path)
    parser.add_argument("--policy", type=Path, help="whom to believe: your own copy")
    asked = parser.parse_args(arguments)
    bundle = Bundle(asked.bundle, asked.policy or asked.bundle / "policy.txt")
    holds = bundle.run()
    print("\n".join(bundle.lines))
    if not asked.policy:
        print("note   policy.txt came with the bundle: compare its log key with one you got "
              "from elsewhere, or give your own with --policy")  # fmt: skip
    print("EVERYTHING HOLDS" if holds else f"{bundle.failures} THINGS DO NOT HOLD")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
