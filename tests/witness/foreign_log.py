"""A log and a reader made of aics-tlog alone; run by its own interpreter, argv: what to do.

submit FOLDER ORIGIN SEED OLD SIZE    the body of an add-checkpoint request, from tiles in FOLDER
verify LOG-VKEY WITNESS-VKEY          the size of the cosigned checkpoint on standard input
"""

import base64
import sys

import aics_tlog as tlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def submit(folder: str, origin: str, seed: str, old: str, size: str) -> bytes:
    reader = tlog.FileSystemTileReader(folder)
    root = tlog.tree_root_from_tiles(reader, int(size))
    proof = tlog.consistency_proof_from_tiles(reader, int(old), int(size))
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    signed = tlog.sign_checkpoint(tlog.parse_checkpoint(text), key, origin)
    lines = [f"old {old}", *(base64.b64encode(each).decode() for each in proof), "", text]
    for line in signed.signatures:
        encoded = base64.b64encode(line.key_id + line.signature).decode()
        lines.append(f"\u2014 {line.name} {encoded}")
    return ("\n".join(lines) + "\n").encode()


def verify(log_vkey: str, witness_vkey: str) -> bytes:
    signed = tlog.parse_note(sys.stdin.buffer.read())
    keys = [tlog.parse_vkey(witness_vkey)]
    told = tlog.verify_checkpoint(signed, tlog.parse_vkey(log_vkey), keys, 1)
    assert told.ok, told
    return str(tlog.parse_checkpoint(signed.text).size).encode()


sys.stdout.buffer.write({"submit": submit, "verify": verify}[sys.argv[1]](*sys.argv[2:]))
