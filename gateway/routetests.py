"""Tests of a routing table, for CI: requests, what is expected of them, and which rules they reach.

tests:
  - name: pilots get v2
    request: {path: /v2/models/mortgage/infer, headers: {x-tenant: pilot}, caller: loans-app}
    expect: {rule: pilot, version: v2}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import Field

from gateway.declaration import HeaderName, Method, Name, Section
from gateway.routing.trace import Described, trace
from gateway.table import Table


class RequestSettings(Section):
    method: Method = Field("POST", description="HTTP method.")
    path: str = Field(pattern="^/", description="Path as sent.")
    headers: dict[HeaderName, str] = Field({}, description="Headers.")
    caller: Name | None = Field(None, description="Name of a caller.")
    body: Any = Field(None, description="A text, or JSON.")
    exchange: str = Field("", description="Id that draws are made by.")

    def described(self) -> Described:
        body = self.body if isinstance(self.body, str) else orjson.dumps(self.body).decode()
        sent = b"" if self.body is None else body.encode()
        headers = tuple(self.headers.items())
        return Described(self.method, self.path, headers, sent, self.caller, self.exchange)


class Expected(Section):
    rule: Name | None = Field(None, description="The rule that matches.")
    version: Name | None = Field(None, description="The version that answers.")
    arm: str | None = Field(None, description="Its arm.")
    shadows: tuple[Name, ...] | None = Field(None, description="Versions that get a copy.")
    refused: str | None = Field(None, description="The code of the refusal.")


class RouteTest(Section):
    name: str = Field(min_length=1, description="What is expected, in words.")
    request: RequestSettings = Field(description="The request.")
    expect: Expected = Field(description="All that is given must hold.")


class RouteTests(Section):
    tests: tuple[RouteTest, ...] = Field(min_length=1, description="The tests.")


@dataclass(frozen=True, slots=True)
class Result:
    """`failed`: for each test that does, what was expected and what came. Rules by model."""

    count: int
    failed: tuple[tuple[str, str], ...]
    reached: frozenset[tuple[str, str]]
    unreached: tuple[tuple[str, str], ...]

    @property
    def coverage(self) -> float:
        """Per cent of the rules that some test reaches."""
        rules = len(self.reached) + len(self.unreached)
        return 100 * len(self.reached) / rules if rules else 100.0


def run(table: Table, tests: RouteTests) -> Result:
    failed, reached = [], set()
    for test in tests.tests:
        told = trace(table, test.request.described())
        if "rule" in told:
            reached.add((told["model"], told["rule"]))
        if words := _differs(test.expect, told):
            failed.append((test.name, words))
    rules = [(name, rule.name) for name, model in table.models.items() for rule in model.rules]
    missed = tuple(rule for rule in rules if rule not in reached)
    return Result(len(tests.tests), tuple(failed), frozenset(reached), missed)


def _differs(expected: Expected, told: dict[str, Any]) -> str:
    copied = [one["version"] for one in told.get("shadows", ()) if one["copied"]]
    refused = told["refused"]["code"] if "refused" in told else None
    came = {"rule": told.get("rule"), "version": told.get("version"), "arm": told.get("arm"),
            "shadows": tuple(copied), "refused": refused}  # fmt: skip
    wrong = [
        f"{name} {wanted!r} was expected, {came[name]!r} came"
        for name in came
        if (wanted := getattr(expected, name)) is not None and wanted != came[name]
    ]
    if refused is not None and expected.refused is None:
        wrong.append(f"it was refused: {told['refused']['message']}")
    return "; ".join(wrong)
