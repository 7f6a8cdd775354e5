"""What a table would do with a request, step by step, without sending anything. Pure.

The same functions as on the data path decide; this only tells what they looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.condition import first_failed
from gateway.errors import Refusal
from gateway.exchange import ANONYMOUS, Caller, Choice
from gateway.routing.access import forced_version
from gateway.routing.body import sequence_in
from gateway.routing.choice import bucket_ppm, choose, force, shadow_salt, unit_of
from gateway.routing.identity import read_context
from gateway.routing.place import check_method, find_model, locate, locate_call, match
from gateway.routing.question import Question
from gateway.table import Model, Rule, Table


@dataclass(frozen=True, slots=True)
class Described:
    """A request as somebody describes it. `caller`: its name, since its token is its own.
    `exchange`: the id that it would have, since shadows and units may be drawn by that."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    caller: str | None = None
    exchange: str = ""
    first: Mapping[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        found: dict[bytes, bytes] = {}
        for name, value in self.headers:
            found.setdefault(name.lower().encode(), value.encode("utf-8", "surrogateescape"))
        object.__setattr__(self, "first", found)


def trace(table: Table, asked: Described) -> dict[str, Any]:
    """How far the request comes, and by which decisions; `refused` where it ends early."""
    told: dict[str, Any] = {"exchange": asked.exchange, "revision": table.revision}
    try:
        _follow(table, asked, told)
    except Refusal as refusal:
        told["refused"] = {"code": refusal.code, "status": refusal.status,
                           "message": refusal.message}  # fmt: skip
    return told


def _follow(table: Table, asked: Described, told: dict[str, Any]) -> None:
    caller = _caller(table, asked.caller)
    told["caller"] = caller.name
    called = asked.first.get(b"content-type", b"").startswith(b"application/grpc")
    host = asked.first.get(b"host", b"").decode("latin-1").lower().rsplit(":", 1)[0]
    place = locate_call(table, asked.path) if called else locate(table, host, asked.path)
    check_method(place, asked.method)
    told["protocol"], told["operation"] = place.dialect.NAME, place.target.operation
    model, version = find_model(place, asked.body)
    if model is None:
        told["model"] = None  # the gateway itself answers
        return
    told["model"] = model.name
    context, dropped = read_context(dict(asked.first), caller)
    told["context"] = {"subjects": list(context.subjects), "groups": list(context.groups),
                       "dropped": dropped}  # fmt: skip
    question = Question(
        asked.method, asked.path, asked.first, caller, context, asked.body, place.dialect,
        model.limits["hold"],
    )  # fmt: skip
    told["rules"] = list(_rules(model, question))
    rule = match(model, question)
    forced = forced_version(model, version, place.target, dict(asked.first), caller)
    choice = _chosen(model, rule, asked, question) if forced is None else force(forced, rule)
    told |= _decided(model, rule, asked, choice)
    told["shadows"] = [] if forced else list(_shadows(rule, choice, asked, question))


def _caller(table: Table, name: str | None) -> Caller:
    if not table.callers:
        return ANONYMOUS
    found = next((caller for caller in table.callers.values() if caller.name == name), None)
    if found is None:
        known = ", ".join(sorted(caller.name for caller in table.callers.values()))
        words = "a caller is wanted" if name is None else f"no caller {name!r}"
        raise Refusal("unauthorised", f"{words}; known: {known}")
    return found


def _rules(model: Model, question: Question) -> Iterable[dict[str, Any]]:
    """Every rule in order, to the first that matches; those behind it are not reached."""
    reached = True
    for rule in model.rules:
        failed = first_failed(rule.conditions, question) if reached else None
        yield {
            "name": rule.name,
            "result": "not reached" if not reached else "matches" if failed is None else "fails",
            "condition": str(failed) if failed is not None else None,
            "found": failed.found(question) if failed is not None else None,
        }
        reached = reached and failed is not None


def _chosen(model: Model, rule: Rule, asked: Described, question: Question) -> Choice:
    sequence = None
    if rule.intervals:
        sequence = sequence_in(question.dialect, question.message(), rule.limits["hold"])
    return choose(model, rule, dict(asked.first), asked.exchange, sequence)


def _decided(model: Model, rule: Rule, asked: Described, choice: Choice) -> dict[str, Any]:
    version = model.versions[choice.version]
    kind, unit = unit_of(model.unit, dict(asked.first), asked.exchange)
    return {
        "rule": rule.name,
        "unit": {"kind": choice.unit_kind, "value": unit if kind == choice.unit_kind else None,
                 "salt": rule.salt.decode("utf-8", "replace")},
        "bucket_ppm": choice.bucket_ppm,
        "intervals": [
            {"low": one.low, "high": one.high, "version": one.version, "arm": one.arm}
            for one in rule.intervals
        ],
        "arm": choice.arm,
        "version": choice.version,
        "endpoints": list(version.endpoints) or ["in the worker"],
        "priority": rule.priority,
        "sticky": rule.sticky.by if rule.sticky is not None else None,
        "limits": dict(rule.limits),
        "timeouts": dict(rule.timeouts),
        "durability": model.durability,
        "fallback": model.fallback,
        "freeze_on": list(rule.freeze_on),
        "rollback_on": list(rule.rollback_on),
        "rollout": rule.rollout.to_json() if rule.rollout is not None else None,
    }  # fmt: skip


def _shadows(
    rule: Rule, choice: Choice, asked: Described, question: Question
) -> Iterable[dict[str, Any]]:
    for copied in rule.shadows:
        bucket = bucket_ppm(shadow_salt(rule, copied.version), asked.exchange)
        failed = first_failed(copied.conditions, question)
        why = None
        if copied.version == choice.version:
            why = "it answers itself"
        elif bucket >= copied.share:
            why = f"not drawn: bucket {bucket} of this exchange is not below {copied.share}"
        elif failed is not None:
            why = str(failed)
        yield {"version": copied.version, "share_ppm": copied.share, "copied": why is None,
               "why_not": why}  # fmt: skip
