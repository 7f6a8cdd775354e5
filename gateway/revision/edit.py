"""An edit of the table over the API: rules of models, whole, in the words of a file.

    {"reason": "pilot gets v2", "models": {"mortgage": {"rules": [...]}}}

JSON or YAML. Rules are all that can be edited so: callers and people would be a way to more rights,
versions a way to files of the host. Problems carry the line of the text that was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from gateway.check import rule_references
from gateway.declaration import Name, Section
from gateway.modelsettings import RuleSettings
from gateway.table import rule_document
from gateway.yamlfile import NOTHING, Problem, YamlFile

REASON_MIN, REASON_MAX = 5, 500


class EditedModel(Section):
    rules: tuple[RuleSettings, ...] = Field(min_length=1)


class EditedTable(Section):
    reason: str = Field("", max_length=REASON_MAX)
    models: dict[Name, EditedModel] = Field(min_length=1)


@dataclass(slots=True)
class Edit:
    """`models`: for each its rules as a document has them. Nothing where there are problems.
    `rollouts`: what the text says of rollouts, by model and rule."""

    reason: str = ""
    models: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rollouts: dict[tuple[str, str], Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_edit(data: bytes, document: Mapping[str, Any]) -> Edit:
    """Checked against the versions and groups of `document`, the table it is for."""
    edit = Edit()
    text = YamlFile(data, "body", edit.problems)
    if not isinstance(text.tree, dict):
        if not edit.problems:
            text.add((), text.tree, "a mapping with `reason` and `models` is wanted")
        return edit
    _take_rollouts(edit, text.tree)
    read: EditedTable | None = text.validate(EditedTable, text.tree)
    models = text.tree.get("models")
    for name, told in models.items() if isinstance(models, dict) else ():
        known = document["models"].get(name)
        if known is None:
            words = f"no such model; known: {', '.join(document['models'])}"
            text.add(("models", name), NOTHING, words)
        elif isinstance(told, dict):
            tree = {**known, "rules": told.get("rules")}
            for key, value, words in rule_references(("models", name), tree):
                text.add(key, value, words)
    edit.problems.sort(key=lambda problem: problem.line)
    if read is not None and not edit.problems:
        edit.reason = read.reason.strip()
        edit.models = {
            name: [rule_document(rule.model_dump(mode="json")) for rule in model.rules]
            for name, model in read.models.items()
        }
    return edit


def _take_rollouts(edit: Edit, tree: dict[str, Any]) -> None:
    """What a table is shown with may be sent back with it: rollouts are no settings."""
    models = tree.get("models")
    for name, model in models.items() if isinstance(models, dict) else ():
        rules = model.get("rules") if isinstance(model, dict) else None
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, dict) and "rollout" in rule:
                edit.rollouts[str(name), str(rule.get("name"))] = rule.pop("rollout")
