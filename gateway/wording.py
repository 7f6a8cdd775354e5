"""Settings back in the words of a file: `2s` for 2.0, `1MiB`, `5%`; what is default is left out.

Made from the declarations, so that whatever can be read from a file can be written to one. Pure.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from gateway.declaration import (
    Duration,
    Share,
    Size,
    duration_text,
    share_text,
    size_text,
)
from gateway.modelsettings import RuleSettings

TEXTS = (
    (get_args(Duration)[1], duration_text),
    (get_args(Size)[1], size_text),
    (get_args(Share)[1], share_text),
)
"""The validator that each unit is declared with, and how its values are written."""


def worded(section: type[BaseModel], told: Mapping[str, Any]) -> dict[str, Any]:
    """A section's values, as JSON has them, in a file's words. Keys that it lacks are left out."""
    found = {}
    for name, field in section.model_fields.items():
        if name not in told or told[name] == _default(field):
            continue
        found[field.alias or name] = _said(field.annotation, field.metadata, told[name])
    return found


def _default(field: Any) -> Any:
    if field.is_required():
        return ...
    value = field.default
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else _listed(value)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _said(annotation: Any, metadata: Any, value: Any) -> Any:
    if value is None:
        return None
    for validator, text in TEXTS:
        if validator in metadata:
            return text(value)
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _said(parts[0], parts[1:], value)
    if kind in (Union, types.UnionType):
        return next((said for part in parts if (said := _said(part, (), value)) != value), value)
    if kind is dict and isinstance(value, Mapping):
        return {key: _said(parts[1], (), item) for key, item in value.items()}
    if kind is tuple and isinstance(value, list):
        return [_said(parts[0], (), item) for item in value]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return worded(annotation, value) if isinstance(value, Mapping) else value
    return value


def rule_words(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a document as a file says it; a rollout's hand on it is no setting."""
    shadow = {
        version: {"share": share, "when": when[0]} if when else {"share": share, "when": {}}
        for version, share, *when in rule["shadow"]
    }
    words = worded(RuleSettings, {**rule, "split": dict(rule["split"]), "shadow": shadow})
    for version, told in (words.get("shadow") or {}).items():
        if not told.get("when"):
            words["shadow"][version] = told.get("share", "100%")
    return {key: value for key, value in words.items() if value != {}}


def plain_text(value: Any) -> str:
    """A value of a file in one line, for people."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({plain_text(one)})" if isinstance(one, Mapping) else f"{key} {plain_text(one)}"
            for key, one in value.items()
        )
    if isinstance(value, list):
        return " ".join(map(plain_text, value))
    return str(value)
