"""Checkpoints: read as tlog-checkpoint has them, believed as the policy asks, otherwise refused."""

import base64
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.checkpoint import Checkpoint, Policy, open_checkpoint
from gateway.ledger.merkle import EMPTY_ROOT, SIZE_MAX
from gateway.ledger.note import (
    Malformed,
    Note,
    Signature,
    SignatureType,
    SigningKey,
    Unsigned,
    cosign,
    sign,
)

EXAMPLE = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = sha256(b"root").digest()
LOG = SigningKey("log.example/a", SignatureType.ED25519, b"\x01" * 32)
WITNESSES = [
    SigningKey(f"witness.example/{number}", SignatureType.COSIGNATURE, bytes([number]) * 32)
    for number in range(10, 13)
]
POLICY = Policy(LOG.verifier, tuple(key.verifier for key in WITNESSES), 2)
POINT = Checkpoint(LOG.name, 7, ROOT)
LINES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def published(witnesses=WITNESSES, point=POINT, *more: Signature) -> bytes:
    lines = [cosign(point.text, key, 1_700_000_000 + at) for at, key in enumerate(witnesses)]
    return Note(point.text, (point.sign(LOG), *lines, *more)).encode()


def opens(data: bytes, policy: Policy = POLICY) -> bool:
    try:
        open_checkpoint(data, policy)
    except (Malformed, Unsigned):
        return False
    return True


def test_the_example_of_the_specification():
    """The text of tlog-checkpoint.md is read and written again as it was."""
    point = Checkpoint.read(EXAMPLE)
    assert ("example.com/behind-the-sofa", 20852163) == (point.origin, point.size)
    assert "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62" == point.root.hex()
    assert EXAMPLE == point.text


@settings(deadline=None)
@given(LINES, st.integers(1, SIZE_MAX), st.binary(min_size=32, max_size=32), st.lists(LINES))
def test_checkpoints_come_back(origin, size, root, extensions):
    """Any origin, size, root and extension lines come back from the text."""
    point = Checkpoint(origin, size, root, tuple(extensions))
    assert point == Checkpoint.read(point.text)


def test_the_empty_tree():
    """Size 0 is read with the root of nothing and with no other."""
    point = Checkpoint("o", 0, EMPTY_ROOT)
    assert point == Checkpoint.read(point.text)
    with pytest.raises(Malformed):
        Checkpoint("o", 0, ROOT)


HASH = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "o\n7\n",
        f"o\n7\n{HASH}",
        f"\n7\n{HASH}\n",
        f"o\n\n{HASH}\n",
        f"o\n07\n{HASH}\n",
        f"o\n+7\n{HASH}\n",
        f"o\n-7\n{HASH}\n",
        f"o\n7 \n{HASH}\n",
        f"o\n7_0\n{HASH}\n",
        f"o\n٧\n{HASH}\n",
        f"o\n{SIZE_MAX + 1}\n{HASH}\n",
        f"o\n7\n{HASH[:-4]}\n",
        f"o\n7\n{HASH[:-1]}\n",
        f"o\n7\n{HASH} \n",
        f"o\n7\n{HASH}\n\n",
        f"o\n7\n{HASH}\nextension\n\nmore\n",
        f"o\n7\r\n{HASH}\n",
    ],
)
def test_malformed_texts(text):
    """What is not exactly a checkpoint's text is malformed."""
    with pytest.raises(Malformed):
        Checkpoint.read(text)


def test_a_checkpoint_is_signed_under_its_origin():
    """A key of another name is a programming error."""
    with pytest.raises(AssertionError):
        Checkpoint("another", 7, ROOT).sign(LOG)


def test_a_witnessed_checkpoint_opens():
    """The checkpoint comes back with the times of its witnesses, in the order of their lines."""
    stranger = Signature("stranger.example", b"abcd", b"whatever")
    witnessed = open_checkpoint(published(WITNESSES, POINT, stranger), POLICY)
    assert POINT == witnessed.checkpoint
    assert [(key.verifier, 1_700_000_000 + at) for at, key in enumerate(WITNESSES)] == [
        (each.key, each.timestamp) for each in witnessed.cosignatures
    ]


def test_the_quorum_counts_different_witnesses():
    """Two of three open it; one does not, however often it signs; a quorum of 0 asks for none."""
    assert opens(published(WITNESSES[1:]))
    again = cosign(POINT.text, WITNESSES[0], 9)
    assert not opens(published(WITNESSES[:1], POINT, again))
    assert opens(published([]), Policy(LOG.verifier))
    assert not opens(published([]))


def test_witnesses_do_not_replace_the_log():
    """All witnesses without the log open nothing; nor does the log's signature on other text."""
    lines = tuple(cosign(POINT.text, key, 5) for key in WITNESSES)
    assert not opens(Note(POINT.text, lines).encode())
    other = Checkpoint(LOG.name, 8, ROOT)
    assert not opens(Note(POINT.text, (other.sign(LOG), *lines)).encode())


def test_a_log_speaks_for_its_own_origin_only():
    """A rightly signed checkpoint of another origin is refused."""
    other = Checkpoint("log.example/b", 7, ROOT)
    named = SigningKey("log.example/b", LOG.type, LOG.seed)
    line = other.sign(named)
    line = Signature(LOG.name, LOG.verifier.id, line.signature)
    with pytest.raises(Unsigned, match="log.example/b"):
        open_checkpoint(Note(other.text, (line,)).encode(), Policy(LOG.verifier))


def test_a_signed_text_that_is_no_checkpoint_is_malformed():
    """Trust in a signature does not make a checkpoint of other text."""
    text = "log.example/a\nseven\n" + HASH + "\n"
    private = Checkpoint(LOG.name, 7, ROOT)
    assert opens(Note(private.text, (private.sign(LOG),)).encode(), Policy(LOG.verifier))
    with pytest.raises(Malformed):
        open_checkpoint(Note(text, (sign(text, LOG),)).encode(), Policy(LOG.verifier))


def test_every_flipped_bit_is_refused():
    """Each bit of a checkpoint that just has its quorum, flipped, closes it."""
    data = published(WITNESSES[:2])
    assert opens(data)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert not opens(bytes(changed)), bit


@pytest.mark.parametrize(
    ("log", "witnesses", "quorum"),
    [
        (WITNESSES[0], WITNESSES[1:], 1),
        (LOG, [LOG], 1),
        (LOG, WITNESSES, 4),
        (LOG, WITNESSES, -1),
        (LOG, [WITNESSES[0], WITNESSES[0]], 2),
        (LOG, [WITNESSES[0], SigningKey("b", WITNESSES[0].type, WITNESSES[0].seed)], 2),
        (LOG, [SigningKey("w", SignatureType.COSIGNATURE, LOG.seed)], 1),
    ],
)
def test_policies_that_mean_nothing(log, witnesses, quorum):
    """Wrong key types, one public key under two names and impossible quorums are refused."""
    with pytest.raises(ValueError, match="quorum|signs|twice"):
        Policy(log.verifier, tuple(key.verifier for key in witnesses), quorum)
