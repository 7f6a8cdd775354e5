"""The rules alone, with random trees: only what continues the last tree is cosigned."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.checkpoint import Checkpoint
from gateway.ledger.merkle import (
    EMPTY_ROOT,
    RightEdge,
    leaf_hash,
    parents,
    prove_consistency,
    root_of,
)
from gateway.ledger.note import (
    Malformed,
    Note,
    SignatureType,
    SigningKey,
    Unsigned,
    cosign,
    encode_base64,
)
from gateway.witness.answer import cosignatures, kept, read_conflict, read_cosignature
from gateway.witness.submission import Submission
from gateway.witness.trust import Trust
from gateway.witness.verdict import Consistent, Refusal, Refused, judge

LOG = SigningKey("bank.example/root", SignatureType.ED25519, b"\x07" * 32)
TRUST = Trust.of([str(LOG.verifier)])
WITNESSES = [
    SigningKey(f"witness.example/{n}", SignatureType.COSIGNATURE, bytes([n]) * 32)
    for n in range(1, 4)
]
KEYS = [witness.verifier for witness in WITNESSES]
SIZES = st.integers(1, 300)
PATIENT = settings(deadline=None, max_examples=60)


class Leaves:
    """A tree whose leaves differ from `fork` on; `fork` None: the true one."""

    def __init__(self, size: int, fork: int | None = None) -> None:
        self.rows = [[
            leaf_hash(f"{'x' if fork is not None and n >= fork else ''}{n}".encode())
            for n in range(size)
        ]]  # fmt: skip
        while len(self.rows[-1]) > 1:
            self.rows.append(parents(self.rows[-1]))
        self.size = size

    def node(self, height: int, index: int) -> bytes:
        return self.rows[height][index]

    def point(self, size: int) -> Checkpoint:
        return Checkpoint(LOG.name, size, root_of(size, self.node) if size else EMPTY_ROOT)

    def submission(self, old: int, size: int) -> Submission:
        point = self.point(size)
        proof = prove_consistency(old, size, self.node) if 0 < old <= size else ()
        return Submission(old, proof, Note(point.text, (point.sign(LOG),)))


@PATIENT
@given(SIZES, SIZES)
def test_each_continuation_is_cosigned(one, other):
    """From any size to any at least as large, the proof of the same tree is taken."""
    old, size = sorted((one, other))
    tree = Leaves(size)
    for last, known in ((None, 0), (tree.point(0), 0), (tree.point(old), old)):
        verdict = judge(tree.submission(known, size), TRUST, last)
        assert isinstance(verdict, Consistent)
        assert verdict.checkpoint == tree.point(size)


@PATIENT
@given(SIZES, SIZES, st.data())
def test_no_fork_is_cosigned(one, other, data):
    """A tree that differs below the known size is refused from there, whatever its proof."""
    old, size = sorted((one, other))
    forked = Leaves(size, data.draw(st.integers(0, old - 1)))
    verdict = judge(forked.submission(old, size), TRUST, Leaves(old).point(old))
    assert isinstance(verdict, Refused)
    kind = Refusal.CONTRADICTION if size == old else Refusal.UNPROVEN
    assert (422, kind, size) == (verdict.status, verdict.refusal, verdict.suspect.size)


@PATIENT
@given(SIZES, SIZES, SIZES)
def test_the_wrong_old_size_gets_the_known_one(one, other, known):
    """409 with the known size and a newline, for each old size that is not it."""
    old, size = sorted((one, other))
    tree = Leaves(max(size, known))
    verdict = judge(tree.submission(old, size), TRUST, tree.point(known))
    if old == known:
        assert isinstance(verdict, Consistent)
    else:
        assert (409, f"{known}\n", None) == (verdict.status, verdict.words, verdict.suspect)
        assert known == read_conflict(verdict.words.encode())


@PATIENT
@given(st.integers(1, 100), st.integers(1, 100), st.data())
def test_a_changed_proof_is_refused(old, more, data):
    """A bit turned, a hash left out or added: unproven."""
    tree = Leaves(old + more)
    right = tree.submission(old, old + more)
    number = data.draw(st.integers(0, len(right.proof) - 1))
    turned = bytes([right.proof[number][0] ^ 1]) + right.proof[number][1:]
    for proof in (
        (*right.proof[:number], turned, *right.proof[number + 1 :]),
        (*right.proof[:number], *right.proof[number + 1 :]),
        (*right.proof, bytes(32)),
    ):
        verdict = judge(replace(right, proof=proof), TRUST, tree.point(old))
        assert (422, Refusal.UNPROVEN) == (verdict.status, verdict.refusal)


@PATIENT
@given(SIZES, SIZES, st.data())
def test_a_byte_changed_is_never_cosigned_as_something_else(one, other, data):
    """Whatever byte of a submission is changed: malformed, refused, or the very same checkpoint."""
    old, size = sorted((one, other))
    tree = Leaves(size)
    body = bytearray(tree.submission(old, size).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    try:
        verdict = judge(Submission.read(bytes(body)), TRUST, tree.point(old))
    except Malformed:
        return
    assert isinstance(verdict, Refused) or verdict.checkpoint == tree.point(size)


@PATIENT
@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_submissions_come_back(old, proof):
    """Any old size and proof come back from the bytes."""
    given_ = replace(Leaves(1).submission(0, 1), old=old, proof=tuple(proof))
    assert given_ == Submission.read(given_.encode())


def test_the_specification_s_example_is_read():
    """The request body of tlog-witness.md, its signature lines as they are."""
    body = (
        "old 20852014\n"
        "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
        "\n"
        "example.com/behind-the-sofa\n"
        "20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
        "\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/"
        "Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    ).encode()
    given_ = Submission.read(body)
    assert (20852014, 4) == (given_.old, len(given_.proof))
    assert body == given_.encode()
    assert judge(given_, TRUST, None).status == 404


def edge_root(size: int) -> bytes:
    edge = RightEdge()
    edge.extend(Leaves(size).rows[0])
    return edge.root()


def test_the_tests_trees_are_the_ledger_s():
    """The random trees have the roots that the ledger computes."""
    assert [Leaves(n).point(n).root for n in (1, 2, 7, 256)] == list(map(edge_root, (1, 2, 7, 256)))


POINTS = [Checkpoint(LOG.name, size, bytes([size]) * 32) for size in (5, 6)]


def signed(point: Checkpoint, witnesses, at: int = 1_700_000_000) -> Note:
    lines = [cosign(point.text, witness, at) for witness in witnesses]
    return Note(point.text, (point.sign(LOG), *lines))


@pytest.mark.parametrize(
    ("held", "fresh", "quorum", "expected"),
    [
        ((), (0,), 2, (0,)),
        ((0,), (1,), 2, (1,)),
        ((0, 1), (1,), 2, None),
        ((0, 1), (1,), 1, (1,)),
        ((0, 1, 2), (0, 2), 2, (0, 2)),
        ((0, 1, 2), (0, 2), 3, None),
        ((0,), (0, 1), 3, (0, 1)),
        ((0, 1), (2,), 0, (2,)),
        ((0,), (), 1, None),
    ],
)
def test_a_newer_checkpoint_does_not_take_the_quorum_away(held, fresh, quorum, expected):
    """It takes the place of the old one with the quorum, or with as many cosignatures."""
    old = signed(POINTS[0], [WITNESSES[n] for n in held]) if held else None
    new = signed(POINTS[1], ())
    lines = cosignatures(signed(POINTS[1], [WITNESSES[n] for n in fresh]), KEYS)
    chosen = kept(old, new, lines, KEYS, quorum)
    names = chosen and [line.name for line in chosen.signatures]
    assert names == (expected and [LOG.name, *(WITNESSES[n].name for n in expected)])


def test_cosignatures_of_one_checkpoint_are_gathered():
    """What comes later is put beside what is held; the newer one of one witness stays."""
    held = signed(POINTS[0], WITNESSES[:2])
    fresh = cosignatures(signed(POINTS[0], WITNESSES[1:], 1_800_000_000), KEYS)
    chosen = kept(held, signed(POINTS[0], ()), fresh, KEYS, 3)
    times = [each.timestamp for _, each in cosignatures(chosen, KEYS)]
    assert times == [1_700_000_000, 1_800_000_000, 1_800_000_000]


def test_only_right_cosignatures_are_read():
    """Another text, another key, no time, no line: refused; lines of strangers are ignored."""
    text, (one, two, three) = POINTS[0].text, WITNESSES
    line = str(cosign(text, one, 5))
    ignored = str(cosign(text, two, 5)) + line
    assert read_cosignature(text, ignored.encode(), KEYS[0])[1].timestamp == 5
    for wrong in ("", "nonsense", str(cosign(text, two, 5)), str(cosign(POINTS[1].text, one, 5)),
                  str(cosign(text, one, 0)), line[:-1], line + line[:-9], f"{line}\n",
                  str(POINTS[0].sign(LOG)), str(cosign(text, three, 5))):  # fmt: skip
        with pytest.raises((Malformed, Unsigned)):
            read_cosignature(text, wrong.encode(), KEYS[0])


@pytest.mark.parametrize("body", [b"", b"5", b"05\n", b"-1\n", b"5\n\n", b"x\n", b"\xff\n"])
def test_a_conflict_without_a_size(body):
    """Only a decimal and a newline is a size."""
    with pytest.raises(Malformed):
        read_conflict(body)


def test_trust_is_in_keys_of_logs():
    """Neither nonsense nor a witness's key; two keys for one origin may both sign."""
    for vkey in ("", "a+b+c", str(KEYS[0])):
        with pytest.raises(Malformed):
            Trust.of([vkey])
    second = SigningKey(LOG.name, SignatureType.ED25519, b"\x08" * 32)
    trust = Trust.of([str(LOG.verifier), str(second.verifier), str(LOG.verifier)])
    assert trust.keys_of(LOG.name) == (LOG.verifier, second.verifier)
    assert trust.keys_of("bank.example/a b") == ()
    assert trust.keys_of("bank.example/" + "x" * 600) == ()
    assert encode_base64(trust.keys_of("bank.example/x")[0].public)
