"""What a log makes of a witness's answers, and which cosigned checkpoint it keeps."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.ledger import note
from gateway.ledger.checkpoint import decode_decimal
from gateway.ledger.note import Malformed, Note, Signature, Signed, Unsigned, VerifierKey

Cosignature = tuple[Signature, Signed]
"""The line as it was sent, and what was checked of it."""


def cosignatures(signed: Note, keys: Sequence[VerifierKey]) -> list[Cosignature]:
    """The right cosignatures of `keys` in a note; a wrong one counts as none."""
    found = []
    for key in keys:
        lines = [line for line in signed.signatures if (line.name, line.key_id) == _named(key)]
        try:
            checked = note.verify(Note(signed.text, tuple(lines)), [key])[0]
        except Unsigned:
            continue
        if checked.timestamp:  # "The cosignature MUST NOT omit the timestamp"
            found.append((lines[0], checked))
    return found


def _named(key: VerifierKey) -> tuple[str, bytes]:
    return key.name, key.id


def read_cosignature(text: str, body: bytes, key: VerifierKey) -> Cosignature:
    """The witness's cosignature over `text` in the body of its answer 200.

    Malformed where the body is not signature lines; Unsigned where none of them is `key`'s, or it
    is wrong. Cosignatures of others are ignored, as tlog-witness asks.
    """
    found = cosignatures(note.read(text.encode() + b"\n" + body), [key])
    if not found:
        raise Unsigned(f"{key.name} did not cosign this checkpoint, or wrongly")
    return found[0]


def kept(
    held: Note | None,
    checkpoint: Note,
    fresh: Sequence[Cosignature],
    keys: Sequence[VerifierKey],
    quorum: int,
) -> Note | None:
    """The note to keep as `witnessed` after `checkpoint` got `fresh` cosignatures; None: the old.

    A newer checkpoint takes the place of one that more witnesses cosigned only if it has the quorum
    itself: while a witness is away, what is proved to readers who ask for it stays proved.
    """
    if not fresh:
        return None
    before = [] if held is None else cosignatures(held, keys)
    lines = {signed.key: line for line, signed in fresh}
    if held is not None and held.text == checkpoint.text:
        lines = {signed.key: line for line, signed in before} | lines
    elif len(lines) < min(len(before), quorum):
        return None
    ordered = [lines[key] for key in keys if key in lines]
    names = {_named(key) for key in keys}
    own = [line for line in checkpoint.signatures if (line.name, line.key_id) not in names]
    return Note(checkpoint.text, (*own, *ordered))


def read_conflict(body: bytes) -> int:
    """The size in the body of an answer 409; Malformed otherwise."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("a size is ASCII") from error
    if not text.endswith("\n"):
        raise Malformed("a size ends in a newline")
    return decode_decimal(text[:-1])
