"""A trace says what the data path would do, by the same functions, and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import CALLERS, config, table

from gateway.exchange import Caller
from gateway.routing.choice import choose, shadows
from gateway.routing.place import match
from gateway.routing.question import Question
from gateway.routing.trace import Described, trace

TABLE = table(
    config(
        """
unit: [header:x-applicant, exchange]
context: {routable: [channel]}
versions: {v1: {upstream: 'http://a'}, v2: {endpoints: ['http://b', 'http://c']}}
rules:
  - {name: pilot, when: {header: {x-tenant: pilot}, caller: loans-app}, split: {v2: 100%}}
  - {name: branch, when: {context: {channel: branch}}, split: {v2: 100%}, timeouts: {request: 2s}}
  - {name: everyone, split: {v1: 70%, v2: 30%}, holdout: 5%, shadow:
      {v2: {share: 50%, when: {header: {x-region: eu}}}}}
""",
        callers=CALLERS,
    )
)
INFER = "/v2/models/mortgage/infer"


def traced(path: str = INFER, caller: str | None = "loans-app", **headers: str) -> dict[str, Any]:
    said = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return trace(TABLE, Described("POST", path, said, b"", caller, "e"))


def test_every_rule_says_why_not() -> None:
    """In order, with the first condition that failed and what was there; then none is reached."""
    told = traced(x_tenant="beta", x_headworks_groups="channel=branch")
    assert [(rule["name"], rule["result"], rule["condition"], rule["found"])
            for rule in told["rules"]] == [
        ("pilot", "fails", "header x-tenant is pilot", "beta"),
        ("branch", "matches", None, None),
        ("everyone", "not reached", None, None),
    ]  # fmt: skip
    assert (told["version"], told["endpoints"]) == ("v2", ["http://b", "http://c"])
    assert told["timeouts"]["request"] == 2


def test_a_unit_says_its_bucket_and_where_it_lies() -> None:
    """The published vector, its arm, the slices around it."""
    told = traced(x_applicant="user-42")
    assert told["bucket_ppm"] == 747_159
    assert told["unit"] == {
        "kind": "header:x-applicant", "value": "user-42", "salt": "mortgage/everyone",
    }  # fmt: skip
    assert (told["arm"], told["version"]) == ("stable", "v1")
    assert [one["arm"] for one in told["intervals"]] == ["canary", "holdout"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"caller": "nobody"}, "unauthorised"),
        ({"path": "/nowhere"}, "unknown_path"),
        ({"path": "/v2/models/other/infer"}, "unknown_model"),
        ({"x_headworks_groups": "no"}, "bad_context"),
        ({"x_headworks_version": "v9"}, "unknown_version"),
        ({"caller": "plain", "x_headworks_version": "v1"}, "force_not_allowed"),
    ],
)
def test_a_refusal_ends_the_trace_as_it_would_the_request(asked: dict[str, str], code: str) -> None:
    """With the code that the caller would see."""
    assert traced(**asked)["refused"]["code"] == code


def test_a_forced_version_has_no_shadow() -> None:
    """It is outside all evidence."""
    told = traced(x_headworks_version="v2", x_region="eu")
    assert (told["arm"], told["shadows"], told["bucket_ppm"]) == ("forced", [], -1)


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-tenant": st.sampled_from(["pilot", "beta"]),
        "x-applicant": st.text("abc", max_size=4),
        "x-region": st.sampled_from(["eu", "us"]),
    },
)


@given(HEADERS, st.sampled_from(["loans-app", "plain"]), st.text("0123456789abcdef", max_size=8))
def test_a_trace_is_what_the_data_path_decides(
    headers: dict[str, str], caller: str, exchange: str
) -> None:
    """Rule, version, arm, bucket and shadows, for any request."""
    told = trace(TABLE, Described("POST", INFER, tuple(headers.items()), b"", caller, exchange))
    first = {name.encode(): value.encode() for name, value in headers.items()}
    may = frozenset(("context", "feedback", "force")) if caller == "loans-app" else frozenset()
    question = Question("POST", INFER, first, Caller(caller, may))
    model = TABLE.models["mortgage"]
    rule = match(model, question)
    choice = choose(model, rule, first, exchange)
    assert (told["rule"], told["version"], told["arm"], told["bucket_ppm"]) == (
        rule.name, choice.version, choice.arm, choice.bucket_ppm,
    )  # fmt: skip
    copied = [one["version"] for one in told["shadows"] if one["copied"]]
    assert copied == shadows(rule, choice.version, exchange, question)
