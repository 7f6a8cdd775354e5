"""Signed notes: the examples of C2SP and Go verify; whoever changes a byte is refused."""

import base64
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.note import (
    SIGNATURES_MAX,
    TIMESTAMP_MAX,
    Malformed,
    Note,
    Signature,
    SignatureType,
    Signed,
    SigningKey,
    Unsigned,
    VerifierKey,
    cosign,
    decode_base64,
    read,
    sign,
    verify,
)

# The example of signed-note.md, "Verifier keys".
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXm"
    "RKuwHjG1Yu72IneyaQM=\n"
).encode()
# The example of tlog-cosignature.md; its keys are not published.
C2SP_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcy"
    "v2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3"
    "b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()
# The example of the Go package golang.org/x/mod/sumdb/note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotp"
    "RZb6KE6RyyBwJnAM=\n"
).encode()

LOG = SigningKey("log.example/a", SignatureType.ED25519, b"\x01" * 32)
WITNESS = SigningKey("witness.example/w", SignatureType.COSIGNATURE, b"\x02" * 32)
TEXT = "log.example/a\n1\n" + base64.b64encode(bytes(32)).decode() + "\n"

NAMES = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], blacklist_characters="+"),
    min_size=1,
    max_size=20,
)
LINES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
TEXTS = st.lists(LINES, min_size=1, max_size=5).map(lambda lines: "\n".join(lines) + "\n")
SIGNATURES = st.builds(
    Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80)
)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def opens(data: bytes, *keys: VerifierKey) -> bool:
    try:
        verify(read(data), keys)
    except (Malformed, Unsigned):
        return False
    return True


def test_the_example_of_the_specification():
    """The note of signed-note.md verifies with its vkey, and both are written as they were."""
    key = VerifierKey.parse(C2SP_KEY)
    note = read(C2SP_NOTE)
    assert (Signed(key),) == verify(note, [key])
    assert "This is an example message.\n" == note.text
    assert (C2SP_KEY, C2SP_NOTE) == (str(key), note.encode())


def test_the_example_of_go():
    """Go's signing key gives Go's vkey and, byte for byte, Go's signed note."""
    key = SigningKey.parse(GO_SKEY)
    assert (GO_VKEY, GO_SKEY) == (str(key.verifier), key.encode())
    text = read(GO_NOTE).text
    assert GO_NOTE == Note(text, (sign(text, key),)).encode()


def test_the_example_of_a_cosigned_checkpoint():
    """The checkpoint of tlog-cosignature.md is read: two signatures, time 1679315147."""
    note = read(C2SP_CHECKPOINT)
    witness = note.signatures[1]
    assert ["example.com/behind-the-sofa", "witness.example.com/w1"] == [
        signature.name for signature in note.signatures
    ]
    assert (1679315147, 72) == (
        struct.unpack(">Q", witness.signature[:8])[0],
        len(witness.signature),
    )
    assert C2SP_CHECKPOINT == note.encode()


def test_a_cosignature_covers_header_time_and_text():
    """The signed message is that of tlog-cosignature, "Ed25519 signed message"."""
    line = cosign(TEXT, WITNESS, 1679315147)
    public = Ed25519PrivateKey.from_private_bytes(WITNESS.seed).public_key()
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    public.verify(line.signature[8:], message)
    assert (Signed(WITNESS.verifier, 1679315147),) == verify(
        Note(TEXT, (line,)), [WITNESS.verifier]
    )


@settings(deadline=None)
@given(TEXTS, st.lists(SIGNATURES, min_size=1, max_size=5))
def test_notes_come_back(text, signatures):
    """Any text, with empty lines or lines like signatures, comes back with its signatures."""
    note = Note(text, tuple(signatures))
    assert note == read(note.encode())
    tricky = Note(text + "\n— a AAAAAAA=\n\n", tuple(signatures))
    assert tricky == read(tricky.encode())


@settings(deadline=None)
@given(NAMES, st.sampled_from(SignatureType), st.binary(min_size=32, max_size=32))
def test_keys_come_back(name, kind, seed):
    """Signing and verifying keys come back from their text; the type is part of the ID."""
    key = SigningKey(name, kind, seed)
    assert key == SigningKey.parse(key.encode())
    assert key.verifier == VerifierKey.parse(str(key.verifier))
    assert 1 == sum(SigningKey(name, each, seed).verifier.id == key.verifier.id
                    for each in SignatureType)  # fmt: skip


def test_no_repr_shows_a_seed():
    """Neither repr and str of a signing key nor the error over a bad one hold the seed."""
    assert repr(LOG.seed)[2:-1] not in repr(LOG) + str(LOG)
    assert "AYEKFALV" not in repr(SigningKey.parse(GO_SKEY))
    for bad in (GO_SKEY[:-4], GO_SKEY.replace("c74f20a3", "c74f20a4"), GO_SKEY[len("PRIVATE+") :]):
        with pytest.raises(Malformed) as caught:
            SigningKey.parse(bad)
        assert "AYEKFALV" not in str(caught.value)


def test_every_flipped_bit_of_a_signed_note_is_refused():
    """Each single bit of a note with one signature, flipped, leaves no valid note."""
    for data, key in (
        (C2SP_NOTE, VerifierKey.parse(C2SP_KEY)),
        (Note(TEXT, (cosign(TEXT, WITNESS, 1_700_000_000),)).encode(), WITNESS.verifier),
    ):
        assert opens(data, key)
        assert [] == [bit for bit in range(8 * len(data)) if opens(flip(data, bit), key)]
        assert [] == [end for end in range(len(data)) if opens(data[:end], key)]
        assert not opens(data + b"\n", key)


def test_every_changed_character_of_a_key_is_refused():
    """A vkey with one character changed is malformed: its ID covers name, type and key."""
    for at, char in enumerate(C2SP_KEY):
        for other in "Aa0+/=":
            if other != char:
                with pytest.raises(Malformed):
                    VerifierKey.parse(C2SP_KEY[:at] + other + C2SP_KEY[at + 1 :])


def test_unknown_signatures_are_ignored_and_kept():
    """A stranger's line changes nothing, even with a known name or a known ID, but not both."""
    good, key = sign(TEXT, LOG), LOG.verifier
    strangers = (
        Signature("stranger.example", b"abcd", b"?"),
        Signature(key.name, b"abcd", b"?"),
        Signature("stranger.example", key.id, b"?"),
    )
    note = read(Note(TEXT, (*strangers, good)).encode())
    assert (*strangers, good) == note.signatures
    assert (Signed(key),) == verify(note, [key, WITNESS.verifier])
    with pytest.raises(Unsigned, match="no known key"):
        verify(Note(TEXT, strangers), [key])
    with pytest.raises(Unsigned, match="no known key"):
        verify(note, [])


def test_one_wrong_signature_of_a_known_key_refuses_the_note():
    """Beside right signatures, a wrong one of a known key is not overlooked, not even a second."""
    keys = [LOG.verifier, WITNESS.verifier]
    right, cosigned = sign(TEXT, LOG), cosign(TEXT, WITNESS, 5)
    wrong = Signature(LOG.name, LOG.verifier.id, flip(right.signature, 100))
    for signatures in ((cosigned, wrong), (right, wrong), (wrong, right)):
        with pytest.raises(Unsigned, match="is wrong"):
            verify(Note(TEXT, signatures), keys)


def test_a_key_counts_once():
    """Two cosignatures of one witness are one, with the first one's time."""
    lines = (cosign(TEXT, WITNESS, 7), cosign(TEXT, WITNESS, 8))
    assert (Signed(WITNESS.verifier, 7),) == verify(Note(TEXT, lines), [WITNESS.verifier])


def test_the_ways_of_signing_do_not_mix():
    """A signature made one way does not verify as the other, though key and text are the same."""
    both = (
        SigningKey("x", SignatureType.ED25519, LOG.seed),
        SigningKey("x", SignatureType.COSIGNATURE, LOG.seed),
    )
    plain, cosigned = sign(TEXT, both[0]), cosign(TEXT, both[1], 5)
    forged = (
        (Signature("x", both[1].verifier.id, bytes(8) + plain.signature), both[1]),
        (Signature("x", both[0].verifier.id, cosigned.signature[8:]), both[0]),
        (Signature("x", both[1].verifier.id, b"short"), both[1]),
    )
    for line, key in forged:
        with pytest.raises(Unsigned):
            verify(Note(TEXT, (line,)), [key.verifier])


def test_times_have_a_limit():
    """The largest time of tlog-cosignature verifies; one beyond does not, though signed."""
    line = cosign(TEXT, WITNESS, TIMESTAMP_MAX)
    assert TIMESTAMP_MAX == verify(Note(TEXT, (line,)), [WITNESS.verifier])[0].timestamp
    private = Ed25519PrivateKey.from_private_bytes(WITNESS.seed)
    beyond = private.sign(f"cosignature/v1\ntime {2**63}\n{TEXT}".encode())
    line = Signature(line.name, line.key_id, struct.pack(">Q", 2**63) + beyond)
    with pytest.raises(Unsigned, match="impossible time"):
        verify(Note(TEXT, (line,)), [WITNESS.verifier])


def test_two_keys_of_one_name_and_id_are_refused(monkeypatch):
    """Keys that cannot be told apart are a wrong configuration, not a choice."""
    other = SigningKey(LOG.name, LOG.type, b"\x09" * 32).verifier
    monkeypatch.setattr(VerifierKey, "id", b"same")
    with pytest.raises(ValueError, match="two keys"):
        verify(Note(TEXT, (sign(TEXT, LOG),)), [LOG.verifier, other])


LINE = "— a AAAAAAA=\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        ("text" + LINE).encode(),
        ("text\n" + LINE).encode(),
        ("text\n\n" + LINE[:-1]).encode(),
        ("text\n\n" + LINE + "\n").encode(),
        ("text\n\n" + LINE + "more\n").encode(),
        b"text\n\n-- a AAAAAAA=\n",
        ("text\n\n—  a AAAAAAA=\n").encode(),
        ("text\n\n— a  AAAAAAA=\n").encode(),
        ("text\n\n— a AAAAAAA= \n").encode(),
        ("text\n\n— a+b AAAAAAA=\n").encode(),
        ("text\n\n— a\u00a0b AAAAAAA=\n").encode(),
        ("text\n\n— AAAAAAA=\n").encode(),
        ("text\n\n— a AAAAAA==\n").encode(),
        ("text\n\n— a AAAAAAA\n").encode(),
        ("text\n\n— a AAAAAAB=\n").encode(),
        ("text\n\n— a AAAA_AA=\n").encode(),
        ("te\txt\n\n" + LINE).encode(),
        ("te\rxt\r\n\n" + LINE).encode(),
        ("te\x00xt\n\n" + LINE).encode(),
        b"te\xffxt\n\n" + LINE.encode(),
        ("text\n\n" + LINE * (SIGNATURES_MAX + 1)).encode(),
        b"x" * 2**20 + b"\n\n" + LINE.encode(),
    ],
)
def test_malformed_notes(data):
    """What is not exactly a note is malformed."""
    with pytest.raises(Malformed):
        read(data)


def test_as_many_signatures_as_the_limit():
    """A note with the allowed number of signatures is read."""
    assert SIGNATURES_MAX == len(read(("text\n\n" + LINE * SIGNATURES_MAX).encode()).signatures)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a",
        "a+530d903a",
        C2SP_KEY.upper(),
        C2SP_KEY.replace("530d903a", "530D903A"),
        C2SP_KEY + "\n",
        " " + C2SP_KEY,
        C2SP_KEY.replace("+Ae", "+Bu"),
        C2SP_KEY[:-4],
        "+530d903a+" + C2SP_KEY.split("+")[2],
    ],
)
def test_malformed_keys(vkey):
    """A vkey of another form, type, length or ID is malformed."""
    with pytest.raises(Malformed):
        VerifierKey.parse(vkey)


@given(st.binary(max_size=40))
def test_base64_has_one_form(data):
    """Only the canonical base64 of some bytes is read as these bytes."""
    text = base64.b64encode(data).decode()
    assert data == decode_base64(text)
    for other in (text + "=", text + "\n", " " + text, text[:-1] + "!", text + "é"):
        with pytest.raises(Malformed):
            decode_base64(other)
