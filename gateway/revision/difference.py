"""What differs between two tables, in the words of a file: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.revision.merge import SECTIONS
from gateway.split import Rollout
from gateway.wording import rule_words

UNTOLD = ("key_sha256", "token_sha256")
"""Digests of tokens are no secrets, but nobody reads them."""


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each changed value: `key` as a file's, `before` and `after` (null: not there)."""
    return list(_compared("", tabled(before), tabled(after)))


def tabled(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its rules by name, so that a rule that moved is told as moved."""
    models = {
        name: {
            **{key: told for key, told in model.items() if key not in ("rules", "versions")},
            "versions": {
                version: {key: told for key, told in settings.items() if key != "card"}
                for version, settings in model["versions"].items()
            },
            "order": [rule["name"] for rule in model["rules"]],
            "rules": {rule["name"]: shown_rule(rule) for rule in model["rules"]},
        }
        for name, model in document["models"].items()
    }
    named = {section: _named(document.get(section)) for section in SECTIONS}
    return {"models": models, **named}


def shown_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule as a file says it, with the rollout that owns it."""
    rollout = rule.get("rollout")
    return rule_words(rule) | ({"rollout": Rollout.read(rollout).to_json()} if rollout else {})


def _named(section: Any) -> Any:
    """Callers and people by their names."""
    if not isinstance(section, list):
        return section
    return {item["name"]: item for item in section}


def _compared(at: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            below = f"{at}.{key}" if at else str(key)
            yield from _compared(below, before.get(key), after.get(key))
    elif at.rpartition(".")[2] in UNTOLD:
        yield {"key": at, "before": "a digest", "after": "another"}
    else:
        yield {"key": at, "before": before, "after": after}
