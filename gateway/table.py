"""MEETING POINT: the table, all rules compiled, of one revision. Workers read it, nobody edits it.

A revision is one immutable file, `state/table/revisions/<sha256>.json`, named by the SHA-256 of its
bytes; `state/table/current` holds the digest in force and is replaced by a rename. Invariants:

1. A revision's file is whole and durable before `current` names it, and is never written again.
2. `publish` compares and swaps: the parent must be what `current` names, under one lock.
3. What is published is complete: cards are inside, artifacts are named by digest and lie in the
   state. No source file is read after publication.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from gateway.artifacts import Artifacts
from gateway.card import Card
from gateway.check import Checked
from gateway.condition import BodyIs, Condition, compile_conditions
from gateway.disk import hold, sync_folder, write_durably
from gateway.exchange import Caller
from gateway.modelsettings import CompareSettings
from gateway.split import Copied, Interval, Rollout, copied, shared

FORMAT = 2
"""2: rules may have a rollout, more conditions, limits and times; 1 is read as before."""


@dataclass(frozen=True, slots=True)
class Version:
    """`endpoints` is empty for a version that runs in the worker. `tls` (ca, cert, key) and `auth`
    (header, source) name files and variables; what they hold is never here."""

    name: str
    endpoints: tuple[str, ...]
    artifact: str | None
    card: Card | None
    tls: Mapping[str, str | None] | None
    auth: Mapping[str, str] | None
    grpc: str | None = None

    @property
    def upstream(self) -> str | None:
        return ", ".join(self.endpoints) or None


@dataclass(frozen=True, slots=True)
class Sticky:
    """Sessions keep their version for `max_age` seconds, by a signed pin."""

    max_age: float
    by: Literal["cookie", "header"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`limits` and `timeouts`: the model's, with the rule's own in their place."""

    name: str
    conditions: tuple[Condition, ...]
    stable: str
    intervals: tuple[Interval, ...]
    shadows: tuple[Copied, ...]
    salt: bytes
    priority: str
    limits: Mapping[str, int]
    timeouts: Mapping[str, float]
    sticky: Sticky | None = None
    rollout: Rollout | None = None
    freeze_on: tuple[str, ...] = ()
    rollback_on: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """Those that may answer."""
        return (self.stable, *(interval.version for interval in self.intervals))


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    protocol: str
    unit: tuple[str, ...]
    durability: str
    limits: Mapping[str, int]
    timeouts: Mapping[str, float]
    retries: Mapping[str, Any] | None
    health: Mapping[str, Any] | None
    ejection: Mapping[str, Any]
    on_disconnect: str
    fallback: str | None
    shadow: Mapping[str, Any]
    compare: Mapping[str, Any]
    expose: frozenset[str]
    dropped: frozenset[bytes]
    versions: Mapping[str, Version]
    rules: tuple[Rule, ...]
    background: str | None
    reference: str | None
    explain: Mapping[str, Any]
    monitor: Mapping[str, Any]
    path: str = ""
    host: str | None = None
    names: frozenset[str] = frozenset()
    mapping: Mapping[str, Any] = field(default_factory=dict)
    reads_body: bool = False
    """Whether some rule asks for what a body says."""

    @property
    def stable(self) -> Version:
        """The version that answers where no condition holds: the last rule's first one."""
        return self.versions[self.rules[-1].stable]


@dataclass(frozen=True, slots=True)
class Mount:
    """Models that share a host (None: any) and a prefix of paths, by protocol."""

    host: str | None
    path: str
    models: Mapping[str, Mapping[str, Model]]

    def fits(self, host: str, path: str) -> bool:
        if self.host is not None and self.host != host:
            return False
        return not self.path or path == self.path or path.startswith(self.path + "/")


@dataclass(frozen=True, slots=True)
class Table:
    """`mounts`: the first that fits a request has its models."""

    revision: str
    document: Mapping[str, Any]
    models: Mapping[str, Model]
    callers: Mapping[str, Caller]
    mounts: tuple[Mount, ...]


def compile_table(data: bytes) -> Table:
    """From a revision's bytes. ValueError if they are of a newer format."""
    document = orjson.loads(data)
    if document["format"] > FORMAT:
        raise ValueError(f"table format {document['format']} is newer than {FORMAT}")
    callers = {
        caller["key_sha256"]: Caller(caller["name"], frozenset(caller["may"]))
        for caller in document["callers"]
    }
    models = {name: _model(name, model) for name, model in document["models"].items()}
    digest = hashlib.sha256(data).hexdigest()
    return Table(digest, document, models, callers, _mounts(models))


def _mounts(models: Mapping[str, Model]) -> tuple[Mount, ...]:
    """Those with a host first, then by length: the nearest fit comes before the wider."""
    found: dict[tuple[str | None, str], dict[str, dict[str, Model]]] = {}
    for model in models.values():
        at = found.setdefault((model.host, model.path), {})
        at.setdefault(model.protocol, {})[model.name] = model
    order = sorted(found, key=lambda place: (place[0] is None, -len(place[1])))
    return tuple(Mount(host, path, found[host, path]) for host, path in order)


def _model(name: str, model: Mapping[str, Any]) -> Model:
    versions = {
        version: Version(
            version,
            tuple(settings["endpoints"]),
            settings["artifact"],
            Card.model_validate(settings["card"]) if settings["card"] else None,
            settings["tls"],
            settings["auth"],
            settings.get("grpc"),
        )
        for version, settings in model["versions"].items()
    }
    rules = tuple(compile_rule(name, model, rule) for rule in model["rules"])
    return Model(
        name=name,
        protocol=model["protocol"],
        unit=tuple(model["unit"]),
        durability=model["durability"],
        limits=model["limits"],
        timeouts=model["timeouts"],
        retries=model["retries"],
        health=model["health"],
        ejection=model["ejection"],
        on_disconnect=model["on_disconnect"],
        fallback=model["fallback"],
        shadow=model["shadow"],
        compare=CompareSettings().model_dump() | model.get("compare", {}),
        expose=frozenset(model["expose"]),
        dropped=frozenset(header.encode() for header in model["headers"]["drop"]),
        versions=versions,
        rules=rules,
        background=model["background"],
        reference=model["reference"],
        explain=model["explain"],
        monitor=model["monitor"],
        path=model.get("path") or "",
        host=model.get("host"),
        names=frozenset(model.get("names") or (name,)),
        mapping=model.get("mapping") or {},
        reads_body=any(isinstance(c, BodyIs) for rule in rules for c in rule.conditions),
    )


def compile_rule(name: str, model: Mapping[str, Any], rule: Mapping[str, Any]) -> Rule:
    """A rollout that runs has its rule's split; what the file says of it waits for its end.

    `split` and `shadow` are lists here: JSON objects are sorted when they are written.
    """
    rollout = Rollout.read(rule["rollout"]) if rule.get("rollout") else None
    stable, intervals = shared(rule["split"], rule.get("holdout") or 0)
    salt = (rule["salt"] or f"{name}/{rule['name']}").encode()
    if rollout is not None:
        stable, intervals = rollout.source, rollout.intervals()
        salt = rollout.salt(name, rule["name"])
    sticky = rule.get("sticky")
    return Rule(
        name=rule["name"],
        conditions=compile_conditions(rule["when"]),
        stable=stable,
        intervals=intervals,
        shadows=copied(rule["shadow"], rollout),
        salt=salt,
        priority=rule["priority"],
        limits=_over(model["limits"], rule.get("limits")),
        timeouts=_over(model["timeouts"], rule.get("timeouts")),
        sticky=Sticky(sticky["max_age"], sticky["by"]) if sticky else None,
        rollout=rollout,
        freeze_on=tuple(rule.get("freeze_on") or ()),
        rollback_on=tuple(rule.get("rollback_on") or ()),
    )


def _over(whole: Mapping[str, Any], own: Mapping[str, Any] | None) -> Mapping[str, Any]:
    given = {key: value for key, value in (own or {}).items() if value is not None}
    return {**whole, **given} if given else whole


def make_document(
    checked: Checked, artifacts: Artifacts, *, author: str, reason: str, now_ns: int
) -> dict[str, Any]:
    """What a checked file says, complete: artifacts copied into the state, cards inside."""
    assert checked.settings is not None
    tree = checked.settings.model_dump(mode="json")
    for name, model in tree["models"].items():
        for version, settings in model["versions"].items():
            card = checked.cards.get((name, version))
            settings["card"] = card.model_dump(mode="json") if card else None
            _locate_servers(settings, checked)
            if settings["artifact"] is not None:
                settings["artifact"] = artifacts.add_folder(checked.resolve(settings["artifact"]))
        model["rules"] = [rule_document(rule) for rule in model["rules"]]
        background, reference = model["explain"]["background"], model["monitor"]["reference"]
        model["background"] = (
            artifacts.add_file(checked.resolve(background)) if background else None
        )
        model["reference"] = artifacts.add_file(checked.resolve(reference)) if reference else None
    return {
        "format": FORMAT,
        "author": author,
        "reason": reason,
        "created": now_ns,
        "origin": "file",
        "source_sha256": checked.digest,
        "models": tree["models"],
        "callers": tree["callers"],
        "people": tree["people"],
        "telemetry": tree["telemetry"],
        "alerts": _locate_secret(tree["alerts"], checked),
    }


LATER_KEYS = ("freeze_on", "rollback_on")


def rule_document(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Of a dumped rule; lists where order matters, since JSON objects are sorted when written. What
    former releases did not know is there only where it says something."""
    shadow = [_copied(*pair) for pair in rule["shadow"].items()]
    split = [list(pair) for pair in rule["split"].items()]
    told = {key: value for key, value in rule.items() if key not in LATER_KEYS or value}
    return {**told, "split": split, "shadow": shadow, "rollout": None}


def _copied(version: str, told: Mapping[str, Any]) -> list[Any]:
    """Version and share, and the condition where there is one."""
    asks = any(value not in (None, [], {}) for value in told["when"].values())
    return [version, told["share"], *([told["when"]] if asks else [])]


def _locate_secret(alerts: dict[str, Any], checked: Checked) -> dict[str, Any]:
    if alerts["webhook"] is not None:
        kind, _, name = alerts["webhook"]["secret"].partition(":")
        if kind == "file":
            alerts["webhook"]["secret"] = f"file:{checked.resolve(name)}"
    return alerts


def _locate_servers(settings: dict[str, Any], checked: Checked) -> None:
    """One list of endpoints, and files by their whole paths: a table knows no folder."""
    upstream = settings.pop("upstream")
    settings["endpoints"] = [upstream] if upstream is not None else settings["endpoints"]
    for what, name in (settings["tls"] or {}).items():
        if name is not None:
            settings["tls"][what] = str(checked.resolve(name))
    kind, _, name = (settings["auth"] or {"source": ""})["source"].partition(":")
    if kind == "file":
        settings["auth"]["source"] = f"file:{checked.resolve(name)}"


class Conflict(Exception):
    """Somebody else has published since."""


class TableStore:
    """The table's files. One process publishes at a time; any number watch."""

    def __init__(self, state: Path) -> None:
        self.root = state / "table"
        self._seen: tuple[int, int] | None = None

    def path(self, revision: str) -> Path:
        return self.root / "revisions" / f"{revision}.json"

    @property
    def current(self) -> str | None:
        try:
            return (self.root / "current").read_text().strip()
        except FileNotFoundError:
            return None

    def read(self, revision: str) -> bytes:
        """The revision's bytes. ValueError where they are not what their name says."""
        data = self.path(revision).read_bytes()
        if hashlib.sha256(data).hexdigest() != revision:
            raise ValueError(f"revision {revision[:12]} does not have its digest")
        return data

    def load(self, revision: str) -> Table:
        return compile_table(self.read(revision))

    def publish(self, document: dict[str, Any], parent: str | None) -> str:
        """Make `document` the revision in force; Conflict if `parent` is not in force any more."""
        (self.root / "revisions").mkdir(parents=True, exist_ok=True)
        lock = hold(self.root / "lock")
        try:
            if self.current != parent:
                raise Conflict(f"{self.current} is in force, not {parent}")
            number = orjson.loads(self.read(parent))["number"] + 1 if parent else 0
            whole = {**document, "parent": parent, "number": number}
            data = orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)
            revision = hashlib.sha256(data).hexdigest()
            write_durably(self.path(revision), data, 0o600)
            write_durably(self.root / "current", revision.encode())
            sync_folder(self.root)
        finally:
            os.close(lock)
        return revision

    def forget(self) -> None:
        """Let the next `changed` say yes."""
        self._seen = None

    def changed(self) -> bool:
        """Whether `current` was replaced since the last call; one stat, for a loop."""
        try:
            status = os.stat(self.root / "current")
        except FileNotFoundError:
            return False
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return False
        self._seen = seen
        return True
