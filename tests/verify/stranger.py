"""A verifier of tile logs by somebody who has never seen Headworks.

Written from RFC 6962 (2.1) and the C2SP texts alone (signed-note, tlog-checkpoint, tlog-tiles,
tlog-cosignature, tlog-proof, as of commit 5ba5ee8): it imports the standard library and
`cryptography`, and what it says of a log it has computed from the log's static files.

    python3 -I stranger.py log FOLDER ORIGIN PUBLIC_KEY_HEX [WITNESS_NAME WITNESS_KEY_HEX]
    python3 -I stranger.py proof FILE.tlog-proof ENTRY_FILE ORIGIN PUBLIC_KEY_HEX
"""

import base64
import hashlib
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG, COSIGNATURE = 0x01, 0x04


class No(Exception):
    """It does not hold; the message says what."""


def demand(holds: bool, words: str) -> None:
    if not holds:
        raise No(words)


def decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise No(f"not base64: {text[:40]!r}") from None


def number(text: str) -> int:
    demand(text.isascii() and text.isdigit() and str(int(text)) == text, f"no decimal: {text!r}")
    return int(text)


# signed-note, tlog-cosignature, tlog-checkpoint


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def signatures_of(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The note's text, and (key name, key id and signature) of each line."""
    text, blank, lines = note.rpartition(b"\n\n")
    demand(bool(blank) and lines.endswith(b"\n"), "not a signed note")
    demand(not any(byte < 0x20 and byte != 0x0A for byte in note), "control characters in a note")
    found = []
    for line in lines.decode().splitlines():
        dash, name, told = line.split(" ")
        demand(dash == "—", f"no signature line: {line!r}")
        found.append((name, decoded(told)))
    return text + b"\n", found


def signed_by(note: bytes, name: str, kind: int, public: bytes) -> bool:
    """Whether a key signed; a signature of a known key that does not verify refuses the note."""
    text, lines = signatures_of(note)
    signed = False
    for line_name, data in lines:
        if (line_name, data[:4]) != (name, key_id(name, kind, public)):
            continue
        message, signature = text, data[4:]
        if kind == COSIGNATURE:
            time = int.from_bytes(signature[:8], "big")
            message, signature = b"cosignature/v1\ntime %d\n" % time + text, signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except InvalidSignature:
            raise No(f"the signature of {name} does not verify") from None
        signed = True
    return signed


def checkpoint_of(note: bytes, origin: str, public: bytes) -> tuple[int, bytes]:
    """Size and root hash of a checkpoint that the log signed."""
    demand(signed_by(note, origin, LOG, public), f"no signature of {origin}")
    lines = signatures_of(note)[0].decode().split("\n")
    demand(lines[0] == origin, f"the origin is {lines[0]!r}")
    root = decoded(lines[2])
    demand(len(root) == 32, "a root hash has 32 bytes")
    return number(lines[1]), root


# RFC 6962, 2.1


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_hash(hashes: list[bytes]) -> bytes:
    """MTH of entries whose leaf hashes are given."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(tree_hash(hashes[:split]), tree_hash(hashes[split:]))


def root_by_path(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """2.1.1, read from the leaf upwards (the algorithm of RFC 9162, 2.1.3.2)."""
    demand(index < size, f"entry {index} of {size}")
    first, last, found = index, size - 1, leaf
    for sibling in path:
        demand(last > 0, "the path is too long")
        if first & 1 or first == last:
            found = node_hash(sibling, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        first, last = first >> 1, last >> 1
    demand(last == 0, "the path is too short")
    return found


# tlog-tiles


def tile_path(level: str, tile: int) -> str:
    parts = [f"{tile % 1000:03d}"]
    while tile >= 1000:
        tile //= 1000
        parts.insert(0, f"x{tile % 1000:03d}")
    return "/".join(["tile", level, *parts])


def read_tile(folder: Path, level: str, tile: int, width: int) -> tuple[bytes, bool]:
    """A tile's bytes, and whether the full one stands in for the partial one."""
    path = folder / tile_path(level, tile)
    partial = path.with_name(f"{path.name}.p") / str(width)
    if width < 256 and partial.is_file():
        return partial.read_bytes(), False
    demand(path.is_file(), f"{tile_path(level, tile)} of width {width} is not served")
    return path.read_bytes(), width < 256


def widths(hashes: int) -> list[int]:
    return [min(256, hashes - at) for at in range(0, hashes, 256)]


def entries_of(folder: Path, size: int) -> list[bytes]:
    found: list[bytes] = []
    for tile, width in enumerate(widths(size)):
        data, longer = read_tile(folder, "entries", tile, width)
        at, count = 0, 0
        while at < len(data) and (count < width or not longer):
            length = int.from_bytes(data[at : at + 2], "big")
            demand(at + 2 + length <= len(data), f"entry {len(found)} is cut")
            found.append(data[at + 2 : at + 2 + length])
            at, count = at + 2 + length, count + 1
        demand(count == width, f"bundle {tile} has {count} entries, not {width}")
    return found


def check_tiles(folder: Path, hashes: list[bytes]) -> None:
    """Each tile of each level is what RFC 6962 makes of the entries."""
    level = 0
    while hashes:
        for tile, width in enumerate(widths(len(hashes))):
            data, longer = read_tile(folder, str(level), tile, width)
            wanted = b"".join(hashes[tile * 256 : tile * 256 + width])
            found = data[: 32 * width] if longer else data
            demand(found == wanted, f"{tile_path(str(level), tile)} is not the entries' tree")
        full = len(hashes) // 256 * 256
        hashes = [tree_hash(hashes[at : at + 256]) for at in range(0, full, 256)]
        level += 1


def check_log(folder: Path, origin: str, public: bytes, witness: tuple[str, bytes] | None) -> str:
    """Everything that the log's checkpoint signs for, recomputed; `witnessed` is an earlier one."""
    size, root = checkpoint_of((folder / "checkpoint").read_bytes(), origin, public)
    hashes = [leaf_hash(entry) for entry in entries_of(folder, size)]
    demand(tree_hash(hashes) == root, "the entries do not have the signed root")
    check_tiles(folder, hashes)
    told = f"{origin}: {size} entries, root {root.hex()}"
    if witness is not None:
        note = (folder / "witnessed").read_bytes()
        older, its_root = checkpoint_of(note, origin, public)
        demand(signed_by(note, witness[0], COSIGNATURE, witness[1]), f"no word of {witness[0]}")
        demand(older <= size, "the log shrank behind what was witnessed")
        demand(tree_hash(hashes[:older]) == its_root, "the log was rewritten")
        told += f", {older} witnessed"
    return told


# tlog-proof


def check_proof(proof: bytes, entry: bytes, origin: str, public: bytes) -> str:
    head, blank, note = proof.partition(b"\n\n")
    lines = head.decode().split("\n")
    demand(bool(blank) and lines.pop(0) == "c2sp.org/tlog-proof@v1", "not a tlog-proof")
    if lines[0].startswith("extra "):
        decoded(lines.pop(0)[6:])
    demand(lines[0].startswith("index "), "no index")
    index, path = number(lines[0][6:]), [decoded(line) for line in lines[1:]]
    size, root = checkpoint_of(note, origin, public)
    demand(root_by_path(index, size, leaf_hash(entry), path) == root, "the entry is not in there")
    return f"{origin}: entry {index} of {size}"


def main(what: str, *words: str) -> str:
    if what == "log":
        witness = (words[3], bytes.fromhex(words[4])) if len(words) == 5 else None
        return check_log(Path(words[0]), words[1], bytes.fromhex(words[2]), witness)
    proof, entry = (Path(word).read_bytes() for word in words[:2])
    return check_proof(proof, entry, words[2], bytes.fromhex(words[3]))


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except (No, OSError, UnicodeDecodeError) as refused:
        sys.exit(f"does not hold: {refused}")
