"""Pins of sessions: who may make one, and when it is void."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from world import config, table

from gateway.revision.revisions import set_rollout
from gateway.routing.choice import keep
from gateway.routing.pin import pin_header, read_pin, sign_pin, token_of
from gateway.split import Rollout
from gateway.table import Model, Rule, compile_rule

KEY = b"k" * 32
TEXT = config(
    """
unit: [header:x-applicant, exchange]
versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}, v3: {upstream: 'http://c'}}
rules:
  - {name: one, split: {v1: 50%, v2: 50%}, sticky: {max_age: 60s}, when: {path: /a}}
  - {name: other, split: {v1: 50%, v2: 50%}, sticky: {by: header}}
"""
)
MODEL = table(TEXT).models["mortgage"]
ONE, OTHER = MODEL.rules
NOW = 1_800_000_000


def pinned(rule: Rule, token: bytes, now: int = NOW, key: bytes = KEY) -> str | None:
    return read_pin(key, MODEL, rule, token, now)


def test_a_pin_names_its_version_until_it_is_too_old() -> None:
    """To the last second of `max_age`, and on hosts whose clocks are somewhat behind."""
    token = sign_pin(KEY, MODEL, ONE, "v2", NOW)
    ages = {age: pinned(ONE, token, NOW + age) for age in (-61, -60, 0, 59, 60)}
    assert ages == {-61: None, -60: "v2", 0: "v2", 59: "v2", 60: None}


def test_a_pin_is_of_one_rule_model_and_key() -> None:
    """Another rule's, another model's, another gateway's are none."""
    token = sign_pin(KEY, MODEL, ONE, "v2", NOW)
    assert pinned(OTHER, token) is None
    assert pinned(ONE, token, key=b"o" * 32) is None
    loans = table(TEXT.replace("mortgage", "loans")).models["loans"]
    assert read_pin(KEY, loans, loans.rules[0], token, NOW) is None


@given(st.data())
def test_nobody_makes_a_pin_without_the_key(data: st.DataObject) -> None:
    """Any other bytes, a changed version or time among them, are no pin."""
    token = sign_pin(KEY, MODEL, ONE, "v1", NOW)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.binary(min_size=1, max_size=1).filter(lambda b: b != token[place:][:1]))
    assert pinned(ONE, token[:place] + other + token[place + 1 :]) is None
    assert pinned(ONE, data.draw(st.binary(max_size=200))) is None


def rolled(weight: int, attempt: int = 1) -> tuple[Model, Rule]:
    """The first rule under a rollout."""
    document = {"models": {"mortgage": {
        "limits": {}, "timeouts": {}, "versions": {"v1": {}, "v2": {}},
        "rules": [{"name": "one", "split": [["v1", 1_000_000]], "shadow": [], "salt": None,
                   "priority": "default", "when": {"header": {}, "path": None, "caller": []},
                   "sticky": {"max_age": 60, "by": "cookie"}}],
    }}}  # fmt: skip
    made = Rollout("trees", attempt, "v1", "v2", weight, 0, 0, 0)
    set_rollout(document, "mortgage", "one", made)
    told = document["models"]["mortgage"]
    return MODEL, compile_rule("mortgage", told, told["rules"][0])


def test_a_rollback_voids_the_pins_of_its_version_for_ever() -> None:
    """At weight 0 none holds, and a second attempt does not bring those of the first back."""
    model, rule = rolled(50_000)
    token = sign_pin(KEY, model, rule, "v2", NOW)
    stay = sign_pin(KEY, model, rule, "v1", NOW)
    assert pinned(rolled(250_000)[1], token) == "v2"
    assert pinned(rolled(0)[1], token) is None
    assert pinned(rolled(0)[1], stay) == "v1"
    assert pinned(rolled(50_000, attempt=2)[1], token) is None
    assert pinned(rolled(50_000, attempt=2)[1], stay) is None


def test_a_client_carries_its_pin_as_it_was_given() -> None:
    """By cookie among others or by header, both ways."""
    token = sign_pin(KEY, MODEL, ONE, "v2", NOW)
    name, value = pin_header(MODEL, ONE, token)
    assert (name, value.partition(b";")[2]) == (
        b"set-cookie", b" Max-Age=60; Path=/; HttpOnly; SameSite=Lax",
    )  # fmt: skip
    cookie = b"a=b; " + value.partition(b";")[0] + b"; c=d"
    assert token_of(MODEL, ONE, {b"cookie": cookie}) == token
    assert (
        token_of(MODEL, ONE, {b"cookie": b"headworks-loans=x", b"x-headworks-session": b"y"})
        is None
    )
    assert pin_header(MODEL, OTHER, token) == (b"x-headworks-session", token)
    assert token_of(MODEL, OTHER, {b"x-headworks-session": token}) == token


def test_a_session_off_its_hash_is_outside_evidence() -> None:
    """Pinned as the hash says it counts as ever; else its unit kind tells."""
    from gateway.exchange import Choice

    hashed = Choice("v1", "control", "one", "header:x-applicant", 600_000)
    assert keep("v1", ONE, hashed) is hashed
    assert keep("v2", ONE, hashed) == Choice("v2", "canary", "one", "session", 600_000)
