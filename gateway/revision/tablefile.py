"""The table written back as a configuration file that loads to the same table.

The table does not know what only a restart changes (ports, folders): that comes from the file at
hand, as does the path of an artifact whose bytes are still those in force; else the copy in the
state is named. Rollouts are no settings and are left out: a reload keeps those that run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.artifacts import Artifacts, file_digest, folder_digest
from gateway.check import Checked
from gateway.modelsettings import ModelSettings
from gateway.settings import RESTART_KEYS, AlertSettings, CallerSettings, PersonSettings, Telemetry
from gateway.wording import rule_words, worded
from gateway.yamlfile import YamlFile

DATA = (("explain", "background"), ("monitor", "reference"))


def write_table(document: Mapping[str, Any], checked: Checked, artifacts: Artifacts) -> str:
    """`checked`: the file at hand."""
    tree = YamlFile(checked.path, checked.path.name, []).tree or {}
    found: dict[str, Any] = {key: tree[key] for key in RESTART_KEYS if key in tree}
    for key, section in (("telemetry", Telemetry), ("alerts", AlertSettings)):
        if words := worded(section, document[key]):
            found[key] = words
    for key, item in (("callers", CallerSettings), ("people", PersonSettings)):
        if document[key]:
            found[key] = [worded(item, told) for told in document[key]]
    found["models"] = {
        name: _model(name, model, checked, artifacts) for name, model in document["models"].items()
    }
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100)


def _model(
    name: str, model: Mapping[str, Any], checked: Checked, artifacts: Artifacts
) -> dict[str, Any]:
    at_hand = checked.settings.models.get(name) if checked.settings is not None else None
    told = {key: value for key, value in model.items() if key not in ("background", "reference")}
    versions = {}
    for version, settings in model["versions"].items():
        before = at_hand.versions.get(version) if at_hand is not None else None
        named = {key: value for key, value in settings.items() if key != "card"}
        if settings["artifact"] is not None:
            held = artifacts.path(settings["artifact"])
            source = before.artifact if before is not None else None
            named["artifact"] = _place(checked, source, settings["artifact"], held)
        versions[version] = named
    for section, what in DATA:
        if (digest := model[what]) is not None:
            path = getattr(getattr(at_hand, section, None), what, None)
            place = _place(checked, path, digest, artifacts.file(digest))
            told[section] = {**told[section], what: place}
    words = worded(ModelSettings, {**told, "versions": versions, "rules": []})
    return words | {"rules": [rule_words(rule) for rule in model["rules"]]}


def _place(checked: Checked, path: str | None, digest: str, held: Path) -> str:
    """The file's own path where it leads to these bytes, else that of the copy in the state."""
    if path is not None:
        source = checked.resolve(path)
        try:
            found = folder_digest(source) if source.is_dir() else file_digest(source)
        except OSError:
            found = None
        if found == digest:
            return path
    return str(held.resolve())
