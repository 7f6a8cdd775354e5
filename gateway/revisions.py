"""How a table comes into force: one way for the file, the API, the console and rollouts.

    validate -> compile -> publish

A revision is immutable, named by its digest, and says its parent, author, reason and where it came
from. Whoever changes the table says which revision the change was made for; if another is in force
by then, nothing is changed (`Conflict`). What does not compile never gets a name.

A running rollout owns its rule: a change that touches it is `Owned`, and shows both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.artifacts import Artifacts
from gateway.check import Checked
from gateway.declaration import MILLION
from gateway.split import Rollout
from gateway.table import (
    FORMAT,
    Conflict,
    TableStore,
    compile_rule,
    compile_table,
    make_document,
)

Document = dict[str, Any]
TOLD = ("models", "callers", "people", "telemetry", "alerts")
"""What a document says, whoever wrote it when."""


@dataclass(frozen=True, slots=True)
class Published:
    """`changed`: whether `revision` is a new one."""

    revision: str
    changed: bool


class Owned(Exception):
    """A rule's split belongs to a rollout that runs."""

    def __init__(self, model: str, rule: str, ours: object, theirs: object) -> None:
        super().__init__(f"rule {rule!r} of model {model!r} belongs to a running rollout")
        self.model, self.rule, self.ours, self.theirs = model, rule, ours, theirs


class Revisions:
    """The table's one writer; in the governor, or without it (`headworks route revert`)."""

    def __init__(
        self, tables: TableStore, artifacts: Artifacts, wall_ns: Callable[[], int]
    ) -> None:
        self.tables, self.artifacts, self._wall_ns = tables, artifacts, wall_ns

    def current(self) -> tuple[str, Document]:
        """The revision in force and what it says, to be changed by the caller."""
        revision = self.tables.current
        if revision is None:
            raise LookupError("no table is in force")
        return revision, orjson.loads(self.tables.read(revision))

    def adopt(self, checked: Checked, *, author: str, reason: str) -> Published:
        """Bring a checked file into force; Owned where it touches what a rollout owns."""
        document = make_document(
            checked, self.artifacts, author=author, reason=reason, now_ns=self._wall_ns()
        )
        document = orjson.loads(orjson.dumps(document))
        if self.tables.current is None:
            return self.publish(document, None)
        parent, before = self.current()
        keep_rollouts(document, before)
        return self.publish(document, parent)

    def change(
        self,
        edit: Callable[[Document], None],
        *,
        author: str,
        reason: str,
        origin: str,
        expected: str | None = None,
    ) -> Published:
        """Let `edit` change a copy of the document in force, and publish that.

        `expected`: the revision that the change was made for; None: whichever is in force.
        """
        parent, document = self.current()
        if expected is not None and expected != parent:
            raise Conflict(f"{parent} is in force, not {expected}")
        edit(document)
        document |= {"author": author, "reason": reason, "origin": origin,
                     "created": self._wall_ns(), "source_sha256": None}  # fmt: skip
        return self.publish(document, parent)

    def publish(self, document: Document, parent: str | None) -> Published:
        """ValueError where it does not compile; a document that says nothing new changes nothing.

        Its format is today's, whatever the one was that it was made from.
        """
        document = document | {"format": FORMAT}
        compile_table(orjson.dumps(document))
        if parent is not None:
            before = orjson.loads(self.tables.read(parent))
            if all(document[key] == before.get(key) for key in TOLD):
                return Published(parent, False)
        return Published(self.tables.publish(document, parent), True)


def rule_of(document: Mapping[str, Any], model: str, rule: str) -> dict[str, Any]:
    """LookupError where there is none."""
    for found in document["models"].get(model, {"rules": ()})["rules"]:
        if found["name"] == rule:
            named: dict[str, Any] = found
            return named
    raise LookupError(f"model {model!r} has no rule {rule!r}")


def set_rollout(document: Document, model: str, rule: str, rollout: Rollout) -> None:
    """Give the rule's split to a rollout, or move its weight. ValueError where it does not fit."""
    found = rule_of(document, model, rule)
    versions = document["models"][model]["versions"]
    for version in (rollout.source, rollout.target):
        if version not in versions:
            raise ValueError(f"model {model!r} has no version {version!r}")
    (stable, _), *others = found["split"]
    if stable != rollout.source or any(share for _, share in others):
        words = ", ".join(f"{version} {share or 0} ppm" for version, share in found["split"])
        raise ValueError(f"a rollout from {rollout.source} wants all of the split, not {words}")
    held = found.get("rollout")
    if held is not None and held["name"] != rollout.name:
        raise Owned(model, rule, held, rollout.to_json())
    found["rollout"] = Rollout.read(rollout.to_json()).to_json()


def end_rollout(document: Document, model: str, rule: str, version: str) -> None:
    """Take the rule back from its rollout: all of it goes to `version`."""
    found = rule_of(document, model, rule)
    found["rollout"] = None
    found["split"] = [[version, MILLION]]


def keep_rollouts(document: Document, before: Mapping[str, Any]) -> None:
    """Put the rollouts of `before` into a document that does not say them. Owned where the rule is
    not as it was, or is gone."""
    for model, settings in before["models"].items():
        for rule in settings["rules"]:
            if rule.get("rollout") is None:
                continue
            try:
                found = rule_of(document, model, rule["name"])
            except LookupError:
                raise Owned(model, rule["name"], rule, None) from None
            if not same_rule(found, rule):
                raise Owned(model, rule["name"], rule, found)
            found["rollout"] = copy.deepcopy(rule["rollout"])


def same_rule(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rules say the same, in whichever format, but for a rollout's hand on them."""
    first, second = (
        compile_rule("", {"limits": {}, "timeouts": {}}, {**rule, "rollout": None})
        for rule in (one, other)
    )
    return first == second
