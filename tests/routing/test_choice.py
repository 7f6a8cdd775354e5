"""Assignment: the published vectors, and what holds for every salt, unit and split."""

from __future__ import annotations

import functools
from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import config, table

from gateway.declaration import MILLION
from gateway.routing.choice import bucket_bits, bucket_ppm, choose, force, shadows, unit_of
from gateway.routing.question import Question
from gateway.split import Rollout
from gateway.table import Model

SALT = b"fraud/v7-v8#1"
UNITS = [f"user-{number}" for number in range(4000)]


@functools.cache
def model(split: str, more: str = "") -> Model:
    versions = ", ".join(f"{name}: {{upstream: 'http://a'}}" for name in ("v1", "v2", "v3"))
    text = config(
        f"unit: [header:x-applicant, header:x-session, exchange]\nversions: {{{versions}}}\n"
        f"rules: [{{name: everyone, split: {{{split}}}{more}}}]"
    )
    return table(text).models["mortgage"]


def chosen(split: str, unit: str) -> str:
    found = model(split)
    return choose(found, found.rules[0], {b"x-applicant": unit.encode()}, "e").version


@pytest.mark.parametrize(
    ("salt", "unit", "bits", "ppm"),
    [
        (SALT, "user-42", 0xE0AA19B91F23ABC0, 877_595),
        (SALT, "user-43", 0x1F4423172D6758D1, 122_133),
        (b"fraud/v7-v8#2", "user-42", 0xD79E1FBB2C3A2164, 842_256),
        (SALT, "zoë", 0x5F2A0C4BFA2A8F39, 371_735),
        (SALT, "", 0x48F18BB7956FB054, 284_935),
        (b"mortgage/everyone", "user-42", 0xBF45DF08618E5A21, 747_159),
        (b"x" * 65, "user-42", 0x62F402FBF345F271, 386_535),
    ],
)
def test_published_vectors(salt: bytes, unit: str, bits: int, ppm: int) -> None:
    """These units lie in these buckets in every release, for ever."""
    assert bucket_bits(salt, unit) == bits
    assert bucket_ppm(salt, unit) == ppm


def test_a_bucket_as_a_fraction() -> None:
    """The published vector as the float that the study gives."""
    assert bucket_bits(SALT, "user-42") / 2**64 == 0.8775955273587345


@given(st.binary(min_size=1, max_size=64), st.text(st.characters(codec="utf-8")))
def test_a_bucket_is_keyed_blake2b_of_the_unit(salt: bytes, unit: str) -> None:
    """Anybody with BLAKE2b can compute a bucket: ppm are the top of the first eight bytes."""
    digest = blake2b(unit.encode(), digest_size=8, key=salt).digest()
    assert bucket_ppm(salt, unit) == int.from_bytes(digest, "big") * MILLION // 2**64


@given(st.binary(min_size=1, max_size=40))
def test_a_unit_is_hashed_as_its_bytes_came(sent: bytes) -> None:
    """A header's bytes are the unit, whatever their encoding: UTF-8 and Latin-1 and neither."""
    kind, unit = unit_of(("header:x-applicant",), {b"x-applicant": sent}, "e")
    assert kind == "header:x-applicant"
    expected = blake2b(sent, digest_size=8, key=SALT).digest()
    assert bucket_bits(SALT, unit).to_bytes(8, "big") == expected


@pytest.mark.parametrize(
    ("headers", "kind", "unit"),
    [
        ({b"x-applicant": b"ann", b"x-session": b"s"}, "header:x-applicant", "ann"),
        ({b"x-applicant": b"", b"x-session": b"s"}, "header:x-session", "s"),
        ({b"x-session": b"s"}, "header:x-session", "s"),
        ({b"x-applicant": b""}, "exchange", "the-id"),
        ({b"x-applicant": "zoë".encode()}, "header:x-applicant", "zoë"),
    ],
)
def test_the_first_source_that_is_not_empty_says_the_unit(
    headers: dict[bytes, bytes], kind: str, unit: str
) -> None:
    """An absent or empty header leaves it to the next source, in the end to the exchange's id."""
    chain = ("header:x-applicant", "header:x-session", "exchange")
    assert unit_of(chain, headers, "the-id") == (kind, unit)


def test_shares_are_kept_to_the_ppm() -> None:
    """The bucket below the boundary is the canary's and the boundary itself is the stable one's."""
    ppm = bucket_ppm(b"mortgage/everyone", "user-42")
    assert chosen(f"v1: {MILLION - ppm - 1}ppm, v2: {ppm + 1}ppm", "user-42") == "v2"
    assert chosen(f"v1: {MILLION - ppm}ppm, v2: {ppm}ppm", "user-42") == "v1"


def test_three_versions_get_their_shares() -> None:
    """The first takes what is left; the others lie from 0 upward and get about their shares."""
    found = model("v1: 70%, v3: 20%, v2: 10%")
    rule = found.rules[0]
    assert [(item.low, item.high, item.version) for item in rule.intervals] == [
        (0, 200_000, "v3"),
        (200_000, 300_000, "v2"),
    ]
    choices = [choose(found, rule, {b"x-applicant": unit.encode()}, "e") for unit in UNITS]
    share = {name: sum(c.version == name for c in choices) / len(UNITS) for name in found.versions}
    for name, wanted in (("v1", 0.7), ("v2", 0.1), ("v3", 0.2)):
        assert share[name] == pytest.approx(wanted, abs=0.03)
    assert {(c.version, c.arm) for c in choices} == {
        ("v1", "stable"), ("v2", "canary"), ("v3", "canary"),
    }  # fmt: skip


@given(st.integers(0, MILLION), st.integers(0, MILLION), st.sampled_from(UNITS))
def test_a_raised_weight_only_adds_units(one: int, other: int, unit: str) -> None:
    """A unit that has the canary keeps it while the canary's share grows."""
    less, more = sorted((one, other))
    if chosen(f"v1: {MILLION - less}ppm, v2: {less}ppm", unit) == "v2":
        assert chosen(f"v1: {MILLION - more}ppm, v2: {more}ppm", unit) == "v2"


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(max_size=40))
def test_a_choice_says_again_what_it_said(unit: str, exchange: str) -> None:
    """The same unit has the same version and bucket, whichever exchange it comes with."""
    found = model("v1: 50%, v2: 50%")
    headers = {b"x-applicant": unit.encode()}
    choice = choose(found, found.rules[0], headers, exchange)
    assert choice == choose(found, found.rules[0], headers, "another")
    assert choice.bucket_ppm == bucket_ppm(b"mortgage/everyone", unit)
    assert choice.version == ("v2" if choice.bucket_ppm < 500_000 else "v1")


def test_zero_and_all() -> None:
    """A share of 0 % never takes a unit, one of 100 % takes each."""
    assert {chosen("v1: 100%, v2: 0%", unit) for unit in UNITS[:200]} == {"v1"}
    assert {chosen("v1: 0%, v2: 100%", unit) for unit in UNITS[:200]} == {"v2"}


def test_a_forced_choice_is_outside_all_evidence() -> None:
    """It has an arm of its own and no bucket."""
    choice = force("v2", model("v1: 100%").rules[0])
    assert (choice.version, choice.arm, choice.bucket_ppm) == ("v2", "forced", -1)


def test_shadows_are_drawn_by_exchange_and_never_twice() -> None:
    """Each shadow gets about its share of exchanges, and none that it answered itself."""
    rule = model("v1: 100%", ", shadow: {v2: 30%, v3: 100%}").rules[0]
    drawn = [shadows(rule, "v1", unit, Question()) for unit in UNITS]
    assert all("v3" in names for names in drawn)
    assert sum("v2" in names for names in drawn) / len(UNITS) == pytest.approx(0.3, abs=0.03)
    assert not any("v3" in shadows(rule, "v3", unit, Question()) for unit in UNITS[:100])


def test_the_digest_is_kept_of_what_a_rollout_owns_alone():
    """Its first bits are the bucket; without a rollout there is none, nor of what is forced."""
    found = model("v1: 100%")
    plain = found.rules[0]
    owned = replace(plain, salt=SALT, rollout=Rollout("r", 1, "v1", "v2", 1, 0, 0, 0))
    headers = {b"x-applicant": b"user-42"}
    assert choose(found, plain, headers, "e").unit_digest is None
    chosen = choose(found, owned, headers, "e")
    assert (chosen.unit_digest, chosen.bucket_ppm) == ("e0aa19b91f23abc0", 877_595)
    assert force("v2", owned).unit_digest is None
