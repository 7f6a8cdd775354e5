"""How a table comes into force: one way for the file, the API, the console and rollouts.

    validate -> compile -> publish

A revision is immutable, named by its digest, and says its parent, author, reason and where it came
from. Whoever changes the table says which revision the change was made for; if another is in force
by then, nothing is changed (`Conflict`). What does not compile never gets a name.

A running rollout owns its rule: a change that touches it is `Owned`. A file that changed what
somebody else changed since is `Clashing` (`gateway/revision/merge.py`). Both are shown in both.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from gateway.artifacts import Artifacts
from gateway.check import Checked, rule_references
from gateway.declaration import CONTROLLER, MILLION
from gateway.disk import Occupied
from gateway.revision.edit import Edit
from gateway.revision.freeze import Alerts, frozen_by
from gateway.revision.merge import SECTIONS, Clash, Document, digests, merge, without_rollout
from gateway.revision.retreat import ORIGIN, Retreat, is_done, retreats, take_share
from gateway.split import Rollout
from gateway.table import (
    FORMAT,
    Conflict,
    TableStore,
    compile_rule,
    compile_table,
    make_document,
)
from gateway.wording import rule_words
from gateway.yamlfile import dotted

TOLD = ("models", *SECTIONS)
"""What a document says, whoever wrote it when."""
AGAIN = 20
"""How often a change is made again that no particular revision was meant for."""


@dataclass(frozen=True, slots=True)
class Published:
    """`changed`: whether `revision` is a new one. `ended`: rollouts that a revert took away."""

    revision: str
    changed: bool
    ended: tuple[str, ...] = ()


class Owned(Exception):
    """A rule's split belongs to a rollout that runs."""

    code = "owned"

    def __init__(self, model: str, rule: str, ours: object, theirs: object) -> None:
        super().__init__(f"rule {rule!r} of model {model!r} belongs to a running rollout")
        self.model, self.rule, self.ours, self.theirs = model, rule, ours, theirs


class Frozen(Owned):
    """A rule's split may not grow while an alert is not over (`gateway/revision/freeze.py`)."""

    code = "frozen"

    def __init__(self, model: str, rule: str, alert: str, ours: object, theirs: object) -> None:
        super().__init__(model, rule, ours, theirs)
        self.args = (f"rule {rule!r} of model {model!r} is frozen by alert {alert}",)


class Clashing(Exception):
    """The file changed what somebody else changed since it was adopted."""

    def __init__(self, clashes: list[Clash]) -> None:
        super().__init__(", ".join(".".join(clash.unit) for clash in clashes))
        self.clashes = clashes


class Revisions:
    """The table's one writer; in the governor, or without it (`headworks route revert`)."""

    def __init__(
        self, tables: TableStore, artifacts: Artifacts, wall_ns: Callable[[], int]
    ) -> None:
        self.tables, self.artifacts, self._wall_ns = tables, artifacts, wall_ns
        self._lock = threading.RLock()  # the governor publishes from several threads
        self.alerts: Callable[[], Alerts] = dict
        """Those that are not over: whoever has no way to know them, knows of none."""

    def current(self) -> tuple[str, Document]:
        """The revision in force and what it says, to be changed by the caller."""
        revision = self.tables.current
        if revision is None:
            raise LookupError("no table is in force")
        return revision, orjson.loads(self.tables.read(revision))

    def adopt(self, checked: Checked, *, author: str, reason: str) -> Published:
        """Bring a checked file into force. What others changed since its last adoption stays, where
        the file did not change it too; Clashing and Owned else."""
        with self._lock:
            return self._adopt(checked, author, reason)

    def _adopt(self, checked: Checked, author: str, reason: str) -> Published:
        document = make_document(
            checked, self.artifacts, author=author, reason=reason, now_ns=self._wall_ns()
        )
        document = orjson.loads(orjson.dumps(document))
        document["file"] = digests(document)
        if self.tables.current is None:
            return self.publish(document, None)
        parent, before = self.current()
        merged, clashes = merge(before.get("file") or digests(before), before, document)
        keep_rollouts(document, before, merged)
        if clashes:
            raise Clashing(clashes)
        self._hold(before, merged)
        return self.publish(document | merged, parent)

    def _hold(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        for model, ours, theirs, alert in frozen_by(before, after, self.alerts()):
            raise Frozen(model, theirs["name"], alert, ours, theirs)

    def edit(self, edit: Edit, *, author: str, expected: str) -> Published:
        """Put rules in the place of a model's; Conflict, Owned, Frozen."""

        def put(document: Document) -> None:
            before = copy.deepcopy(document)
            put_rules(document, edit)
            keep_rollouts(document, before, document)
            for (name, rule), told in edit.rollouts.items():
                found = rule_of(document, name, rule)
                if (found.get("rollout") or None) != (told or None):
                    raise Owned(name, rule, found, {**found, "rollout": told})
            self._hold(before, document)

        return self.change(put, author=author, reason=edit.reason, origin="api", expected=expected)

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
        with self._lock:
            for _ in range(AGAIN):
                try:
                    return self._change(edit, author, reason, origin, expected)
                except (Conflict, Occupied):  # another process published in between
                    if expected is not None:
                        raise
            return self._change(edit, author, reason, origin, expected)

    def _change(
        self, edit: Callable[[Document], None], author: str, reason: str, origin: str,
        expected: str | None,
    ) -> Published:  # fmt: skip
        parent, document = self.current()
        if expected is not None and expected != parent:
            raise Conflict(f"{parent} is in force, not {expected}")
        document["file"] = document.get("file") or digests(document)
        edit(document)
        document |= {"author": author, "reason": reason, "origin": origin,
                     "created": self._wall_ns(), "source_sha256": None}  # fmt: skip
        return self.publish(document, parent)

    def revert(
        self, revision: str, *, author: str, reason: str, expected: str | None = None
    ) -> Published:
        """What `revision` says, again. Never wider for a rollout: one that runs is held at the
        smaller weight until somebody resumes it; one that `revision` does not know is aborted."""
        wanted = orjson.loads(self.tables.read(revision))
        ended: list[str] = []

        def put(document: Document) -> None:
            before = copy.deepcopy(document)
            for key in TOLD:
                document[key] = copy.deepcopy(wanted[key])
            ended[:] = narrow_rollouts(document, before)

        done = self.change(put, author=author, reason=reason, origin="revert", expected=expected)
        return Published(done.revision, done.changed, tuple(ended))

    def retreat(self) -> list[Published]:
        """Take back what alerts that stand ask for and did not yet get: a revision each."""
        with self._lock:
            asked = list(retreats(self.current()[1], self.alerts()))
            return [self._retreat(one) for one in asked if not is_done(one, self.history())]

    def _retreat(self, asked: Retreat) -> Published:
        def take(document: Document) -> None:
            take_share(rule_of(document, asked.model, asked.rule), asked.version)

        return self.change(take, author=CONTROLLER, reason=asked.reason, origin=ORIGIN)

    def publish(self, document: Document, parent: str | None) -> Published:
        """ValueError where it does not compile, or names what is not there: what an edit named may
        be gone by a later file. A document that says nothing new changes nothing.

        Its format is today's, whatever the one was that it was made from.
        """
        document = document | {"format": FORMAT}
        compile_table(orjson.dumps(document))
        for name, model in document["models"].items():
            tree = {**model, "rules": [rule_words(rule) for rule in model["rules"]]}
            for key, _, words in rule_references(("models", name), tree):
                raise ValueError(f"{dotted(key)}: {words}")
        if parent is not None:
            before = orjson.loads(self.tables.read(parent))
            if all(document.get(key) == before.get(key) for key in (*TOLD, "file")):
                return Published(parent, False)
        return Published(self.tables.publish(document, parent), True)

    def find(self, text: str) -> str:
        """A revision by its digest, by the beginning of it, or by `current`, `previous` or its
        number. LookupError where there is none, or more than one."""
        if text == "current" and (current := self.tables.current) is not None:
            return current
        if len(text) == 64 and text.isalnum() and self.tables.path(text).is_file():
            return text
        if text == "previous":
            found = [told["parent"] for told in islice(self.history(), 1) if told["parent"]]
        elif text.isdigit() and len(text) < 12:
            found = [told["revision"] for told in self.history() if told["number"] == int(text)]
        else:
            chain = (told["revision"] for told in self.history())
            found = [revision for revision in chain if text and revision.startswith(text)]
        if len(found) != 1:
            raise LookupError(f"{text[:64]!r} names {len(found)} revisions; one is wanted")
        return str(found[0])

    def history(self) -> Iterator[dict[str, Any]]:
        """Who made which revision when and why, the one in force first."""
        revision = self.tables.current
        while revision is not None:
            document = orjson.loads(self.tables.read(revision))
            yield {"revision": revision, "origin": document.get("origin", "file")} | {
                key: document[key] for key in ("number", "parent", "author", "reason", "created")
            }
            revision = document["parent"]


def find_rule(document: Mapping[str, Any], model: str, rule: str) -> dict[str, Any] | None:
    rules = document["models"].get(model, {"rules": ()})["rules"]
    return next((found for found in rules if found["name"] == rule), None)


def rule_of(document: Mapping[str, Any], model: str, rule: str) -> dict[str, Any]:
    """LookupError where there is none."""
    found = find_rule(document, model, rule)
    if found is None:
        raise LookupError(f"model {model!r} has no rule {rule!r}")
    return found


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


def put_rules(document: Document, edit: Edit) -> None:
    """An edit's rules in the place of the models'; a rollout stays in a rule that is as it was."""
    for name, rules in edit.models.items():
        before = {rule["name"]: rule for rule in document["models"][name]["rules"]}
        document["models"][name]["rules"] = copy.deepcopy(rules)
        for rule in document["models"][name]["rules"]:
            was = before.get(rule["name"])
            if was is not None and was.get("rollout") and same_rule(was, rule):
                rule["rollout"] = was["rollout"]


def rollouts_of(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Model and rule of each rule that a rollout owns."""
    for model, settings in document["models"].items():
        for rule in settings["rules"]:
            if rule.get("rollout"):
                yield model, rule


def keep_rollouts(told: Mapping[str, Any], before: Mapping[str, Any], into: Document) -> None:
    """Put the rollouts of `before` into a document. Owned where it has such a rule otherwise, or
    not at all, or not what the rollout rests on; `told`: what is shown then."""
    for model, rule in rollouts_of(before):
        rollout = rule["rollout"]
        found = find_rule(into, model, rule["name"])
        if (
            found is None
            or not same_rule(found, rule)
            or rests_on(into, model, rollout) != rests_on(before, model, rollout)
        ):
            raise Owned(model, rule["name"], rule, find_rule(told, model, rule["name"]))
        found["rollout"] = copy.deepcopy(rollout)


def rests_on(document: Mapping[str, Any], model: str, rollout: Mapping[str, Any]) -> dict[str, Any]:
    """What a rollout's evidence is of: both versions, who is a unit, and which groups there are.
    An artifact has its card inside; what is not set is left out, whichever release wrote it."""
    settings = document["models"][model]
    told: dict[str, Any] = {"unit": settings["unit"], "groups": settings["monitor"]["groups"]}
    for name in (rollout["from"], rollout["to"]):
        version = settings["versions"].get(name, {})
        kept = {key: value for key, value in version.items() if value not in (None, [])}
        told[name] = {**kept, "card": None} if kept.get("artifact") else kept
    return told


def narrow_rollouts(document: Document, before: Mapping[str, Any]) -> list[str]:
    """Of a document to come back to: rollouts that run in `before` too, on the same versions, stay
    with the smaller weight; what else it has of rollouts goes. The names of those that end."""
    running = {(model, rule["name"]): rule["rollout"] for model, rule in rollouts_of(before)}
    for model, rule in list(rollouts_of(document)):
        now, then = running.get((model, rule["name"])), rule["rollout"]
        rule["rollout"] = None
        if now is None or (now["name"], now["attempt"]) != (then["name"], then["attempt"]):
            continue
        if rests_on(document, model, now) != rests_on(before, model, now):
            continue
        del running[model, rule["name"]]
        smaller = {key: min(now[key], then[key]) for key in ("weight_ppm", "shadow_ppm")}
        rule["rollout"] = {**now, **smaller}
    return [rollout["name"] for rollout in running.values()]


def same_rule(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rules say the same, in whichever format, but for a rollout's hand on them."""
    first, second = (
        compile_rule("", {"limits": {}, "timeouts": {}}, without_rollout(rule))
        for rule in (one, other)
    )
    return first == second
