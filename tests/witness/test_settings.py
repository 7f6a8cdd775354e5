"""The section `ledger`: witnesses as their daemon names them, a quorum that can be met."""

import pytest
from pydantic import ValidationError

from gateway.ledger.note import SignatureType, SigningKey
from gateway.settings import LedgerSettings

KEYS = [
    str(SigningKey(f"w.example/{n}", SignatureType.COSIGNATURE, bytes([n]) * 32).verifier)
    for n in range(1, 60)  # so many that some have a plus in their base64
]


def section(*vkeys: str, **named) -> LedgerSettings:
    witnesses = [{"vkey": vkey, "url": "http://127.0.0.1:8181"} for vkey in vkeys]
    return LedgerSettings.model_validate({"witnesses": witnesses, **named})


def test_the_quorum_is_all_unless_said():
    """Absent it is as many as there are witnesses; 0 is allowed; more than there are is not."""
    assert (0, 2, 1, 0) == (
        section().needed, section(*KEYS[:2]).needed, section(*KEYS[:2], quorum=1).needed,
        section(*KEYS[:2], quorum=0).needed,
    )  # fmt: skip
    with pytest.raises(ValidationError, match="a quorum of 3 among 2 witnesses"):
        section(*KEYS[:2], quorum=3)


@pytest.mark.parametrize("vkey", KEYS)
def test_every_witness_s_vkey_is_taken(vkey):
    """What the daemon prints can be pasted."""
    assert section(vkey).witnesses[0].vkey == vkey


def test_wrong_vkeys_are_refused():
    """A log's key, a digit changed, a name changed, the same key twice, one name twice."""
    log = str(SigningKey("w.example/1", SignatureType.ED25519, b"\x01" * 32).verifier)
    name, rest = KEYS[0].split("+", 1)
    same_name = str(SigningKey(name, SignatureType.COSIGNATURE, b"\x77" * 32).verifier)
    same_key = str(SigningKey("other", SignatureType.COSIGNATURE, b"\x01" * 32).verifier)
    for vkeys in ((log,), (f"x{KEYS[0]}",), (KEYS[0][:-3] + "AA=",), ("nonsense",),
                  (KEYS[0], same_name), (KEYS[0], same_key)):  # fmt: skip
        with pytest.raises(ValidationError):
            section(*vkeys)


def test_times_are_positive():
    """A checkpoint or heartbeat every 0 s is refused."""
    for key in ("checkpoint", "heartbeat"):
        with pytest.raises(ValidationError):
            section(**{key: "0s"})
