"""Rules: what they match on, and that the first one wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import config, table

from gateway.dataplane.access import forced_version
from gateway.dataplane.routing import find_model, match, path_matches
from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Caller
from gateway.protocol.v2 import Target

TABLE = table(
    config(
        """
versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}}
rules:
  - {name: both, when: {header: {x-tenant: pilot, x-region: eu}}, split: {v2: 100%}}
  - {name: pilot, when: {header: {x-tenant: pilot}}, split: {v2: 100%}}
  - {name: exactly, when: {path: /v2/models/mortgage/infer, caller: batch}, split: {v1: 100%}}
  - {name: below, when: {path: "/v2/models/mortgage/versions/*"}, split: {v1: 100%}}
  - {name: callers, when: {caller: [loans-app, batch]}, split: {v1: 100%}}
"""
    )
)
MODEL = TABLE.models["mortgage"]
INFER = "/v2/models/mortgage/infer"
BATCH, PLAIN = Caller("batch", frozenset()), Caller("plain", frozenset())
FORCER = Caller("loans-app", frozenset(("force",)))


@pytest.mark.parametrize(
    ("rule", "path", "headers", "caller"),
    [
        ("both", INFER, {b"x-tenant": b"pilot", b"x-region": b"eu"}, BATCH),
        ("pilot", INFER, {b"x-tenant": b"pilot", b"x-region": b"us"}, BATCH),
        ("exactly", INFER, {b"x-tenant": b"Pilot"}, BATCH),
        ("below", "/v2/models/mortgage/versions/v1/infer", {}, BATCH),
        ("callers", "/v2/models/mortgage", {}, BATCH),
        ("callers", INFER, {}, FORCER),
    ],
)
def test_the_first_rule_whose_conditions_all_hold_wins(
    rule: str, path: str, headers: dict[bytes, bytes], caller: Caller
) -> None:
    """Headers by exact value, a path whole or by its beginning, a caller by name; all of them."""
    assert match(MODEL, path, headers, caller).name == rule


def test_no_rule_is_a_404() -> None:
    """A request that no rule matches is refused, not sent somewhere."""
    with pytest.raises(Refusal) as caught:
        match(MODEL, INFER, {}, PLAIN)
    assert (caught.value.code, caught.value.status) == ("no_rule", 404)


@given(st.text(), st.text())
def test_a_path_pattern_is_a_prefix_only_with_a_star(path: str, rest: str) -> None:
    """`/a*` matches what begins so; without the star only the path itself."""
    assert path_matches(path + "*", path + rest)
    if not path.endswith("*"):
        assert path_matches(path, path + rest) == (rest == "")


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (Target("loans", None, "infer"), "unknown_model"),
        (Target("mortgage", "v9", "infer"), "unknown_version"),
        (Target("mortgage", "", "infer"), "unknown_version"),
    ],
)
def test_unknown_models_and_versions_are_404(target: Target, code: str) -> None:
    """What the table does not name is not found, under a code of its own."""
    with pytest.raises(Refusal) as caught:
        find_model(TABLE, target)
    assert (caught.value.code, caught.value.status) == (code, 404)


@pytest.mark.parametrize(
    ("version", "headers", "asked"),
    [
        ("v2", {}, "v2"),
        (None, {b"x-headworks-version": b"v2"}, "v2"),
        ("v1", {b"x-headworks-version": b"v2"}, "v1"),
        (None, {b"x-headworks-version": b""}, None),
        (None, {}, None),
    ],
)
def test_a_version_is_forced_by_path_or_header(
    version: str | None, headers: dict[bytes, bytes], asked: str | None
) -> None:
    """The path goes before the header, and an empty header asks for nothing."""
    assert forced_version(MODEL, Target("mortgage", version, "infer"), headers, FORCER) == asked


def test_forcing_needs_its_permission() -> None:
    """403 for who may not, also for anonymous; 404 comes first for a version that is not there."""
    for caller in (BATCH, ANONYMOUS):
        with pytest.raises(Refusal) as caught:
            forced_version(MODEL, Target("mortgage", "v2", "infer"), {}, caller)
        assert (caught.value.code, caught.value.status) == ("force_not_allowed", 403)
    with pytest.raises(Refusal) as caught:
        target = Target("mortgage", None, "infer")
        forced_version(MODEL, target, {b"x-headworks-version": b"\xff"}, FORCER)
    assert caught.value.code == "unknown_version"
