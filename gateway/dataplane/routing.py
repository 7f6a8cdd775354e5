"""Which rule a request falls under: pure. The first match wins."""

from __future__ import annotations

from gateway.errors import Refusal
from gateway.exchange import Caller
from gateway.protocol.v2 import Target
from gateway.table import Model, Rule, Table


def find_model(table: Table, target: Target) -> Model:
    model = table.models.get(target.model)
    if model is None:
        raise Refusal("unknown_model", f"model {target.model!r} is unknown")
    if target.version is not None and target.version not in model.versions:
        words = f"model {target.model!r} has no version {target.version!r}"
        raise Refusal("unknown_version", words)
    return model


def match(model: Model, path: str, headers: dict[bytes, bytes], caller: Caller) -> Rule:
    for rule in model.rules:
        if matches(rule, path, headers, caller):
            return rule
    raise Refusal("no_rule", f"no rule of model {model.name!r} matches this request")


def matches(rule: Rule, path: str, headers: dict[bytes, bytes], caller: Caller) -> bool:
    if rule.callers and caller.name not in rule.callers:
        return False
    if rule.path is not None and not path_matches(rule.path, path):
        return False
    return all(headers.get(name) == value for name, value in rule.headers)


def path_matches(pattern: str, path: str) -> bool:
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return path == pattern
