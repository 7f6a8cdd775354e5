"""Recorded requests against a draft: known where the record says enough, else unknown."""

from __future__ import annotations

from typing import Any

import pytest
from world import config, table

from gateway.exchange import Caller
from gateway.routing.choice import choose
from gateway.routing.question import Question
from gateway.routing.trial import Outcome, Recorded, tried

MODEL = table(
    config(
        """
unit: [header:x-applicant, exchange]
versions: {v1: {upstream: 'http://a'}, v2: {upstream: 'http://b'}}
rules:
  - {name: gold, when: {method: POST, body: {/tier: gold}}, split: {v2: 100%}}
  - {name: secret, when: {path: /p, header: {x-ssn: "1", cookie: a=b}}, split: {v2: 100%}}
  - {name: mine, when: {caller: loans-app}, split: {v1: 50%, v2: 50%}}
"""
    )
).models["mortgage"]
LOANS = Caller("loans-app", frozenset())


def recorded(version: str = "v1", **other: Any) -> Recorded:
    asked = {"method": "GET", "path": "/q", "caller": LOANS, "body": b"{}"}
    told = {"id": "e", "rule": "mine", "arm": "stable", "unit_kind": "header:x-applicant",
            "dropped": frozenset((b"x-ssn",)), "whole": True}  # fmt: skip
    asked |= {key: other.pop(key) for key in list(other) if key in (*asked, "first")}
    return Recorded(version=version, question=Question(**asked), **(told | other))


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (recorded("v2", method="POST", body=b'{"tier": "gold"}'), Outcome("stay", "gold", "v2")),
        (recorded("v1", method="POST", body=b'{"tier": "gold"}'), Outcome("change", "gold", "v2")),
        (recorded(method="POST", whole=False),
         Outcome("unknown", why="the body was not kept whole")),
        (recorded(path="/p"), Outcome("unknown", why="header x-ssn was not kept")),
        (recorded(path="/p", dropped=frozenset()), "known"),
        (recorded(caller=Caller("other", frozenset())), Outcome("refused")),
        (recorded(arm="forced"), Outcome("forced")),
        (recorded(unit_kind="session"), Outcome("session")),
        (recorded(dropped=frozenset((b"x-applicant",))),
         Outcome("unknown", "mine", why="header x-applicant was not kept")),
        (recorded(unit_kind="sequence", whole=False),
         Outcome("unknown", "mine", why="the body was not kept whole")),
    ],
)  # fmt: skip
def test_what_a_record_does_not_say_is_not_guessed(what: Recorded, outcome: Any) -> None:
    """Known conditions decide as far as they can; a lost one that matters makes it unknown."""
    if outcome == "known":
        # the first of the lost headers is one that was kept and is not there
        assert tried(MODEL, what).result in ("stay", "change")
    else:
        assert tried(MODEL, what) == outcome


def test_a_unit_is_drawn_as_it_was() -> None:
    """The same header, the same bucket: what the rule of then chose stays."""
    for number in range(50):
        first = {b"x-applicant": b"unit-%d" % number}
        version = choose(MODEL, MODEL.rules[-1], first, "e").version
        assert tried(MODEL, recorded(version, first=first)) == Outcome("stay", "mine", version)
