"""What a witness answers to a submission: the rules of c2sp.org/tlog-witness, in its order.

Invariants:
1. `Consistent` is said only of a checkpoint that a trusted key of its origin signed and whose tree
   has the tree of the last cosigned checkpoint as its prefix.
2. Two checkpoints of one origin and size with different roots, both signed by the log, are a fork
   and prove it to anybody: `contradiction`, whatever else is wrong with the submission.
3. A signed checkpoint whose proof fails is `unproven`: a fork as seen from here, or a wrong proof
   sent by a stranger who has read the checkpoint somewhere. It is an alarm until that very
   checkpoint has been shown consistent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.ledger import note
from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.merkle import EMPTY_ROOT, Unproven, verify_consistency
from gateway.ledger.note import Malformed, Signature, Unsigned, VerifierKey
from gateway.witness.submission import Submission
from gateway.witness.trust import Trust


class Refusal(StrEnum):
    """Why a submission is not cosigned; 400, 403, 404, 409, 422 in this order, then the alarm."""

    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    UNKNOWN_LOG = "unknown_log"
    CONFLICT = "conflict"
    UNPROVEN = "unproven"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True)
class Refused:
    """`status` and `words` for the sender; `suspect`: a signed checkpoint that is an alarm."""

    refusal: Refusal
    status: int
    words: str
    suspect: Checkpoint | None = None


@dataclass(frozen=True)
class Consistent:
    """To be cosigned. `signatures`: the log's own, verified; all others are left out."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]


Verdict = Refused | Consistent


def origin_of(submission: Submission) -> str:
    """The first line of the checkpoint, whatever the others are."""
    return submission.note.text.partition("\n")[0]


def judge(submission: Submission, trust: Trust, last: Checkpoint | None) -> Verdict:
    """The answer, given the last cosigned checkpoint of the submission's origin, if any."""
    try:
        point = _read(submission.note.text)
    except Malformed as error:
        return Refused(Refusal.MALFORMED, 400, str(error))
    origin = origin_of(submission)
    keys = trust.keys_of(origin)
    if not keys:
        return Refused(Refusal.UNKNOWN_LOG, 404, f"the log {origin[:200]!r} is not trusted here")
    try:
        signed = note.verify(submission.note, keys)
    except Unsigned as error:
        return Refused(Refusal.UNSIGNED, 403, str(error))
    if point is None:
        return Refused(Refusal.UNPROVEN, 422, "an empty tree has the root SHA-256 of nothing")
    refused = _inconsistent(submission, point, last)
    if refused is not None:
        return refused
    return Consistent(point, _lines_of(submission, [each.key for each in signed]))


def _read(text: str) -> Checkpoint | None:
    """None for the one wrong checkpoint that is not 400: an empty tree with another root."""
    lines = text.split("\n")
    if len(lines) >= 4 and lines[1] == "0" and note.decode_base64(lines[2]) != EMPTY_ROOT:
        Checkpoint.read("\n".join([lines[0], "1", *lines[2:]]))  # all else is right
        return None
    return Checkpoint.read(text)


def _lines_of(submission: Submission, keys: list[VerifierKey]) -> tuple[Signature, ...]:
    """The first signature line of each key."""
    named = {(key.name, key.id): None for key in keys}
    found: dict[tuple[str, bytes], Signature] = {}
    for line in submission.note.signatures:
        if (line.name, line.key_id) in named:
            found.setdefault((line.name, line.key_id), line)
    return tuple(found.values())


def _inconsistent(
    submission: Submission, point: Checkpoint, last: Checkpoint | None
) -> Refused | None:
    known = 0 if last is None else last.size
    forked = last is not None and point.size == last.size and point.root != last.root
    kind, suspect = (Refusal.CONTRADICTION, point) if forked else (Refusal.UNPROVEN, None)
    if submission.old > point.size:
        words = f"old size {submission.old} is over the checkpoint's size {point.size}"
        return Refused(kind if forked else Refusal.MALFORMED, 400, words, suspect)
    if submission.old != known:
        return Refused(kind if forked else Refusal.CONFLICT, 409, f"{known}\n", suspect)
    if forked:
        words = f"another root of {point.size} leaves was signed by this log and cosigned here"
        return Refused(kind, 422, words, point)
    if known == 0:
        if submission.proof:
            return Refused(kind, 422, "from old size 0 the proof is empty")
        return None
    assert last is not None
    try:
        verify_consistency(known, point.size, submission.proof, last.root, point.root)
    except Unproven as error:
        return Refused(kind, 422, f"not shown to continue {known} leaves: {error}", point)
    return None
